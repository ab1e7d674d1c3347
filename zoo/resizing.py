"""Positions stored for one grid, resized to another as the model's authors resize theirs.

The rules, by the names of a card's `interpolation`:
  timm      antialiased bicubic, to the size; DINOv2's own with registers
  dino      bicubic by a factor with 0.1 added to the grid's sides (DINO, iBOT)
  dinov2    the same; DINOv2's own without registers
  bicubic   bicubic, to the size (MAE, MSN, DeiT)
  beit      likewise; relative positions by a cubic spline where timm's are piecewise linear (BEiT, SimMIM, data2vec)
and by no card's, for exported graphs of any size:
  products       timm's, as two products with matrices, since TensorRT cannot antialias
  dino products  dino's likewise, whose factor would else be that of the size the graph was traced at
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

Grid = tuple[int, int]

# The rule that does the same where the new grid is any.
IN_GRAPHS = {"timm": "products", "dino": "dino products", "dinov2": "dino products"}

# Where a module keeps its card's rule. A plain timm module has none and follows timm's.
_RULE = "zoo_interpolation"


def keep_rule(module: nn.Module, interpolation: str) -> None:
    """Note on a module whose rule resizes its positions at run time."""
    setattr(module, _RULE, interpolation)


def rule_of(module: nn.Module) -> str:
    """The rule noted on a module, or timm's."""
    return str(getattr(module, _RULE, "timm"))


def resize_positions(stored: Tensor, old: Grid, new: Grid, rule: str) -> Tensor:
    """Positions (1, R + h*w, D) of the grid `old` on the grid `new`; the R of prefix tokens stay first, as they are."""
    if old == new:
        return stored
    prefix = stored.shape[1] - old[0] * old[1]
    if rule == "timm":
        timms: Tensor = resample_abs_pos_embed(stored, list(new), list(old), num_prefix_tokens=prefix)
        return timms
    grid = stored[:, prefix:].unflatten(1, old).permute(0, 3, 1, 2).float()
    if rule in ("dino", "dinov2"):
        factor = ((new[0] + 0.1) / old[0], (new[1] + 0.1) / old[1])
        moved = F.interpolate(grid, scale_factor=factor, mode="bicubic")
    elif rule in IN_GRAPHS.values():
        rows, columns = (_centres(now, grid) for now in new)
        down, across = (_antialiased if rule == "products" else _shifted)(old, rows, columns)
        moved = down @ grid @ across.T
    else:
        moved = F.interpolate(grid, size=new, mode="bicubic")
    patches = moved.flatten(2).transpose(1, 2).to(stored.dtype)
    return torch.cat([stored[:, :prefix], patches], dim=1)


def _centres(count: int, like: Tensor) -> Tensor:
    """0.5, 1.5, …: where the positions of a side lie, of any count in a traced graph. On like's device."""
    return torch.arange(count, device=like.device, dtype=like.dtype) + 0.5


def _length(centres: Tensor) -> Tensor:
    """How many they are, as a number that the graph computes."""
    return torch.ones_like(centres).sum()


def _antialiased(old: Grid, rows: Tensor, columns: Tensor) -> list[Tensor]:
    """The matrices (new, old) of antialiased bicubic resizing along both sides.

    The weights are Keys' cubic kernel with a = -1/2, stretched by old / new where that shrinks, its mass within the
    side made 1.
    """
    matrices = []
    for side, centres in zip(old, (rows, columns), strict=True):
        scale = side / _length(centres)
        apart = (_centres(side, centres) - centres[:, None] * scale) / scale.clamp(min=1)
        weights = _keys(apart, -0.5)
        matrices.append(weights / weights.sum(dim=1, keepdim=True))
    return matrices


def _shifted(old: Grid, rows: Tensor, columns: Tensor) -> list[Tensor]:
    """The matrices (new, old) of bicubic resizing by (new + 0.1) / old; ones on the diagonal where new is old.

    The weights are Keys' with a = -3/4, torch's, and beyond the border lies what lies at it.
    """
    lengths = [_length(each) for each in (rows, columns)]
    native = (lengths[0] == old[0]) & (lengths[1] == old[1])
    added = torch.where(native, torch.zeros_like(lengths[0]), torch.full_like(lengths[0], 0.1))
    matrices = []
    for side, centres, length in zip(old, (rows, columns), lengths, strict=True):
        asked = centres * (side / (length + added)) - 0.5
        taps = asked.floor()[:, None] + torch.arange(
            -1, 3, device=asked.device, dtype=asked.dtype
        )  # (new, 4)
        weights = _keys(asked[:, None] - taps, -0.75)
        seen = taps.clamp(0, side - 1)[..., None] == torch.arange(
            side, device=asked.device, dtype=asked.dtype
        )
        matrices.append((weights[..., None] * seen.to(asked.dtype)).sum(dim=1))
    return matrices


