"""BYOL against loops over Equation 2, and its target against hand values."""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import pytest
import torch
from accelerate import Accelerator
from torch import Generator, Tensor

from zoo.training.data import Batch
from zoo.training.engine import train_step
from zoo.training.methods import Step, recipe
from zoo.training.methods.byol import BYOL, BYOLConfig, regression
from zoo.training.recipe import Recipe

STEP, NOISE = Step(0, 100, 10), torch.zeros(3, dtype=torch.int64)


@pytest.fixture
def small(tiny: Callable[..., Recipe]) -> Callable[..., BYOL]:
    def build(**knobs: object) -> BYOL:
        torch.manual_seed(0)
        turned = tiny("byol/smoke", method=knobs)
        method = turned.method.build(turned)
        assert isinstance(method, BYOL)
        return method

    return build


def pair(seed: int = 0, count: int = 3) -> list[Tensor]:
    return list(torch.randn(2, count, 3, 32, 32, generator=Generator().manual_seed(seed)))


def move_apart(method: BYOL) -> None:
    """Give the target values of its own, as after some steps, so that no confusion goes unseen."""
    generator = Generator().manual_seed(7)
    for p in [*method.target.parameters(), *method.target_projector.parameters()]:
        p.data += 0.1 * torch.randn(p.shape, generator=generator)


# The loss


def slow_distance(guess: list[float], target: list[float]) -> float:
    """Equation 2: the squared distance of the normalised vectors."""
    a, b = math.hypot(*guess), math.hypot(*target)
    return sum((x / a - y / b) ** 2 for x, y in zip(guess, target, strict=True))


@pytest.mark.parametrize(("images", "width"), [(1, 2), (5, 16)])
def test_regression_equals_the_loops(images: int, width: int) -> None:
    guess, target = torch.randn(2, images, width, generator=Generator().manual_seed(width))
    slow = [slow_distance(a, b) for a, b in zip(guess.tolist(), target.tolist(), strict=True)]
    assert float(regression(guess, target)) == pytest.approx(sum(slow) / images, abs=1e-5)


def test_each_view_predicts_the_other(small: Callable[..., BYOL]) -> None:
    method, (v, w) = small(), pair()
    move_apart(method)
    losses = [float(method(views, STEP, NOISE)[0].detach()) for views in method.turns([v, w])]
    slow = []
    with torch.no_grad():
        for here, there in ((v, w), (w, v)):
            q = method.predictor(method.online_projector(method.online(here)))
            z = method.target_projector(method.target(there))
            slow.append(sum(map(slow_distance, q.tolist(), z.tolist())) / len(q))
    assert losses == pytest.approx(slow, abs=1e-4)


