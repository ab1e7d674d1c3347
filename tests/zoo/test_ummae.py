"""UM-MAE's pyramids against a slow transcription that does as its authors do, under their names.

The twin embeds the whole image, zeroes hidden tokens, sums the four patches of every cell, and scores all pairs of
tokens one grid at a time. Our modules get the same tensors through `read_published`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from slow_ummae import DECODER, PYRAMIDS, SLOW, cells, positions, slow_decoder, theirs
from torch import Tensor, nn

from zoo.cards import DecoderSpec, ModelCard
from zoo.decoders import Masks, kind
from zoo.encoder import Encoder
from zoo.loading import build
from zoo.masking import draw_mask, draw_secondary
from zoo.published import read_published
from zoo.weights import load_into


def pixels(height: int = 128, width: int = 128) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(5))


def masks(h: int, w: int, secondary: float | None = 0.25) -> Masks:
    hidden = draw_mask("uniform", (h, w), [3, 4])
    return Masks(hidden, None if secondary is None else draw_secondary(hidden, [3, 4], secondary))


# Our modules with their tensors


class Pair:
    """The authors' tensors, and our encoder with them, read from a file."""

    def __init__(
        self, name: str, folder: Path, randomise: Callable[..., None], card_of: Any, **spec: Any
    ) -> None:
        said = PYRAMIDS[name]
        self.arguments = said["arguments"]
        given = {**DECODER, "visible_pos": "official", **spec}
        self.card: ModelCard = card_of(**said, kind="generative", decoder=DecoderSpec(**given))
        module, decoder = build(self.card)
        assert decoder is not None
        for part in (module, decoder):
            randomise(part)
        self.tensors = theirs(module, decoder, (8, 8))
        if name == "pvt":
            self.tensors["pos_embed"] = positions((32, 32), 8)[None]
        file = folder / "checkpoint-199.pth"
        torch.save({"model": {**self.tensors}, "epoch": 199}, file)
        published = read_published(file, self.card)
        self.layout, self.name = published.layout, name
        module, decoder = build(self.card)
        assert decoder is not None and published.decoder is not None
        load_into(module, published.encoder, where="file")
        load_into(decoder, published.decoder, where="file")
        self.encoder = Encoder(self.card, module, decoder)

    def slow(self, image: Tensor, masked: Masks | None = None) -> Tensor:
        return SLOW[self.name](self.tensors, self.arguments, image, masked)

    def predicted(self, masked: Masks) -> Tensor:
        assert self.encoder.decoder is not None
        return kind("ummae").predict(
            self.encoder.family, self.encoder.module, self.encoder.decoder, pixels(), masked
        )


@pytest.fixture(params=PYRAMIDS, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: Any, randomise: Any, card_of: Any) -> Pair:
    return Pair(request.param, tmp_path_factory.mktemp("ummae"), randomise, card_of)


@torch.no_grad()
def test_features_of_whole_images(pair: Pair, parity: Callable[[str, str, float], None]) -> None:
    found = pair.encoder.forward_features(pixels()).patches
    expected = pair.slow(pixels()).flatten(1, 2)
    apart = float((found - expected).abs().max())
    parity(pair.layout, "a slow transcription, the whole image", apart)
    assert pair.layout == f"ummae_{pair.name}" and apart < 1e-4 and expected.abs().mean() > 0.1


@pytest.mark.parametrize("secondary", [None, 0.25, 0.5])
@torch.no_grad()
def test_the_gather_equals_the_dense_masked_computation(pair: Pair, secondary: float | None) -> None:
    """Reordering the image before the patch embedding, and zeroing and summing after it."""
    masked = masks(8, 8, secondary)
    index = [
        [i for i in cell if not covered[i]] for covered in masked.hidden.flatten(1) for cell in cells(8, 8)
    ]
    kept = torch.tensor(index).reshape(2, -1)
    blind = None if masked.secondary is None else masked.secondary.flatten(1).gather(1, kept)
    decoder: Any = pair.encoder.decoder
    module: Any = pair.encoder.module
    found = module.compact(pixels(), kept, blind, decoder.secondary_token)
    torch.testing.assert_close(found, pair.slow(pixels(), masked), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("visible_pos", ["official", "own"])
@torch.no_grad()
def test_predictions_are_those_of_the_authors_with_their_positions(
    pair: Pair, visible_pos: str, parity: Callable[[str, str, float], None]
) -> None:
    decoder: Any = pair.encoder.decoder
    masked = masks(8, 8)
    expected = slow_decoder(pair.tensors, pair.slow(pixels(), masked), masked.hidden, visible_pos)
    decoder.visible_pos = visible_pos
    try:
        found = pair.predicted(masked)
    finally:
        decoder.visible_pos = "official"
    apart = max(
        float((mine[covered] - other).abs().max())
        for mine, covered, other in zip(found, masked.hidden.flatten(1), expected, strict=True)
    )
    parity(pair.layout, f"a slow transcription, predictions, {visible_pos} positions", apart)
    assert apart < 1e-4 and expected[0].abs().mean() > 0.1


@torch.no_grad()
def test_an_identity_encoder_gives_every_visible_patch_its_own_position_back() -> None:
    """Tokens that name their cell, no blocks, no head: what stands at a visible patch is its cell and its position."""
    spec = DecoderSpec(**{**DECODER, "width": 8, "heads": 2, "depth": 1})
    hidden = masks(8, 12, None).hidden

    class Pyramid(nn.Module):
        num_features = 4
        patch_embed = nn.Module()

        def compact(self) -> None: ...

    Pyramid.patch_embed.proj = nn.Conv2d(3, 4, 4)
    decoder: Any = kind("ummae").build(spec, Pyramid())
    decoder.blocks, decoder.norm, decoder.head = nn.ModuleList(), nn.Identity(), nn.Identity()
    decoder.embed.weight.copy_(torch.eye(4).repeat(8, 1))  # channel c of the four cells
    decoder.embed.bias.zero_()
    numbers = torch.arange(24.0).reshape(4, 6)  # of the cells
    tokens = torch.stack([numbers[i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=-1).expand(2, -1, -1, -1)
    kept = torch.tensor(
        [[i for i in cell if not covered[i]] for covered in hidden.flatten(1) for cell in cells(8, 12)]
    ).reshape(2, -1)
    table = positions((8, 12), 8)
    for visible_pos, share in (("own", 1.0), ("official", 0.6)):
        decoder.visible_pos = visible_pos
        found = decoder.forward_cells(tokens, kept, hidden)
        right = 0
        for image, places in zip(found, kept, strict=True):
            for number, place in enumerate(places.tolist()):
                given = image[place] - number
                right += bool(torch.allclose(given, table[place], atol=1e-4))
        assert (right / 48 == 1.0) if visible_pos == "own" else (right / 48 < share)
