"""A model folder onto the Hub, as timm, transformers and the Hub's own pages read it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from zoo import hub
from zoo.cards import README, read_card, render_card
from zoo.errors import HubError
from zoo.pulling import pull
from zoo.registry import WEIGHTS, model_files
from zoo.repos import TAG
from zoo.verifying import verify


def push(name_or_folder: str | Path, repo_id: str, *, private: bool = True) -> str:
    """Upload a model folder to a repo of yours, in one commit; the repo's address.

    The repo is made where there is none, private unless asked otherwise; an existing one keeps its visibility. Whoever
    may read it loads the model with zoo.load(repo_id), timm.create_model("hf-hub:…") and AutoModel.from_pretrained.
    Raises what `zoo.pull` and `zoo.verify` raise, and HubError where the Hub refuses.

    >>> zoo.push("runs/cells", "me/dino_cells")
    'https://huggingface.co/me/dino_cells'
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo_id, re.ASCII):
        raise HubError(f"{repo_id!r} is no name of a repo; write user/{Path(name_or_folder).name}, say")
    folder = pull(name_or_folder)
    verify(folder)
    card = read_card(folder)
    name, files = repo_id.partition("/")[2], model_files(folder)
    exported = ("onnx",) if any(file.startswith("onnx/") for file in files) else ()
    tags = dict.fromkeys((TAG, "self-supervised", "timm", card.method, *exported, *card.tags))
    shared = render_card(dataclasses.replace(card, name=name, tags=tuple(tags)))
    content: dict[str, Path | bytes] = {**files, README: shared.encode()}
    # Graphs of an earlier push would be of other weights.
    return hub.upload(repo_id, content, f"{name}: {card.title}", private=private, only=(*WEIGHTS, "onnx/*"))
