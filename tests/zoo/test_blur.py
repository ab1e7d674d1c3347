"""Blur: a plain sum over each pixel's neighbours, and torchvision's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from zoo.blur import gaussian_blur


def random_image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def slowly_blurred(image: Tensor, kernel: int, sigma: float) -> Tensor:
    """A weighted sum over each pixel's neighbourhood, borders reflected."""
    half = kernel // 2
    bells = [math.exp(-0.5 * (place / sigma) ** 2) for place in range(-half, half + 1)]
    weights = np.outer(bells, bells) / sum(bells) ** 2
    padded = np.pad(image.numpy(), [(0, 0), (half, half), (half, half)], mode="reflect")
    out = np.zeros(image.shape)
    for channel, row, column in np.ndindex(*image.shape):
        window = padded[channel, row : row + kernel, column : column + kernel]
        out[channel, row, column] = (window * weights).sum()
    return torch.from_numpy(out).float()


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 6, 11), (5, 9, 7)])
@pytest.mark.parametrize(("kernel", "sigma"), [(1, 0.3), (3, 0.1), (5, 0.7), (11, 2.0)])
def test_blur_is_the_sum_over_neighbours(shape: tuple[int, int, int], kernel: int, sigma: float) -> None:
    image = random_image(*shape)
    blurred = gaussian_blur(image, kernel, sigma)
    torch.testing.assert_close(blurred, slowly_blurred(image, kernel, sigma), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("side", "kernel"), [(32, 3), (96, 23), (224, 23)])
def test_blur_is_torchvisions(side: int, kernel: int) -> None:
    image = random_image(2, 3, side, side)
    expected = tv.gaussian_blur(image, [kernel, kernel], [1.3, 1.3])
    torch.testing.assert_close(gaussian_blur(image, kernel, 1.3), expected, atol=1e-5, rtol=0)


def test_a_side_too_short_to_mirror_is_refused() -> None:
    with pytest.raises(
        ValueError, match="a kernel of 9 pixels reaches beyond the mirrored border of 4 pixels"
    ):
        gaussian_blur(random_image(3, 4, 4), 9, 1.0)
