"""The swept linear probe: heads that share nothing but the features, and a choice that never sees the test images."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator
from torch.nn import functional as F

import zoo
from zoo.encoder import Encoder
from zoo.errors import RecipeError
from zoo.sources import open_source, share_of_each_class, train_and_test
from zoo.training.engine import set_rates
from zoo.training.methods import Step
from zoo.training.optimisers import build_optimizer
from zoo.training.tuning.probe import HELD, Sweep, SweepConfig, probe_recipe, probe_rows
from zoo.training.tuning.trained import Task

QUICK = ["--data.workers", "0", "--run.threads", "1", "--schedule.epochs", "6", "--optim.batch", "24"]


@pytest.fixture
def task(paints: Path, encoder_of: Callable[[str], Encoder]) -> Task:
    train, test, _ = train_and_test(paints)
    return Task(encoder_of("resnet"), train, test, 3, knobs=QUICK)


def test_a_tenth_of_every_class_is_held_out(paints: Path) -> None:
    train = open_source(paints, "train")
    held = share_of_each_class(train, HELD, 0)
    assert Counter((train.labels or [])[i] for i in held) == {0: 2, 1: 2, 2: 2}
    assert held == share_of_each_class(train, HELD, 0) != share_of_each_class(train, HELD, 1)
    single = train.subset([0, 24, 25])
    assert share_of_each_class(single, HELD, 0) in ({1}, {2})


def test_each_head_takes_the_steps_it_would_take_alone(task: Task) -> None:
    """Two steps of SGD with momentum, written out for every head: the judged ones without the images held out."""
    recipe = probe_recipe(task)
    config = SweepConfig(rates=(0.1, 1.0))
    method = Sweep(config, recipe, task.encoder, 3)
    method.train()
    optimizer = build_optimizer(method.param_groups(recipe.optim), recipe.optim)
    pixels = torch.randn(2, 6, 3, 32, 32, generator=Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0 + 3, 1 + 3, 2])  # the fourth and fifth are held out
    with torch.no_grad():
        pooled = [task.encoder.forward_features(view).pooled for view in pixels]
    normed = [(x - x.mean(0)) / (x.var(0, correction=0) + 1e-6).sqrt() for x in pooled]
    hands = {}
    for rate in config.rates:
        for kind, rows in (("whole", [0, 1, 2, 3, 4, 5]), ("judged", [0, 1, 2, 5])):
            weight, speed = torch.zeros(3, task.encoder.dim), torch.zeros(3, task.encoder.dim)
            bias, drift = torch.zeros(3), torch.zeros(3)
            for t, x in enumerate(normed):
                error = F.softmax(x[rows] @ weight.T + bias, 1) - F.one_hot(labels[rows] % 3, 3)
                speed = 0.9 * speed + error.T @ x[rows] / len(rows)
                drift = 0.9 * drift + error.mean(0)
                lr = rate * recipe.optim.batch / 256 * (1.0, 0.5)[t]  # a cosine of two steps
                weight, bias = weight - lr * speed, bias - lr * drift
            hands[kind, rate] = (weight, bias)
    for t in range(2):
        set_rates(optimizer, recipe, Step(t, 2, 1))
        method([pixels[t]], Step(t, 2, 1), torch.zeros(6), labels=labels)[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    for kind, heads in (("whole", method.whole), ("judged", method.judged)):
        for rate, head in zip(config.rates, heads, strict=True):
            torch.testing.assert_close(head.weight, hands[kind, rate][0], atol=1e-5, rtol=1e-3)
            torch.testing.assert_close(head.bias, hands[kind, rate][1], atol=1e-5, rtol=1e-3)


def test_the_encoder_stays_as_it_is(task: Task) -> None:
    method = Sweep(SweepConfig(), probe_recipe(task), task.encoder, 3)
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    method.train()
    loss, _ = method(
        [torch.randn(4, 3, 32, 32)], Step(0, 2, 1), torch.zeros(4), labels=torch.tensor([0, 1, 2, 0])
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in method.backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in method.backbone.state_dict().items())
    assert next(task.encoder.module.parameters()).requires_grad  # a copy is frozen, not the model


def test_it_learns_an_easy_task_and_names_its_rate(
    paints: Path, encoder_of: Callable[[str], Encoder]
) -> None:
    row = zoo.training.evaluate(encoder_of("resnet"), paints, protocol="linear_sgd", knobs=QUICK)
    assert row["low"] > 40 and row["protocol"] == "linear_sgd"  # chance: 33
    assert row["settings"]["chosen lr"] in row["settings"]["lr"] == list(SweepConfig().rates)
    assert "untuned" not in row["settings"]


def test_the_rate_is_chosen_without_the_test_images(task: Task) -> None:
    """Test labels turned round change the score and not the choice."""
    [row] = probe_rows(task)
    wrong = dataclasses.replace(task.test, labels=[(label + 1) % 3 for label in task.test.labels or []])
    [turned] = probe_rows(dataclasses.replace(task, test=wrong))
    assert turned["settings"]["chosen lr"] == row["settings"]["chosen lr"]
    assert turned["top1"] < 50 < row["top1"]


def test_where_nothing_can_be_held_out_the_middle_rate_is_taken_and_told(
    task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    task = dataclasses.replace(
        task, train=task.train.subset([0, 24, 48]), knobs=[*QUICK, "--optim.batch", "2"]
    )
    assert share_of_each_class(task.train, HELD, 0) == set()
    [row] = probe_rows(task)
    assert row["settings"]["chosen lr"] == 0.1 and row["settings"]["untuned"] == "no class has two images"
    assert "none can be held out to choose the learning rate by: linear_sgd takes 0.1" in caplog.text


def test_rates_that_cannot_be_swept_are_told(task: Task) -> None:
    for words in (["0.1", "0.01"], ["0", "1"]):
        with pytest.raises(RecipeError, match="numbers above 0, low to high"):
            probe_rows(dataclasses.replace(task, knobs=[*QUICK, "--method.rates", *words]))
    with pytest.raises(RecipeError, match=r"give --method\.rates"):
        probe_recipe(dataclasses.replace(task, knobs=[*QUICK, "--optim.lr", "5e-4"]))
    recipe = probe_recipe(task)
    with pytest.raises(RecipeError, match="--protocol linear_sgd"):
        recipe.method.build(recipe)
