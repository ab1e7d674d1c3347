"""Published files of masked-image models on other encoders than MAE's: SimMIM, UM-MAE and PVT, read back as written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from slow_ummae import DECODER, PVT, SWIN, Tensors, positions, theirs
from torch import Tensor, nn

from zoo.cards import DecoderSpec, ModelCard
from zoo.errors import WeightsError
from zoo.loading import build
from zoo.published import read_published

Draw = Callable[..., None]
Cards = Callable[..., ModelCard]
SIMMIM: dict[str, Any] = {
    "kind": "simmim",
    "patch": 32,
    "mask_patch": 16,
    "normalised_targets": False,
    "ratio": 0.6,
}
UMMAE = {**DECODER, "visible_pos": "official"}
SMALL_SWIN = {"img_size": 64, "depths": [2, 2], "embed_dim": 12, "num_heads": [1, 2], "window_size": 4}
SHARED = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
SMALL_VIT = {"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 3}
V1 = {
    "img_size": 64,
    "depths": [2, 1, 1, 2],
    "embed_dims": [8, 16, 32, 64],
    "num_heads": [1, 2, 2, 4],
    "mlp_ratios": [2, 2, 2, 2],
}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "swin": (SWIN, UMMAE),
    "pvt": (PVT, UMMAE),
    "vit": ({"arguments": SMALL_VIT}, {**DECODER}),
    "simmim ummae swin": (SWIN, SIMMIM),
    "simmim ummae pvt": (PVT, SIMMIM),
    "simmim swin": (
        {
            "family": "swin",
            "architecture": "swin_tiny_patch4_window7_224",
            "arguments": SMALL_SWIN,
            "pooling": "avg",
        },
        {**SIMMIM, "patch": 8},
    ),
    "simmim beit": (
        {"family": "beit", "architecture": "beit_base_patch16_224", "arguments": {**SMALL_VIT, **SHARED}},
        {**SIMMIM, "patch": 16},
    ),
    "pvt v1": ({"family": "pvt", "architecture": "ssl_zoo_pvt_small", "arguments": V1}, None),
}


def linear_head(decoder: nn.Module) -> Tensors:
    """SimMIM's convolution as UM-MAE's authors have it: by the pixel it predicts, one row at a time."""
    weight, bias = decoder.get_parameter("head.weight").detach(), decoder.get_parameter("head.bias").detach()
    out = {"decoder_pred.weight": torch.zeros(3072, weight.shape[1]), "decoder_pred.bias": torch.zeros(3072)}
    for channel in range(3):
        for y in range(32):
            for x in range(32):
                ours = channel * 1024 + y * 32 + x
                patch, inside = 2 * (y // 16) + x // 16, ((y % 16) * 16 + x % 16) * 3 + channel
                out["decoder_pred.weight"][4 * inside + patch] = weight[ours, :, 0, 0]
                out["decoder_pred.bias"][4 * inside + patch] = bias[ours]
    return out


def simmim_pyramid(module: nn.Module, decoder: nn.Module) -> Any:
    return {
        "model": {
            **theirs(module, None),
            "mask_token": decoder.get_parameter("mask_token"),
            **linear_head(decoder),
        }
    }


def simmim(module: nn.Module, decoder: nn.Module) -> Any:
    """The authors' encoder and decoder; Swin merges patches at the end of a stage."""
    encoder = {
        name.replace("layers.1.downsample.", "layers.0.downsample."): tensor
        for name, tensor in module.state_dict().items()
    }
    own = decoder.state_dict()
    return {
        "model": {
            **{f"encoder.{name}": tensor for name, tensor in encoder.items()},
            "encoder.mask_token": own["mask_token"],
            "decoder.0.weight": own["head.weight"],
            "decoder.0.bias": own["head.bias"],
        }
    }


def vit(module: nn.Module, decoder: nn.Module) -> Any:
    with_class_token = torch.cat([torch.zeros(1, 32), positions((4, 4), 32)])[None]
    return {"model": {**theirs_vit(module, decoder), "decoder_pos_embed": with_class_token}}


def theirs_vit(module: nn.Module, decoder: nn.Module) -> Tensors:
    named = {"secondary_token": "vis_mask_token", "mask_token": "mask_token", "head": "decoder_pred"}
    out = dict(module.state_dict())
    for name, tensor in decoder.state_dict().items():
        part, _, rest = name.partition(".")
        out[".".join(filter(None, [named.get(part, f"decoder_{part}"), rest]))] = tensor
    return out


def pvt_v1(module: nn.Module, decoder: nn.Module) -> Tensors:
    out: Tensors = {"head.weight": torch.ones(10, 64), "head.bias": torch.ones(10)}
    for name, tensor in module.state_dict().items():
        if name == "cls_position":
            continue
        if name.startswith("patch_embed."):
            name = name.replace("patch_embed.", "patch_embed1.")
        for stage in range(4):
            start = f"stages.{stage}."
            name = name.replace(f"{start}downsample.", f"patch_embed{stage + 1}.")
            name = name.replace(f"{start}blocks.", f"block{stage + 1}.")
            if name == f"{start}pos_embed":
                name, tensor = f"pos_embed{stage + 1}", tensor.flatten(1, 2)
        out[name] = tensor
    out["pos_embed4"] = torch.cat([module.get_parameter("cls_position").detach(), out["pos_embed4"]], dim=1)
    return out


