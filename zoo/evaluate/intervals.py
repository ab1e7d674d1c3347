"""How far a score on so many test images can be trusted: 95 % intervals by resampling them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RESAMPLED = 10_000


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy in percent and its 95 % interval over resampled test images."""

    top1: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.top1:.1f} % ({self.low:.1f}–{self.high:.1f})"


def resampled(correct: NDArray[Any], seed: int) -> Score:
    """The mean of `correct`, in percent, with the 95 % percentile bootstrap over images.

    correct: (N,), True where an image was told right; or the share of several runs that did. N draws with replacement
    from N images of few distinct values hold a multinomial number of each.
    """
    values, counts = np.unique(np.asarray(correct, dtype=np.float64), return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(correct), counts / len(correct), _RESAMPLED)
    low, high = np.quantile(drawn @ values / len(correct), (0.025, 0.975))
    return Score(100 * float(np.mean(correct)), 100 * float(low), 100 * float(high))
