"""Positions stored for another grid, resized to the module's as the model's authors resize theirs."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn


def resized_positions(stored: Tensor, module: nn.Module, interpolation: str) -> Tensor:
    """Positions (1, R + N, D) of a square grid on the module's own; as they are where nothing can be resized.

    interpolation: the card's: "timm" (antialiased bicubic), "dino" and "dinov2" (by a factor with 0.1 added, not
    antialiased) or "bicubic" (to the size, not antialiased).
    """
    ours: Any = module
    new: tuple[int, int] = tuple(ours.patch_embed.grid_size)
    prefix = int(ours.pos_embed.shape[1]) - new[0] * new[1]
    side = math.isqrt(max(stored.shape[1] - prefix, 0))
    if stored.ndim != 3 or side == 0 or side * side != stored.shape[1] - prefix:
        return stored
    if interpolation == "timm":
        timms: Tensor = resample_abs_pos_embed(stored, list(new), [side, side], num_prefix_tokens=prefix)
        return timms
    grid = stored[:, prefix:].unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
    if interpolation == "bicubic":
        moved = F.interpolate(grid, size=new, mode="bicubic")
    else:
        factor = ((new[0] + 0.1) / side, (new[1] + 0.1) / side)
        moved = F.interpolate(grid, scale_factor=factor, mode="bicubic")
    patches = moved.flatten(2).transpose(1, 2).to(stored.dtype)
    return torch.cat([stored[:, :prefix], patches], dim=1)
