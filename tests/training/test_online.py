"""The k-NN curve of a run, from features that its steps compute anyway."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Generator, Tensor

from zoo.training.online import FEW, OnlineKNN

CLASSES, BATCH = 4, 16


def batches(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Features (16, 8) that say their class, and labels."""
    generator = Generator().manual_seed(0)
    for _ in range(count):
        labels = torch.randint(CLASSES, (BATCH,), generator=generator)
        yield torch.eye(8)[labels] + 0.05 * torch.randn(BATCH, 8, generator=generator), labels


def test_features_that_tell_classes_apart_score_full() -> None:
    knn = OnlineKNN(10_000)
    for number, (features, labels) in enumerate(batches(8), start=1):
        knn.add(features, labels)
        assert knn.score() == ({"knn_online": 100.0} if number * BATCH >= FEW else {})
    knn.add(None, labels)
    knn.add(features, None)
    assert len(knn.seen) == 8


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_features_that_overflowed_are_left_out(bad: float) -> None:
    """A step of float16 that overflowed is skipped, and the run goes on: so does its curve."""
    knn = OnlineKNN(10_000)
    for number, (features, labels) in enumerate(batches(12)):
        if number in (3, 10):
            features[:5] = bad  # these tell no class
        if number in (4, 11):
            features[:] = bad
        knn.add(features.half(), labels)
        if number == 10:
            assert knn.score() == {"knn_online": 100.0}
    assert knn.score() == {}  # of the latest batch nothing is left


def test_a_bank_without_numbers_scores_nothing() -> None:
    knn = OnlineKNN(10_000)
    for number, (features, labels) in enumerate(batches(9)):
        knn.add(features if number == 8 else features * math.nan, labels)
    assert knn.score() == {}


def test_a_first_batch_has_none_before_it() -> None:
    knn = OnlineKNN(10_000)
    knn.add(torch.rand(FEW, 8), torch.zeros(FEW))
    assert knn.score() == {}


def test_half_the_images_are_remembered() -> None:
    knn = OnlineKNN(100)
    for features, labels in batches(40):
        knn.add(features, labels)
    assert sum(len(labels) for _, labels in knn.seen) - BATCH <= 50
