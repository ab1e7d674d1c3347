"""Exports of one small model per family through the gate, and broken ones that it must catch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from zoo.cards import DecoderSpec, ModelCard, TransformSpec, read_card
from zoo.encoder import Encoder
from zoo.errors import Unsupported, ZooError
from zoo.export import Parity, reconstruction_to_onnx, to_onnx
from zoo.export import onnx as exporting
from zoo.export.gate import Exported, nearest
from zoo.export.masked import mask_inputs
from zoo.export.parity import read
from zoo.export.pictures import gate_pictures
from zoo.families import names
from zoo.loading import build
from zoo.masking import batch_seeds, draw_mask

VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"arguments": VIT},
    "beit": {"architecture": "beit_base_patch16_224", "arguments": VIT},
    "eva": {
        "architecture": "vit_small_patch16_dinov3_qkvb",
        "arguments": {"depth": 2, "embed_dim": 48, "num_heads": 3},
    },
    "xcit": {
        "architecture": "xcit_nano_12_p16_224",
        "arguments": {"depth": 2, "embed_dim": 48, "num_heads": 3},
    },
    "resnet": {
        "architecture": "resnet50",
        "arguments": {"layers": [1, 1, 1, 1]},
        "pooling": "avg",
    },
    "swin": {
        "architecture": "swin_tiny_patch4_window7_224",
        "arguments": {
            "img_size": 64,
            "depths": [1, 2, 1, 1],
            "embed_dim": 8,
            "num_heads": [1, 2, 2, 4],
            "window_size": 4,
        },
        "pooling": "avg",
    },
    "pvt": {
        "architecture": "ssl_zoo_pvt_small",
        "arguments": {
            "img_size": 64,
            "embed_dims": [8, 16, 32, 64],
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 2, 2, 4],
            "mlp_ratios": [2, 2, 2, 2],
        },
    },
}


@pytest.fixture(scope="module")
def small(randomise: Callable[..., None]) -> Callable[..., Encoder]:
    """A small encoder of a family with every weight at random."""

    def make(family: str, decoder: DecoderSpec | None = None, **other: Any) -> Encoder:
        said = {"pooling": "token", "architecture": "vit_tiny_patch16_224", **FAMILIES[family], **other}
        card = ModelCard(
            name=f"small_{family}",
            licence="apache-2.0",
            method="test",
            kind="generative" if decoder else "discriminative",
            family=family,
            parameters=1,
            transform=TransformSpec(size=64, crop_pct=0.875),
            decoder=decoder,
            **said,
        )
        module, head = build(card)
        for part in (module, head):
            if part is not None:
                randomise(part.eval())
        return Encoder(card, module, head)

    return make


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


def test_free_sides(vit: tuple[Encoder, Path, Parity], tmp_path: Path) -> None:
    encoder, _, _ = vit
    report = to_onnx(encoder, tmp_path, dynamic=True)
    assert {check.on.split(",")[0] for check in report.checks} == {"64×64", "224×224", "160×320"}


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


MAE = DecoderSpec(
    kind="mae", width=32, depth=1, heads=4, patch=16, mask_patch=16, normalised_targets=False, ratio=0.75
)
SIMMIM = DecoderSpec(kind="simmim", patch=32, mask_patch=32, normalised_targets=False, ratio=0.5)
UMMAE = dataclasses.replace(MAE, kind="ummae", strategy="uniform", secondary=0.25)
MASKED = {
    "MAE on a ViT": ("vit", MAE, {}),
    "UM-MAE on a PVT": ("pvt", UMMAE, {"architecture": "ssl_zoo_ummae_pvt_micro", "pooling": "avg"}),
    "SimMIM on a Swin": ("swin", SIMMIM, {}),
}


@pytest.mark.parametrize("name", MASKED)
def test_reconstructions_repeat_the_encoder(name: str, small: Callable[..., Encoder], tmp_path: Path) -> None:
    family, spec, other = MASKED[name]
    encoder = small(family, spec, **other)
    report = reconstruction_to_onnx(encoder, tmp_path)
    assert report.passed
    pictures = list(gate_pictures()[:3])
    seeds = batch_seeds(5, 3)
    drawn = draw_mask(spec.strategy, encoder.mask_grid(64, 64), seeds, spec.ratio)
    expected = encoder.reconstruct(pictures, seed=5)
    masks = exporting.gate.kind(spec.kind).settle(spec, encoder.module, drawn, None, seeds)
    inputs = {key: each.numpy() for key, each in mask_inputs(encoder, masks).items()}
    exported = Exported(tmp_path / "reconstruct.onnx")
    pixels = torch.stack([encoder.transform(picture) for picture in pictures]).numpy()
    predicted = torch.from_numpy(exported.run(pixels=pixels, **inputs)["predicted"])
    from zoo.patches import unpatchify

    picture = encoder.transform.denormalise(unpatchify(predicted, spec.mask_patch, encoder.mask_grid(64, 64)))
    torch.testing.assert_close(picture.clamp(0, 1), expected.predicted, atol=1e-4, rtol=0)


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
