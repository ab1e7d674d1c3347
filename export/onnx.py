"""Encoder -> ONNX file, which is there only once the gate has passed it.

An export folder (that of a model's `onnx/`, or any) holds, file by file:
  model.onnx        float32; model_fp16.onnx and model_int8.onnx, the other precisions, by the names that
                    transformers.js reads. Each is one file: no external data.
  reconstruct.onnx  masked-image models: encoder and decoder, the mask an input (zoo/export/masked.py); _fp16 and _int8
                    likewise.
  README.md         the model's card, with the gate's table; in a model's onnx/, the model's own card shows it too
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
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import onnx
import onnxruntime
import torch

import zoo
from zoo.cards import read_card, render_card, write_card
from zoo.encoder import Encoder
from zoo.errors import Unsupported, ZooError, did_you_mean
from zoo.export import gate, parity
from zoo.export.drift import first_drift, first_masked_drift
from zoo.export.folder import check_owner, model_of, write_script
from zoo.export.graph import Graph, features_graph
from zoo.export.limits import LIMITS, PREPARED
from zoo.export.masked import reconstruction_graph
from zoo.export.parity import Parity
from zoo.export.pictures import pictures_for
from zoo.export.preprocess import with_preprocessing
from zoo.export.quantize import Way, ways
from zoo.export.shown import with_section
from zoo.export.tracing import traced
from zoo.extraction import weights_hash
from zoo.files import atomic_write, sha256, write_json
from zoo.folders import CONFIG, architecture_config

log = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16", "int8"]
Lower = Callable[[onnx.ModelProto], onnx.ModelProto]
SUFFIX = {"fp32": "", "fp16": "_fp16", "int8": "_int8"}


class ParityError(ZooError):
    """An export that differs from PyTorch by more than it may; nothing of it was kept."""

    def __init__(self, report: Parity, drift: str) -> None:
        super().__init__("\n\n".join(filter(None, [str(report), drift, f"{report.file} was not written"])))
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
    check_precision(precision)
    if dynamic and preprocess:
        raise Unsupported(
            "preprocess cuts every picture to one size, so that dynamic has no meaning; leave one out"
        )
    encoder = encoder.to("cpu", torch.float32)
    graph = features_graph(encoder, size=size, dynamic=dynamic, attention=attention, pyramid=pyramid)
    limits = (PREPARED if preprocess else LIMITS)[precision]
    height, width = graph.inputs["pixels"].shape[-2:]
    if preprocess and height != width:
        raise Unsupported(f"preprocess cuts squares, not {height}×{width}; give size={min(height, width)}")

    def finish(model: onnx.ModelProto) -> onnx.ModelProto:
        return with_preprocessing(model, encoder.transform, height) if preprocess else model

    return published(
        encoder,
        Path(folder),
        f"model{SUFFIX[precision]}.onnx",
        graph,
        precision,
        lambda file: gate.gate(file, encoder, limits, photos),
        finish=finish,
        drift=lambda file: first_drift(file, encoder, precision),
    )


def reconstruction_to_onnx(encoder: Encoder, folder: str | Path, *, precision: Precision = "fp32") -> Parity:
    """Export a masked-image model's encoder and decoder into FOLDER/reconstruct*.onnx, and give the gate's report.

    The mask is an input: see zoo/export/masked.py. Raises ParityError likewise, Unsupported where there is no decoder.
    """
    check_precision(precision)
    encoder = encoder.to("cpu", torch.float32)
    return published(
        encoder,
        Path(folder),
        f"reconstruct{SUFFIX[precision]}.onnx",
        reconstruction_graph(encoder),
        precision,
        lambda file: gate.gate_masked(file, encoder, LIMITS[precision]),
        drift=lambda file: first_masked_drift(file, encoder, precision),
    )


def check_precision(precision: str) -> None:
    """Raise Unsupported for a precision that does not exist."""
    if precision not in SUFFIX:
        hint = did_you_mean(precision, SUFFIX)
        raise Unsupported(f"precision={precision!r} does not exist{hint}; there are {', '.join(SUFFIX)}")


def published(
    encoder: Encoder,
    folder: Path,
    name: str,
    graph: Graph,
    precision: str,
    judge: gate.Gate,
    lower: Lower | None = None,
    *,
    finish: Lower = lambda model: model,
    drift: Callable[[Path], str] | None = None,
) -> Parity:
    """Trace, lower, judge and, where it passes, put FOLDER/NAME in place with its report and card.

    lower: what makes that precision of the float32 graph; None: the first of `quantize.ways` that passes. finish: what
    is done to the graph thereafter. drift: a sentence on a file that has failed.
    """
    check_owner(folder, encoder.card)
    pictures_for(encoder)  # what cannot be judged is told before it is traced
    folder.mkdir(parents=True, exist_ok=True)
    parity.forget(folder, name)
    model, layers = traced(graph)
    sides, free = graph.inputs["pixels"].shape[-2:], len(graph.free["pixels"]) > 1
    size = encoder.size if free or sides[0] != sides[1] else sides[0]
    with atomic_write(folder / name) as temporary:
        for way in ways(precision, model) if lower is None else [Way((), lower)]:
            lowered = finish(way.lower(model))
            describe(lowered, encoder, precision, layers, size)
            temporary.write_bytes(lowered.SerializeToString())
            report = Parity(
                encoder.card.name,
                name,
                precision,
                sha256(temporary),
                tuple(judge(temporary)),
                way.kept,
                _versions(),
            )
            if report.passed:
                break
        else:
            raise ParityError(report, drift(temporary) if drift else "")
    parity.write(folder, report)
    write_beside(folder, encoder)
    return report


def describe(
    model: onnx.ModelProto, encoder: Encoder, precision: str, layers: dict[str, str], size: int
) -> None:
    """Write what the file is into its metadata. size: of the squares that pictures are cut to for it."""
    card, transform = render_card(encoder.card), asdict(encoder.transform) | {"size": size}
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


def write_beside(folder: Path, encoder: Encoder) -> None:
    """The card with the gate's tables, timm's config.json, and the script that runs the graph without torch.

    In a model's onnx/, the model's own card shows the tables too.
    """
    write_card(encoder.card, folder, with_section(encoder.card.body, folder))
    if (model := model_of(folder.absolute())) is not None:
        own = read_card(model)
        write_card(own, model, with_section(own.body, folder))
    write_json(folder / CONFIG, architecture_config(encoder.card))
    write_script(folder)


def _versions() -> dict[str, str]:
    return {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
