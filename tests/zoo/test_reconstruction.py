"""Masked images and predictions: what is hidden, what is kept, and numbers that slow twins confirm."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from zoo.decoders import Masks
from zoo.encoder import Encoder
from zoo.errors import MaskError, Unsupported
from zoo.masking import draw_mask
from zoo.patches import normalise_patches, patchify
from zoo.reconstruction import Reconstruction, by_visible_count, reconstruction
from zoo.transforms import Transform

TRANSFORM = Transform(size=8)


def pixels(height: int = 64, width: int = 64, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(3))


def holes(found: Reconstruction) -> Tensor:
    """(B, 3, H, W): True on the pixels of hidden patches."""
    side = found.image.shape[-1] // found.mask.shape[-1]
    grown = found.mask.repeat_interleave(side, 1).repeat_interleave(side, 2)
    return grown[:, None].expand_as(found.image)


def assert_same(one: Reconstruction, other: Reconstruction, tolerance: float = 1e-5) -> None:
    assert torch.equal(one.mask, other.mask)
    for name in ("image", "masked", "predicted", "composite", "loss", "error"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=tolerance, rtol=tolerance)


# The four pictures


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96)])
def test_visible_pixels_are_kept_and_hidden_ones_predicted(tiny: Encoder, height: int, width: int) -> None:
    found = tiny.reconstruct(pixels(height, width))
    assert found.mask.shape == (2, height // 16, width // 16) and found.mask.dtype == torch.bool
    for picture in (found.image, found.masked, found.predicted, found.composite):
        assert picture.shape == (2, 3, height, width)
        assert picture.min() >= 0 and picture.max() <= 1
    torch.testing.assert_close(found.image, pixels(height, width), atol=1e-6, rtol=0)
    hidden = holes(found)
    assert torch.equal(found.composite[~hidden], found.image[~hidden])
    assert torch.equal(found.composite[hidden], found.predicted[hidden])
    assert torch.equal(found.masked[~hidden], found.image[~hidden])
    assert (found.masked[hidden] == 0.5).all()
    assert (found.predicted[~hidden] != found.image[~hidden]).any()  # the decoder's own, visible patches too
    assert found.secondary is None and not found.uses_target_statistics


def test_pictures_are_those_the_encoder_sees(tiny: Encoder) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8))
    cropped = tiny.reconstruct(image)
    torch.testing.assert_close(cropped.image[0], tiny.transform.denormalise(tiny.transform(image)))
    assert tiny.reconstruct(image, fit="whole").mask.shape == (1, 4, 6)
    assert tiny.reconstruct([image], size=(32, 64)).mask.shape == (1, 2, 4)


def test_low_precision_does_not_blur_the_original(tiny: Encoder) -> None:
    found = tiny.to(dtype=torch.bfloat16).reconstruct(pixels(), seed=1)
    assert found.composite.dtype == torch.float32
    torch.testing.assert_close(found.image, pixels(), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        found.predicted, tiny.reconstruct(pixels(), seed=1).predicted, atol=0.1, rtol=0
    )


def test_a_reconstruction_says_what_it_is(tiny: Encoder) -> None:
    said = repr(tiny.reconstruct(pixels(64, 96, count=5)))
    assert said.startswith("Reconstruction(5 × 64×96 pixels, 75% hidden, error 0.")
    assert said.endswith(", …)")


# Masks, drawn and given


def test_the_same_seed_gives_the_same_picture(tiny: Encoder) -> None:
    once = tiny.reconstruct(pixels(), seed=4)
    assert_same(tiny.reconstruct(pixels(), seed=4), once, tolerance=0)
    assert not torch.equal(tiny.reconstruct(pixels(), seed=5).mask, once.mask)
    assert torch.equal(once.mask, draw_mask("random", (4, 4), [4, 5], 0.75))


def test_image_i_is_masked_by_seed_plus_i(tiny: Encoder) -> None:
    together = tiny.reconstruct(pixels(), seed=10)
    for i in range(2):
        alone = tiny.reconstruct(pixels()[i], seed=10 + i)
        assert torch.equal(alone.mask[0], together.mask[i])
        torch.testing.assert_close(alone.predicted[0], together.predicted[i], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.error[0], together.error[i], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "hidden"),
    [
        ({}, 12),
        ({"ratio": 0.5}, 8),
        ({"ratio": 0.0}, 0),
        ({"strategy": "random"}, 12),
        ({"strategy": "uniform"}, 12),
        ({"strategy": "grid", "ratio": 0.75}, 12),
        ({"strategy": "blockwise"}, 6),  # 75 of 196
        ({"strategy": "blockwise", "ratio": 0.5}, 8),
        ({"secondary": 0.0}, 12),
    ],
)
def test_strategy_and_ratio_hide_their_count(tiny: Encoder, settings: dict[str, Any], hidden: int) -> None:
    assert tiny.reconstruct(pixels(), **settings).mask.flatten(1).sum(dim=1).tolist() == [hidden, hidden]


CROSS = [[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]]


@pytest.mark.parametrize(
    "mask", [CROSS, np.array(CROSS), np.array(CROSS, bool), torch.tensor(CROSS).bool(), [CROSS, CROSS]]
)
def test_a_mask_of_any_kind_is_used_as_it_is(tiny: Encoder, mask: Any) -> None:
    found = tiny.reconstruct(pixels(), mask)
    assert torch.equal(found.mask, torch.tensor(CROSS).bool().expand(2, -1, -1))
    assert_same(found, tiny.reconstruct(pixels(), torch.tensor(CROSS), seed=99), tolerance=0)


def test_a_coarser_mask_is_enlarged(tiny: Encoder) -> None:
    found = tiny.reconstruct(pixels(), [[1, 0], [0, 1]])
    assert torch.equal(found.mask[0].int(), torch.tensor([[1, 0], [0, 1]]).kron(torch.ones(2, 2)).int())


def test_images_may_hide_different_counts(tiny: Encoder) -> None:
    images = pixels(count=5)
    masks = torch.cat(
        [draw_mask("random", (4, 4), [i], share) for i, share in enumerate((0.5, 0.9, 0, 0.5, 0.75))]
    )
    together = tiny.reconstruct(images, masks)
    assert together.mask.flatten(1).sum(dim=1).tolist() == [8, 15, 0, 8, 12]
    for i in range(5):
        alone = tiny.reconstruct(images[i], masks[i])
        for name in ("image", "masked", "predicted", "composite", "loss", "error"):
            torch.testing.assert_close(
                getattr(alone, name)[0], getattr(together, name)[i], atol=1e-5, rtol=1e-5
            )


def test_nothing_hidden_is_no_error(tiny: Encoder) -> None:
    found = tiny.reconstruct(pixels(), np.zeros((4, 4)))
    assert found.error.tolist() == found.loss.tolist() == [0.0, 0.0]
    assert torch.equal(found.composite, found.image) and torch.equal(found.masked, found.image)


def test_hidden_pixels_do_not_reach_the_prediction(tiny: Encoder) -> None:
    first = tiny.reconstruct(pixels(), CROSS)
    painted = torch.where(holes(first), 0.0, pixels())
    torch.testing.assert_close(tiny.reconstruct(painted, CROSS).predicted, first.predicted, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("mask", "settings", "error", "says"),
    [
        (np.ones((4, 4)), {}, MaskError, "hides every patch"),
        (np.zeros((3, 4)), {}, MaskError, "3×4 patches does not divide"),
        (None, {"strategy": "unifrom"}, MaskError, "did you mean 'uniform'"),
        (None, {"strategy": "uniform", "ratio": 0.5}, MaskError, "use strategy 'random'"),
        (None, {"ratio": 0.99}, MaskError, "leaves no visible patch on a 4×4 grid"),
        (None, {"secondary": 0.25}, Unsupported, "not trained with secondary masking"),
    ],
)
def test_what_cannot_be_masked(
    tiny: Encoder, mask: Any, settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        tiny.reconstruct(pixels(), mask, **settings)


def test_uniform_asks_for_an_even_grid(tiny: Encoder) -> None:
    with pytest.raises(MaskError, match=r"even grid.*3×4"):
        tiny.reconstruct(pixels(48, 64), strategy="uniform")


def test_without_a_decoder_nothing_is_reconstructed(tiny: Encoder) -> None:
    blind = Encoder(dataclasses.replace(tiny.card, decoder=None), tiny.module)
    for look in (lambda: blind.reconstruct(pixels()), lambda: blind.mask_grid(64, 64)):
        with pytest.raises(
            Unsupported, match=r"tiny_mae has no decoder.*zoo\.list_models\(kind='generative'\)"
        ):
            look()


# Numbers


def test_error_is_the_mean_square_on_hidden_pixels(tiny: Encoder) -> None:
    found = tiny.reconstruct(pixels(32, 48), ratio=0.5)
    for image in range(2):
        squares = [
            (found.predicted[image, c, y, x].item() - found.image[image, c, y, x].item()) ** 2
            for c, y, x in itertools.product(range(3), range(32), range(48))
            if found.mask[image, y // 16, x // 16]
        ]
        assert found.error[image].item() == pytest.approx(sum(squares) / len(squares), rel=1e-4)
        assert 0 < found.error[image] < 1


@pytest.mark.parametrize("normalised", [False, True])
def test_loss_is_the_methods_own(normalised: bool) -> None:
    """Twin: every hidden pixel looked up by patch, row, column and channel."""
    generator, side = torch.Generator().manual_seed(0), 2
    given = torch.randn(2, 3, 4, 6, generator=generator)
    predicted = torch.randn(2, 6, side * side * 3, generator=generator)
    hidden = torch.tensor([[[1, 0, 1], [0, 0, 1]], [[0, 0, 0], [1, 1, 1]]]).bool()
    found = reconstruction(given, Masks(hidden), predicted, TRANSFORM, side, normalised_targets=normalised)
    for image in range(2):
        squares = []
        for i, j in hidden[image].nonzero().tolist():
            block = given[image, :, i * side : (i + 1) * side, j * side : (j + 1) * side]
            mean, variance = (block.mean(), block.var()) if normalised else (0, 1 - 1e-6)
            for r, c, channel in itertools.product(range(side), range(side), range(3)):
                target = (block[channel, r, c] - mean) / (variance + 1e-6) ** 0.5
                guess = predicted[image, i * 3 + j, (r * side + c) * 3 + channel]
                squares.append((guess - target).item() ** 2)
        assert found.loss[image].item() == pytest.approx(sum(squares) / len(squares), rel=1e-4)
    assert found.uses_target_statistics is normalised


class PerfectDecoder(nn.Module):
    """Predicts exactly the targets it was told."""

    def __init__(self, targets: Tensor) -> None:
        super().__init__()
        self.targets = targets

    def forward(self, tokens: Tensor, visible: Tensor, grid: tuple[int, int]) -> Tensor:
        assert tokens.shape[:2] == (len(visible), 1 + visible.shape[1])
        return self.targets


@pytest.mark.parametrize("normalised", [False, True])
def test_a_perfect_prediction_is_the_image(tiny: Encoder, normalised: bool) -> None:
    assert tiny.card.decoder is not None
    card = dataclasses.replace(
        tiny.card, decoder=dataclasses.replace(tiny.card.decoder, normalised_targets=normalised)
    )
    targets = patchify(tiny.transform.normalise(pixels(48, 96)), 16)
    decoder = PerfectDecoder(normalise_patches(targets) if normalised else targets)
    found = Encoder(card, tiny.module, decoder).reconstruct(pixels(48, 96))
    torch.testing.assert_close(found.predicted, pixels(48, 96), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.composite, pixels(48, 96), atol=1e-4, rtol=0)
    assert found.error.max() < 1e-8 and found.loss.max() < 1e-8
    assert found.uses_target_statistics is normalised


def test_a_flat_guess_of_normalised_pixels_shows_each_patchs_mean(tiny: Encoder) -> None:
    """What the picture borrows: a model that predicts nothing still shows the hidden patches' own colours."""
    given = tiny.transform.normalise(pixels(32, 32))
    hidden = torch.ones(2, 2, 2, dtype=torch.bool)
    found = reconstruction(
        given, Masks(hidden), torch.zeros(2, 4, 768), tiny.transform, 16, normalised_targets=True
    )
    means = given.unfold(2, 16, 16).unfold(3, 16, 16).mean(dim=(1, 4, 5))  # (B, 2, 2)
    shown = tiny.transform.normalise(found.predicted)
    for i, j in itertools.product(range(2), range(2)):
        block = shown[:, :, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16]
        torch.testing.assert_close(
            block, means[:, i, j, None, None, None].expand_as(block), atol=1e-4, rtol=0
        )


def test_groups_of_equal_counts_come_back_in_order() -> None:
    counts = [2, 0, 5, 2, 5, 1, 0]
    hidden = torch.stack([torch.arange(6).reshape(2, 3) < count for count in counts])
    groups = []

    def predict(rows: Tensor, masks: Tensor) -> Tensor:
        groups.append(rows.tolist())
        assert torch.equal(masks, hidden[rows]) and len(masks.flatten(1).sum(dim=1).unique()) == 1
        return rows[:, None] * torch.tensor([1, 10])

    found = by_visible_count(hidden, predict)
    assert found.tolist() == [[i, 10 * i] for i in range(7)]
    assert sorted(map(tuple, groups)) == [(0, 3), (1, 6), (2, 4), (5,)]
