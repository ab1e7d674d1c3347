"""Fixed positions of tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Fixed 2-D sine-cosine positions (N, D) in MAE's layout: [sin(column) | cos(column) | sin(row) | cos(row)].

    Each quarter holds D/4 frequencies 10000^(-i / (D/4)). The released MAE weights store the column first.
    """
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    quarter = width // 4
    frequency = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = [axis.reshape(-1, 1) * frequency for axis in (columns, rows)]  # each (N, D/4)
    return torch.cat([turn(angle) for angle in angles for turn in (torch.sin, torch.cos)], dim=1).float()
