"""What an encoder gives back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """Features of B images on one patch grid.

    pooled: (B, D), what the authors evaluate. cls: (B, D) or None. patches: (B, N, D), row-major, after the final norm,
    registers left out. grid: (h, w) with h * w == N.

    >>> encoder(photos)
    Features(pooled 8×192, patches 8×64×192, grid 8×8)
    """

    pooled: Tensor
    cls: Tensor | None
    patches: Tensor
    grid: tuple[int, int]

    def as_map(self) -> Tensor:
        """The patches as a feature map (B, D, h, w)."""
        as_map: Tensor = self.patches.transpose(1, 2).unflatten(2, self.grid)
        return as_map

    def __len__(self) -> int:
        return len(self.pooled)

    def __getitem__(self, index: int | slice) -> Features:
        """The features of one image (B = 1) or of a slice of them."""
        rows = slice(index, index + 1 or None) if isinstance(index, int) else index
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        cls = None if self.cls is None else self.cls[rows]
        return Features(self.pooled[rows], cls, self.patches[rows], self.grid)

    def __repr__(self) -> str:
        pooled, patches = ("×".join(map(str, tensor.shape)) for tensor in (self.pooled, self.patches))
        return f"Features(pooled {pooled}, patches {patches}, grid {self.grid[0]}×{self.grid[1]})"


def join(parts: list[Features]) -> Features:
    """Features of several batches on one grid, as one."""
    if len(parts) == 1:
        return parts[0]
    cls = [part.cls for part in parts if part.cls is not None]
    return Features(
        torch.cat([part.pooled for part in parts]),
        torch.cat(cls) if cls else None,
        torch.cat([part.patches for part in parts]),
        parts[0].grid,
    )
