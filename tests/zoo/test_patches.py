"""Patches: the round trip, the order of pixels, and statistics and errors against plain sums."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zoo.errors import SizeError
from zoo.patches import (
    grid_of,
    hidden_error,
    normalise_patches,
    patch_statistics,
    patchify,
    unpatchify,
)

small = st.integers(1, 4)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(batch=small, channels=st.integers(1, 5), h=small, w=small, patch=st.integers(1, 7))
def test_unpatchify_inverts_patchify(batch: int, channels: int, h: int, w: int, patch: int) -> None:
    images = noise(batch, channels, h * patch, w * patch)
    patches = patchify(images, patch)
    assert patches.shape == (batch, h * w, patch * patch * channels)
    assert torch.equal(unpatchify(patches, patch, (h, w)), images)


@given(batch=small, channels=st.integers(1, 5), h=small, w=small, patch=st.integers(1, 7))
def test_patchify_inverts_unpatchify(batch: int, channels: int, h: int, w: int, patch: int) -> None:
    patches = noise(batch, h * w, patch * patch * channels)
    assert torch.equal(patchify(unpatchify(patches, patch, (h, w)), patch), patches)


def test_pixels_of_a_patch_are_row_column_channel() -> None:
    """Patches row by row; inside one: row, column, then channel, the layout of MAE's released decoders."""
    batch, channels, h, w, patch = 2, 3, 2, 4, 3
    images = torch.arange(batch * channels * h * w * patch**2).reshape(batch, channels, h * patch, w * patch)
    patches = patchify(images, patch)
    for image, i, j in itertools.product(range(batch), range(h), range(w)):
        expected = [
            images[image, channel, i * patch + row, j * patch + column].item()
            for row, column, channel in itertools.product(range(patch), range(patch), range(channels))
        ]
        assert patches[image, i * w + j].tolist() == expected


def test_gradients_pass_through_the_pair() -> None:
    images = noise(1, 3, 4, 6).requires_grad_()
    unpatchify(patchify(images, 2), 2, (2, 3)).sum().backward()
    assert images.grad is not None and torch.equal(images.grad, torch.ones_like(images))


# The grid


@given(h=st.integers(1, 40), w=st.integers(1, 40), patch=st.integers(1, 32))
def test_grid_counts_whole_patches(h: int, w: int, patch: int) -> None:
    assert grid_of(h * patch, w * patch, patch) == (h, w)


@pytest.mark.parametrize(
    ("height", "width", "nearest"),
    [
        (100, 128, "96×128"),
        (128, 105, "128×112"),
        (5, 128, "16×128"),
        (0, 16, "16×16"),
        (131, 131, "128×128"),
    ],
)
def test_a_size_off_the_grid_names_the_nearest(height: int, width: int, nearest: str) -> None:
    with pytest.raises(SizeError, match=f"{height}×{width} pixels.*16-pixel patches.*: {nearest}$"):
        grid_of(height, width, 16)
    if height and width:
        with pytest.raises(SizeError, match=nearest):
            patchify(torch.zeros(1, 3, height, width), 16)


@given(height=st.integers(0, 90), width=st.integers(1, 90), patch=st.integers(2, 32))
def test_the_size_named_works_and_none_is_nearer(height: int, width: int, patch: int) -> None:
    try:
        grid_of(height, width, patch)
    except SizeError as error:
        named = [int(side) for side in str(error).rsplit(" ", 1)[1].split("×")]
        assert grid_of(named[0], named[1], patch) == (named[0] // patch, named[1] // patch)
        for side, near in zip((height, width), named, strict=True):
            assert all(abs(near - side) <= abs(k * patch - side) for k in range(1, 60))


# Statistics


@given(st.lists(st.floats(-4, 4, width=32), min_size=12, max_size=12))
def test_statistics_are_the_unbiased_ones(values: list[float]) -> None:
    mean = math.fsum(values) / 12
    variance = math.fsum((value - mean) ** 2 for value in values) / 11
    statistics = patch_statistics(torch.tensor(values).reshape(1, 1, 12))
    assert statistics.mean.shape == statistics.std.shape == (1, 1, 1)
    assert statistics.mean.item() == pytest.approx(mean, abs=1e-6)
    assert statistics.std.item() == pytest.approx(math.sqrt(variance + 1e-6), rel=1e-4)


def test_normalised_patches_have_mean_0_and_variance_1() -> None:
    patches = noise(2, 6, 48) * 3 + 5
    normal = normalise_patches(patches)
    torch.testing.assert_close(normal.mean(dim=-1), torch.zeros(2, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.var(dim=-1), torch.ones(2, 6), atol=1e-5, rtol=0)
    mean, std = patch_statistics(patches)
    torch.testing.assert_close(normal * std + mean, patches)


def test_a_flat_patch_is_normalised_without_a_division_by_zero() -> None:
    flat = torch.full((1, 2, 12), 0.5)
    assert torch.equal(normalise_patches(flat), torch.zeros(1, 2, 12))
    torch.testing.assert_close(patch_statistics(flat).std, torch.full((1, 2, 1), 1e-3))


# The error on hidden patches


@given(batch=small, patches=st.integers(1, 6), values=st.integers(1, 8), seed=st.integers(0, 99))
def test_hidden_error_is_the_mean_over_hidden_pixels(
    batch: int, patches: int, values: int, seed: int
) -> None:
    predicted, target = noise(2, batch, patches, values, seed=seed)
    hidden = noise(batch, patches, seed=seed + 100) > 0
    error = hidden_error(predicted, target, hidden)
    assert error.shape == (batch,)
    for image in range(batch):
        squares = [
            (predicted[image, patch, value].item() - target[image, patch, value].item()) ** 2
            for patch in range(patches)
            for value in range(values)
            if hidden[image, patch]
        ]
        assert error[image].item() == pytest.approx(sum(squares) / len(squares) if squares else 0.0, rel=1e-4)


def test_nothing_hidden_is_no_error() -> None:
    error = hidden_error(noise(2, 3, 4), noise(2, 3, 4, seed=1), torch.zeros(2, 3, dtype=torch.bool))
    assert error.tolist() == [0.0, 0.0]


def test_visible_patches_never_count() -> None:
    target = noise(1, 4, 6)
    hidden = torch.tensor([[True, False, True, False]])
    elsewhere = target + 100 * (~hidden)[..., None]
    assert hidden_error(elsewhere, target, hidden).item() == 0
