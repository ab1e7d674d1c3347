"""Which of one's own photos a model takes for alike, and how far two models agree in that."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from zoo.demo import centred_cosines
from zoo.errors import DataError


@dataclass(frozen=True, eq=False)
class Neighbours:
    """For each of N images the k most alike of the others: index (N, k), most alike first, and cosine (N, k)."""

    index: Tensor
    cosine: Tensor


def neighbours(pooled: Tensor, count: int = 3) -> Neighbours:
    """The nearest by cosine of pooled features (N, D) less their mean, which says nothing of which are alike.

    Of equals, the earlier. Raises DataError for one image alone.
    """
    images = len(pooled)
    if images < 2:
        raise DataError(f"{images} photos have no neighbours; give two or more")
    cosines = centred_cosines(pooled)
    cosines.fill_diagonal_(-2.0)  # nobody is its own neighbour
    ranked, order = cosines.sort(dim=1, descending=True, stable=True)
    kept = min(count, images - 1)
    return Neighbours(order[:, :kept], ranked[:, :kept])


def agreement(one: Neighbours, other: Neighbours) -> float:
    """The mean share of neighbours that two models have in common, in whatever order: 0 to 1."""
    common = (one.index[:, :, None] == other.index[:, None, :]).any(dim=2)  # (N, k)
    return float(common.float().mean())
