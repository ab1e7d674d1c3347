"""Masks of masked image modelling as pure functions of a seed: the same seed hides the same patches in any language.

True means hidden. A mask of one image needs one 64-bit seed; every draw is one value of the SplitMix64 sequence of that
seed (Steele, Lea and Flood 2014), so that a browser repeats Python's mask with the same five lines:

    z = seed + (index + 1) * 0x9E3779B97F4A7C15        all arithmetic modulo 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z = z ^ (z >> 31)
    a patch's draw is z at its row-major index; draws are compared as unsigned integers

Test vector: seed 1234567, index 0, 1, 2 -> 6457827717110365317, 3203168211198807973, 9817491932198370423.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import MaskError, did_you_mean
from zoo.words import counted

Seeds = NDArray[np.uint64]
Bools = NDArray[np.bool_]

# Draws of one image that must not repeat each other start at indices this far apart.
STREAM = 2**32
BLOCKS, SECONDARY, PROJECTION = 1, 2, 3

# Share hidden where nobody says: MAE §4.1; UM-MAE §3.1 (exactly one visible patch of four); BEiT's 75 of 196.
DEFAULT_RATIO = {"random": 0.75, "grid": 0.75, "uniform": 0.75, "blockwise": 75 / 196}


def splitmix64(seeds: Sequence[int] | Seeds, index: NDArray[np.uint64] | int) -> NDArray[np.uint64]:
    """Draws (B, K) of B seeds at K indices of their SplitMix64 sequences."""
    with np.errstate(over="ignore"):
        start = as_seeds(seeds)[:, None]
        z = start + (np.atleast_1d(np.asarray(index, dtype=np.uint64)) + np.uint64(1)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


def as_seeds(seeds: Sequence[int] | Seeds) -> Seeds:
    """Any integers, negative ones included, as unsigned 64-bit seeds."""
    if isinstance(seeds, np.ndarray) and seeds.dtype == np.uint64:
        return seeds
    return np.array([int(seed) % 2**64 for seed in seeds], dtype=np.uint64)


def batch_seeds(seed: int, count: int) -> Seeds:
    """Image i of a batch uses seed + i."""
    return as_seeds([seed + i for i in range(count)])


def draw_mask(
    strategy: str, grid: tuple[int, int], seeds: Sequence[int] | Seeds, ratio: float | None = None
) -> Tensor:
    """Hidden patches (B, h, w), one mask per seed, each hiding exactly `hidden_count` patches.

    strategy: "random" (MAE), "grid" (the same corner of every 2×2 cell stays), "uniform" (one random patch of every
    cell stays: UM-MAE), "blockwise" (BEiT). MaskError for an unknown strategy or a ratio the strategy cannot make.
    """
    if strategy not in STRATEGIES:
        raise MaskError(
            f"no mask strategy {strategy!r}{did_you_mean(strategy, STRATEGIES)}; there are {', '.join(STRATEGIES)}"
        )
    seeds, (h, w) = as_seeds(seeds), grid
    hidden = STRATEGIES[strategy](grid, seeds, hidden_count(strategy, grid, ratio))
    return torch.from_numpy(hidden.reshape(len(seeds), h, w))


def hidden_count(strategy: str, grid: tuple[int, int], ratio: float | None = None) -> int:
    """How many patches of a grid the strategy hides.

    The visible ones are int(N * (1 - ratio)), as in MAE; "blockwise" hides round(N * ratio), as BEiT names its number.
    MaskError for a ratio the strategy cannot make, and where no patch would stay visible.
    """
    h, w = grid
    ratio = DEFAULT_RATIO[strategy] if ratio is None else ratio
    if not 0 <= ratio < 1:
        raise MaskError(
            f"a mask ratio of {ratio} is not a share to hide; give one from 0 to below 1, such as 0.75"
        )
    if strategy in ("grid", "uniform"):
        if ratio != 0.75:
            raise MaskError(
                f"{strategy!r} keeps one patch of every 2×2 cell, a ratio of 0.75; for {ratio} use strategy 'random'"
            )
        if h % 2 or w % 2:
            raise MaskError(
                f"{strategy!r} needs an even grid, because it works on 2×2 cells; this one is {h}×{w}. "
                f"The nearest even one is {max(2, h - h % 2)}×{max(2, w - w % 2)}: choose the image size to match"
            )
    # The tiny addend undoes binary fractions: 10 * (1 - 0.9) is 0.99…98 and one patch stays.
    floored = math.floor(h * w * (1 - ratio) + 1e-9)
    visible = h * w - round(h * w * ratio) if strategy == "blockwise" else floored
    if visible == 0:
        raise MaskError(f"a ratio of {ratio} leaves no visible patch on a {h}×{w} grid; lower it")
    return h * w - visible


def _random(grid: tuple[int, int], seeds: Seeds, count: int) -> Bools:
    """(B, N): the patches with the smallest draws stay visible (RS)."""
    patches = grid[0] * grid[1]
    draws = splitmix64(seeds, np.arange(patches, dtype=np.uint64))
    return _keep_smallest(draws, patches - count)


def _keep_smallest(draws: NDArray[np.uint64], keep: int) -> Bools:
    """(B, N) -> (B, N): False at the `keep` smallest draws of each row, True elsewhere."""
    hidden = np.ones(draws.shape, dtype=bool)
    np.put_along_axis(hidden, np.argsort(draws, axis=1, kind="stable")[:, :keep], False, axis=1)
    return hidden


def cells(grid: tuple[int, int]) -> NDArray[np.int64]:
    """(h/2 * w/2, 4): the row-major indices of the patches of every 2×2 cell."""
    h, w = grid
    index = np.arange(h * w).reshape(h // 2, 2, w // 2, 2)
    return index.transpose(0, 2, 1, 3).reshape(-1, 4)


def _uniform(grid: tuple[int, int], seeds: Seeds, count: int) -> Bools:
    """(B, N): in every 2×2 cell the patch with the smallest draw stays visible (US, §3.1 of 2205.10063)."""
    members = cells(grid)
    draws = splitmix64(seeds, members.ravel().astype(np.uint64)).reshape(len(seeds), -1, 4)
    hidden = np.ones((len(seeds), members.size), dtype=bool)
    np.put_along_axis(hidden, members[np.arange(len(members)), draws.argmin(axis=2)], False, axis=1)
    return hidden


def _grid(grid: tuple[int, int], seeds: Seeds, count: int) -> Bools:
    """(B, N): the same corner of every 2×2 cell stays visible, the corner drawn once per image (GS).

    Every corner is as likely as the next, so that no position of the grid is hidden in all images.
    """
    corner = (splitmix64(seeds, 0)[:, 0] % np.uint64(4)).astype(np.int64)
    members = cells(grid)
    hidden = np.ones((len(seeds), members.size), dtype=bool)
    np.put_along_axis(hidden, members[:, corner].T, False, axis=1)
    return hidden


def _blockwise(grid: tuple[int, int], seeds: Seeds, count: int) -> Bools:
    """(B, N): rectangles until exactly `count` patches are hidden (§2.3 of 2106.08254)."""
    return np.stack([_blocks_of_one(grid, int(seed), count).ravel() for seed in seeds])


def _blocks_of_one(grid: tuple[int, int], seed: int, count: int) -> Bools:
    """One block-wise mask (h, w). Areas from min(16, rest) to the rest, aspect ratios from 0.3 to 1/0.3, log-uniform.

    BEiT's own code gives up after ten misses and returns a smaller mask; here the rest is then filled patch by patch
    along the border of what is hidden, so that every image hides the same count.
    """
    h, w = grid
    hidden = np.zeros((h, w), dtype=bool)
    draw = _uniforms(seed)
    misses = 0
    while misses < 10 and (rest := count - int(hidden.sum())) > 0:
        area = min(16, rest) + (rest - min(16, rest)) * draw()
        aspect = math.exp(math.log(0.3) * (1 - 2 * draw()))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        top, left = int(draw() * (h - rows + 1)), int(draw() * (w - columns + 1))
        added = 0
        if 0 < rows < h and 0 < columns < w:
            block = hidden[top : top + rows, left : left + columns]
            added = block.size - int(block.sum())
        if 0 < added <= rest:
            block[:] = True
            misses = 0
        else:
            misses += 1
    return _fill_border(hidden, count, draw)


def _uniforms(seed: int) -> Callable[[], float]:
    """A function whose successive results in [0, 1) are the block stream of `seed` (the top 53 bits of each draw)."""
    index = BLOCKS * STREAM

    def draw() -> float:
        nonlocal index
        value = int(splitmix64([seed], index)[0, 0])
        index += 1
        return (value >> 11) / 2**53

    return draw


def _fill_border(hidden: Bools, count: int, draw: Callable[[], float]) -> Bools:
    """Hide single patches next to hidden ones (anywhere, where none is) until `count` are hidden."""
    while int(hidden.sum()) < count:
        near = np.zeros_like(hidden)
        near[1:] |= hidden[:-1]
        near[:-1] |= hidden[1:]
        near[:, 1:] |= hidden[:, :-1]
        near[:, :-1] |= hidden[:, 1:]
        candidates = np.flatnonzero(near & ~hidden)
        if not len(candidates):
            candidates = np.flatnonzero(~hidden)
        hidden.flat[candidates[int(draw() * len(candidates))]] = True
    return hidden


STRATEGIES: dict[str, Callable[[tuple[int, int], Seeds, int], Bools]] = {
    "random": _random,
    "grid": _grid,
    "uniform": _uniform,
    "blockwise": _blockwise,
}


def draw_secondary(hidden: Tensor, seeds: Sequence[int] | Seeds, share: float) -> Tensor:
    """Secondary masking (§3.2 of 2205.10063): the visible patches to replace by a mask token, (B, h, w) bool.

    Of V visible patches int(V * (1 - share)) stay as they are; hidden ones are never chosen.
    """
    if not 0 <= share < 1:
        raise MaskError(
            f"a secondary share of {share} is impossible; give one from 0 to below 1, such as 0.25"
        )
    flat = hidden.reshape(len(hidden), -1).numpy()
    draws = splitmix64(seeds, np.arange(flat.shape[1], dtype=np.uint64) + np.uint64(SECONDARY * STREAM))
    chosen = np.zeros_like(flat)
    for row, drawn, masked in zip(chosen, draws, flat, strict=True):
        visible = np.flatnonzero(~masked)
        keep = math.floor(len(visible) * (1 - share) + 1e-9)
        row[visible[np.argsort(drawn[visible], kind="stable")[keep:]]] = True
    return torch.from_numpy(chosen.reshape(hidden.shape))


def visible_indices(hidden: Tensor) -> Tensor:
    """(B, h, w) or (B, N) with equal counts -> (B, V) row-major indices of the visible patches, ascending."""
    flat = hidden.reshape(len(hidden), -1)
    visible = int((~flat[0]).sum())
    return torch.argsort(flat.to(torch.uint8), dim=1, stable=True)[:, :visible]


def as_mask(mask: object, grid: tuple[int, int], count: int) -> Tensor:
    """A hand-made mask (h, w) or (B, h, w), bool or 0/1, as (B, h, w) bool on the model's grid.

    A mask on a coarser grid that divides the model's is enlarged. MaskError for another shape, for values other than
    0 and 1, and where an image would keep no visible patch.
    """
    tensor = _as_bools(mask)
    if tensor.ndim == 2:
        tensor = tensor[None].expand(count, -1, -1)
    if tensor.ndim != 3 or len(tensor) != count:
        raise MaskError(
            f"a mask of shape {tuple(tensor.shape)} does not fit {counted(count, 'image')}; "
            f"give {grid} for all of them or {(count, *grid)}"
        )
    down, across = (side // max(given, 1) for side, given in zip(grid, tensor.shape[1:], strict=True))
    if (tensor.shape[1] * down, tensor.shape[2] * across) != grid:
        raise MaskError(
            f"a mask of {tensor.shape[1]}×{tensor.shape[2]} patches does not divide this model's grid of "
            f"{grid[0]}×{grid[1]} (encoder.mask_grid(height, width) gives it)"
        )
    tensor = tensor.repeat_interleave(down, 1).repeat_interleave(across, 2)
    if bool(tensor.flatten(1).all(dim=1).any()):
        raise MaskError(
            "a mask that hides every patch leaves the model nothing to look at; show at least one patch"
        )
    return tensor


def _as_bools(mask: object) -> Tensor:
    """A tensor, array or nested list of True/False or 0/1 as a bool tensor; MaskError for anything else."""
    if isinstance(mask, str):
        raise MaskError(f"a mask is a table of patches; to have one drawn, pass strategy={mask!r}")
    try:
        tensor = mask.detach().cpu() if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
    except (TypeError, ValueError) as error:
        raise MaskError(
            "a mask is a table of True/False or 0/1 (True = hidden), with rows of equal length"
        ) from error
    if not bool(((tensor == 0) | (tensor == 1)).all()):
        raise MaskError("a mask holds True/False or 0/1 (True = hidden); this one has other values")
    return tensor.bool()
