"""Patch tokens by what they have in common: how alike one is to all others, and their main directions as colours."""

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


def pca_colours(features: Features) -> Tensor:
    """The three main directions of one image's patches as red, green and blue: (3, h, w) in [0, 1].

    Each runs from its 2nd to its 98th percentile. A direction has no sign of its own: the patch farthest from the mean
    is bright. Directions along which nothing differs are a middle grey.
    """
    patches = features.patches[0].detach().double().cpu()  # (N, D)
    centred = patches - patches.mean(dim=0)
    left, strength, _ = torch.linalg.svd(centred, full_matrices=False)
    scores = (left * strength)[:, :3]  # (N, 3)
    scores = torch.nn.functional.pad(scores, (0, 3 - scores.shape[1]))
    farthest = scores.gather(0, scores.abs().argmax(dim=0, keepdim=True))
    scores = scores * torch.where(farthest < 0, -1.0, 1.0)
    low, high = scores.quantile(0.02, dim=0), scores.quantile(0.98, dim=0)
    flat = high - low < 1e-9
    stretched = ((scores - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    colours: Tensor = torch.where(flat, torch.full_like(stretched, 0.5), stretched)
    return colours.float().T.reshape(3, *features.grid)


def patch_at(x: float, y: float, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """The patch (row, column) under a point of a picture of `size` (width, height)."""
    row, column = int(y / size[1] * grid[0]), int(x / size[0] * grid[1])
    return min(max(row, 0), grid[0] - 1), min(max(column, 0), grid[1] - 1)


def colour_picture(photo: Tensor, features: Features, tile: int = 640) -> Image.Image:
    """`pca_colours` at the size of the photo (3, H, W)."""
    return resized(to_picture(pca_colours(features)), tile_size(photo, tile), Image.Resampling.NEAREST)


def similarity_picture(
    photo: Tensor, features: Features, patch: tuple[int, int], tile: int = 640
) -> Image.Image:
    """How alike each patch is to the one that is framed, as heat over the photo (3, H, W)."""
    seen = resized(to_picture(photo), tile_size(photo, tile))
    return marked(heat_over(seen, patch_similarity(features, patch)), features.grid, patch)


def marked(picture: Image.Image, grid: tuple[int, int], patch: tuple[int, int]) -> Image.Image:
    """A copy with a frame around the patch (row, column) of a grid (h, w)."""
    return to_picture(outlined(unit_pixels(picture), patch, grid))