WRITERS: dict[str, tuple[str, Callable[[nn.Module, nn.Module], Any]]] = {
    "swin": ("ummae_swin", lambda m, d: {"model": theirs(m, d, (8, 8))}),
    "pvt": (
        "ummae_pvt",
        lambda m, d: {"model": {**theirs(m, d, (8, 8)), "pos_embed": positions((32, 32), 8)[None]}},
    ),
    "vit": ("ummae_vit", vit),
    "simmim ummae swin": ("ummae_simmim_swin", simmim_pyramid),
    "simmim ummae pvt": ("ummae_simmim_pvt", simmim_pyramid),
    "simmim swin": ("simmim_swin", simmim),
    "simmim beit": ("simmim_vit", simmim),
    "pvt v1": ("pvt_pth", pvt_v1),
}


class Written:
    """A file of that writer, the card, and the tensors that must come back."""

    def __init__(self, name: str, folder: Path, randomise: Draw, card_of: Cards, **other: Any) -> None:
        said, spec = MODELS[name]
        decoder_spec = DecoderSpec(**spec) if spec else None
        self.card = card_of(**{**said, "kind": "generative", "decoder": decoder_spec, **other})
        module, decoder = build(self.card)
        for seed, part in enumerate((module, decoder)):
            if part is not None:
                randomise(part, seed=seed)
        self.layout, write = WRITERS[name]
        self.file = folder / "checkpoint.pth"
        torch.save(write(module, decoder if decoder is not None else nn.Identity()), self.file)
        self.encoder, self.decoder = module.state_dict(), decoder.state_dict() if decoder is not None else {}

    def changed(self, change: Callable[[Tensors], object]) -> Path:
        content = torch.load(self.file, weights_only=True)
        change(content.get("model", content))
        torch.save(content, self.file)
        return self.file


@pytest.mark.parametrize("name", WRITERS)
def test_a_layout_is_told_and_read_back(name: str, tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    written = Written(name, tmp_path, randomise, card_of)
    published = read_published(written.file, written.card)
    assert published.layout == written.layout, published.report
    for found, expected in ((published.encoder, written.encoder), (published.decoder or {}, written.decoder)):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize("name", [name for name in WRITERS if MODELS[name][1]])
def test_an_encoder_whose_decoder_was_dropped(
    name: str, tmp_path: Path, randomise: Draw, card_of: Cards
) -> None:
    """Many re-releases keep the encoder alone; a mask token that is left makes no decoder."""
    written = Written(name, tmp_path, randomise, card_of)

    def drop(tensors: Tensors) -> None:
        for key in [key for key in tensors if "decoder" in key]:
            del tensors[key]

    published = read_published(written.changed(drop), written.card)
    assert published.decoder is None
    assert all(torch.equal(published.encoder[key], tensor) for key, tensor in written.encoder.items())


@pytest.mark.parametrize("name", ["swin", "pvt"])
def test_the_authors_positions_must_be_said(
    name: str, tmp_path: Path, randomise: Draw, card_of: Cards
) -> None:
    own = DecoderSpec(**{**UMMAE, "visible_pos": "own"})
    written = Written(name, tmp_path, randomise, card_of, decoder=own)
    with pytest.raises(WeightsError, match=r"write decoder: {visible_pos: official}"):
        read_published(written.file, written.card)


def test_fine_tuned_files_of_um_mae(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    """Their norm follows the pooling, and PVT's positions were trained on."""
    said, _ = MODELS["pvt"]
    arguments = {**said["arguments"], "fc_norm": True, "stored_positions": True, "img_size": 64}
    written = Written("pvt", tmp_path, randomise, card_of, arguments=arguments, decoder=None)

    def learned(tensors: Tensors) -> None:
        tensors["pos_embed"] = written.encoder["pos_embed"].flatten(1, 2)
        tensors["head.weight"] = torch.ones(10, 64)

    published = read_published(written.changed(learned), written.card)
    assert published.layout == "ummae_pvt" and published.encoder.keys() == written.encoder.keys()
    assert all(torch.equal(published.encoder[key], tensor) for key, tensor in written.encoder.items())
    with pytest.raises(WeightsError, match=r"norm behind the pooling; write arguments: {fc_norm: true}"):
        read_published(written.file, card_of(**said))
    plain = card_of(**{**said, "arguments": {**said["arguments"], "fc_norm": True}})
    with pytest.raises(WeightsError, match=r"write arguments: {stored_positions: true}"):
        read_published(written.file, plain)


def test_learned_positions_of_another_size_are_resized(
    tmp_path: Path, randomise: Draw, card_of: Cards
) -> None:
    written = Written("pvt v1", tmp_path, randomise, card_of)
    said, _ = MODELS["pvt v1"]
    larger = card_of(**{**said, "arguments": {**V1, "img_size": 96}})
    published = read_published(written.file, larger)
    grid: Tensor = written.encoder["stages.0.pos_embed"].permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(grid, size=(24, 24), mode="bilinear").permute(0, 2, 3, 1)
    torch.testing.assert_close(published.encoder["stages.0.pos_embed"], expected)
    assert torch.equal(published.encoder["cls_position"], written.encoder["cls_position"])


@pytest.mark.parametrize(
    ("name", "architecture", "says"),
    [
        ("swin", ("swin", "swin_tiny_patch4_window7_224"), "write architecture: ssl_zoo_ummae_swin_tiny"),
        ("pvt", ("swin", "swin_tiny_patch4_window7_224"), "write architecture: ssl_zoo_ummae_pvt_small"),
        ("pvt v1", ("swin", "swin_tiny_patch4_window7_224"), "write architecture: ssl_zoo_pvt_small"),
    ],
)
def test_another_architecture_is_refused_with_the_right_one(
    name: str, architecture: tuple[str, str], says: str, tmp_path: Path, randomise: Draw, card_of: Cards
) -> None:
    written = Written(name, tmp_path, randomise, card_of)
    other = card_of(*architecture, pooling="avg")
    with pytest.raises(WeightsError, match=says):
        read_published(written.file, other)
