"""A tiny encoder and its export, for all that runs one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from smallest import FAMILIES

from zoo.cards import DecoderSpec, ModelCard, TransformSpec
from zoo.encoder import Encoder
from zoo.export.onnx import to_onnx
from zoo.loading import build


@pytest.fixture(scope="session")
def torchs() -> Encoder:
    """A ViT of 2 blocks and 48 channels at 64 px, its weights drawn large enough that photos look different."""
    card = ModelCard(
        name="tiny",
        licence="apache-2.0",
        method="test",
        kind="discriminative",
        family="vit",
        architecture="vit_tiny_patch16_224",
        parameters=1,
        pooling="token",
        transform=TransformSpec(size=64, crop_pct=0.875),
        arguments={"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 3},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, _ = build(card)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3)
    count = sum(parameter.numel() for parameter in module.parameters())
    return Encoder(dataclasses.replace(card, parameters=count), module)


@pytest.fixture(scope="session")
def plain(torchs: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export at one size, without anything optional."""
    folder = tmp_path_factory.mktemp("plain")
    to_onnx(torchs, folder)
    return folder


@pytest.fixture(scope="session")
def small(randomise: Callable[..., None]) -> Callable[..., Encoder]:
    """A small encoder of a family with every weight at random."""

    def make(family: str, decoder: DecoderSpec | None = None, **other: Any) -> Encoder:
        said = {
            "pooling": "token",
            "architecture": "vit_tiny_patch16_224",
            "transform": TransformSpec(size=64, crop_pct=0.875),
            **FAMILIES[family],
            **other,
        }
        card = ModelCard(
            name=f"small_{family}",
            licence="apache-2.0",
            method="test",
            kind="generative" if decoder else "discriminative",
            family=family,
            parameters=1,
            decoder=decoder,
            **said,
        )
        module, head = build(card)
        for part in (module, head):
            if part is not None:
                randomise(part.eval())
        return Encoder(card, module, head)

    return make
