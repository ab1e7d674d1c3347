"""Encoder -> ONNX file, which is there only once the gate has passed it.

An export folder (that of a model's `onnx/`, or any) holds, file by file:
  model.onnx        float32; model_fp16.onnx and model_int8.onnx, the other precisions, by the names that
                    transformers.js reads. Each is one file: no external data.
  reconstruct.onnx  masked-image models: encoder and decoder, the mask an input (zoo/export/masked.py); _fp16 and _int8
                    likewise.
  README.md         the model's card, with the gate's table
  config.json       timm's, of the card
  parity.json       the gate's reports: {file: Parity}
  infer.py          features of photos without torch

model*.onnx: `pixels` (batch, C, H, W) float32, normalised -> `pooled` (batch, D), `patches` (batch, N, D), `cls`
(batch, D) where there is a class token, and as asked for `attention` (batch, heads, h, w), the class token's rows in
the last block, and `pyramid_0`, … (batch, C_i, h_i, w_i), finest first. Exported with `preprocess`, they take `image`
(height, width, C) uint8 of any size in place of pixels, and batch is 1.

Metadata of each file (strings): `name`, `card` (the text of its README.md), `card_sha256` (of that text),
`weights_sha256` (of the tensors), `transform` (JSON: size, crop_pct, interpolation, mean, std), `stride`, `depth`,
`precision`, `layers` (JSON: module -> the tensor it ends in), `version` (of ssl-zoo).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import onnx
import torch

import zoo
from zoo.cards import render_card
from zoo.encoder import Encoder
from zoo.errors import Unsupported, ZooError, did_you_mean
from zoo.export import gate, parity
from zoo.export.folder import write_script
from zoo.export.graph import Graph, features_graph
from zoo.export.limits import LIMITS, PREPARED
from zoo.export.parity import Parity
from zoo.export.tracing import traced
from zoo.extraction import weights_hash
from zoo.files import atomic_write, sha256

log = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16", "int8"]
SUFFIX = {"fp32": "", "fp16": "_fp16", "int8": "_int8"}


class ParityError(ZooError):
    """An export that differs from PyTorch by more than it may; nothing of it was kept."""

    def __init__(self, report: Parity, drift: str) -> None:
        super().__init__(f"{report}\n\nnothing was written; {drift}")
        self.parity = report


def to_onnx(
    encoder: Encoder,
    folder: str | Path,
    *,
    precision: Precision = "fp32",
    size: int | tuple[int, int] | None = None,
    dynamic: bool = False,
    preprocess: bool = False,
    attention: bool = False,
    pyramid: bool = False,
    photos: str | Path | None = None,
) -> Parity:
    """Export an encoder's features into FOLDER/model*.onnx, and give the gate's report.

    size: pixels of its images, by default the encoder's. dynamic: any height and width that are multiples of the
    stride. preprocess: takes a uint8 picture of any size, which the graph resizes, crops and normalises. photos: a
    folder of photos whose nearest neighbours must stay the same.
    Raises ParityError, and leaves no such file behind, where the result is not the encoder's; Unsupported for what the
    encoder does not have or the exporter cannot do.

    >>> zoo.export.to_onnx(zoo.load("dino_vitt16_imagenette"), "exported/").passed
    True
    """
    if precision not in SUFFIX:
        raise Unsupported(
            f"precision={precision!r} does not exist{did_you_mean(precision, SUFFIX)}; there are {', '.join(SUFFIX)}"
        )
    folder, encoder = Path(folder), encoder.to("cpu", torch.float32)
    graph = features_graph(encoder, size=size, dynamic=dynamic, attention=attention, pyramid=pyramid)
    limits = (PREPARED if preprocess else LIMITS)[precision]
    report = published(
        encoder,
        folder,
        f"model{SUFFIX[precision]}.onnx",
        graph,
        precision,
        lambda file: gate.gate(file, encoder, limits, photos),
    )
    write_script(folder)
    return report


def published(
    encoder: Encoder, folder: Path, name: str, graph: Graph, precision: Precision, judge: gate.Gate
) -> Parity:
    """Trace, judge and, where it passes, put FOLDER/NAME in place with its report and card."""
    folder.mkdir(parents=True, exist_ok=True)
    parity.forget(folder, name)
    model, layers = traced(graph)
    describe(model, encoder, precision, layers)
    with atomic_write(folder / name) as temporary:
        temporary.write_bytes(model.SerializeToString())
        report = Parity(
            encoder.card.name,
            name,
            precision,
            sha256(temporary),
            tuple(judge(temporary)),
            versions=_versions(),
        )
        if not report.passed:
            raise ParityError(report, "…")
    parity.write(folder, report)
    return report


def describe(model: onnx.ModelProto, encoder: Encoder, precision: str, layers: dict[str, str]) -> None:
    """Write what the file is into its metadata."""
    card, transform = render_card(encoder.card), asdict(encoder.transform)
    facts = {
        "name": encoder.card.name,
        "card": card,
        "card_sha256": hashlib.sha256(card.encode()).hexdigest(),
        "weights_sha256": weights_hash(encoder) or "",
        "transform": json.dumps(transform),
        "stride": str(encoder.stride),
        "depth": str(encoder.family.depth(encoder.module)),
        "precision": precision,
        "layers": json.dumps(layers),
        "version": zoo.__version__,
    }
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def _versions() -> dict[str, str]:
    return {each: importlib.metadata.version(each) for each in ("torch", "onnx", "onnxruntime-gpu", "timm")}
