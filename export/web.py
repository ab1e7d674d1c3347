"""Encoder -> a static site that needs no server of ours: the model runs in the reader's browser, and so do the photos.

A site holds any number of models, added one after the other:
  index.html, reconstruct.html, attention.html   the pages, hand-written; js/ and style.css are theirs
  models.json                                    what the pages know of each model (`Facts`)
  models/NAME/                                   reconstruct.onnx or attention.onnx, the card, the gate's report
  ort/                                           ONNX Runtime Web, pinned
  photos/                                        the photos that ship with the zoo
Nothing in it asks another host for anything, and its pages forbid it to the browser (Content-Security-Policy).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.encoder import Encoder
from zoo.errors import Unsupported
from zoo.export import gate
from zoo.export.browser import runtime_files
from zoo.export.graph import Graph, features_graph
from zoo.export.halves import with_halves
from zoo.export.limits import LIMITS
from zoo.export.masked import hides, reconstruction_graph
from zoo.export.onnx import Precision, published
from zoo.export.parity import FILE as REPORT
from zoo.export.parity import Parity
from zoo.files import atomic_write, locked, write_json
from zoo.pictures import FINE_GRID
from zoo.registry import MODEL_CARDS

SITE = Path(__file__).with_name("site")
MODELS = "models.json"
Page = Literal["reconstruct", "attention"]


@dataclass(frozen=True)
class Facts:
    """What the pages know of one model."""

    name: str
    title: str
    page: Page
    file: str  # of the graph, from the site's root
    bytes: int  # of that file: what a progress bar counts to
    method: str
    licence: str
    commercial: str  # yes, no, unclear
    paper: str
    parameters: int
    stride: int
    transform: dict[str, Any]
    inputs: list[str]  # of the graph
    decoder: dict[str, Any] | None  # strategy, ratio, secondary, normalised_targets, mask_patch
    fine: int | None  # patches on attention's short side at first; None: it has one size
    largest_difference: float  # from PyTorch, as the gate measured it


class AttentionGraph(nn.Module):
    """(B, C, H, W) normalised pixels -> the class token's rows in the last block, (B, heads, h, w)."""

    def __init__(self, encoder: Encoder, module: nn.Module) -> None:
        super().__init__()
        self.family, self.module = encoder.family, module
        self.last = encoder.family.depth(module) - 1

    def forward(self, pixels: Tensor) -> Tensor:
        return self.family.attention_rows(self.module, pixels, self.last, None)


def to_web(
    encoder: Encoder,
    folder: str | Path,
    *,
    precision: Precision = "fp32",
    runtime: str | Path | None = None,
) -> Parity:
    """Add a model to the static site in FOLDER, or begin one, and give the gate's report.

    A masked-image model gets the page where its photos are hidden and imagined, any other the page of its attention.
    precision: fp32 keeps every weight exactly, in 16 bits where they hold it; fp16 rounds the others too. runtime: a
    folder with onnxruntime-web, which else is fetched once.
    Raises ParityError, and adds nothing, where the result is not the encoder's; Unsupported for a model that has
    neither a decoder nor a class token, or takes no colour photos; HubError where onnxruntime-web cannot be had.

    >>> zoo.export.to_web(zoo.load("mae_vitt16_imagenette"), "site/").passed
    True
    """
    if precision not in ("fp32", "fp16"):
        raise Unsupported(f"the page computes in float32; give precision fp32 or fp16, not {precision!r}")
    if encoder.transform.channels != 3:
        raise Unsupported(
            f"the page shows colour photos, and this encoder takes {encoder.transform.channels} channels"
        )
    encoder, folder = encoder.to("cpu", torch.float32), Path(folder)
    page: Page = "reconstruct" if hides(encoder) else "attention"
    graph = reconstruction_graph(encoder) if page == "reconstruct" else _attention_graph(encoder)
    files = runtime_files(runtime)
    models(folder)  # refused before any work
    with TemporaryDirectory() as place:
        report = _graph_into(Path(place), encoder, graph, page, precision)
        with locked(folder / MODELS):
            _add(folder, encoder, graph, page, report, Path(place))
            _write_pages(folder, files)
    return report


def _attention_graph(encoder: Encoder) -> Graph:
    """At any size, or at the model's own where its positions forbid others; Unsupported without a class token."""
    try:
        graph = features_graph(encoder, dynamic=True, attention=True)
    except Unsupported:
        graph = features_graph(encoder, attention=True)
    features: Any = graph.module
    wanted = AttentionGraph(encoder, features.module).eval()
    return replace(graph, module=wanted, outputs=("attention",))


def _graph_into(folder: Path, encoder: Encoder, graph: Graph, page: Page, precision: Precision) -> Parity:
    """The graph, its report and its card, in a folder; only where it passed."""
    limits = LIMITS[precision]
    judge = gate.gate_masked if page == "reconstruct" else gate.gate
    return published(
        encoder,
        folder,
        f"{page}.onnx",
        graph,
        precision,
        lambda file: judge(file, encoder, limits),
        lambda model: with_halves(model, exact=precision == "fp32"),
    )


def _add(folder: Path, encoder: Encoder, graph: Graph, page: Page, report: Parity, made: Path) -> None:
    """Move what was made to models/NAME/, and write the model's facts beside those of the others."""
    name = encoder.card.name.replace("/", "--")
    place = folder / "models" / name
    for file in (f"{page}.onnx", "README.md", REPORT):
        with atomic_write(place / file) as temporary:
            shutil.copyfile(made / file, temporary)
    facts = _facts(encoder, graph, page, report, place / f"{page}.onnx", name)
    others = [each for each in models(folder) if each["name"] != name]
    write_json(folder / MODELS, sorted([*others, asdict(facts)], key=lambda each: str(each["name"])))


def models(folder: Path) -> list[dict[str, Any]]:
    """The facts of the models in a site. Raises Unsupported for a models.json that is none of ours."""
    path = folder / MODELS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(found, list) and all(isinstance(each["name"], str) for each in found)
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError, AssertionError):
        raise Unsupported(f"{path} was not written by `zoo export --to web`; choose another --out") from None
    return found


def _facts(encoder: Encoder, graph: Graph, page: Page, report: Parity, file: Path, name: str) -> Facts:
    card, spec = encoder.card, encoder.card.decoder
    kept = ("strategy", "ratio", "secondary", "normalised_targets", "mask_patch")
    free = len(graph.free["pixels"]) > 1
    return Facts(
        name=name,
        title=card.title,
        page=page,
        file=f"models/{name}/{file.name}",
        bytes=file.stat().st_size,
        method=card.method,
        licence=card.licence,
        commercial=card.permission,
        paper=card.paper,
        parameters=card.parameters,
        stride=encoder.stride,
        transform=asdict(encoder.transform),
        inputs=list(graph.inputs),
        decoder={key: getattr(spec, key) for key in kept} if page == "reconstruct" else None,
        fine=FINE_GRID if free else None,
        largest_difference=max(check.value for check in report.checks if check.what == "max-abs"),
    )


def _write_pages(folder: Path, runtime: tuple[Path, ...]) -> None:
    """Everything that is the same for all models, anew with every export."""
    pages = [path for path in SITE.rglob("*") if path.is_file()]
    copies = {path.relative_to(SITE): path for path in pages}
    copies |= {Path("ort", path.name): path for path in runtime}
    copies |= {Path("photos", path.name): path for path in (MODEL_CARDS / "photos").iterdir()}
    for where, source in copies.items():
        with atomic_write(folder / where) as temporary:
            shutil.copyfile(source, temporary)
