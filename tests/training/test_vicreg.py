"""VICReg against loops over Algorithm 1."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from zoo.training.methods import Step, recipe
from zoo.training.methods.vicreg import VICReg, VICRegConfig, covariance_loss, spread_loss
from zoo.training.recipe import Recipe

STEP, NOISE = Step(0, 100, 10), torch.zeros(4, dtype=torch.int64)


def slow_spread(z: Tensor) -> float:
    hinges = [max(0.0, 1 - math.sqrt(statistics.variance(column) + 1e-4)) for column in z.T.tolist()]
    return sum(hinges) / len(hinges)


def slow_covariance(z: Tensor) -> float:
    columns = z.T.tolist()
    pairs = [(a, b) for i, a in enumerate(columns) for j, b in enumerate(columns) if i != j]
    return sum(statistics.covariance(a, b) ** 2 for a, b in pairs) / len(columns)


def slow_loss(first: Tensor, second: Tensor, weights: tuple[float, float, float]) -> float:
    distance = sum(
        (a - b) ** 2 for a, b in zip(first.flatten().tolist(), second.flatten().tolist(), strict=True)
    )
    terms = (
        distance / first.numel(),
        slow_spread(first) + slow_spread(second),
        slow_covariance(first) + slow_covariance(second),
    )
    return sum(weight * term for weight, term in zip(weights, terms, strict=True))


@pytest.mark.parametrize(("images", "width", "scale"), [(2, 2, 1.0), (8, 5, 0.3), (5, 9, 3.0)])
def test_terms_equal_the_loops(images: int, width: int, scale: float) -> None:
    z = scale * torch.randn(images, width, generator=Generator().manual_seed(images)) + 2
    assert spread_loss(z).item() == pytest.approx(slow_spread(z), abs=1e-5)
    assert covariance_loss(z).item() == pytest.approx(slow_covariance(z), rel=1e-4)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 3.0)])
def test_loss_equals_the_loops(weights: tuple[float, float, float], tiny: Callable[..., Recipe]) -> None:
    names = ("invariance", "variance", "covariance")
    turned = tiny("vicreg/smoke", method={"hidden": 16, **dict(zip(names, weights, strict=True))})
    method = turned.method.build(turned)
    assert isinstance(method, VICReg)
    views = list(torch.randn(2, 4, 3, 32, 32, generator=Generator().manual_seed(0)))
    loss, logs = method(views, STEP, NOISE)
    with torch.no_grad():
        first, second = (method.expander(method.backbone(view)) for view in views)
    assert loss.item() == pytest.approx(slow_loss(first, second, weights), rel=1e-4)
    told = sum(weight * float(logs[name]) for name, weight in zip(names, weights, strict=True))
    assert told == pytest.approx(loss.item(), rel=1e-5)


def test_collapse_costs_the_whole_hinge() -> None:
    same = torch.ones(6, 3)
    assert spread_loss(same).item() == pytest.approx(1 - 0.01)
    assert covariance_loss(same).item() == 0


def test_defaults_are_the_papers() -> None:
    config, optim = VICRegConfig(), recipe("vicreg/imagenet").optim
    assert (config.invariance, config.variance, config.covariance, config.hidden) == (25, 25, 1, 8192)
    assert optim.kind == "lars" and optim.lr * optim.batch / 256 == pytest.approx(1.6)
