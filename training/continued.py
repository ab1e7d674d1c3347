"""Whether a folder's run is the one that is asked for: its `recipe.json`, and what differs from the call at hand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from zoo.errors import RecipeError
from zoo.files import write_json
from zoo.sources import Source
from zoo.words import counted


def which_images(source: Source) -> str:
    """The number of images and a hash of their ids and labels: order and split follow from them. No file is read."""
    told = hashlib.sha256(repr((source.ids, source.labels)).encode()).hexdigest()
    return f"{counted(len(source), 'image')} (of ids {told[:12]})"


def claim_folder(out: Path, mine: dict[str, Any]) -> bool:
    """Write `recipe.json`, or check that the run already in the folder is this one; whether that is finished."""
    path = out / "recipe.json"
    # A run that stopped before its first checkpoint left nothing that another could spoil.
    if path.is_file() and any((out / name).is_file() for name in ("checkpoint.pt", "model.safetensors")):
        theirs = json.loads(path.read_text())
        finished = bool(theirs.pop("finished", False))
        changed = differences(theirs, mine)
        if changed:
            raise RecipeError(
                f"{out} holds a run of another recipe or other images ({'; '.join(changed)}). "
                "Give another --out, or the same recipe and images to continue it"
            )
        return finished and (out / "model.safetensors").is_file()
    if path.is_file():
        if json.loads(path.read_text()) != mine:
            (out / "pace.json").unlink(missing_ok=True)  # another recipe's speed
    else:
        foreign = sorted(
            file.name
            for file in out.glob("*")
            if file.name in ("README.md", "config.json", "checkpoint.pt") or file.suffix == ".safetensors"
        )
        if foreign:
            raise RecipeError(
                f"{out} is no run, and training would replace its {', '.join(foreign)}; give another --out"
            )
    write_json(out / "recipe.json", mine)
    return False


# Knobs that may change between two starts of one run, because they do not change what it computes.
_FREE = {
    *("run.checkpoint_minutes", "run.log_every", "run.threads", "run.compile", "run.licence", "run.sentry"),
    *("data.workers", "data.cache", "arch.crop_pct"),
}


def differences(theirs: dict[str, Any], mine: dict[str, Any], prefix: str = "") -> list[str]:
    """`knob was A, now B` for each knob that differs. One that came later than the run is no difference."""
    found: list[str] = []
    for key in sorted({*theirs, *mine}):
        old, new, name = theirs.get(key), mine.get(key), f"{prefix}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{name}.")
        elif key in theirs and old != new and name not in _FREE:
            found.append(f"{name} was {old}, now {new}")
    return found
