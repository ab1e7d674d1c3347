"""Weighted k-nearest-neighbour classification of frozen features: DINO's protocol (`eval_knn.py`; k 20, T 0.07)."""

from __future__ import annotations

import logging

import torch
from torch import Tensor
from torch.nn.functional import normalize

from zoo.errors import DataError

_log = logging.getLogger(__name__)

_TRAIN_CHUNK = 65_536  # with 256 test rows: 64 MiB of similarities at a time, however many images there are


def knn_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    classes: int | None = None,
) -> float:
    """Share of test images whose class `knn_predict` names, in percent.

    train: (N, D), train_labels: (N,), test: (M, D), test_labels: (M,). Raises DataError as `knn_predict` does.
    """
    if len(test) != len(test_labels) or len(test) == 0:
        raise DataError(
            f"{len(test)} test features and {len(test_labels)} labels: give one label to each, at least one"
        )
    predicted = knn_predict(train, train_labels, test, k=k, temperature=temperature, classes=classes)
    return 100 * (predicted == test_labels.to(predicted.device)).double().mean().item()


@torch.no_grad()
def knn_predict(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    classes: int | None = None,
    chunk: int = 256,
) -> Tensor:
    """Class of each test image by the votes of its k most similar training images.

    A neighbour of cosine similarity s votes with weight exp(s / temperature). Of equally similar images the earlier
    counts as nearer; of classes with equal votes the lower wins. A k above N is lowered to N, with a note in the log.
    train: (N, D), train_labels: (N,) in [0, classes), test: (M, D) -> (M,) int64, on the device of `train`.
    Raises DataError where N is 0, sizes disagree, k or temperature is not positive, or a feature is not finite.
    """
    _check(train, train_labels, test, k, temperature)
    if k > len(train):
        _log.warning("k = %d lowered to %d: there are no more training images", k, len(train))
        k = len(train)
    labels = train_labels.to(train.device, torch.int64)
    count = int(labels.max()) + 1 if classes is None else classes
    if labels.min() < 0 or labels.max() >= count:
        raise DataError(
            f"labels from {labels.min()} to {labels.max()} are not all among {count} classes, 0 to {count - 1}"
        )
    bank = normalize(train.float(), dim=1)
    predicted = torch.empty(len(test), dtype=torch.int64, device=train.device)
    for start in range(0, len(test), chunk):
        queries = normalize(test[start : start + chunk].to(train.device).float(), dim=1)
        similarity, nearest = _neighbours(queries, bank, k)
        predicted[start : start + chunk] = _votes(similarity, labels[nearest], temperature, count).argmax(
            dim=1
        )
    return predicted


def _check(train: Tensor, train_labels: Tensor, test: Tensor, k: int, temperature: float) -> None:
    """Refuse what cannot be classified, in words."""
    if len(train) == 0 or len(train) != len(train_labels):
        raise DataError(
            f"{len(train)} training features and {len(train_labels)} labels: give one label to each"
        )
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        raise DataError(
            f"features must be (N, D) and (M, D), not {tuple(train.shape)} and {tuple(test.shape)}"
        )
    if k < 1 or temperature <= 0:
        raise DataError(f"k must be at least 1 and the temperature above 0, not {k} and {temperature}")
    if not (train.isfinite().all() and test.isfinite().all()):
        raise DataError(
            "some features are NaN or infinite: the encoder's weights are damaged, or its precision too low"
        )


def _neighbours(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarities and indices of the k nearest, nearest first; (C, D) and (N, D) -> (C, k), (C, k)."""
    best = queries.new_empty(len(queries), 0)
    where = torch.empty_like(best, dtype=torch.int64)
    for start in range(0, len(bank), _TRAIN_CHUNK):
        similarity = queries @ bank[start : start + _TRAIN_CHUNK].T  # (C, chunk)
        values, indices = _top(similarity, min(k, similarity.shape[1]))
        best, where = torch.cat([best, values], dim=1), torch.cat([where, indices + start], dim=1)
        best, order = best.sort(dim=1, descending=True, stable=True)
        best, where = best[:, :k], where.gather(1, order)[:, :k]
    return best, where


def _top(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, largest first, the earlier first where they are equal; (C, N) -> (C, k), (C, k)."""
    values, indices = similarity.topk(k, dim=1)
    # topk picks freely among equals at the k-th place: those rows, rare unless features collapsed, are sorted in full.
    tied = (similarity >= values[:, -1:]).sum(dim=1) > k
    if tied.any():
        rows = similarity[tied].sort(dim=1, descending=True, stable=True)
        values[tied], indices[tied] = rows.values[:, :k], rows.indices[:, :k]
    indices, order = indices.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, indices.gather(1, order)


def _votes(similarity: Tensor, labels: Tensor, temperature: float, classes: int) -> Tensor:
    """Sum of exp(similarity / temperature) by class; (C, k), (C, k) -> (C, classes).

    Scaled by the largest weight, so that no temperature overflows. One neighbour at a time: a single scatter_add adds
    in no fixed order on a GPU.
    """
    weights = ((similarity - similarity[:, :1]).double() / temperature).exp()
    votes = weights.new_zeros(len(weights), classes)
    for neighbour in range(weights.shape[1]):
        column = slice(neighbour, neighbour + 1)
        votes.scatter_add_(1, labels[:, column], weights[:, column])
    return votes
