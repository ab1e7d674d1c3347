"""A model folder of every family: the zoo and timm read it alike, and images agree alone, in a batch and in a list."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

import zoo
from zoo.cards import ModelCard
from zoo.encoder import Encoder
from zoo.features import Features
from zoo.folders import config_matches, write_folder
from zoo.loading import build

Draw = Callable[..., None]
Cards = Callable[..., ModelCard]

SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 48, "num_heads": 3}
SHARED = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
MODELS: dict[str, dict[str, Any]] = {
    "DINO": {"interpolation": "dino", "arguments": {"img_size": 96}},
    "DINOv2, registers": {"architecture": "vit_small_patch14_reg4_dinov2", "arguments": {"patch_size": 16}},
    "I-JEPA": {
        "architecture": "vit_huge_patch14_gap_224",
        "arguments": {"patch_size": 16},
        "pooling": "avg",
    },
    "BEiT": {
        "family": "beit",
        "architecture": "beit_base_patch16_224",
        "arguments": {**SMALL, **SHARED, "img_size": 96},
        "interpolation": "beit",
    },
    "SimMIM, ViT": {
        "family": "beit",
        "architecture": "beit_base_patch16_224",
        "arguments": {**SMALL, **SHARED, "img_size": 96, "use_fc_norm": False},
        "pooling": "avg",
    },
    "BEiT, tables per layer": {
        "family": "beit",
        "architecture": "beitv2_base_patch16_224",
        "arguments": {**SMALL, "img_size": 96},
        "pooling": "avg",
    },
    "DINOv3": {"family": "eva", "architecture": "vit_small_patch16_dinov3_qkvb", "arguments": SMALL},
    "XCiT": {"family": "xcit", "architecture": "xcit_nano_12_p8_224", "arguments": SMALL},
    "BYOL": {
        "family": "resnet",
        "architecture": "ssl_zoo_resnet50_same",
        "arguments": {"layers": [1, 1, 1, 1]},
        "pooling": "avg",
    },
    "SimCLR": {
        "family": "resnet",
        "architecture": "ssl_zoo_resnet50_samepool",
        "arguments": {"layers": [1, 1, 1, 1]},
        "pooling": "avg",
    },
    "dVAE": {
        "family": "dvae",
        "architecture": "ssl_zoo_dvae_small",
        "arguments": {"vocabulary": 16, "hidden": 8},
        "pooling": "avg",
    },
    "SimMIM, Swin": {
        "family": "swin",
        "architecture": "swin_tiny_patch4_window7_224",
        "arguments": {
            "img_size": 96,
            "window_size": 4,
            "depths": [2, 2, 1, 1],
            "embed_dim": 8,
            "num_heads": [1, 2, 2, 4],
        },
        "pooling": "avg",
    },
    "UM-MAE, Swin": {
        "family": "swin",
        "architecture": "ssl_zoo_ummae_swin_micro",
        "arguments": {"embed_dim": 8, "num_heads": [1, 2, 2, 4], "window_size": 4},
        "pooling": "avg",
    },
    "PVT": {
        "family": "pvt",
        "architecture": "ssl_zoo_pvt_small",
        "arguments": {
            "img_size": 96,
            "embed_dims": [8, 16, 32, 64],
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 2, 2, 4],
            "mlp_ratios": [2, 2, 2, 2],
        },
    },
}


def encoder_of(name: str, card_of: Cards, randomise: Draw) -> Encoder:
    """A random one, of 96 px."""
    card = card_of(**MODELS[name])
    module, _ = build(card)
    randomise(module)
    for key, tensor in module.named_buffers():
        if key.endswith("k_bias"):
            tensor.zero_()  # never learned, and in no file
    count = sum(parameter.numel() for parameter in module.parameters())
    spec = dataclasses.replace(card.transform, size=card.arguments.get("img_size", 96))
    return Encoder(dataclasses.replace(card, parameters=count, transform=spec), module)


def images(height: int, width: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height + width))


def alike(found: Features, expected: Features) -> None:
    assert found.grid == expected.grid
    torch.testing.assert_close(found.pooled, expected.pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.patches, expected.patches, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_zoo_and_timm_read_it_alike(name: str, tmp_path: Path, card_of: Cards, randomise: Draw) -> None:
    encoder = encoder_of(name, card_of, randomise)
    write_folder(tmp_path / "model", encoder.card, encoder.module, None, "", dtype=torch.float32)
    assert config_matches(tmp_path / "model")
    ours = zoo.load(tmp_path / "model", device="cpu")
    pixels = images(ours.size, ours.size)
    expected = encoder(pixels)
    assert isinstance(expected, Features)
    alike(ours(pixels), expected)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    with torch.no_grad():
        pooled = theirs(ours.transform.normalise(pixels))
    torch.testing.assert_close(pooled, expected.pooled, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_alone_in_a_batch_and_in_a_list_of_mixed_sizes(name: str, card_of: Cards, randomise: Draw) -> None:
    encoder = encoder_of(name, card_of, randomise)
    square, long = images(224, 224), images(480, 320)
    together = encoder([square[0], long[0], square[1], long[1]])
    for batch, places in ((square, (0, 2)), (long, (1, 3))):
        whole = encoder(batch)
        for i, place in enumerate(places):
            alike(encoder(batch[i]), whole[i])
            alike(together[place], whole[i])
    assert together[1].grid == (480 // encoder.stride, 320 // encoder.stride)
