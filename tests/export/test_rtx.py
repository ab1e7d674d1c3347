"""What TensorRT gets, given to NVIDIA's own parser and builder: engines of ours, refusals of what is known to be bad.

TensorRT-RTX of the wheel needs no GPU to build, and no machine of ours runs what it builds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from rtx import Refused, RtxBuilder, Shapes

import zoo
from zoo.decoders.mae import MAEDecoder
from zoo.encoder import Encoder
from zoo.errors import Unsupported
from zoo.export.for_tensorrt import reconstruction_to_tensorrt, to_tensorrt
from zoo.export.graph import features_graph
from zoo.export.lowered import to_fp16, to_int8
from zoo.export.onnx import Precision
from zoo.export.pictures import gate_pictures
from zoo.export.profiles import shapes_for
from zoo.export.quantize import products_with_weights
from zoo.export.tracing import traced

BLOCKS = 3  # of the bundled encoders' twelve: the same operators in a quarter of the time


@pytest.fixture(scope="module")
def builder() -> RtxBuilder:
    return RtxBuilder()


def cut(name: str) -> Encoder:
    """A bundled encoder's first blocks, trained."""
    encoder = zoo.load(name, device="cpu")
    encoder.module.blocks = encoder.module.blocks[:BLOCKS]
    return encoder


@pytest.fixture(scope="module")
def dino() -> Encoder:
    return cut("dino_vitt16_imagenette")


@pytest.fixture(scope="module")
def mae() -> Encoder:
    """The bundled MAE, as short, with a decoder of one block."""
    encoder = cut("mae_vitt16_imagenette")
    assert isinstance(encoder.decoder, MAEDecoder)
    encoder.decoder.blocks = encoder.decoder.blocks[:1]
    return encoder


@pytest.fixture(scope="module")
def pixels(dino: Encoder) -> torch.Tensor:
    sides = (dino.size, dino.size)
    return torch.stack([dino.transform.pixels(each, dino.stride, size=sides) for each in gate_pictures()])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def fp32(dino: Encoder, folder: Path) -> Path:
    model, _ = traced(features_graph(dino))
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def lowered(fp32: Path, pixels: torch.Tensor) -> Callable[[str], Path]:
    """The float32 graph in another precision, made once."""
    ways = {"fp16": to_fp16, "int8": to_int8}

    def made(precision: str) -> Path:
        path = fp32.with_name(f"model_{precision}.onnx")
        if not path.is_file():
            onnx.save(ways[precision](onnx.load(fp32), {"pixels": pixels[::6].numpy()}), path)
        return path

    return made


def run(path: Path, **inputs: NDArray[np.generic]) -> list[NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # as the gate does
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def least_cosine(found: NDArray[np.float32], expected: torch.Tensor) -> float:
    a, b = torch.from_numpy(found).flatten(1).double(), expected.flatten(1).double()
    return float(torch.nn.functional.cosine_similarity(a, b).min())


def test_float32_becomes_an_engine(builder: RtxBuilder, fp32: Path) -> None:
    built = builder.build(fp32, shapes_for(fp32))
    assert built.inputs == ("pixels",)
    assert len(built.engine) > fp32.stat().st_size / 2
    assert built.layers > 100


@pytest.mark.parametrize(("precision", "cosine", "share"), [("fp16", 0.9995, 0.6), ("int8", 0.99, 0.4)])
def test_a_lowered_graph_keeps_the_features_and_becomes_an_engine(
    precision: str,
    cosine: float,
    share: float,
    builder: RtxBuilder,
    lowered: Callable[[str], Path],
    fp32: Path,
    dino: Encoder,
    pixels: torch.Tensor,
) -> None:
    path = lowered(precision)
    with torch.inference_mode():
        expected = dino.forward_features(pixels)
    pooled, patches = run(path, pixels=pixels.numpy())[:2]
    assert pooled.dtype == np.float32
    assert least_cosine(pooled, expected.pooled) >= cosine
    assert least_cosine(patches, expected.patches) >= cosine
    assert path.stat().st_size < share * fp32.stat().st_size
    assert builder.build(path, shapes_for(path)).engine


def test_int8_quantises_the_layers_and_no_product_within_attention(
    fp32: Path, lowered: Callable[[str], Path]
) -> None:
    named = products_with_weights(onnx.load(fp32))
    assert len(named) == 4 * BLOCKS  # qkv, proj, fc1, fc2
    model = onnx.load(lowered("int8"))
    weights = {each.name: each for each in model.graph.initializer}
    operators = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} < operators
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = onnx.numpy_helper.to_array(weights[node.input[2]])
            assert zero.dtype == np.int8
            assert not zero.any()


def test_free_sides_become_an_engine_for_positions_need_no_antialiasing(
    builder: RtxBuilder, dino: Encoder, folder: Path
) -> None:
    path, example = (
        folder / "free.onnx",
        torch.randn(2, 3, 160, 96, generator=torch.Generator().manual_seed(0)),
    )
    model, _ = traced(features_graph(dino, dynamic=True))
    onnx.save(model, path)
    assert "Resize" not in {node.op_type for node in model.graph.node}
    shapes = shapes_for(path, {"rows": (4, 8, 20), "columns": (4, 8, 20), "batch": (1, 4, 16)})
    assert shapes["pixels"][2] == (16, 3, 320, 320)
    assert builder.build(path, shapes).engine
    with torch.inference_mode():
        expected = dino.forward_features(example)
    np.testing.assert_allclose(run(path, pixels=example.numpy())[0], expected.pooled, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_masked_reconstruction_passes_the_gate_and_becomes_an_engine(
    precision: Precision, builder: RtxBuilder, mae: Encoder, folder: Path
) -> None:
    report = reconstruction_to_tensorrt(mae, folder, precision=precision, engine=False)
    assert report.passed
    path = folder / report.file
    shapes = shapes_for(path)
    assert shapes["visible"] == ((1, 1), (8, 16), (32, 64))
    built = builder.build(path, shapes)
    assert built.inputs == ("pixels", "visible")
    assert len(built.engine) > path.stat().st_size / 2


def test_an_engine_that_cannot_be_built_here_costs_no_work(
    mae: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(Unsupported, match="pip install tensorrt"):
        to_tensorrt(mae, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


# What TensorRT refuses, in its own words


def test_an_antialiased_resize_is_refused(builder: RtxBuilder, tmp_path: Path) -> None:
    class Shrink(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.interpolate(pixels, size=(8, 8), mode="bicubic", antialias=True)

    path = tmp_path / "resize.onnx"
    program = torch.onnx.export(
        Shrink().eval(), (torch.zeros(2, 3, 16, 16),), dynamo=True, verbose=False, input_names=["pixels"]
    )
    assert program is not None
    program.save(str(path))
    with pytest.raises(Refused, match=r"^Resize: .*Antialiasing is not supported"):
        builder.build(path, {})


def test_dynamic_int8_is_refused(builder: RtxBuilder, fp32: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(fp32), str(tmp_path / "dynamic.onnx"), weight_type=QuantType.QInt8)
    with pytest.raises(Refused, match=r"^DynamicQuantizeLinear: "):
        builder.build(tmp_path / "dynamic.onnx", shapes_for(fp32))


def test_free_axes_without_a_profile_are_refused(builder: RtxBuilder, fp32: Path) -> None:
    nothing: Shapes = {}
    with pytest.raises(Refused, match="pixels is missing dimensions in profile"):
        builder.build(fp32, nothing)
