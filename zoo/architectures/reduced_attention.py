"""Attention of pyramid vision transformers: queries look at keys on a reduced grid (§3.3 of 2102.12122).

Axes: B images, (h, w) the grid of a stage, T tokens (its h*w positions, and one more with the class token), C width.
"""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

Grid = tuple[int, int]


class ReducedAttention(nn.Module):
    """Attention over a grid of keys `reduction` times smaller on each side (§3.3 of 2102.12122)."""

    def __init__(self, dim: int, heads: int, reduction: int, averaged: bool) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (dim // heads) ** -0.5
        self.reduction, self.averaged = reduction, averaged
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        if averaged or reduction > 1:
            side = 1 if averaged else reduction
            self.sr = nn.Conv2d(dim, dim, side, stride=side)
            self.norm = nn.LayerNorm(dim)

    def reduction_on(self, compact: bool) -> int:
        """UM-MAE halves it on compact images, whose grid is half as wide: [4, 2, 1, 1] for [8, 4, 2, 1]."""
        return max(1, self.reduction // 2) if compact else self.reduction

    def keys(self, x: Tensor, grid: Grid, compact: bool = False) -> Tensor:
        """What the keys and values are made of: (B, T, C) on the grid (h, w) -> (B, h/r * w/r, C)."""
        if not self.averaged and self.reduction == 1:
            return x
        positions = x.transpose(1, 2).unflatten(2, grid)
        if self.averaged:
            positions = F.avg_pool2d(positions, self.reduction_on(compact))
        reduced: Tensor = self.norm(self.sr(positions).flatten(2).transpose(1, 2))
        return reduced

    def split(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, heads, T, C / heads)."""
        heads: Tensor = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        return heads

    def forward(self, x: Tensor, grid: Grid, compact: bool = False) -> Tensor:
        key, value = self.kv(self.keys(x, grid, compact)).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(self.split(self.q(x)), self.split(key), self.split(value))
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class ReducedBlock(nn.Module):
    """A pre-norm block with reduced attention. Its norms' epsilon is the authors': PVT's 1e-6, UM-MAE's torch's own."""

    def __init__(
        self, dim: int, heads: int, reduction: int, averaged: bool, mlp_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        eps = 1e-5 if averaged else 1e-6
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = ReducedAttention(dim, heads, reduction, averaged)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, grid: Grid, compact: bool = False) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), grid, compact))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x
