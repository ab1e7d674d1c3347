"""Patch tokens by what they have in common: how alike one is to all others."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from zoo.features import Features
from zoo.patches import row_major
from zoo.pictures import heat_over, outlined, resized, tile_size, to_picture
from zoo.transforms import unit_pixels


def patch_similarity(features: Features, patch: tuple[int, int]) -> Tensor:
    """Cosine of one patch (row, column) to all patches of one image: (h, w). Raises SizeError outside the grid."""
    index = row_major(patch, features.grid)
    unit = torch.nn.functional.normalize(features.patches[0].detach().float().cpu(), dim=-1)  # (N, D)
    return (unit @ unit[index]).reshape(features.grid)


def patch_at(x: float, y: float, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """The patch (row, column) under a point of a picture of `size` (width, height)."""
    row, column = int(y / size[1] * grid[0]), int(x / size[0] * grid[1])
    return min(max(row, 0), grid[0] - 1), min(max(column, 0), grid[1] - 1)


def similarity_picture(
    photo: Tensor, features: Features, patch: tuple[int, int], tile: int = 640
) -> Image.Image:
    """How alike each patch is to the one that is framed, as heat over the photo (3, H, W)."""
    seen = resized(to_picture(photo), tile_size(photo, tile))
    return marked(heat_over(seen, patch_similarity(features, patch)), features.grid, patch)


def marked(picture: Image.Image, grid: tuple[int, int], patch: tuple[int, int]) -> Image.Image:
    """A copy with a frame around the patch (row, column) of a grid (h, w)."""
    return to_picture(outlined(unit_pixels(picture), patch, grid))
