"""Encoder -> graphs that TensorRT takes, past the gate, and the engines built of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import torch

from zoo.encoder import Encoder
from zoo.export import gate
from zoo.export.drift import first_drift, first_masked_drift
from zoo.export.graph import Graph, features_graph
from zoo.export.limits import LIMITS
from zoo.export.lowered import Samples, to_fp16, to_int8
from zoo.export.masked import drawn_masks, mask_inputs, reconstruction_graph
from zoo.export.onnx import SUFFIX, Precision, check_precision, published, write_beside
from zoo.export.parity import Parity
from zoo.export.pictures import pictures_for
from zoo.export.profiles import Range
from zoo.export.tensorrt import build_engine, require_tensorrt

LOWERED: dict[str, Callable[[onnx.ModelProto, Samples], onnx.ModelProto]] = {
    "fp32": lambda model, samples: model,
    "fp16": to_fp16,
    "int8": to_int8,
}


def to_tensorrt(
    encoder: Encoder,
    folder: str | Path,
    *,
    precision: Precision = "fp32",
    size: int | tuple[int, int] | None = None,
    dynamic: bool = False,
    photos: str | Path | None = None,
    engine: bool = True,
    profiles: Mapping[str, Range] | None = None,
) -> Parity:
    """Write FOLDER/tensorrt*.onnx where the gate passes it, build its engine beside it, and give the gate's report.

    engine: False stops at the graph, for an engine built elsewhere. profiles: of `build_engine`; the others are
    `to_onnx`'s. Raises ParityError where the graph is not the encoder's; Unsupported, before any work, where an engine
    cannot be built here.

    >>> zoo.export.to_tensorrt(zoo.load("dino_vitt16_imagenette"), "exported/", precision="fp16").passed
    True
    """
    check_precision(precision)
    if engine:
        require_tensorrt()
    encoder = encoder.to("cpu", torch.float32)
    limits, graph = LIMITS[precision], features_graph(encoder, size=size, dynamic=dynamic)
    file = Path(folder) / f"tensorrt{SUFFIX[precision]}.onnx"
    return _made(
        encoder,
        file,
        graph,
        precision,
        lambda made: gate.gate(made, encoder, limits, photos),
        lambda made: first_drift(made, encoder, precision),
        engine,
        profiles,
    )


def reconstruction_to_tensorrt(
    encoder: Encoder,
    folder: str | Path,
    *,
    precision: Precision = "fp32",
    engine: bool = True,
    profiles: Mapping[str, Range] | None = None,
) -> Parity:
    """Likewise FOLDER/tensorrt_reconstruct*.onnx, a masked-image model's encoder and decoder with the mask an input.

    Raises Unsupported where there is no decoder.
    """
    check_precision(precision)
    if engine:
        require_tensorrt()
    encoder = encoder.to("cpu", torch.float32)
    file, graph = (
        Path(folder) / f"tensorrt_reconstruct{SUFFIX[precision]}.onnx",
        reconstruction_graph(encoder),
    )
    limits = LIMITS[precision]
    return _made(
        encoder,
        file,
        graph,
        precision,
        lambda made: gate.gate_masked(made, encoder, limits),
        lambda made: first_masked_drift(made, encoder, precision),
        engine,
        profiles,
    )


def _made(
    encoder: Encoder,
    file: Path,
    graph: Graph,
    precision: Precision,
    judge: gate.Gate,
    drift: Callable[[Path], str],
    engine: bool,
    profiles: Mapping[str, Range] | None,
) -> Parity:
    """The graph lowered, judged and written, and its engine."""
    report = published(
        encoder,
        file.parent,
        file.name,
        graph,
        precision,
        judge,
        lambda model: LOWERED[precision](model, samples_of(encoder, graph)),
        drift=drift,
    )
    if engine:
        build_engine(
            file, file.with_suffix(".engine"), profiles=profiles, timing_cache=file.with_name("timing.cache")
        )
        write_beside(file.parent, encoder)  # again: the card tells of the engine
    return report


def samples_of(encoder: Encoder, graph: Graph) -> Samples:
    """Inputs that scales and ranges are taken from: the gate's pictures at the graph's size, masks as in training."""
    height, width = graph.inputs["pixels"].shape[-2:]
    pixels = [
        encoder.transform.pixels(picture, encoder.stride, size=(height, width))
        for picture in pictures_for(encoder)
    ]
    samples = {"pixels": torch.stack(pixels)}
    if (spec := encoder.card.decoder) is not None and len(graph.inputs) > 1:
        samples |= mask_inputs(spec, encoder.module, drawn_masks(encoder, len(pixels)))
    return {name: each.numpy() for name, each in samples.items()}
