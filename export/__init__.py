"""Encoder -> ONNX file that has proved itself. `zoo.export.to_onnx(encoder, folder)` is the whole of it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.export.for_tensorrt import reconstruction_to_tensorrt as reconstruction_to_tensorrt
    from zoo.export.for_tensorrt import to_tensorrt as to_tensorrt
    from zoo.export.onnx import reconstruction_to_onnx as reconstruction_to_onnx
    from zoo.export.onnx import to_onnx as to_onnx
    from zoo.export.parity import Parity as Parity
    from zoo.export.runtime import OnnxEncoder as OnnxEncoder
    from zoo.export.web import to_web as to_web

_PUBLIC = {
    "to_onnx": "zoo.export.onnx",
    "reconstruction_to_onnx": "zoo.export.onnx",
    "to_tensorrt": "zoo.export.for_tensorrt",
    "reconstruction_to_tensorrt": "zoo.export.for_tensorrt",
    "to_web": "zoo.export.web",
    "Parity": "zoo.export.parity",
    "OnnxEncoder": "zoo.export.runtime",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'zoo.export' has no attribute {name!r}")
