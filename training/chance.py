"""What a network scores that has learnt how frequent each answer is, and nothing of any image."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def chance_level(answers: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Least cross-entropy, in nats, of one guess for all images: the entropy of smoothed answers, (). Told by a batch.

    A batch's own frequencies seem surer than those it is drawn from, the more so the smaller it is, and a network that
    knows these would look worse than chance. What that lacks in expectation is added, to the first order in 1 / B
    (Miller, 1955: half a nat for each further answer seen, divided by B; smoothing makes it less), so that parts of a
    batch, and processes, agree; where a batch is all there is, nothing would lack. answers: (B,) int64. Where the batch
    has fewer than two of each answer it holds, its frequencies say too little, and it is ln `classes`, the most there
    can be.
    """
    counts = torch.bincount(answers.flatten(), minlength=classes).float()
    most, number = counts.new_tensor(math.log(classes)), counts.sum()
    if not number or number < 2 * (counts > 0).sum():
        return most
    shares = counts / number
    smoothed = ((1 - smoothing) * shares + smoothing / classes).clamp(min=1e-12)
    entropy = -(smoothed * smoothed.log()).sum()
    lacking = (1 - smoothing) ** 2 * (shares * (1 - shares) / smoothed).sum() / (2 * number)
    return (entropy + lacking).clamp(max=most)
