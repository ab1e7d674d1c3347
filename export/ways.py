"""The ways to run one encoder's features on the CPU, each as a function of pixels (B, C, H, W) -> pooled (B, D)."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

from zoo.cards import write_card
from zoo.encoder import Encoder
from zoo.errors import Unsupported
from zoo.export import quantize
from zoo.export.folder import GRAPHS
from zoo.export.gate import gate
from zoo.export.graph import features_graph
from zoo.export.limits import LIMITS
from zoo.export.onnx import describe
from zoo.export.session import open_session
from zoo.export.tracing import traced
from zoo.features import Features

EAGER, COMPILED, FP32, INT8 = "torch eager", "torch.compile", "ONNX fp32", "ONNX int8"
OPENVINO = "OpenVINO fp32"
WAYS = (EAGER, COMPILED, FP32, INT8, OPENVINO)

# What `zoo.export.memory` is asked to load alone: the engine, and the file or folder.
Alone = tuple[str, Path]


@dataclass(frozen=True)
class Way:
    """One way. All of them give pooled, cls and patches; `call` returns the first."""

    name: str
    call: Callable[[Tensor], Tensor]
    alone: Alone | None  # None where loading it would measure a compiler


def graphs(encoder: Encoder, folder: Path) -> None:
    """Write model.onnx, and model_int8.onnx as `zoo export` does: by the first way that its gate passes, if any.

    Raises Unsupported where the encoder cannot be traced or quantised.
    """
    model, layers = traced(features_graph(encoder))
    onnx.save(model, folder / GRAPHS["fp32"])
    file = folder / GRAPHS["int8"]
    for way in quantize.ways("int8", model):
        lowered = way.lower(model)
        describe(lowered, encoder, "int8", layers, encoder.size)
        onnx.save(lowered, file)
        if all(check.passed for check in gate(file, encoder, LIMITS["int8"])):
            return
    file.unlink()


def opened(name: str, encoder: Encoder, folder: Path, threads: int) -> Way:
    """Open one way; what it needs is exported into `folder`. Raises Unsupported, saying what is missing."""
    if name == EAGER:
        write_card(encoder.card, folder, encoder.card.body)
        return Way(name, lambda pixels: encoder.forward_features(pixels).pooled, ("torch", folder))
    if name == COMPILED:
        return Way(name, _compiled(encoder), None)
    if name == OPENVINO:
        return Way(name, _openvino(folder / GRAPHS["fp32"], threads), ("openvino", folder / GRAPHS["fp32"]))
    file = folder / GRAPHS["fp32" if name == FP32 else "int8"]
    if not file.is_file():
        raise Unsupported("none passes the gate of `zoo export`")
    session = open_session(file, ("cpu",), threads)

    def run(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])

    return Way(name, run, ("onnxruntime", file))


def _compiled(encoder: Encoder) -> Callable[[Tensor], Tensor]:
    """Inductor's code for each batch size of its own. Raises Unsupported where there is no compiler for it."""
    if not any(shutil.which(each) for each in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if each):
        raise Unsupported("no C++ compiler (g++, clang++ or $CXX)")

    def features(pixels: Tensor) -> Features:
        return encoder.family.features(encoder.module, pixels)

    compiled = torch.compile(features, dynamic=False)
    return lambda pixels: compiled(pixels).pooled


def _openvino(file: Path, threads: int) -> Callable[[Tensor], Tensor]:
    """OpenVINO on the exported graph, in float32. Raises Unsupported where it is not installed."""
    try:
        openvino = importlib.import_module("openvino")
    except ModuleNotFoundError:
        raise Unsupported("not installed (pip install openvino)") from None
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    model: Any = openvino.Core().compile_model(str(file), "CPU", settings)
    return lambda pixels: torch.from_numpy(model([pixels.numpy()])[0])
