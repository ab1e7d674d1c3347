"""Window attention of UM-MAE's Swin: its relative bias is computed from where tokens stood in the whole image (§3.3).

Axes: B images, (h, w) the grid of a stage, C its width, W windows of S slots each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from timm.models.swin_transformer import window_partition, window_reverse
from torch import Tensor, nn


class Places(NamedTuple):
    """Where the tokens of a compact image stood in the whole one, in units of `step` tokens of the stage."""

    at: Tensor  # (B, h, w, 2) int64: row and column
    step: float
    per_patch: int  # tokens along the side of a 16-pixel patch, 0 once a token is more than one patch

    def reach(self, window: int) -> int:
        """The largest offset, in units, inside a window of so many tokens, wherever it begins.

        Token u of a row stands at 2u - u % P, or P further on, for P tokens along the side of a patch; tokens of two
        patches stand at 4u, or 1 further on.
        """
        return 2 * (window - 1) + 2 * self.per_patch - 1 if self.per_patch else 4 * (window - 1) + 1

    def merged(self) -> Places:
        """After 2×2 tokens became one: the first one's place. Whole numbers as long as they lie in one patch."""
        taken, side = self.at[:, ::2, ::2], self.per_patch // 2
        return Places(taken // 2, self.step, side) if side else Places(taken, self.step / 2, 0)


class PositionAttention(nn.Module):
    """Attention inside windows, plus a bias that an MLP makes of log-spaced offsets (§3.3)."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (dim // heads) ** -0.5
        self.posmlp = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def bias(self, at: Tensor, step: float, reach: int) -> Tensor:
        """(heads, …, S, S): the bias between slots that stand at (…, S, 2), in units of `step`.

        The MLP sees each offset of up to `reach` units once; those beyond belong to slots that are kept apart.
        """
        offsets = torch.arange(-reach, reach + 1, device=at.device, dtype=self.qkv.weight.dtype) * step
        spaced = offsets.sign() * offsets.abs().log1p()
        table = self.posmlp(torch.cartesian_prod(spaced, spaced))  # (every offset, heads)
        apart = (at[..., None, :, :] - at[..., :, None, :]).clamp(-reach, reach) + reach  # key less query
        index = apart[..., 0] * (2 * reach + 1) + apart[..., 1]
        return F.embedding(index, table).movedim(-1, 0)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x: (B, W, S, C). bias: (1 or B, W, heads, S, S), -inf where slots are apart."""
        batch, count, slots, _ = x.shape
        qkv = self.qkv(x).reshape(batch, count, slots, 3, self.num_heads, -1).permute(3, 0, 1, 4, 2, 5)
        q, k, v = qkv.flatten(
            2, 3
        )  # (B, W * heads, S, C / heads): windows beside heads, so that images share a bias
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.flatten(1, 2))
        out: Tensor = self.proj(mixed.unflatten(1, (count, -1)).transpose(2, 3).reshape(x.shape))
        return out


class PositionBlock(nn.Module):
    """A Swin block of UM-MAE. It has no size of its own: windows follow from the grid it is given."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        shifted: bool,
        hidden: int,
        drop_path: float,
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        self.window, self.shifted = window, shifted
        self.norm1 = nn.LayerNorm(dim)
        self.attn = PositionAttention(dim, heads, hidden)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def window_and_shift(
        self, sides: tuple[int, int], *, compact: bool = False
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of the windows on a grid, and their shift; one window for a side no longer than it."""
        wanted = self.window // 2 if compact else self.window
        window = (min(sides[0], wanted), min(sides[1], wanted))
        shift = tuple(wanted // 2 if self.shifted and side > wanted else 0 for side in sides)
        return window, (shift[0], shift[1])

    def apart(self, sides: tuple[int, int], *, compact: bool = False, device: Any = None) -> Tensor:
        """(W, S, S) bool: keys that a query must not see, which the shift carried round an edge, or padding."""
        window, shift = self.window_and_shift(sides, compact=compact)
        rows, columns = (
            (torch.arange(side, device=device) >= side - move).long()
            for side, move in zip(sides, shift, strict=True)
        )
        regions = (2 * rows[:, None] + columns)[None, :, :, None]
        slots = window_partition(padded(regions, window, -1), window).flatten(1)  # (W, S)
        real = slots >= 0
        return (slots[:, :, None] != slots[:, None]) & real[:, :, None] | ~real[:, None]

    def relative_bias(self, window: tuple[int, int]) -> Tensor:
        """(heads, S, S) of a window of the whole image, whose tokens stand side by side."""
        sides = (torch.arange(side, device=self.norm1.weight.device) for side in window)
        return self.attn.bias(torch.cartesian_prod(*sides), 1.0, max(window) - 1)

    def bias(self, sides: tuple[int, int], places: Places | None = None) -> Tensor:
        """(1 or B, W, heads, S, S), -inf where slots are apart."""
        window, shift = self.window_and_shift(sides, compact=places is not None)
        if places is None:
            bias = self.relative_bias(window)[None, None]
        else:
            moved = padded(places.at.roll([-each for each in shift], dims=(1, 2)), window, 0)
            at = (
                window_partition(moved, window).flatten(1, 2).unflatten(0, (moved.shape[0], -1))
            )  # (B, W, S, 2)
            bias = self.attn.bias(at, places.step, places.reach(max(window))).permute(1, 2, 0, 3, 4)
        barred = self.apart(sides, compact=places is not None, device=bias.device)
        return bias.masked_fill(barred[:, None], -torch.inf)

    def forward(self, x: Tensor, places: Places | None = None) -> Tensor:
        """(B, h, w, C) -> the same. places: of the tokens of a compact image."""
        x = x + self.drop_path(self._attend(self.norm1(x), places))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x

    def _attend(self, x: Tensor, places: Places | None) -> Tensor:
        batch, height, width, _ = x.shape
        window, shift = self.window_and_shift((height, width), compact=places is not None)
        moved = padded(x.roll([-each for each in shift], dims=(1, 2)) if any(shift) else x, window, 0)
        cut = window_partition(moved, window).flatten(1, 2).unflatten(0, (batch, -1))  # (B, W, S, C)
        mixed = self.attn(cut, self.bias((height, width), places)).flatten(0, 1).unflatten(1, window)
        whole = window_reverse(mixed, window, moved.shape[1], moved.shape[2])[:, :height, :width]
        back: Tensor = whole.roll(shift, dims=(1, 2)) if any(shift) else whole
        return back


def padded(x: Tensor, window: tuple[int, int], value: float) -> Tensor:
    """(B, h, w, …) with rows and columns added at the end until windows divide it."""
    below, beside = (-side % each for side, each in zip(x.shape[1:3], window, strict=True))
    return F.pad(x, (0, 0, 0, beside, 0, below), value=value) if below or beside else x
