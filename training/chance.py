"""What a network scores that has learnt how frequent each answer is, and nothing of any image."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def chance_level(answers: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Least cross-entropy, in nats, of one guess for all images: the entropy of the batch's own smoothed answers, ().

    No constant guess scores less on this batch. answers: (B,) int64. Where the batch has fewer than two of each answer
    it holds, its frequencies say too little, and it is ln `classes`.
    """
    counts = torch.bincount(answers.flatten(), minlength=classes).float()
    if counts.sum() < 2 * (counts > 0).sum():
        return counts.new_tensor(math.log(classes))
    shares = (1 - smoothing) * counts / counts.sum() + smoothing / classes
    return -(shares * shares.clamp(min=1e-12).log()).sum()
