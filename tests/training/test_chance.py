"""Chance is what the best guess scores that never looks at an image."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from zoo.training.chance import chance_level


def slow_chance(answers: list[int], classes: int, smoothing: float) -> float:
    shares = [(1 - smoothing) * answers.count(c) / len(answers) + smoothing / classes for c in range(classes)]
    return -sum(share * math.log(share) for share in shares if share > 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_equals_the_loop(smoothing: float) -> None:
    answers = torch.randint(5, (40,), generator=Generator().manual_seed(0))
    assert chance_level(answers, 7, smoothing).item() == pytest.approx(
        slow_chance(answers.tolist(), 7, smoothing), rel=1e-5
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_no_constant_guess_does_better(smoothing: float) -> None:
    """And gradient descent on one comes as near as it likes."""
    answers = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    guess = torch.zeros(4, requires_grad=True)
    level = chance_level(answers, 4, smoothing).item()
    for _ in range(400):
        loss = F.cross_entropy(guess.expand(9, 4), answers, label_smoothing=smoothing)
        assert loss.item() >= level - 1e-6
        (gradient,) = torch.autograd.grad(loss, guess)
        guess = (guess - 2 * gradient).detach().requires_grad_()
    assert loss.item() == pytest.approx(level, abs=0.02)


def test_a_batch_of_single_answers_says_nothing() -> None:
    assert chance_level(torch.arange(8), 1000).item() == pytest.approx(math.log(1000))
    assert chance_level(torch.arange(8).repeat(2), 1000).item() == pytest.approx(math.log(8), rel=1e-5)
