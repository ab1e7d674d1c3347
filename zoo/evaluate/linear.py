"""Linear classification of frozen features: logistic regression, its L2 strength chosen on training images alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import backward
from torch.nn.functional import cross_entropy

from zoo.errors import DataError

_log = logging.getLogger(__name__)

# Strong to weak, so that of equally good strengths the stronger is kept. scikit-learn's C is 1 / (N * l2).
L2_GRID = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_L2_UNTUNED = 1e-3
_CHUNK = 65_536  # rows per product: memory for logits stays bounded, whatever N


@dataclass(frozen=True)
class LinearProbe:
    """A fitted classifier of standardised features; D features, K classes."""

    weight: Tensor  # (K, D)
    bias: Tensor  # (K,)
    mean: Tensor  # (D,)
    scale: Tensor  # (D,)
    l2: float

    @torch.no_grad()
    def predict(self, features: Tensor) -> Tensor:
        """The likeliest class of each row; (M, D) -> (M,) int64."""
        chunks = [
            (self._standardised(rows) @ self.weight.T + self.bias).argmax(dim=1)
            for rows in torch.split(features, _CHUNK)
        ]
        return torch.cat(chunks)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of rows classified as labelled, in percent; (M, D), (M,)."""
        predicted = self.predict(features)
        return 100 * (predicted == labels.to(predicted.device)).double().mean().item()

    def _standardised(self, features: Tensor) -> Tensor:
        return (features.to(self.mean) - self.mean) / self.scale


def linear_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    seed: int = 0,
    l2: float | None = None,
) -> float:
    """Share of test images classified rightly by a probe fitted on the training images, in percent.

    train: (N, D), train_labels: (N,), test: (M, D), test_labels: (M,). Raises DataError as `linear_probe` does.
    """
    if len(test) != len(test_labels) or len(test) == 0:
        raise DataError(
            f"{len(test)} test features and {len(test_labels)} labels: give one label to each, at least one"
        )
    return linear_probe(train, train_labels, seed=seed, l2=l2).accuracy(test, test_labels)


def linear_probe(
    features: Tensor, labels: Tensor, *, seed: int = 0, l2: float | None = None, tolerance: float = 1e-4
) -> LinearProbe:
    """Fit on all rows, with the strength of `L2_GRID` that does best on a tenth of them held out by `seed`.

    l2 given: that strength, nothing held out. tolerance: on the gradient; 1e-4, as in scikit-learn, moves accuracy by
    about 0.1 point at most, and closer takes twice as long. features: (N, D), labels: (N,). Deterministic.
    Raises DataError where sizes disagree, there is nothing to fit, or a feature is not finite.
    """
    if len(features) == 0 or len(features) != len(labels) or features.ndim != 2:
        raise DataError(
            f"features {tuple(features.shape)} and {len(labels)} labels: give (N, D) and one label to each"
        )
    if not features.isfinite().all():
        raise DataError(
            "some features are NaN or infinite: the encoder's weights are damaged, or its precision too low"
        )
    labels = labels.to(features.device, torch.int64)
    if l2 is None:
        l2 = _best_l2(features, labels, seed, tolerance)
    return _fit(features, labels, l2, tolerance)


def _best_l2(features: Tensor, labels: Tensor, seed: int, tolerance: float) -> float:
    """The strength whose fit on nine tenths classifies the last tenth best."""
    held = len(features) // 10
    if held == 0:
        _log.warning(
            "too few images (%d) to tune the linear probe: its L2 strength is %g", len(features), _L2_UNTUNED
        )
        return _L2_UNTUNED
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed)).to(features.device)
    inner, outer = order[held:], order[:held]

    def score(l2: float) -> float:
        return _fit(features[inner], labels[inner], l2, tolerance).accuracy(features[outer], labels[outer])

    return max(L2_GRID, key=score)


def _fit(features: Tensor, labels: Tensor, l2: float, tolerance: float) -> LinearProbe:
    """Minimise mean cross-entropy + l2 / 2 * |W|^2 by L-BFGS from zero; the bias is free."""
    # Apple's GPU has no float64; elsewhere it lets the line search converge rather than stall on rounding.
    dtype = torch.float32 if features.device.type == "mps" else torch.float64
    features = features.to(dtype)
    mean, scale = features.mean(dim=0), features.std(dim=0, correction=0)
    # A constant feature's deviation is 0 or some steps of the encoder's float32, and must not be blown up to 1.
    varies = scale > 100 * torch.finfo(torch.float32).eps * mean.abs()
    scale = torch.where(varies, scale, torch.ones_like(scale))
    inputs = (features - mean) / scale
    classes = int(labels.max()) + 1
    weight = torch.zeros(classes, inputs.shape[1], dtype=dtype, device=inputs.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=dtype, device=inputs.device, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight, bias],
        max_iter=1000,
        tolerance_grad=tolerance,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        total = l2 / 2 * weight.square().sum()
        backward(total)
        for rows, targets in zip(torch.split(inputs, _CHUNK), torch.split(labels, _CHUNK), strict=True):
            loss = cross_entropy(rows @ weight.T + bias, targets, reduction="sum") / len(inputs)
            backward(loss)
            total = total + loss
        return total.detach()

    with torch.enable_grad():
        optimiser.step(closure)
    return LinearProbe(weight.detach(), bias.detach(), mean, scale, l2)
