"""Gaussian blur as torchvision computes it, in a fraction of its time."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# Smaller weights change no pixel, and processors multiply the smallest of all (subnormal numbers) many times slower.
_NOTHING = 1e-9


def gaussian_blur(image: Tensor, kernel: int, sigma: float) -> Tensor:
    """Blur float images (..., H, W) by a Gaussian of `sigma` pixels, cut to `kernel` pixels (odd), borders mirrored.

    Along each side it is a product with a banded matrix: torchvision's sum over the square takes thirty times as long
    for 23 of 224 pixels. ValueError for a side that is too short to be mirrored.

    >>> gaussian_blur(torch.tensor([[0.0, 0.0, 4.0, 0.0, 0.0]] * 2), 3, 0.85)[0].round()
    tensor([0., 1., 2., 1., 0.])
    """
    height, width = image.shape[-2:]
    down = _smoothing(height, kernel, sigma, image.device)
    across = down if width == height else _smoothing(width, kernel, sigma, image.device)
    return down @ image @ across.mT


def _smoothing(side: int, kernel: int, sigma: float, device: torch.device) -> Tensor:
    """(side, side): row i holds the weights of the pixels around pixel i."""
    weights = torch.exp(-0.5 * (torch.arange(-(kernel // 2), kernel // 2 + 1, device=device) / sigma) ** 2)
    weights = weights.where(weights > _NOTHING, 0.0)
    weights = (weights / weights.sum()).expand(side, -1)
    return torch.zeros(side, side, device=device).scatter_add_(1, _neighbours(side, kernel, device), weights)


@lru_cache(maxsize=16)
def _neighbours(side: int, kernel: int, device: torch.device) -> Tensor:
    """(side, kernel): which pixels lie around each, mirrored at the borders without repeating them."""
    if kernel // 2 >= side:
        raise ValueError(f"a kernel of {kernel} pixels reaches beyond the mirrored border of {side} pixels")
    places = torch.arange(-(kernel // 2), kernel // 2 + 1, device=device)
    around = (torch.arange(side, device=device)[:, None] + places).abs()
    return torch.where(around >= side, 2 * (side - 1) - around, around)
