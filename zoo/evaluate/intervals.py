"""How far a score on so many test images can be trusted: 95 % intervals by resampling them.

Where every image was told right, or none, all resamples are alike and would claim certainty: there it is Wilson's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RESAMPLED = 10_000
_Z = 1.959964  # of a normal distribution, 95 % lie within so many deviations


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
    from N images of few distinct values hold a multinomial number of each. All right, or none: Wilson's score interval
    (1927), of which N / (N + z²) is the inner end.
    """
    values, counts = np.unique(np.asarray(correct, dtype=np.float64), return_counts=True)
    if len(values) == 1 and values[0] in (0, 1):
        inner = 100 * len(correct) / (len(correct) + _Z**2)
        return Score(100.0, inner, 100.0) if values[0] else Score(0.0, 0.0, 100 - inner)
    drawn = np.random.default_rng(seed).multinomial(len(correct), counts / len(correct), _RESAMPLED)
    low, high = np.quantile(drawn @ values / len(correct), (0.025, 0.975))
    return Score(100 * float(np.mean(correct)), 100 * float(low), 100 * float(high))
