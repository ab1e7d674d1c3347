"""int8 that is right on every processor: without VNNI pairs of products are added in 16 bits, and may overflow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zoo.export.gate import Exported
from zoo.export.lowered import to_int8
from zoo.export.quantize import ways

ROWS, WIDTH = 4, 64
LARGEST = np.ones((ROWS, WIDTH), np.float32)  # every activation and every weight at the end of its range


@pytest.fixture
def product() -> onnx.ModelProto:
    """(rows, 64) pixels times weights of ones, and the metadata of an exported file."""
    weights = numpy_helper.from_array(np.ones((WIDTH, WIDTH), np.float32), "weights")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ("rows", WIDTH))
        for name in ("pixels", "pooled")
    ]
    node = helper.make_node("MatMul", ["pixels", "weights"], ["pooled"], name="product")
    graph = helper.make_graph([node], "one product", ends[:1], ends[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    transform = {
        "size": 64,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    helper.set_model_props(model, {"transform": json.dumps(transform), "layers": "{}"})
    return model


def pooled(model: onnx.ModelProto) -> np.ndarray:
    return Exported(model.SerializeToString()).run(pixels=LARGEST)["pooled"]


@pytest.mark.parametrize("made_for", ["processors", "TensorRT"])
def test_the_largest_sums_do_not_overflow(made_for: str, product: onnx.ModelProto, tmp_path: Path) -> None:
    lowered = (
        ways("int8", product)[0].lower(product)
        if made_for == "processors"
        else to_int8(product, {"pixels": LARGEST})
    )
    np.testing.assert_allclose(pooled(lowered), WIDTH, rtol=0.01)


def test_a_processors_weights_have_seven_bits(product: onnx.ModelProto) -> None:
    lowered = ways("int8", product)[0].lower(product)
    kept = [numpy_helper.to_array(each) for each in lowered.graph.initializer]
    (weights,) = [each for each in kept if each.shape == (WIDTH, WIDTH)]
    assert weights.dtype == np.int8 and 60 <= np.abs(weights.astype(int)).max() <= 64
    assert 2 * 255 * np.abs(weights.astype(int)).max() < 2**15  # a pair of products, the activations unsigned