def one_step(method: BYOL, views: list[Tensor]) -> tuple[float, list[Tensor]]:
    """The loss of the engine's step, and the gradients that its optimiser finds."""
    trained = [p for p in method.parameters() if p.requires_grad]
    found: list[Tensor] = []

    class Reading(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            found.extend(p.grad.clone() for p in trained if p.grad is not None)

    batch = Batch(views, NOISE, [])
    loss, _ = train_step(Accelerator(cpu=True), method, method, Reading(trained, lr=0.0), batch, STEP, seed=0)
    return float(loss), found


def test_a_step_takes_the_gradients_of_the_symmetrised_loss(small: Callable[..., BYOL]) -> None:
    """Equation 2, both terms at once."""
    method, views = small(), pair()
    move_apart(method)
    guesses = [method.predictor(method.online_projector(method.online(view))) for view in views]
    with torch.no_grad():
        targets = [method.target_projector(method.target(view)) for view in views]
    both = regression(guesses[0], targets[1]) + regression(guesses[1], targets[0])
    wanted = torch.autograd.grad(both, [p for p in method.parameters() if p.requires_grad])
    loss, found = one_step(method, views)
    assert loss == pytest.approx(both.item(), abs=1e-5)
    mine, slow = (torch.cat([each.flatten() for each in gradients]) for gradients in (found, wanted))
    assert float((mine - slow).norm() / slow.norm()) < 1e-4


def test_a_step_holds_the_activations_of_one_view(small: Callable[..., BYOL]) -> None:
    """What autograd keeps of the first view is gone before the second is looked at."""
    method, alive, before = small(), WeakSet[Kept](), list[int]()

    def look(*_: object) -> None:
        gc.collect()
        before.append(len(alive))

    def keep(tensor: Tensor) -> Kept:
        kept = Kept(tensor)
        alive.add(kept)
        return kept

    method.online.get_submodule("patch_embed").register_forward_pre_hook(look)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
        one_step(method, pair())
    assert before == [0, 0]


class Kept:
    """A tensor that autograd keeps."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


# The target


def test_gradients_reach_the_online_network_and_no_target(small: Callable[..., BYOL]) -> None:
    method = small()
    move_apart(method)
    method(pair(), STEP, NOISE)[0].backward()
    for name, p in method.named_parameters():
        if name.startswith("target"):
            assert p.grad is None and not p.requires_grad, name
        else:
            assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("index", "tau"), [(0, 0.996), (250, 1 - 0.004 * (2 + math.sqrt(2)) / 4), (500, 0.998), (1000, 1.0)]
)
def test_tau_by_hand(index: int, tau: float, small: Callable[..., BYOL]) -> None:
    assert small(momentum=0.996).momentum(Step(index, 1000, 10)) == pytest.approx(tau, abs=1e-9)


@pytest.mark.parametrize(("index", "tau"), [(0, 0.5), (50, 0.75), (100, 1.0)])
def test_the_target_moves_by_hand(index: int, tau: float, small: Callable[..., BYOL]) -> None:
    method = small(momentum=0.5)
    move_apart(method)
    before = copy.deepcopy(dict(method.named_parameters()))
    method.after_step(Step(index, 100, 10))
    for name, p in method.named_parameters():
        if not name.startswith("target"):
            assert torch.equal(p, before[name])
            continue
        online = before[name.replace("target", "online", 1)]
        assert torch.allclose(p, tau * before[name] + (1 - tau) * online, atol=1e-6), name


def test_the_networks_begin_alike_and_the_online_one_is_kept(small: Callable[..., BYOL]) -> None:
    method = small()
    parts = ((method.online, method.target), (method.online_projector, method.target_projector))
    for online, target in parts:
        theirs = target.state_dict()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in online.state_dict().items())
    assert method.encoder() is method.online


def test_starts_from_given_weights_in_both_networks(small: Callable[..., BYOL]) -> None:
    method, other = small(), small()
    move_apart(other)
    weights = other.target.state_dict()
    method.start_from(weights, None)
    for network in (method.online, method.target):
        assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


# Views and recipes


def test_only_the_second_view_is_solarised(tiny: Callable[..., Recipe]) -> None:
    turned = tiny("byol/smoke", method={"min_scale": 1.0}, data={"size": 32})
    cut = turned.method.build(turned).views()
    # White stays above half the range under every jitter of brightness, so that only solarisation makes it dark.
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    dark = [
        [float(view[1].mean()) < (0.5 - 0.456) / 0.224 for view in cut(white, Generator().manual_seed(seed))]
        for seed in range(100)
    ]
    first, second = (sum(column) / len(column) for column in zip(*dark, strict=True))
    assert first == 0
    assert second == pytest.approx(0.2, abs=0.09)


def test_defaults_are_the_papers() -> None:
    config, optim = BYOLConfig(), recipe("byol/imagenet").optim
    assert (config.hidden, config.out, config.momentum) == (4096, 256, 0.996)
    assert (optim.kind, optim.weight_decay) == ("lars", 1.5e-6)
    assert optim.lr * optim.batch / 256 == pytest.approx(3.2)
