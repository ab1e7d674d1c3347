"""k-NN: against loops written from DINO's description, and at the edges where the original fails."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zoo.errors import DataError
from zoo.evaluate import knn
from zoo.evaluate.knn import knn_accuracy, knn_predict


def slow_votes(
    train: Tensor, labels: Tensor, query: Tensor, k: int, temperature: float, classes: int
) -> list[float]:
    """Votes of each class for one image, one neighbour at a time, in double precision."""

    def unit(row: Tensor) -> list[float]:
        norm = math.sqrt(sum(float(x) ** 2 for x in row))
        return [float(x) / norm if norm else 0.0 for x in row]

    seen = unit(query)
    near = [(-sum(a * b for a, b in zip(seen, unit(row), strict=True)), i) for i, row in enumerate(train)]
    votes = [0.0] * classes
    for distance, i in sorted(near)[:k]:
        votes[int(labels[i])] += math.exp(-distance / temperature)
    return votes


def random_problem(seed: int, n: int, m: int, d: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    return torch.randn(n, d, generator=generator), labels, torch.randn(m, d, generator=generator)


@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 40),
    m=st.integers(1, 12),
    d=st.integers(1, 8),
    classes=st.integers(1, 6),
    k=st.integers(1, 45),
    temperature=st.sampled_from([0.05, 0.07, 0.5, 2.0]),
    chunk=st.integers(1, 13),
)
def test_equals_the_loops(
    seed: int, n: int, m: int, d: int, classes: int, k: int, temperature: float, chunk: int
) -> None:
    train, labels, test = random_problem(seed, n, m, d, classes)
    predicted = knn_predict(train, labels, test, k=k, temperature=temperature, classes=classes, chunk=chunk)
    assert predicted.shape == (m,) and predicted.dtype == torch.int64
    for i in range(m):
        votes = slow_votes(train, labels, test[i], k, temperature, classes)
        # Rounding may swap neighbours or classes that are as good as equal (in one dimension all cosines are ±1).
        if d > 1:
            assert votes[int(predicted[i])] >= max(votes) * (1 - 1e-3)
        else:
            assert 0 <= int(predicted[i]) < classes


@pytest.mark.parametrize("bank_chunk", [1, 3, 8, 1000])
def test_any_chunk_of_the_bank_gives_the_same(monkeypatch: pytest.MonkeyPatch, bank_chunk: int) -> None:
    train, labels, test = random_problem(0, 50, 9, 4, 5)
    whole = knn_predict(train, labels, test, k=7)
    monkeypatch.setattr(knn, "_TRAIN_CHUNK", bank_chunk)
    assert torch.equal(knn_predict(train, labels, test, k=7), whole)


@pytest.mark.parametrize("images", [1, 7, 99])
def test_few_images(images: int, caplog: pytest.LogCaptureFixture) -> None:
    """The original cuts the test set into 100 pieces and fails below 100 images."""
    train, labels, _ = random_problem(1, images, 1, 5, 3)
    with caplog.at_level(logging.WARNING):
        assert knn_accuracy(train, labels, train, labels, k=1) == 100
        knn_predict(train, labels, train, k=20)
    notes = [record.getMessage() for record in caplog.records]
    assert notes == (
        [f"k = 20 lowered to {images}: there are no more training images"] if images < 20 else []
    )


def test_a_thousand_classes() -> None:
    centres = torch.nn.functional.normalize(
        torch.randn(1000, 64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    labels = torch.arange(1000)
    assert knn_accuracy(centres.repeat(3, 1), labels.repeat(3), centres, labels) == 100


def test_length_of_features_does_not_matter() -> None:
    train, labels, test = random_problem(2, 40, 20, 6, 4)
    scales = torch.linspace(0.01, 100, 40)[:, None]
    assert torch.equal(knn_predict(train * scales, labels, test * 7), knn_predict(train, labels, test))


def test_weights_beat_numbers() -> None:
    """One close neighbour outvotes two distant ones at T = 0.07, and not at T = 10."""
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    labels, test = torch.tensor([1, 0, 0]), torch.tensor([[1.0, 0.2]])
    assert knn_predict(train, labels, test, k=3).tolist() == [1]
    assert knn_predict(train, labels, test, k=3, temperature=10).tolist() == [0]


@pytest.mark.parametrize("bank_chunk", [2, 1000])
def test_equally_similar_images_count_in_order(monkeypatch: pytest.MonkeyPatch, bank_chunk: int) -> None:
    monkeypatch.setattr(knn, "_TRAIN_CHUNK", bank_chunk)
    train, labels = torch.ones(7, 4), torch.tensor([2, 2, 1, 1, 1, 0, 0])
    predicted = [
        knn_predict(train, labels, torch.ones(3, 4), k=k, classes=3).tolist() for k in (1, 3, 4, 5, 7)
    ]
    assert predicted == [
        [2] * 3,
        [2] * 3,
        [1] * 3,
        [1] * 3,
        [1] * 3,
    ]  # at k = 4 votes are equal: the lower class


def test_zero_features_and_tiny_temperatures_stay_finite() -> None:
    train, labels, test = random_problem(3, 10, 4, 3, 2)
    assert knn_predict(torch.zeros(10, 3), labels, test).shape == (4,)
    nearest = knn_predict(train, labels, test, k=1)
    assert torch.equal(knn_predict(train, labels, test, temperature=1e-6), nearest)


def test_agrees_with_scikit_learn() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    train, labels, test = random_problem(4, 200, 50, 8, 5)
    theirs = neighbors.KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    assert knn_predict(train, labels, test).tolist() == theirs.fit(train, labels).predict(test).tolist()


@pytest.mark.parametrize(
    ("train", "labels", "test", "settings", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0), torch.zeros(1, 3), {}, "0 training features"),
        (torch.ones(2, 3), torch.zeros(3), torch.zeros(1, 3), {}, "2 training features and 3 labels"),
        (torch.ones(2, 3), torch.zeros(2), torch.zeros(1, 4), {}, r"not \(2, 3\) and \(1, 4\)"),
        (torch.ones(2, 3), torch.zeros(2), torch.zeros(1, 3), {"k": 0}, "k must be at least 1"),
        (torch.ones(2, 3), torch.zeros(2), torch.zeros(1, 3), {"temperature": 0.0}, "temperature above 0"),
        (torch.ones(2, 3) * torch.nan, torch.zeros(2), torch.zeros(1, 3), {}, "NaN or infinite"),
        (
            torch.ones(2, 3),
            torch.tensor([0, 5]),
            torch.zeros(1, 3),
            {"classes": 3},
            r"labels from 0 to 5.* 3 classes",
        ),
        (torch.ones(2, 3), torch.tensor([0, -1]), torch.zeros(1, 3), {}, "labels from -1 to 0"),
    ],
)
def test_messages(
    train: Tensor, labels: Tensor, test: Tensor, settings: dict[str, float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        knn_predict(train, labels, test, **settings)


def test_accuracy_needs_a_label_for_each_image() -> None:
    train, labels, test = random_problem(5, 6, 3, 2, 2)
    with pytest.raises(DataError, match="3 test features and 2 labels"):
        knn_accuracy(train, labels, test, torch.zeros(2))
