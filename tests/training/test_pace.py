"""Runs of so many minutes: steps by a measured speed, the same after a kill, and said on the card."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.cards import read_card
from zoo.errors import RecipeError
from zoo.sources import open_source
from zoo.training import engine, pace, precision
from zoo.training.cells import Found
from zoo.training.data import CutViews
from zoo.training.engine import run
from zoo.training.logs import read_log
from zoo.training.methods import method_names, recipe
from zoo.training.precision import start_accelerator
from zoo.training.recipe import Recipe
from zoo.training.schedules import warmup_cosine
from zoo.weights import load_tensors


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every step takes 20 ms at least; when each of them began."""
    step, began = engine.train_step, []

    def waits(*words: Any) -> Any:
        began.append(time.monotonic())
        loss = step(*words)
        time.sleep(max(0.0, began[-1] + 0.02 - time.monotonic()))
        return loss

    monkeypatch.setattr(engine, "train_step", waits)
    return began


def test_it_takes_the_steps_that_fit(
    tiny: Callable[..., Recipe], photos: Path, tmp_path: Path, slow: list[float]
) -> None:
    turned = tiny("mae/smoke", run={"minutes": 0.02, "log_every": 1})  # 1.2 s, at some 20 ms a step
    folder = run(turned, photos, tmp_path / "run")
    told = json.loads((folder / "pace.json").read_text())
    assert told["over"] >= pace.FEWEST and told["seconds_per_step"] >= 0.019
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps = round(1.2 / told["seconds_per_step"])
    assert lines[-1]["step"] == steps == len(slow) - told["over"] - pace.WARM
    card = read_card(folder)
    assert card.training is not None and card.training.steps == steps
    assert card.training.epochs == max(1, round(steps * 4 / 12))
    assert f"given 0.02 minutes: {steps} steps, by the" in card.body
    peak = turned.optim.lr * turned.optim.batch / 256
    last = warmup_cosine(steps - 1, steps, min(0.1 * 3, steps / 10), peak, turned.schedule.final_lr)
    assert lines[-1]["lr"] == pytest.approx(last)  # its schedule ends with it


