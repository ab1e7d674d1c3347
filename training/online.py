"""A k-NN curve for nothing: each batch's features against those of the steps before it."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from zoo.evaluate.knn import knn_accuracy

# Features remembered, and how many there must be before a share means something.
SIZE, FEW = 4096, 100


class OnlineKNN:
    """k-NN accuracy (k 20, T 0.07) of the latest batch against the batches before it, in percent.

    Features are of augmented training images and of an encoder that moves: a trend to watch, no result. At most half
    the images are remembered; where an epoch begins, an image may meet another view of itself, later in it seldom.
    """

    def __init__(self, images: int) -> None:
        self.size = min(SIZE, images // 2)
        self.seen: deque[tuple[Tensor, Tensor]] = deque()

    def add(self, features: object, labels: Tensor | None) -> None:
        """Remember a batch, (B, D) and (B,); nothing where a method logs no features or the images have no labels."""
        if not isinstance(features, Tensor) or labels is None:
            return
        self.seen.append((features.detach(), labels))
        while sum(len(each) for _, each in self.seen) - len(labels) > self.size:
            self.seen.popleft()

    def score(self) -> dict[str, float]:
        """{"knn_online": …} for the log; nothing where too few are known yet.

        Features that are no numbers are left out: in float16 a step may overflow, and the run goes on.
        """
        if len(self.seen) < 2 or sum(len(labels) for _, labels in self.seen) < FEW:
            return {}
        *earlier, latest = (_finite(*each) for each in self.seen)  # here, for it makes a GPU wait
        bank, classes = (torch.cat(parts) for parts in zip(*earlier, strict=True))
        return {"knn_online": knn_accuracy(bank, classes, *latest)} if len(bank) and len(latest[0]) else {}


def _finite(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of (B, D) and (B,) whose features are numbers."""
    fine = features.isfinite().all(dim=1)
    return features[fine], labels[fine.to(labels.device)]
