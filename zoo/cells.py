"""UM-MAE's cells of 2×2 patches: one visible patch each, and the compact image that these make together.

A pyramid cannot drop patches, for its convolutions need a grid. Where every cell keeps exactly one patch, the kept ones
laid side by side are an image of half the side (§3.1 of 2205.10063); taking them before the patch embedding is exact,
as it looks at 4×4 pixels of one patch at a time. Source of what is hidden: `zoo.masking`.

Axes: B images, (h, w) patch grid, M = h/2 * w/2 cells in row-major order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zoo.errors import MaskError
from zoo.masking import PROJECTION, STREAM, Seeds, cells, splitmix64
from zoo.patches import patchify, take, unpatchify

PATCH = 16  # pixels along the side of the patches that UM-MAE's masks hide, four tokens of a pyramid's first stage


def check_halves(height: int, width: int, stride: int) -> None:
    """Raises MaskError where an image half as high and wide is no whole number of strides."""
    unit = 2 * stride
    if height % unit or width % unit:
        near = "×".join(str(max(unit, round(side / unit) * unit)) for side in (height, width))
        raise MaskError(
            f"UM-MAE puts one patch of every 2×2 into an image of half the side, which this model needs in multiples "
            f"of {stride} pixels: {height}×{width} does not halve so; the nearest size that does is {near}"
        )


def one_per_cell(hidden: Tensor, seeds: Sequence[int] | Seeds) -> tuple[Tensor, Tensor]:
    """The mask (B, h, w) with exactly one patch of every 2×2 cell to be looked at, and those that are not visible.

    A cell with several visible patches keeps the one with the smallest draw of the image's seed; of a cell with none
    the draw takes one as well, whose place the secondary mask token will show: it stays hidden, and is True in the
    second result (B, h, w). Both bool.
    """
    flat = hidden.flatten(1).numpy()
    grid = (hidden.shape[1], hidden.shape[2])
    members = cells(grid)  # (M, 4)
    index = members.ravel().astype(np.uint64) + np.uint64(PROJECTION * STREAM)
    draws = splitmix64(seeds, index).reshape(len(flat), -1, 4)
    covered = flat[:, members]  # (B, M, 4)
    rank = np.where(covered & ~covered.all(axis=2, keepdims=True), np.uint64(2**64 - 1), draws)
    chosen = members[np.arange(len(members)), rank.argmin(axis=2)]  # (B, M)
    kept, blind = np.ones_like(flat), np.zeros_like(flat)
    empty = covered.all(axis=2)
    np.put_along_axis(kept, chosen, empty, axis=1)
    np.put_along_axis(blind, chosen, empty, axis=1)
    return torch.from_numpy(kept.reshape(hidden.shape)), torch.from_numpy(blind.reshape(hidden.shape))


def kept_patches(hidden: Tensor, secondary: Tensor | None = None) -> Tensor:
    """(B, M): the row-major index of the patch that each cell puts into the compact image.

    Its visible one, or the one that `secondary` replaces. Raises MaskError where a cell has another number than one.
    """
    looked = ~hidden if secondary is None else ~hidden | secondary
    members = torch.from_numpy(cells((hidden.shape[1], hidden.shape[2]))).to(hidden.device)  # (M, 4)
    in_cells = looked.flatten(1)[:, members]  # (B, M, 4)
    if not bool((in_cells.sum(dim=2) == 1).all()):
        raise MaskError(
            "a compact image needs exactly one patch of every 2×2 cell; zoo.cells.one_per_cell sees to it"
        )
    return members.expand(len(hidden), -1, -1)[in_cells].reshape(len(hidden), -1)


def compact_image(pixels: Tensor, kept: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H/2, W/2): the kept patch (B, M) of every cell, in the cells' order."""
    half = (pixels.shape[-2] // patch // 2, pixels.shape[-1] // patch // 2)
    return unpatchify(take(patchify(pixels, patch), kept), patch, half)


def token_places(kept: Tensor, grid: tuple[int, int], per_patch: int) -> Tensor:
    """(B, h/2 * P, w/2 * P, 2): row and column, in the whole image, of every token of the compact one.

    per_patch: P, tokens along the side of a patch. grid: (h, w), of the patches of the whole image.
    """
    half = (grid[0] // 2, grid[1] // 2)
    rows, columns = (each.unflatten(1, half) for each in (kept // grid[1], kept % grid[1]))
    inside = torch.arange(per_patch, device=kept.device)
    down = rows.repeat_interleave(per_patch, 1) * per_patch + inside.repeat(half[0])[:, None]
    across = columns.repeat_interleave(per_patch, 2) * per_patch + inside.repeat(half[1])
    return torch.stack([down.repeat_interleave(per_patch, 2), across.repeat_interleave(per_patch, 1)], dim=-1)


def over_tokens(of_cells: Tensor, grid: tuple[int, int], per_patch: int) -> Tensor:
    """(B, M) of the cells -> (B, h/2 * P, w/2 * P), the same for every token of a cell's patch."""
    spread: Tensor = of_cells.unflatten(1, (grid[0] // 2, grid[1] // 2))
    return spread.repeat_interleave(per_patch, 1).repeat_interleave(per_patch, 2)