@pytest.mark.parametrize("name", method_names())
def test_every_method_can_be_measured(
    name: str, tiny: Callable[..., Recipe], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16, which `zoo study methods` runs them all in: each step's loss is a number."""
    monkeypatch.setattr(precision, "has_bf16", lambda: True)  # be it imitated
    monkeypatch.setattr(pace, "FEWEST", 1)
    monkeypatch.setattr(pace, "WARM", 1)
    step, losses = engine.train_step, []

    def kept(*words: Any) -> Any:
        told = step(*words)
        losses.append(float(told[0]))
        return told

    monkeypatch.setattr(engine, "train_step", kept)
    turned = tiny(f"{name}/smoke", run={"minutes": 1e-4, "precision": "bf16", "log_every": 1})
    if name in ("simmim", "ummae"):  # for pyramids
        own = recipe(f"{name}/smoke")
        turned = dataclasses.replace(turned, arch=own.arch, data=own.data, method=own.method)
    views = turned.method.build(turned).views()
    dataset = CutViews(open_source(photos, "train"), views, 0, 40, True)
    accelerator = start_accelerator("bf16", cpu=True)
    assert accelerator.mixed_precision == "bf16"
    paced, _ = pace.in_minutes(accelerator, dataset, turned, tmp_path)
    assert paced.schedule.steps == 1 and json.loads((tmp_path / "pace.json").read_text())["over"] == 1
    assert len(losses) == 2 and all(map(math.isfinite, losses))


def test_measuring_teaches_nothing(tiny: Callable[..., Recipe], photos: Path, tmp_path: Path) -> None:
    """The same weights as a run of as many steps that was not measured."""
    timed = run(tiny("byol/smoke", run={"minutes": 0.005}), photos, tmp_path / "timed")
    lines = (timed / "log.jsonl").read_text().splitlines()
    steps = json.loads(lines[-1])["step"]
    told = run(tiny("byol/smoke", schedule={"steps": steps}), photos, tmp_path / "told")
    ours, theirs = (load_tensors(folder / "model.safetensors") for folder in (timed, told))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_killed_run_keeps_its_pace(
    tiny: Callable[..., Recipe], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = tiny("mae/smoke", run={"minutes": 0.01, "checkpoint_minutes": 0.0})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pace.json").write_text('{"seconds_per_step": 0.1, "over": 8}')  # 6 steps
    step, steps = engine.train_step, []

    def dies(*words: Any) -> Any:
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return step(*words)

    monkeypatch.setattr(engine, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        run(turned, photos, tmp_path / "run")
    run(turned, photos, tmp_path / "run")
    assert len(steps) == 6 + 1


@pytest.mark.parametrize(("knob", "again"), [({}, False), ({"lr": 1e-3}, True)])
def test_another_recipe_is_measured_anew(
    knob: dict[str, Any],
    again: bool,
    tiny: Callable[..., Recipe],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A folder without a checkpoint may be taken by another run, which has another speed."""

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(engine, "loop", dies)
        run(tiny("mae/smoke", run={"minutes": 0.005}), photos, tmp_path / "run")
    path = tmp_path / "run" / "pace.json"
    path.write_text('{"seconds_per_step": 0.1, "over": 99}')
    run(tiny("mae/smoke", run={"minutes": 0.005}, optim=knob), photos, tmp_path / "run")
    assert (json.loads(path.read_text())["over"] != 99) == again


def test_measuring_leaves_the_loss_scale(
    tiny: Callable[..., Recipe], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float16 scales its loss. Here each step on finite gradients doubles the scale, and the CPU computes in float32,
    for want of a GPU."""
    turned = tiny("mae/smoke", run={"minutes": 0.005})
    dataset = CutViews(open_source(photos, "train"), turned.method.build(turned).views(), 0, 40, True)
    accelerator = start_accelerator("no", cpu=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1)
    monkeypatch.setattr(accelerator, "scaler", scaler)
    step, scales = engine.train_step, []

    def watched(*words: Any) -> Any:
        told = step(*words)
        scales.append(scaler.get_scale())
        return told

    monkeypatch.setattr(engine, "train_step", watched)
    pace.in_minutes(accelerator, dataset, turned, tmp_path)
    assert scales[:3] == [8.0, 16.0, 32.0] and scaler.get_scale() == 4.0


def test_a_run_that_comes_first_counts(tiny: Callable[..., Recipe], photos: Path, tmp_path: Path) -> None:
    """BEiT's tokenizer gets a third of the minutes, and BEiT what is left of them."""
    turned = tiny("beit/smoke", run={"minutes": 0.08, "log_every": 1})
    folder = run(turned, photos, tmp_path / "run")
    claim = json.loads((folder / "tokenizer" / "recipe.json").read_text())
    assert claim["run"]["minutes"] == pytest.approx(0.08 / 3)
    logs = [read_log(path / "log.jsonl")[-1] for path in (folder / "tokenizer", folder)]
    left, told = 60 * 0.08 - logs[0]["seconds"], json.loads((folder / "pace.json").read_text())
    assert 0 < left < 60 * 0.08 and logs[1]["step"] == round(left / told["seconds_per_step"])
    assert "given 0.08 minutes, less 0.0" in read_card(folder).body
    cell: Any = None
    assert Found(cell, folder).minutes() == pytest.approx(sum(log["seconds"] for log in logs) / 60)


@pytest.mark.parametrize("schedule", [{"epochs": 6}, {"steps": 12}])
def test_the_card_counts_the_epochs_that_were_trained(
    schedule: dict[str, int], tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:
    """Of 12 images in batches of 5 two are left out of every epoch."""
    turned = tiny("mae/smoke", optim={"batch": 5}, schedule=schedule)
    training = read_card(run(turned, photos, tmp_path / "run", scores=False)).training
    assert training is not None and (training.epochs, training.steps) == (6, 12)


def test_minutes_and_steps_exclude_each_other(
    tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"--run\.minutes chooses the steps.*give one of the two"):
        run(tiny("mae/smoke", run={"minutes": 1}, schedule={"steps": 3}), photos, tmp_path / "run")
    for section, knob in (("run", "minutes"), ("schedule", "steps")):
        with pytest.raises(RecipeError, match=rf"--{section}\.{knob} is 0; give a number above 0"):
            run(tiny("mae/smoke", **{section: {knob: 0}}), photos, tmp_path / "run")
