"""One small masked autoencoder for all that looks through an encoder, tiny cards, and the table of parity."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from zoo.cards import DecoderSpec, ModelCard, TransformSpec
from zoo.encoder import Encoder
from zoo.loading import build


@pytest.fixture(scope="session")
def tiny_card() -> ModelCard:
    """The card of a ViT of 2 blocks and 48 channels at 64 px, with a decoder of one block."""
    card = ModelCard(
        name="tiny_mae",
        licence="apache-2.0",
        method="mae",
        kind="generative",
        family="vit",
        architecture="vit_tiny_patch16_224",
        parameters=1,
        pooling="avg",
        transform=TransformSpec(size=64, crop_pct=0.875),
        arguments={"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 3, "fc_norm": False},
        decoder=DecoderSpec(
            kind="mae",
            width=32,
            depth=1,
            heads=4,
            patch=16,
            mask_patch=16,
            normalised_targets=False,
            ratio=0.75,
        ),
    )
    with torch.device("meta"):
        module, _ = build(card)
    return dataclasses.replace(card, parameters=sum(parameter.numel() for parameter in module.parameters()))


@pytest.fixture(scope="session")
def tiny(tiny_card: ModelCard) -> Encoder:
    """That model with weights large enough that neither features nor attention look alike everywhere.

    One for the whole session: an encoder has no state that a test could change.
    """
    module, decoder = build(tiny_card)
    assert decoder is not None
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in (module, decoder):
            for name, parameter in part.named_parameters():
                scale = parameter.flatten(1).shape[1] ** -0.5 if parameter.ndim > 1 else 0.2
                centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                parameter.copy_(centre + 1.5 * scale * torch.randn(parameter.shape, generator=generator))
    return Encoder(tiny_card, module, decoder)


@pytest.fixture(scope="session")
def card_of() -> Callable[..., ModelCard]:
    """Makes the card of a tiny model; by default a ViT of 2 blocks and 48 channels at 32 px, 2×2 patches."""

    def make(family: str = "vit", architecture: str = "vit_tiny_patch16_224", **other: Any) -> ModelCard:
        size = {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3} if family == "vit" else {}
        said = {"pooling": "token", "method": "test", "kind": "discriminative", **other}
        said["arguments"] = {**size, **other.get("arguments", {})}
        side = said["arguments"].get("img_size", 32)
        return ModelCard(
            name="tiny",
            licence="apache-2.0",
            family=family,
            architecture=architecture,
            parameters=1,
            transform=TransformSpec(size=side),
            **said,
        )

    return make


@pytest.fixture
def parity(record_property: Callable[[str, object], None]) -> Callable[[str, str, float], None]:
    """Notes (layout, reference, max abs difference) for the table at the end of the run."""
    return lambda layout, reference, apart: record_property("parity", (layout, reference, apart))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of parity, also when everything passes, and from all processes of a run."""
    reports = [each for kind in terminalreporter.stats.values() for each in kind]
    calls = [each for each in reports if getattr(each, "when", "") == "call"]
    rows = sorted(tuple(row) for each in calls for name, row in each.user_properties if name == "parity")
    if rows:
        terminalreporter.section("max abs difference from independent implementations, random weights")
    for layout, reference, apart in rows:
        terminalreporter.write_line(f"{layout:28} {reference:58} {apart:.1e}")
