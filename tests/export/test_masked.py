"""Masked reconstruction from the exported graph: the picture that the torch encoder makes, whatever the mask."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

from zoo.cards import DecoderSpec
from zoo.demo import bundled_photos
from zoo.encoder import Encoder
from zoo.errors import MaskError, SizeError, Unsupported, WeightsError
from zoo.export import onnx as exporting
from zoo.export import reconstruction_to_onnx, to_onnx
from zoo.export.drift import first_masked_drift
from zoo.export.gate import gate_masked
from zoo.export.limits import LIMITS
from zoo.export.running import MaskedModule
from zoo.export.runtime import OnnxEncoder
from zoo.reconstruction import Reconstruction

PHOTOS = [str(path) for path in bundled_photos()[:3]]
MAE = DecoderSpec(
    kind="mae", width=32, depth=1, heads=4, patch=16, mask_patch=16, normalised_targets=True, ratio=0.75
)
SIMMIM = DecoderSpec(kind="simmim", patch=32, mask_patch=32, normalised_targets=False, ratio=0.5)
UMMAE = dataclasses.replace(MAE, kind="ummae", strategy="uniform", secondary=0.25)
STAGES = {"img_size": 64, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
MASKED: dict[str, tuple[str, DecoderSpec, dict[str, Any]]] = {
    "MAE on a ViT": ("vit", MAE, {}),
    "UM-MAE on a ViT": ("vit", UMMAE, {}),
    "UM-MAE on a PVT": ("pvt", UMMAE, {"architecture": "ssl_zoo_ummae_pvt_micro", "pooling": "avg"}),
    "UM-MAE on a Swin": (
        "swin",
        UMMAE,
        {
            "architecture": "ssl_zoo_ummae_swin_micro",
            "arguments": STAGES | {"embed_dim": 8, "window_size": 4},
        },
    ),
    "SimMIM on a Swin": ("swin", SIMMIM, {}),
}
# (h, w) of 4: some images hide more than others, and two cells of a pyramid show none of their patches.
BY_HAND = torch.ones(3, 4, 4, dtype=torch.bool)
BY_HAND[0, 0, :2] = BY_HAND[1, ::2, ::2] = BY_HAND[2, 1:, 2] = False


def exported(encoder: Encoder, folder: Path) -> OnnxEncoder:
    assert to_onnx(encoder, folder).passed and reconstruction_to_onnx(encoder, folder).passed
    return OnnxEncoder(folder)


def same(found: Reconstruction, expected: Reconstruction) -> None:
    for field in dataclasses.fields(Reconstruction):
        mine, theirs = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(theirs, Tensor) and theirs.is_floating_point():
            torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=1e-4, msg=field.name)
        elif isinstance(theirs, Tensor):
            assert torch.equal(mine, theirs), field.name
        else:
            assert mine == theirs, field.name


@pytest.mark.parametrize("name", MASKED)
def test_the_graph_repeats_the_encoders_picture(
    name: str, small: Callable[..., Encoder], plain: Path, tmp_path: Path
) -> None:
    family, spec, other = MASKED[name]
    encoder = small(family, spec, **other)
    assert reconstruction_to_onnx(encoder, tmp_path).passed
    onnxs = OnnxEncoder(plain)  # whose own graph has no part in this: another is not traced, to save time
    onnxs.card, onnxs.stride = encoder.card, encoder.stride
    vars(onnxs)["_reconstructs"] = MaskedModule(tmp_path / "reconstruct.onnx")
    by_hand = BY_HAND[:, ::2, ::2] if spec.kind == "simmim" else BY_HAND
    asked: list[dict[str, Any]] = [
        {},
        {"seed": 5, "strategy": "grid"},
        {"mask": by_hand, "seed": 2},
        {"mask": torch.zeros_like(by_hand[0]), "seed": 1} if spec.kind != "ummae" else {"seed": 1},
    ]
    if family in ("vit", "swin") and spec.strategy == "random":
        asked.append({"strategy": "random", "ratio": 0.25})
    if spec.secondary:
        asked.append({"secondary": 0.5, "seed": 3})
    for words in asked:
        same(onnxs.reconstruct(PHOTOS, **words), encoder.reconstruct(PHOTOS, **words))
    if "kept" in onnxs._masked().inputs:
        with pytest.raises(MaskError, match="strategy='uniform'"):
            onnxs.reconstruct(PHOTOS, strategy="random")


@pytest.fixture(scope="module")
def mae(
    small: Callable[..., Encoder], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Encoder, OnnxEncoder]:
    encoder = small("vit", MAE)
    return encoder, exported(encoder, tmp_path_factory.mktemp("mae"))


def test_one_visible_patch_is_enough(mae: tuple[Encoder, OnnxEncoder]) -> None:
    encoder, onnxs = mae
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[2, 1] = False
    same(onnxs.reconstruct(PHOTOS[0], mask), encoder.reconstruct(PHOTOS[0], mask))


def test_what_cannot_be_reconstructed_is_said(mae: tuple[Encoder, OnnxEncoder], tmp_path: Path) -> None:
    _, onnxs = mae
    with pytest.raises(SizeError, match=r"takes 64×64 and nothing else; its decoder is of one size"):
        onnxs.reconstruct(PHOTOS[0], size=96)
    with pytest.raises(Unsupported, match="no token for it"):
        onnxs.reconstruct(PHOTOS[0], secondary=0.5)
    folder = Path(shutil.copytree(onnxs.module.file.parent, tmp_path / "copied"))
    model = onnx.load(folder / "reconstruct.onnx")
    next(each for each in model.metadata_props if each.key == "weights_sha256").value = "0" * 64
    onnx.save(model, folder / "reconstruct.onnx")
    said = json.loads((folder / "parity.json").read_text())
    said["reconstruct.onnx"]["sha256"] = exporting.sha256(folder / "reconstruct.onnx")
    (folder / "parity.json").write_text(json.dumps(said))
    with pytest.raises(WeightsError, match="of other weights than"):
        OnnxEncoder(folder).reconstruct(PHOTOS[0])
    (folder / "reconstruct.onnx").unlink()
    with pytest.raises(Unsupported, match=r"holds no reconstruct\.onnx.*--precision fp32 --out"):
        OnnxEncoder(folder).reconstruct(PHOTOS[0])


@pytest.mark.parametrize(("norm", "layer"), [(2, "blocks.1.norm1"), (6, "decoder.blocks.0.norm2")])
def test_the_layer_that_drifts_is_named_in_the_decoder_too(
    norm: int, layer: str, mae: tuple[Encoder, OnnxEncoder], tmp_path: Path
) -> None:
    encoder, onnxs = mae
    model = onnx.load(onnxs.module.file.with_name("reconstruct.onnx"))
    dropped = [node for node in model.graph.node if node.op_type == "LayerNormalization"][norm]
    dropped.op_type = "Identity"
    del dropped.input[1:], dropped.attribute[:]
    onnx.save(model, tmp_path / "broken.onnx")
    assert not all(check.passed for check in gate_masked(tmp_path / "broken.onnx", encoder, LIMITS["fp32"]))
    said = first_masked_drift(tmp_path / "broken.onnx", encoder, "fp32")
    assert said.startswith(f"the first layer to drift is {layer}: by ")
