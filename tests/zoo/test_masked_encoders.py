"""Reconstruction through UM-MAE's and SimMIM's decoders: which masks they take, and which they make of others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from masked_models import MODELS, SIMMIM, UMMAE, masked_model
from torch import Tensor

from zoo.cards import DecoderSpec
from zoo.encoder import Encoder
from zoo.errors import CardError, MaskError, SizeError, Unsupported
from zoo.folders import write_folder
from zoo.loading import build, load
from zoo.masking import draw_mask, draw_secondary
from zoo.reconstruction import Reconstruction

Make = Callable[..., Encoder]


@pytest.fixture(scope="module")
def make(randomise: Callable[..., None]) -> Make:
    known: dict[str, Encoder] = {}

    def encoder(name: str) -> Encoder:
        if name not in known:
            known[name] = masked_model(name, randomise)
        return known[name]

    return encoder


@pytest.fixture(params=MODELS)
def encoder(request: pytest.FixtureRequest, make: Make) -> Encoder:
    return make(request.param)


@pytest.fixture(params=["ummae swin", "ummae pvt"])
def pyramid(request: pytest.FixtureRequest, make: Make) -> Encoder:
    return make(request.param)


def pixels(height: int = 128, width: int = 128) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(3))


def same(one: Reconstruction, other: Reconstruction, tolerance: float) -> None:
    assert torch.equal(one.mask, other.mask)
    for name in ("masked", "predicted", "composite", "loss", "error"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("size", [(128, 128), (64, 192)])
def test_pictures_of_any_size_that_halves(encoder: Encoder, size: tuple[int, int]) -> None:
    spec = encoder.card.decoder
    assert spec is not None
    found = encoder.reconstruct(pixels(*size), seed=3)
    assert found.mask.shape == (2, size[0] // spec.mask_patch, size[1] // spec.mask_patch)
    assert torch.equal(found.mask, draw_mask(spec.strategy, encoder.mask_grid(*size), [3, 4], spec.ratio))
    assert found.predicted.shape == found.composite.shape == (2, 3, *size)
    assert found.secondary is None and found.uses_target_statistics is spec.normalised_targets
    assert found.loss.min() > 0 and found.error.min() > 0
    holes = found.mask.repeat_interleave(spec.mask_patch, 1).repeat_interleave(spec.mask_patch, 2)[:, None]
    assert torch.equal(found.composite, torch.where(holes, found.predicted, found.image))


def test_alone_and_in_a_batch(encoder: Encoder) -> None:
    together = encoder.reconstruct(pixels(), seed=3)
    same(encoder.reconstruct(pixels(), seed=3), together, 0)
    for i in range(2):
        alone = encoder.reconstruct(pixels()[i], seed=3 + i)
        torch.testing.assert_close(alone.predicted[0], together.predicted[i], atol=1e-4, rtol=0)


def test_hidden_pixels_do_not_reach_the_prediction(encoder: Encoder) -> None:
    first = encoder.reconstruct(pixels(), seed=3)
    side = 128 // first.mask.shape[1]
    holes = first.mask.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None]
    painted = torch.where(holes, 0.0, pixels())
    normalised = encoder.reconstruct(painted, seed=3)
    if not first.uses_target_statistics:
        torch.testing.assert_close(normalised.predicted, first.predicted, atol=1e-6, rtol=0)
    elsewhere = torch.where(holes, pixels(), 1 - pixels())
    assert not torch.allclose(encoder.reconstruct(elsewhere, seed=3).loss, first.loss, atol=1e-4)


def test_a_folder_holds_encoder_and_decoder(encoder: Encoder, tmp_path: Path) -> None:
    """Written, and read by zoo and timm."""
    write_folder(tmp_path / "tiny", encoder.card, encoder.module, encoder.decoder, "# Tiny", torch.float32)
    again = load(tmp_path / "tiny", device="cpu")
    same(again.reconstruct(pixels(), seed=3), encoder.reconstruct(pixels(), seed=3), 1e-6)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'tiny'}", pretrained=True).eval()
    with torch.no_grad():
        expected = encoder.forward_features(pixels()).pooled
        torch.testing.assert_close(theirs(pixels()), expected, atol=1e-5, rtol=1e-5)


# UM-MAE on pyramids


@pytest.mark.parametrize("strategy", ["random", "blockwise"])
def test_strategies_that_leave_cells_uneven_are_refused(pyramid: Encoder, strategy: str) -> None:
    with pytest.raises(MaskError, match=rf"{strategy}.*strategy='uniform'"):
        pyramid.reconstruct(pixels(), strategy=strategy)


def test_a_plain_vit_takes_any_mask_of_um_mae(make: Make) -> None:
    found = make("ummae vit").reconstruct(pixels(), strategy="random", ratio=0.5)
    assert found.mask.flatten(1).sum(dim=1).tolist() == [32, 32]
    odd = make("ummae vit").reconstruct(pixels(112, 144), strategy="random")
    assert odd.mask.shape == (2, 7, 9)
    with pytest.raises(MaskError, match=r"needs an even grid.*7×9"):
        make("ummae vit").reconstruct(pixels(112, 144))


def test_sizes_that_do_not_halve_are_refused(pyramid: Encoder) -> None:
    with pytest.raises(MaskError, match=r"96×128 does not halve so; the nearest size that does is 128×128"):
        pyramid.reconstruct(pixels(96, 128))
    with pytest.raises(SizeError, match="nearest"):
        pyramid.reconstruct(pixels(100, 128))


@pytest.mark.parametrize("name", ["ummae swin", "ummae pvt", "ummae vit"])
def test_a_secondary_mask_hides_a_share_of_the_visible(make: Make, name: str) -> None:
    encoder = make(name)
    plain, found = (
        encoder.reconstruct(pixels(), seed=5),
        encoder.reconstruct(pixels(), secondary=0.25, seed=5),
    )
    assert torch.equal(found.mask, plain.mask) and found.secondary is not None
    assert torch.equal(found.secondary, draw_secondary(plain.mask, [5, 6], 0.25))
    assert not (found.secondary & found.mask).any() and found.secondary.flatten(1).sum(dim=1).tolist() == [
        4,
        4,
    ]
    covered = found.secondary.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None].expand(-1, 3, -1, -1)
    assert (found.masked[covered] == 0.85).all() and torch.equal(
        found.composite[covered], found.image[covered]
    )
    assert not torch.allclose(found.predicted, plain.predicted, atol=1e-3)
    painted = torch.where(covered, 0.5, pixels())
    again = encoder.reconstruct(painted, secondary=0.25, seed=5)
    torch.testing.assert_close(again.loss, found.loss, atol=1e-4, rtol=1e-4)  # what is covered is not seen


def test_hand_made_masks_are_projected_and_said(pyramid: Encoder) -> None:
    """One cell with all four visible, one with none, the rest as they should be."""
    asked = draw_mask("uniform", (8, 8), [0])[0]
    asked[:2, :2], asked[4:6, 2:4] = False, True
    found = pyramid.reconstruct(pixels(), asked, seed=9)
    per_cell = found.mask.reshape(2, 4, 2, 4, 2).sum(dim=(2, 4))
    assert (per_cell == 3).sum() == 30 and per_cell[:, 2, 1].tolist() == [4, 4]
    assert found.secondary is not None and found.secondary.flatten(1).sum(dim=1).tolist() == [1, 1]
    assert found.secondary[:, 4:6, 2:4].flatten(1).sum(dim=1).tolist() == [1, 1]
    same(pyramid.reconstruct(pixels(), asked, seed=9), found, 0)
    seen = {
        tuple(pyramid.reconstruct(pixels()[0], asked, seed=s).mask[0, :2, :2].flatten().tolist())
        for s in range(20)
    }
    assert len(seen) == 4  # which of the four stays is the seed's choice
    black = pixels()
    black[:, :, 64:96, 32:64] = 0  # the cell of which nothing is visible
    torch.testing.assert_close(
        pyramid.reconstruct(black, asked, seed=9).masked, found.masked, atol=1e-6, rtol=0
    )
    coarse = pyramid.reconstruct(pixels(), [[0, 1], [1, 0]], seed=9)
    assert coarse.mask[0, :4, 4:].all() and not coarse.mask[0, :4, :4].all()


def test_without_a_token_cells_need_something_to_see(make: Make) -> None:
    encoder = make("ummae swin")
    assert encoder.card.decoder is not None
    card = dataclasses.replace(
        encoder.card, decoder=dataclasses.replace(encoder.card.decoder, secondary=None)
    )
    module, decoder = build(card)
    blunt = Encoder(card, module, decoder)
    blunt.reconstruct(pixels())
    with pytest.raises(Unsupported, match="not trained with secondary masking"):
        blunt.reconstruct(pixels(), secondary=0.25)
    with pytest.raises(MaskError, match="show one patch in each"):
        blunt.reconstruct(pixels(), [[0, 1], [1, 0]])


# SimMIM


def test_simmims_loss_is_the_mean_absolute_error(make: Make) -> None:
    encoder = make("simmim swin")
    found = encoder.reconstruct(pixels(), [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    decoder: Any = encoder.decoder
    with torch.no_grad():
        normalised = encoder.transform.normalise(pixels())
        x = encoder.family.with_mask_token(encoder.module, normalised, found.mask, decoder.mask_token)  # type: ignore[attr-defined]
        image = decoder(x.as_map())
    for i in range(2):
        patches = [(slice(32 * j, 32 * j + 32), slice(32 * j, 32 * j + 32)) for j in (0, 1, 3)]
        errors = [(image[i][:, r, c] - normalised[i][:, r, c]).abs().mean().item() for r, c in patches]
        assert found.loss[i].item() == pytest.approx(sum(errors) / 3, rel=1e-4)
    assert encoder.reconstruct(pixels(), torch.zeros(4, 4)).loss.tolist() == [0, 0]


def test_a_secondary_mask_is_not_simmims(make: Make) -> None:
    with pytest.raises(Unsupported, match="no secondary masking"):
        make("simmim swin").reconstruct(pixels(), secondary=0.25)


# Decoders and encoders that do not go together


@pytest.mark.parametrize(
    ("model", "kind", "says"),
    [
        ("simmim swin", UMMAE, "ssl_zoo_ummae_swin_tiny or ssl_zoo_ummae_pvt_small"),
        ("ummae swin", dataclasses.replace(UMMAE, kind="mae"), "kind 'simmim' or 'ummae'"),
    ],
)
def test_decoders_that_no_encoder_of_that_kind_can_have(
    make: Make, model: str, kind: DecoderSpec, says: str
) -> None:
    with pytest.raises(Unsupported, match=says):
        build(dataclasses.replace(make(model).card, decoder=kind))


def test_simmims_decoder_has_no_blocks() -> None:
    with pytest.raises(CardError, match="has no depth; leave it out"):
        dataclasses.replace(SIMMIM, depth=2)
