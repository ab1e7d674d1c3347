"""The mask a visitor asks for: drawn from a seed, or painted by hand. As text it goes into a link and comes back."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import MaskError
from zoo.masking import as_mask, batch_seeds, draw_mask

PAINTED = "painted"
_ROWS = re.compile(r"[01]+(?:/[01]+)*")
_LONGEST = 20_000  # characters


def write_mask(mask: Tensor) -> str:
    """(h, w) bool as rows of 0 and 1, 1 = hidden.

    >>> write_mask(torch.tensor([[True, False], [False, False]]))
    '10/00'
    """
    return "/".join("".join(str(int(each)) for each in row) for row in mask.tolist())


def read_mask(text: str) -> Tensor:
    """The inverse of `write_mask`. Raises MaskError for any other text."""
    rows = text.split("/")
    if len(text) > _LONGEST or not _ROWS.fullmatch(text) or len({len(row) for row in rows}) != 1:
        raise MaskError(
            f"{text[:40]!r} is no mask: write rows of 0 and 1 of equal length, 1 = hidden, as in 1100/0011"
        )
    return torch.tensor([[each == "1" for each in row] for row in rows])


def fitted(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A mask (h', w') on another grid (h, w): a patch is hidden where at least half of it was."""
    share = torch.nn.functional.adaptive_avg_pool2d(mask[None].float(), grid)[0]
    return share >= 0.5


@dataclass(frozen=True)
class Asked:
    """What is to be hidden. ratio counts for "random" and "blockwise"; rows is the mask where it was painted."""

    strategy: str = "random"
    ratio: float = 0.75
    secondary: float = 0.0
    seed: int = 0
    rows: str = ""

    def on(self, grid: tuple[int, int]) -> Tensor:
        """The mask (h, w) on a grid. Raises MaskError for what is impossible there."""
        if self.strategy == PAINTED:
            return as_mask(fitted(read_mask(self.rows), grid), grid, 1)[0]
        ratio = self.ratio if self.strategy in ("random", "blockwise") else None
        return draw_mask(self.strategy, grid, batch_seeds(self.seed, 1), ratio)[0]
