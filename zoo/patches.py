"""Images as sequences of patches: the one `patchify`/`unpatchify` pair, patch targets and the error on hidden patches.

Axes: B images, C channels, P patch side in pixels, (h, w) patch grid, N = h*w patches in row-major order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import SizeError


def grid_of(height: int, width: int, patch: int) -> tuple[int, int]:
    """Patch grid (h, w) of an image; SizeError where a side is not a multiple of the patch."""
    if height % patch or width % patch or height < patch or width < patch:
        near = tuple(max(patch, round(side / patch) * patch) for side in (height, width))
        raise SizeError(
            f"an image of {height}×{width} pixels is not a whole number of {patch}-pixel patches; "
            f"the nearest size that is: {near[0]}×{near[1]}"
        )
    return height // patch, width // patch


def row_major(query: tuple[int, int], grid: tuple[int, int]) -> int:
    """Index of the patch (row, column); SizeError where it lies outside the grid (h, w)."""
    row, column = query
    if not (0 <= row < grid[0] and 0 <= column < grid[1]):
        raise SizeError(f"patch {(row, column)} is outside the grid of {grid[0]}×{grid[1]} patches")
    return row * grid[1] + column


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, N, P*P*C), the pixels of a patch flattened as (row, column, channel), as MAE does."""
    batch, channels, height, width = images.shape
    h, w = grid_of(height, width, patch)
    cut = images.reshape(batch, channels, h, patch, w, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, h * w, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """(B, N, P*P*C) -> (B, C, H, W): the inverse of `patchify` on the grid (h, w)."""
    batch, _, values = patches.shape
    (h, w), channels = grid, values // (patch * patch)
    cut = patches.reshape(batch, h, w, patch, patch, channels)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, h * patch, w * patch)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Of tokens (B, N, D) those at (B, K): (B, K, D)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def hidden_pixels(hidden: Tensor, patch: int) -> Tensor:
    """Hidden patches (B, h, w) as hidden pixels (B, 1, H, W)."""
    return hidden.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None]


def with_token(tokens: Tensor, hidden: Tensor, token: Tensor) -> Tensor:
    """Tokens (B, h', w', D) with `token` (1, 1, D) in the place of those in hidden patches (B, h, w).

    SizeError where the hidden patches are no whole number of tokens.
    """
    sides = tuple(tokens.shape[1:3])
    down, across = (mine // given for mine, given in zip(sides, hidden.shape[1:], strict=True))
    if (hidden.shape[1] * down, hidden.shape[2] * across) != sides or down != across:
        raise SizeError(
            f"a mask of {hidden.shape[1]}×{hidden.shape[2]} patches does not divide this model's {sides[0]}×{sides[1]} "
            "tokens; its patches are wholes of them"
        )
    holes = hidden_pixels(hidden, down)[:, 0, ..., None].to(tokens.device)
    return torch.where(holes, token.to(tokens.dtype), tokens)


class PatchStatistics(NamedTuple):
    """Mean and standard deviation of every patch, (B, N, 1) each."""

    mean: Tensor
    std: Tensor


def patch_statistics(patches: Tensor) -> PatchStatistics:
    """Statistics that MAE normalises its targets with: unbiased variance, 1e-6 inside the root (§3 of 2111.06377)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return PatchStatistics(mean, (variance + 1e-6).sqrt())


def normalise_patches(patches: Tensor) -> Tensor:
    """Each patch to mean 0 and variance 1 over its own pixels: MAE's `norm_pix_loss` target."""
    mean, std = patch_statistics(patches)
    return (patches - mean) / std


def hidden_error(predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error over the hidden patches of each image: (B,). 0 where an image hides nothing.

    predicted, target: (B, N, P*P*C). hidden: (B, N) bool, True = hidden.
    """
    per_patch = (predicted - target).square().mean(dim=-1)  # (B, N)
    return (per_patch * hidden).sum(dim=1) / hidden.sum(dim=1).clamp(min=1)
