"""Shapes of an engine, its sidecar, and which engine is refused: all of it without TensorRT."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from zoo.errors import Unsupported, WeightsError
from zoo.export.engines import EngineError, EngineFacts, Place, check_belongs, read_facts, write_facts
from zoo.export.profiles import shapes_for
from zoo.export.tensorrt import Engine, build_engine, provider_options, session
from zoo.files import sha256

HERE = Place("11.4.0", "NVIDIA L4", "8.9")
TRANSFORM = '{"size": 128}'


def graph(path: Path, sides: list[int | str], **metadata: str) -> Path:
    """A graph that gives back its `pixels`."""
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, sides)
    same = helper.make_tensor_value_info("same", TensorProto.FLOAT, sides)
    body = helper.make_graph([helper.make_node("Identity", ["pixels"], ["same"])], "same", [pixels], [same])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("sides", "ranges", "expected"),
    [
        (["batch", 3, 64, 64], {}, ((1, 3, 64, 64), (8, 3, 64, 64), (32, 3, 64, 64))),
        (["batch", 3, 64, 64], {"batch": (2, 4, 6)}, ((2, 3, 64, 64), (4, 3, 64, 64), (6, 3, 64, 64))),
        (
            ["batch", 3, "16*rows", "16*columns"],
            {"columns": (8, 8, 20)},
            ((1, 3, 64, 128), (8, 3, 128, 128), (32, 3, 256, 320)),
        ),
        (["batch", "kept"], {"kept": (1, 16, 64)}, ((1, 1), (8, 16), (32, 64))),
    ],
)
def test_shapes_follow_the_free_axes(
    sides: list[int | str],
    ranges: dict[str, tuple[int, int, int]],
    expected: tuple[Any, ...],
    tmp_path: Path,
) -> None:
    file = graph(tmp_path / "model.onnx", sides, transform=TRANSFORM, stride="16")
    assert shapes_for(file, ranges) == {"pixels": expected}


def test_fixed_lengths_need_no_profile(tmp_path: Path) -> None:
    assert shapes_for(graph(tmp_path / "model.onnx", [1, 3, 64, 64])) == {}


@pytest.mark.parametrize(
    ("sides", "ranges", "says"),
    [
        (["batch", "kept"], {}, "how long the axis 'kept' gets, nobody said; pass profiles={'kept'"),
        (["batch", 3], {"bach": (1, 2, 3)}, "no free axis 'bach'; did you mean 'batch'?"),
        ([2, 3], {"batch": (1, 2, 3)}, "there are none: every length is fixed"),
        (["batch", 3], {"batch": (4, 2, 8)}, "three numbers in order"),
        (["batch", "2*a + 1"], {}, "no multiple of one name"),
    ],
)
def test_impossible_shapes_say_what_to_pass(
    sides: list[int | str], ranges: dict[str, tuple[int, int, int]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(Unsupported) as caught:
        shapes_for(graph(tmp_path / "model.onnx", sides), ranges)
    assert says in str(caught.value)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine file beside the graph it is of. Nobody here looks into it."""
    onnx_file, path = graph(tmp_path / "model.onnx", ["batch", 3, 64, 64]), tmp_path / "model.engine"
    path.write_bytes(b"plan")
    shapes = shapes_for(onnx_file)
    write_facts(path, EngineFacts("model.onnx", sha256(onnx_file), sha256(path), HERE, shapes))
    return path


def test_a_sidecar_comes_back_as_it_was_written(engine: Path) -> None:
    facts = read_facts(engine)
    assert facts.profiles["pixels"][2] == (32, 3, 64, 64)
    assert facts.state == "built, not run"
    write_facts(engine, facts)
    assert read_facts(engine) == facts


def test_an_engine_that_belongs_is_taken_and_its_graph_may_be_elsewhere(engine: Path) -> None:
    check_belongs(engine, read_facts(engine), HERE)
    engine.with_name("model.onnx").unlink()
    check_belongs(engine, read_facts(engine), HERE)


@pytest.mark.parametrize(
    ("here", "says"),
    [
        (replace(HERE, tensorrt="10.13.0"), "it is of TensorRT 11.4.0, and here is 10.13.0"),
        (
            Place("11.4.0", "NVIDIA H100", "9.0"),
            "it is for compute 8.9 (NVIDIA L4), and here is compute 9.0 (NVIDIA H100)",
        ),
    ],
)
def test_a_foreign_engine_is_refused(engine: Path, here: Place, says: str) -> None:
    with pytest.raises(EngineError) as caught:
        check_belongs(engine, read_facts(engine), here)
    assert says in str(caught.value)
    assert str(caught.value).endswith("Build it again from model.onnx")


@pytest.mark.parametrize(
    ("name", "says"), [("model.onnx", "model.onnx has changed since"), ("model.engine", "it is not the file")]
)
def test_a_stale_engine_is_refused(engine: Path, name: str, says: str) -> None:
    changed = engine.with_name(name)
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(EngineError, match=says):
        check_belongs(engine, read_facts(engine), HERE)


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"place": {}}'])
def test_an_engine_without_a_sidecar_is_refused(text: str | None, engine: Path) -> None:
    sidecar = engine.with_name("model.engine.json")
    sidecar.unlink() if text is None else sidecar.write_text(text)
    with pytest.raises(EngineError, match=r"no readable model\.engine\.json .* build it again"):
        read_facts(engine)


def test_without_the_package_one_line_says_what_to_install(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # as if it were not installed, wherever it is
    with pytest.raises(Unsupported) as caught:
        build_engine(engine.with_name("model.onnx"), engine)
    assert str(caught.value).endswith("type: pip install tensorrt")
    assert "\n" not in str(caught.value)
    with pytest.raises(Unsupported, match="pip install tensorrt"):
        Engine(engine)


def test_onnxruntimes_provider_has_every_option_that_it_is_given(tmp_path: Path) -> None:
    import onnxruntime

    shapes = {"pixels": ((1, 3, 64, 64), (8, 3, 64, 64), (32, 3, 64, 64))}
    options = provider_options(shapes, tmp_path, "fp16")
    assert options["trt_profile_opt_shapes"] == "pixels:8x3x64x64"
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("1", "0")
    assert provider_options(shapes, tmp_path, "fp32")["trt_fp16_enable"] == "0"
    library = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_tensorrt.so"
    words = library.read_bytes()
    assert [key for key in options if key.encode() + b"\0" not in words] == []


def test_the_second_door_says_that_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(Unsupported, match="TensorRT provider does not run here"):
        session(graph(tmp_path / "model.onnx", ["batch", 3, 64, 64]), tmp_path / "cache")
    told = capfd.readouterr()
    assert told.out == ""  # onnxruntime prints a page otherwise
    assert told.err.count("\n") <= 2  # its library's own reason
    with pytest.raises(WeightsError, match="no graph"):
        session(tmp_path / "missing.onnx", tmp_path / "cache")
