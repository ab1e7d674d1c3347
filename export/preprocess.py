"""The evaluation transform as part of the graph: a picture of any size in, in place of pixels.

As Pillow does, the sides are resized one after the other, antialiased, with a rounding to 256 levels after each; then
the centre is cut out and normalised (zoo/transforms.py). Axes: C channels, (H, W) pixels.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from zoo.errors import Unsupported, WeightsError
from zoo.transforms import Transform

# Pillow's kernels as ONNX names them; it has no Lanczos.
_MODES: dict[str, dict[str, Any]] = {
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},
    "bilinear": {"mode": "linear"},
}

_PREFIX = "preprocess_"  # of what is added
LEVELS = "levels"  # the crop, before it is normalised


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


def split(model: onnx.ModelProto, size: int) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A graph of `with_preprocessing` in two: `image` -> `levels` (1, C, size, size) of 0 to 255; `pixels` on.

    The second takes batches. Raises WeightsError for a graph without `levels`.
    """
    nodes = list(model.graph.node)
    ends = [index for index, node in enumerate(nodes) if LEVELS in node.output]
    if not ends:
        raise WeightsError("this graph prepares pictures as an older zoo wrote it; export it again")
    channels = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    before, after = onnx.ModelProto(), onnx.ModelProto()
    before.CopyFrom(model)
    after.CopyFrom(model)
    levels = helper.make_tensor_value_info(LEVELS, TensorProto.FLOAT, [1, channels, size, size])
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", channels, size, size])
    _replace(before, nodes[: ends[0] + 1], inputs=[model.graph.input[0]], outputs=[levels])
    rest = [node for node in nodes if not node.name.startswith(_PREFIX)]
    _replace(after, rest, inputs=[pixels, *model.graph.input[1:]], outputs=list(model.graph.output))
    return before, after


def _replace(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    *,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> None:
    """Another graph in the model's place, of its weights those that the nodes name."""
    named = {name for node in nodes for name in node.input}
    graph, weights = model.graph, [each for each in model.graph.initializer if each.name in named]
    for field, values in (("node", nodes), ("input", inputs), ("output", outputs), ("initializer", weights)):
        kept = copy.deepcopy(values)
        graph.ClearField(field)
        getattr(graph, field).extend(kept)


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
        end = self.add("Add", start, self.of([size]))
        x = self.add("Slice", x, start, end, self.of([2, 3]), output=LEVELS)
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
        output = output or f"{_PREFIX}{len(self.nodes)}"
        name = f"{_PREFIX}{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=name, **attributes))
        return output

    def of(self, value: list[int] | NDArray[np.float32]) -> str:
        name = f"{_PREFIX}constant_{len(self.constants)}"
        array = np.array(value, np.int64) if isinstance(value, list) else value
        self.constants.append(numpy_helper.from_array(array, name))
        return name
