"""Exports of one small model per family through the gate, and broken ones that it must catch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from smallest import FAMILIES, VIT

from zoo.cards import TransformSpec, read_card
from zoo.encoder import Encoder
from zoo.errors import Unsupported, ZooError
from zoo.export import Parity, reconstruction_to_onnx, to_onnx
from zoo.export import onnx as exporting
from zoo.export.gate import nearest
from zoo.export.parity import read
from zoo.families import names


@pytest.fixture(scope="module")
def vit(
    small: Callable[..., Encoder], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Encoder, Path, Parity]:
    """A ViT, its folder and its report, with all that a graph may have but free sides."""
    encoder, folder = small("vit"), tmp_path_factory.mktemp("vit")
    return encoder, folder, to_onnx(encoder, folder, attention=True, pyramid=True)


def test_every_family_is_exported() -> None:
    assert set(FAMILIES) == set(names())


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "vit"])
def test_a_small_model_of_each_family_passes(
    family: str, small: Callable[..., Encoder], tmp_path: Path
) -> None:
    report = to_onnx(small(family), tmp_path)
    assert report.passed and {check.output for check in report.checks} >= {"pooled", "patches"}
    assert all(check.value < 5e-5 for check in report.checks if check.what == "max-abs")
    assert read(tmp_path) == (report,)


def test_a_file_says_what_it_is_and_nothing_of_this_machine(vit: tuple[Encoder, Path, Parity]) -> None:
    encoder, folder, report = vit
    model = onnx.load(folder / "model.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert [each.name for each in model.graph.output] == [
        "pooled",
        "patches",
        "cls",
        "attention",
        "pyramid_0",
    ]
    assert facts["name"] == encoder.card.name and json.loads(facts["transform"])["size"] == 64
    assert report.sha256 == exporting.sha256(folder / "model.onnx")
    whole = (folder / "model.onnx").read_bytes()
    assert b"site-packages" not in whole and str(Path.home()).encode() + b"/" not in whole
    there = sorted(path.name for path in folder.iterdir())
    assert there == ["README.md", "config.json", "infer.py", "model.onnx", "parity.json"]
    assert "## Exported graphs" in read_card(folder).body and "passed" in read_card(folder).body


def test_the_table_names_every_check(vit: tuple[Encoder, Path, Parity]) -> None:
    _, _, report = vit
    assert {check.what for check in report.checks} == {"max-abs", "cosine", "overlap"}
    assert {check.pictures for check in report.checks} == {48}
    lines = str(report).splitlines()
    assert lines[0] == "small_vit, model.onnx, fp32: passed" and len(lines) == 3 + len(report.checks)


def test_swapped_mean_and_std_are_caught(
    vit: tuple[Encoder, Path, Parity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, _, _ = vit

    def swapped(model: onnx.ModelProto, *rest: Any) -> None:
        exporting_describe(model, *rest)
        for entry in model.metadata_props:
            if entry.key == "transform":
                said = json.loads(entry.value)
                entry.value = json.dumps(said | {"mean": said["std"], "std": said["mean"]})

    exporting_describe = exporting.describe
    monkeypatch.setattr(exporting, "describe", swapped)
    with pytest.raises(ZooError, match=r"FAILED.*transform is not the encoder's"):
        try:
            to_onnx(encoder, tmp_path)
        except ZooError as error:
            raise ZooError(str(error).replace("\n", " ")) from error
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_dropped_norm_is_caught_and_named(vit: tuple[Encoder, Path, Parity], tmp_path: Path) -> None:
    encoder, _, _ = vit

    def without_second_norm(model: onnx.ModelProto) -> onnx.ModelProto:
        norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
        dropped = norms[2]  # of the second block, before attention
        source, made = dropped.input[0], dropped.output[0]
        dropped.op_type = "Identity"
        del dropped.input[1:], dropped.attribute[:]
        assert source == dropped.input[0] and made == dropped.output[0]
        return model

    graph = exporting.features_graph(encoder)
    with pytest.raises(exporting.ParityError) as caught:
        exporting.published(
            encoder,
            tmp_path,
            "model.onnx",
            graph,
            "fp32",
            lambda file: exporting.gate.gate(file, encoder, exporting.LIMITS["fp32"]),
            without_second_norm,
            drift=lambda file: exporting.first_drift(file, encoder, "fp32"),
        )
    assert "the first layer to drift is blocks.1.norm1" in str(caught.value)
    assert not caught.value.parity.passed and not list(tmp_path.iterdir())


def test_an_export_that_fails_takes_the_old_file_away(
    vit: tuple[Encoder, Path, Parity], small: Callable[..., Encoder], tmp_path: Path
) -> None:
    encoder, _, _ = vit
    (tmp_path / "model.onnx").write_bytes(b"of before")
    with pytest.raises(Unsupported, match="no class token"):
        to_onnx(small("swin"), tmp_path, attention=True)
    assert (tmp_path / "model.onnx").exists()  # refused before anything was done
    with pytest.raises(exporting.ParityError):
        exporting.published(
            encoder,
            tmp_path,
            "model.onnx",
            exporting.features_graph(encoder),
            "fp32",
            lambda file: exporting.gate.gate(
                file, small("vit", arguments=VIT | {"num_heads": 4}), exporting.LIMITS["fp32"]
            ),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precisions_pass_and_are_smaller(
    precision: Any, vit: tuple[Encoder, Path, Parity], tmp_path: Path
) -> None:
    encoder, folder, _ = vit
    report = to_onnx(encoder, tmp_path, precision=precision)
    assert report.passed and report.file == f"model_{precision}.onnx"
    assert (tmp_path / report.file).stat().st_size < 0.75 * (folder / "model.onnx").stat().st_size


def test_a_resnet_is_quantised_in_its_convolutions(small: Callable[..., Encoder], tmp_path: Path) -> None:
    assert to_onnx(small("resnet"), tmp_path, precision="int8").passed
    operators = {node.op_type for node in onnx.load(tmp_path / "model_int8.onnx").graph.node}
    assert "ConvInteger" in operators and "Conv" not in operators


def test_free_sides(vit: tuple[Encoder, Path, Parity], tmp_path: Path) -> None:
    encoder, _, _ = vit
    report = to_onnx(encoder, tmp_path, dynamic=True)
    assert {check.on.split(",")[0] for check in report.checks} == {"64×64", "224×224", "160×320"}


@pytest.mark.parametrize(("family", "rule"), [("vit", "dino"), ("vit", "bicubic"), ("eva", "timm")])
def test_free_sides_by_every_rule_of_positions(
    family: str, rule: str, small: Callable[..., Encoder], tmp_path: Path
) -> None:
    report = to_onnx(small(family, interpolation=rule), tmp_path, dynamic=True)
    assert {check.on.split(",")[0] for check in report.checks} == {"64×64", "224×224", "160×320"}
    assert all(check.value < 5e-5 for check in report.checks if check.what == "max-abs")


def test_free_sides_of_a_beit_are_refused_with_the_way_out(
    small: Callable[..., Encoder], tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match=r"searched for each size.* --size 64"):
        to_onnx(small("beit"), tmp_path, dynamic=True)


def test_the_graph_prepares_pictures_as_the_transform_does(
    vit: tuple[Encoder, Path, Parity], tmp_path: Path
) -> None:
    encoder, _, _ = vit
    report = to_onnx(encoder, tmp_path, preprocess=True)
    assert report.passed
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    (pooled,) = session.run(["pooled"], {"image": noise})
    expected = encoder(Image.fromarray(noise)).pooled.numpy()  # type: ignore[union-attr]
    assert np.abs(pooled - expected).max() < 0.02 * np.abs(expected).max()


def test_nearest_is_the_other_row_of_the_largest_cosine() -> None:
    rows = np.array([[1, 0], [10, 1], [0, 1], [-1, 5]], np.float32)
    assert nearest(rows).tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"precision": "fp8"}, "there are fp32, fp16, int8"),
        ({"dynamic": True, "preprocess": True}, "leave one out"),
        ({"size": 70}, "nearest is 64"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_any_work(
    asked: dict[str, Any], says: str, vit: tuple[Encoder, Path, Parity], tmp_path: Path
) -> None:
    with pytest.raises(ZooError, match=says):
        to_onnx(vit[0], tmp_path, **asked)
    assert not list(tmp_path.iterdir())


def test_a_model_without_decoder_has_no_reconstruction(
    vit: tuple[Encoder, Path, Parity], tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match="no decoder"):
        reconstruction_to_onnx(vit[0], tmp_path)


def of_channels(small: Callable[..., Encoder], channels: int) -> Encoder:
    spec = TransformSpec(size=64, crop_pct=0.875, mean=(0.4,) * channels, std=(0.2,) * channels)
    return small("vit", arguments={**VIT, "in_chans": channels}, transform=spec)


@pytest.mark.parametrize("preprocess", [False, True])
def test_a_grey_encoder_is_exported(small: Callable[..., Encoder], tmp_path: Path, preprocess: bool) -> None:
    """The gate's photos reach it in grey, through a graph that prepares them too."""
    assert to_onnx(of_channels(small, 1), tmp_path, preprocess=preprocess).passed


def test_a_graph_of_five_channels_cannot_be_judged(small: Callable[..., Encoder], tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="judged on photos, which have 1 or 3 channels"):
        to_onnx(of_channels(small, 5), tmp_path)
