"""The evaluation transform as part of the graph: a picture of any size in, in place of pixels.

As Pillow does, the sides are resized one after the other, antialiased, with a rounding to 256 levels after each; then
the centre is cut out and normalised (zoo/transforms.py). Axes: C channels, (H, W) pixels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from zoo.errors import Unsupported
from zoo.transforms import Transform

# Pillow's kernels as ONNX names them; it has no Lanczos.
_MODES: dict[str, dict[str, Any]] = {
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},
    "bilinear": {"mode": "linear"},
}


def with_preprocessing(model: onnx.ModelProto, transform: Transform, size: int) -> onnx.ModelProto:
    """The graph with `image`, (height, width, C) uint8, in place of `pixels`, which it cuts to (1, C, size, size).

    Raises Unsupported for an interpolation that ONNX does not have.
    """
    if transform.interpolation not in _MODES:
        raise Unsupported(
            f"ONNX has no {transform.interpolation} resizing, only {' and '.join(_MODES)}; export without preprocess"
        )
    builder = _Builder()
    builder.transform(transform, size)
    graph = model.graph
    rest = [entry for entry in graph.input if entry.name != "pixels"]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", transform.channels])
    nodes = [*builder.nodes, *graph.node]
    del graph.input[:], graph.node[:]
    graph.input.extend([image, *rest])
    graph.node.extend(nodes)
    graph.initializer.extend(builder.constants)
    onnx.checker.check_model(model)
    return model


class _Builder:
    """Nodes one after the other; each method gives the name of what the last one makes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def transform(self, transform: Transform, size: int) -> None:
        channels = transform.channels
        covered = math.floor(size / transform.crop_pct)
        shape = self.add("Shape", "image")
        sides = self.add("Slice", shape, self.of([0]), self.of([2]))  # [H, W]
        least = self.add("ReduceMin", sides, keepdims=1)
        wanted = self.add("Div", self.add("Mul", sides, self.of([covered])), least)
        height = self.add("Slice", sides, self.of([0]), self.of([1]))
        across, down = (self.add("Slice", wanted, self.of([i]), self.of([i + 1])) for i in (1, 0))
        x = self.add("Cast", "image", to=TensorProto.FLOAT)
        x = self.add("Unsqueeze", self.add("Transpose", x, perm=[2, 0, 1]), self.of([0]))
        one = self.of([1, channels])
        x = self.resized(x, self.add("Concat", one, height, across, axis=0), transform.interpolation)
        x = self.resized(x, self.add("Concat", one, down, across, axis=0), transform.interpolation)
        margin = self.add("Cast", self.add("Sub", wanted, self.of([size])), to=TensorProto.FLOAT)
        half = self.add("Round", self.add("Div", margin, self.of(np.array(2, np.float32))))
        start = self.add("Cast", half, to=TensorProto.INT64)
        x = self.add("Slice", x, start, self.add("Add", start, self.of([size])), self.of([2, 3]))
        x = self.add("Div", x, self.of(np.array(255, np.float32)))
        mean, std = (
            self.of(np.array(values, np.float32).reshape(1, channels, 1, 1))
            for values in (transform.mean, transform.std)
        )
        self.add("Div", self.add("Sub", x, mean), std, output="pixels")

    def resized(self, x: str, sizes: str, interpolation: str) -> str:
        """Resized and rounded to 256 levels."""
        how: dict[str, Any] = {
            "coordinate_transformation_mode": "half_pixel",
            "antialias": 1,
            "exclude_outside": 1,
        }
        x = self.add("Resize", x, "", "", sizes, **how | _MODES[interpolation])
        low, high = (self.of(np.array(level, np.float32)) for level in (0, 255))
        return self.add("Clip", self.add("Round", x), low, high)

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"preprocess_{len(self.nodes)}"
        name = f"preprocess_{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=name, **attributes))
        return output

    def of(self, value: list[int] | NDArray[np.float32]) -> str:
        name = f"preprocess_constant_{len(self.constants)}"
        array = np.array(value, np.int64) if isinstance(value, list) else value
        self.constants.append(numpy_helper.from_array(array, name))
        return name
