"""How many steps fit into a run's minutes: a schedule needs its length beforehand, so the speed is measured first."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from zoo.files import write_json
from zoo.training import engine
from zoo.training.allocator import freed_memory_kept
from zoo.training.data import CutViews, Order, loader
from zoo.training.logs import read_log
from zoo.training.optimisers import build_optimizer
from zoo.training.recipe import Recipe
from zoo.training.shares import check_shares
from zoo.words import counted

# Steps before the clock starts, the share of the minutes that is measured, and the fewest and most steps of it.
WARM, SHARE, FEWEST, MOST = 3, 0.05, 8, 400


def in_minutes(
    accelerator: Accelerator, dataset: CutViews, recipe: Recipe, out: Path, before: Path | None = None
) -> tuple[Recipe, str]:
    """The recipe with the steps that fit into `run.minutes`, and a sentence that says so for the card.

    The speed is that of a few steps, measured once and kept in `pace.json` for as long as the recipe is the same;
    nothing is learnt from them. before: a run that had to come first, whose minutes count.
    """
    assert recipe.run.minutes is not None
    path = out / "pace.json"
    if not path.is_file():
        with freed_memory_kept(accelerator.device):
            seconds, over = _measured(accelerator, dataset, recipe)
        mean = accelerator.reduce(torch.tensor(seconds, device=accelerator.device), reduction="mean")
        if accelerator.is_main_process:
            write_json(path, {"seconds_per_step": float(mean), "over": over})
        accelerator.wait_for_everyone()
    pace = json.loads(path.read_text())
    spent, less = 0.0, ""
    if before is not None and (logged := read_log(before / "log.jsonl")):
        spent = logged[-1]["seconds"] / 60
        less = f", less {spent:.2g} for its {before.name}"
    steps = max(1, round(60 * (recipe.run.minutes - spent) / pace["seconds_per_step"]))
    how = (
        f"It was given {counted(recipe.run.minutes, 'minute')}{less}: {counted(steps, 'step')}, "
        f"by the {pace['seconds_per_step']:.3g} s that one took over {pace['over']} of them beforehand."
    )
    return dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, steps=steps)), how


def _measured(accelerator: Accelerator, dataset: CutViews, recipe: Recipe) -> tuple[float, int]:
    """Seconds a step, and over how many steps of another method of the recipe, which is thrown away."""
    assert recipe.run.minutes is not None
    check_shares(recipe.optim, accelerator.num_processes)
    steps = engine.count_steps(recipe, len(dataset), dataset.source.title)
    with torch.random.fork_rng(devices=[]):
        trial = recipe.method.build(recipe)
    if recipe.run.compile:
        for module in trial.compiled():
            module.compile()
    plain = build_optimizer(trial.param_groups(recipe.optim), recipe.optim)
    prepared, optimizer = accelerator.prepare(trial, plain)
    prepared.train()
    rank, world = accelerator.process_index, accelerator.num_processes
    scale = None if accelerator.scaler is None else accelerator.scaler.state_dict()
    order = Order(len(dataset), recipe.optim.batch, recipe.run.seed, 0, WARM + MOST, rank, world)
    began, done = time.monotonic(), 0
    for index, batch in enumerate(loader(dataset, order, recipe.data.workers)):
        if index == WARM:
            began = time.monotonic()
        step = dataclasses.replace(steps, index=min(index, steps.total - 1))
        engine.set_rates(optimizer, recipe, step)
        seed, parts = recipe.run.seed, recipe.optim.accumulate
        loss, _ = engine.train_step(accelerator, prepared, trial, optimizer, batch, step, seed, parts)
        loss.item()  # a GPU would still be at it
        done = index + 1 - WARM
        # Every process takes as many steps: with others a fixed number, for their clocks differ.
        if done >= FEWEST and (world > 1 or time.monotonic() - began > 60 * SHARE * recipe.run.minutes):
            break
    seconds = (time.monotonic() - began) / done
    accelerator.free_memory()
    if scale is not None:
        accelerator.scaler.load_state_dict(scale)  # the trial's gradients have moved it
    return seconds, done