def _keys(x: Tensor, a: float) -> Tensor:
    """Keys' cubic kernel at x (IEEE TASSP 29, 1981, eq. 4 with any a)."""
    x = x.abs()
    near = 1 + x * x * ((a + 2) * x - (a + 3))
    far = a * (x * (x * (x - 5) + 8) - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def resized_positions(stored: Tensor, module: nn.Module, interpolation: str) -> Tensor:
    """Positions (1, R + N, D) of a square grid on the module's own; as they are where nothing can be resized."""
    ours: Any = module
    new: Grid = tuple(ours.patch_embed.grid_size)
    prefix = int(ours.pos_embed.shape[1]) - new[0] * new[1]
    side = math.isqrt(max(stored.shape[1] - prefix, 0))
    if stored.ndim != 3 or side == 0 or side * side != stored.shape[1] - prefix:
        return stored
    return resize_positions(stored, (side, side), new, interpolation)


def resize_distances(table: Tensor, old: Grid, new: Grid, rule: str) -> Tensor:
    """A table of biases by relative position, (L + R, heads), of the window `old` for the window `new`.

    L = (2h - 1)(2w - 1) distances in row-major order; the R rows of prefix tokens stay last and as they are. As BEiT's
    authors do for fine-tuning: the old distances are laid out in a geometric progression that ends where the new ones
    do, so that neighbours keep their biases and far ones are stretched.
    """
    if old == new:
        return table
    sides = (2 * old[0] - 1, 2 * old[1] - 1)
    biases, rest = table.split([sides[0] * sides[1], len(table) - sides[0] * sides[1]])
    down, across = (
        torch.from_numpy(_stretch(was, now, rule == "beit")).to(table.device)
        for was, now in zip(old, new, strict=True)
    )
    grid = biases.float().unflatten(0, sides)  # (2h - 1, 2w - 1, heads)
    moved = torch.einsum("yh,hwn,xw->yxn", down, grid, across).flatten(0, 1)
    return torch.cat([moved.to(table.dtype), rest])


def resized_distances(stored: Tensor, holder: nn.Module, interpolation: str) -> Tensor:
    """A table of a square window for the window of the module that holds it; as it is where nothing can be resized."""
    ours: Any = holder
    new: Grid = tuple(ours.window_size)
    rest = len(ours.relative_position_bias_table) - (2 * new[0] - 1) * (2 * new[1] - 1)
    side = math.isqrt(max(len(stored) - rest, 0))
    if stored.ndim != 2 or side % 2 == 0 or side * side != len(stored) - rest:
        return stored
    return resize_distances(stored, ((side + 1) // 2,) * 2, new, interpolation)


def resized_tensors(tensors: dict[str, Tensor], module: nn.Module, interpolation: str) -> dict[str, Tensor]:
    """Those positions of another grid, relative ones too, on the module's own; what fits or cannot be is left out."""
    found = {}
    for name, wanted in module.state_dict().items():
        holder, _, kind = name.rpartition(".")
        stored = tensors.get(name)
        if stored is None or stored.shape == wanted.shape:
            continue
        if name == "pos_embed":
            moved = resized_positions(stored, module, interpolation)
        elif kind == "relative_position_bias_table":
            moved = resized_distances(stored, module.get_submodule(holder), interpolation)
        else:
            continue
        if moved is not stored:
            found[name] = moved
    return found


@lru_cache(maxsize=256)
def _stretch(old: int, new: int, spline: bool) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The matrix (2 new - 1, 2 old - 1) that interpolates biases of `old` positions a side at those of `new`."""
    at = _progression(old - 1, new - 1)
    asked = np.clip(np.arange(1.0 - new, new), at[0], at[-1])
    each = np.eye(len(at))
    if spline and len(at) > 3:  # a cubic needs four
        matrix = _basis(at, asked) @ np.linalg.inv(_basis(at, at))
    else:
        matrix = np.stack([np.interp(asked, at, one) for one in each], axis=1)
    return matrix.astype(np.float32)


def _progression(count: int, reach: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """0 and ± the sums 1, 1 + q, 1 + q + q², … of `count` terms, with q in [1.01, 1.5] so that the last is `reach`."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        low, high = (low, q) if (1 - q**count) / (1 - q) > reach else (q, high)
    sums = np.cumsum(q ** np.arange(count))
    return np.concatenate([-sums[::-1], [0.0], sums])


def _basis(at: np.ndarray[Any, Any], asked: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values (asked, at) of the cubic B-splines whose knots are all of `at` but the second and the last but one.

    By the recursion of Cox and de Boor.
    """
    knots = np.concatenate([[at[0]] * 4, at[2:-2], [at[-1]] * 4])
    x = asked[:, None]
    inside = (knots[:-1] <= x) & (x < knots[1:])
    inside[asked >= knots[-1], len(at) - 1] = True  # the last interval holds its end
    basis = inside.astype(float)
    for degree in (1, 2, 3):
        width = knots[degree:] - knots[:-degree]
        rise = np.divide(x - knots[:-degree], width, out=np.zeros((len(x), len(width))), where=width > 0)
        basis = rise[:, :-1] * basis[:, :-1] + (1 - rise[:, 1:]) * (width[1:] > 0) * basis[:, 1:]
    return basis
