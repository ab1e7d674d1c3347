"""Positions and tables stored for another grid, resized to the module's as the model's authors resize theirs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import Tensor, nn

from zoo.layouts.rules import Tensors

_TABLE = "relative_position_bias_table"


def resized(tensors: Tensors, module: nn.Module, interpolation: str, notes: list[str]) -> Tensors:
    """The tensors with absolute positions and relative-position tables of the module's grid; `notes` gets what changed.

    interpolation: the card's: "timm" (antialiased bicubic), "dino" and "dinov2" (by a factor with 0.1 added, not
    antialiased) or "bicubic" (to the size, not antialiased). Tables are resized by timm's rule.
    """
    out = dict(tensors)
    wanted = module.state_dict()
    for name, tensor in tensors.items():
        if name not in wanted or tensor.shape == wanted[name].shape:
            continue
        if name == "pos_embed" and tensor.ndim == 3 and tensor.shape[2] == wanted[name].shape[2]:
            found = _positions(tensor, module, interpolation)
        elif name.endswith(_TABLE) and tensor.shape[1] == wanted[name].shape[1]:
            owner = module.get_submodule(name[: -len(_TABLE) - 1])
            found = resize_rel_pos_bias_table(tensor, owner.window_size, tuple(wanted[name].shape))  # type: ignore[arg-type]
        else:
            continue
        if found is not None:
            out[name] = found
            notes.append(f"{name} {tuple(tensor.shape)} → {tuple(found.shape)}")
    return out


def _positions(stored: Tensor, module: nn.Module, interpolation: str) -> Tensor | None:
    """Stored positions (1, R + N, D) on the module's grid; None where they are no square of patches."""
    new: tuple[int, int] = tuple(module.patch_embed.grid_size)  # type: ignore[union-attr,arg-type]
    prefix = int(module.state_dict()["pos_embed"].shape[1]) - new[0] * new[1]
    side = math.isqrt(stored.shape[1] - prefix)
    if side * side != stored.shape[1] - prefix:
        return None
    if interpolation == "timm":
        timms: Tensor = resample_abs_pos_embed(stored, list(new), [side, side], num_prefix_tokens=prefix)
        return timms
    before, grid = stored[:, :prefix], stored[:, prefix:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if interpolation == "bicubic":
        moved = F.interpolate(grid.float(), size=new, mode="bicubic")
    else:
        factor = ((new[0] + 0.1) / side, (new[1] + 0.1) / side)
        moved = F.interpolate(grid.float(), scale_factor=factor, mode="bicubic")
    patches = moved.flatten(2).transpose(1, 2).to(stored.dtype)
    return torch.cat([before, patches], dim=1)
