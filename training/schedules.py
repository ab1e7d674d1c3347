"""Schedules as plain functions of the step: what a knob is at step t of T."""

from __future__ import annotations

import math


def cosine(step: float, total: float, start: float, end: float) -> float:
    """Half a cosine from `start` at step 0 to `end` at step `total`."""
    share = min(max(step / total, 0.0), 1.0) if total > 0 else 1.0
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def warmup_cosine(step: float, total: float, warmup: float, peak: float, end: float) -> float:
    """Linear from 0 to `peak` over `warmup` steps, then half a cosine to `end` at step `total`."""
    if step < warmup:
        return peak * step / warmup
    return cosine(step - warmup, total - warmup, peak, end)


def linear(step: float, total: float, start: float, end: float) -> float:
    """From `start` at step 0 to `end` at step `total`, and `end` from then on."""
    return end if step >= total else start + (end - start) * step / total


def warmup_steps(epochs: float, per_epoch: int, total: int) -> float:
    """Steps of a warm-up given in epochs: at most a tenth of the run, so that small data still trains."""
    return min(epochs * per_epoch, total / 10)
