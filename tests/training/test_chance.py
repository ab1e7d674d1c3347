"""Chance is what the best guess scores that never looks at an image."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from zoo.training.chance import chance_level


def slow_chance(answers: list[int], classes: int, smoothing: float) -> float:
    """The entropy of the batch, and half the variance of each share by its curvature."""
    total = 0.0
    for c in range(classes):
        share = answers.count(c) / len(answers)
        guess = (1 - smoothing) * share + smoothing / classes
        if guess > 0:
            variance = share * (1 - share) / len(answers)
            total += -guess * math.log(guess) + variance * (1 - smoothing) ** 2 / guess / 2
    return min(total, math.log(classes))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_equals_the_loop(smoothing: float) -> None:
    answers = torch.randint(5, (40,), generator=Generator().manual_seed(0))
    assert chance_level(answers, 7, smoothing).item() == pytest.approx(
        slow_chance(answers.tolist(), 7, smoothing), rel=1e-5
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_guess_made_for_the_batch_gains_what_is_added(smoothing: float) -> None:
    """Gradient descent finds the batch's own entropy; the level is (K - 1) / 2B nats above it, less if smoothed."""
    answers = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2] * 20)
    guess = torch.zeros(4, requires_grad=True)
    level = chance_level(answers, 4, smoothing).item()
    for _ in range(400):
        loss = F.cross_entropy(guess.expand(180, 4), answers, label_smoothing=smoothing)
        (gradient,) = torch.autograd.grad(loss, guess)
        guess = (guess - 2 * gradient).detach().requires_grad_()
    added = level - loss.item()
    assert 0.003 < added < 2 / 360 + 1e-6  # the answer that is never given is forgotten slowly


@pytest.mark.parametrize("size", [80, 320, 1280])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_small_batches_tell_what_large_ones_do(smoothing: float, size: int) -> None:
    """On average, within 1 % of what a guess by the true frequencies scores; the batch's own entropy is 4 % short."""
    frequencies = torch.arange(1, 21) / 210.0
    draws = torch.multinomial(
        frequencies, 400 * size, replacement=True, generator=Generator().manual_seed(0)
    ).view(400, size)
    guess = (1 - smoothing) * frequencies + smoothing / 20
    asked = -(guess * guess.log()).sum().item()
    told = torch.stack([chance_level(batch, 20, smoothing) for batch in draws]).mean().item()
    assert told == pytest.approx(asked, rel=0.01)
    if size == 80 and not smoothing:
        own = [torch.bincount(batch, minlength=20) / size for batch in draws]
        short = torch.stack([torch.special.entr(shares).sum() for shares in own]).mean().item()
        assert short < 0.965 * asked


def test_a_batch_of_single_answers_says_nothing() -> None:
    assert chance_level(torch.arange(8), 1000).item() == pytest.approx(math.log(1000))
    assert chance_level(torch.arange(8).repeat(4), 1000).item() == pytest.approx(
        math.log(8) + 7 / 64, rel=1e-5
    )
    assert chance_level(torch.arange(8).repeat(2), 8).item() == pytest.approx(math.log(8)), "and never more"
