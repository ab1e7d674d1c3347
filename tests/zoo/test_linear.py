"""The linear probe: against scikit-learn's logistic regression, and its choice of strength."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from zoo.errors import DataError
from zoo.evaluate import linear
from zoo.evaluate.linear import L2_GRID, linear_accuracy, linear_probe

Problem = tuple[Tensor, Tensor, Tensor, Tensor]


def blobs(seed: int, n: int, m: int, d: int, classes: int, spread: float = 1.0) -> Problem:
    """Gaussian clusters of unequal scale along each dimension: train, labels, test, labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, d, generator=generator)
    scales = torch.logspace(-2, 2, d)
    labels = torch.arange(n + m) % classes
    features = (centres[labels] + spread * torch.randn(n + m, d, generator=generator)) * scales + 3
    return features[:n], labels[:n], features[n:], labels[n:]


@pytest.mark.parametrize(("classes", "l2"), [(2, 1e-2), (5, 1e-1), (5, 1e-3), (12, 1e-2)])
def test_agrees_with_scikit_learn(classes: int, l2: float) -> None:
    models = pytest.importorskip("sklearn.linear_model")
    train, labels, test, test_labels = blobs(0, 240, 120, 6, classes)
    ours = linear_probe(train, labels, l2=l2, tolerance=1e-8)
    mean, scale = train.double().mean(0), train.double().std(0, correction=0)
    # Two classes: scikit-learn keeps one row of weights, whose penalty is that of our two of half its size.
    c = 1 / (len(train) * l2) * (2 if classes == 2 else 1)
    theirs = models.LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit((train - mean) / scale, labels)
    weight, bias = ours.weight, ours.bias - ours.bias.mean()
    if classes == 2:
        weight, bias = weight[1:] - weight[:1], ours.bias[1:] - ours.bias[:1]
    torch.testing.assert_close(weight, torch.from_numpy(theirs.coef_), atol=2e-4, rtol=1e-3)
    offset = torch.from_numpy(theirs.intercept_)
    torch.testing.assert_close(bias, offset if classes == 2 else offset - offset.mean(), atol=2e-4, rtol=1e-3)
    accuracy = 100 * theirs.score((test - mean) / scale, test_labels)
    assert ours.accuracy(test, test_labels) == pytest.approx(accuracy, abs=1e-9)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_any_chunk_gives_the_same(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    train, labels, test, _ = blobs(1, 30, 10, 4, 3)
    whole = linear_probe(train, labels, l2=1e-2, tolerance=1e-8)
    monkeypatch.setattr(linear, "_CHUNK", chunk)
    cut = linear_probe(train, labels, l2=1e-2, tolerance=1e-8)
    torch.testing.assert_close(cut.weight, whole.weight, atol=1e-4, rtol=1e-4)
    assert torch.equal(cut.predict(test), whole.predict(test))


def test_repeats_exactly_and_chooses_on_training_images_alone() -> None:
    train, labels, test, test_labels = blobs(2, 200, 100, 5, 4, spread=2)
    first, again = linear_probe(train, labels, seed=3), linear_probe(train, labels, seed=3)
    assert torch.equal(first.weight, again.weight) and first.l2 == again.l2 in L2_GRID
    accuracy = linear_accuracy(train, labels, test, test_labels, seed=3)
    assert (
        accuracy
        == first.accuracy(test, test_labels)
        == 100 * (first.predict(test) == test_labels).double().mean()
    )


def test_noise_asks_for_a_stronger_penalty_than_signal() -> None:
    """With nearly as many dimensions of noise as images, the weakest penalty is not the one chosen."""
    train, labels, _, _ = blobs(4, 300, 0, 4, 3, spread=1.5)
    noisy = torch.cat([train, torch.randn(300, 200, generator=torch.Generator().manual_seed(0))], dim=1)
    assert linear_probe(noisy, labels).l2 > min(L2_GRID)


def test_scale_and_shift_of_features_do_not_matter() -> None:
    train, labels, test, _ = blobs(5, 90, 40, 4, 3)
    moved = linear_probe(train * 1000 - 5, labels, l2=1e-2).predict(test * 1000 - 5)
    assert torch.equal(moved, linear_probe(train, labels, l2=1e-2).predict(test))


@pytest.mark.parametrize("constant", [0.0, 0.1, 7.0, -1e6])
def test_constant_features_and_missing_classes(constant: float) -> None:
    train, labels, test, _ = blobs(6, 60, 20, 4, 3)
    train[:, 1] = test[:, 1] = constant
    probe = linear_probe(train, labels * 2, l2=1e-2)  # classes 1 and 3 have no image
    assert set(probe.predict(test).tolist()) <= {0, 2, 4} and probe.weight[:, 1].abs().max() < 1e-6


def test_rounding_of_a_constant_feature_tells_nothing() -> None:
    """Neighbouring numbers that give the classes away are not blown up to unit variance."""
    labels = torch.arange(60) % 2
    features = torch.tensor([1, 1 + torch.finfo(torch.float32).eps])[labels][:, None]
    assert features.unique().numel() == 2
    assert linear_probe(features, labels, l2=1e-2).scale.tolist() == [1]
    varied = features + torch.linspace(-0.1, 0.1, 60)[:, None]
    assert linear_probe(varied, labels, l2=1e-2).scale.item() == pytest.approx(0.0587, rel=0.02)


def test_too_few_images_to_tune(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        accuracy = linear_accuracy(torch.eye(3), torch.arange(3), torch.eye(3), torch.arange(3))
    assert accuracy == 100 and "too few images (3) to tune" in caplog.text


@pytest.mark.parametrize("grad", [True, False])
def test_works_whether_or_not_gradients_are_on(grad: bool) -> None:
    train, labels, test, test_labels = blobs(7, 60, 30, 4, 3, spread=0.1)
    with torch.set_grad_enabled(grad):
        assert linear_accuracy(train, labels, test, test_labels, l2=1e-3) == 100


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0), r"features \(0, 3\) and 0 labels"),
        (torch.zeros(2, 3), torch.zeros(3), r"features \(2, 3\) and 3 labels"),
        (torch.zeros(2, 3, 4), torch.zeros(2), r"give \(N, D\)"),
        (torch.full((2, 3), torch.inf), torch.zeros(2), "NaN or infinite"),
    ],
)
def test_messages(features: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        linear_probe(features, labels)


def test_accuracy_needs_a_label_for_each_image() -> None:
    with pytest.raises(DataError, match="0 test features and 0 labels"):
        linear_accuracy(torch.eye(3), torch.arange(3), torch.zeros(0, 3), torch.zeros(0))
