"""Low-shot: fine-tuned on a class-balanced 1 % and 10 % of the labels, as SimCLR and BYOL are (2002.05709, §6, B.5)."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import defaultdict
from typing import Any, cast

import numpy as np

from zoo.errors import RecipeError
from zoo.masking import splitmix64
from zoo.protocols import share_of_labels
from zoo.sources import Source, rank
from zoo.training.recipe import Optim, Recipe, Schedule
from zoo.training.tuning.finetune import FinetuneConfig, FineTuning, settings_of, usual_decay
from zoo.training.tuning.trained import Task, check_few, fit, recipe_for, row_of, told_right

log = logging.getLogger(__name__)

# Share of the labels, and how many draws of so many are averaged: few labels make a lucky draw likely.
SHARES = {0.01: 5, 0.1: 1}
# Epochs for each share, as SimCLR has them; on small data they would be over after a few steps.
EPOCHS, LEAST_STEPS = {0.01: 60, 0.1: 30}, 500


def balanced(source: Source, share: float, seed: int) -> Source:
    """The same number of images of every class, `share` of the source together and at least one of each.

    Seeded and nested: the 1 % of a seed are among its 10 %. A class with fewer images than that gives all it has.
    """
    assert source.labels is not None  # classes_of said so
    members: dict[int, list[int]] = defaultdict(list)
    for i, label in enumerate(source.labels):
        members[label].append(i)
    count = max(1, round(share * len(source) / len(members)))
    taken: list[int] = []
    for indices in members.values():
        taken += sorted(indices, key=lambda i: rank(seed, source.ids[i]))[:count]
    return source.subset(sorted(taken))


def lowshot_recipe(task: Task, share: float, images: int) -> Recipe:
    """AdamW on crops and flips alone, for SimCLR's epochs and no fewer than 500 steps."""
    batch = 32
    epochs = max(EPOCHS.get(share, 30), math.ceil(LEAST_STEPS / max(1, images // batch)))
    config = FinetuneConfig(
        layer_decay=usual_decay(task), mixup=0, cutmix=0, smoothing=0, randaugment=0, erase=0
    )
    optim = Optim(batch=batch, lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05)
    recipe = recipe_for(task, config, optim, Schedule(epochs=epochs, warmup_epochs=5), images=images)
    cast(FinetuneConfig, recipe.method).check(recipe)
    return recipe


def _shares(share: float | None) -> list[float]:
    """The one that is asked for, or 1 % and 10 %. RecipeError where it is none."""
    if share is not None and not 0 < share <= 1:
        raise RecipeError(f"share is {share}; give a share of the labels in (0, 1], such as 0.01")
    return [*SHARES] if share is None else [share]


def lowshot_recipes(task: Task, share: float | None = None) -> list[Recipe]:
    """The recipe for each share of the labels; of several draws, the first one's."""
    return [lowshot_recipe(task, each, len(balanced(task.train, each, task.seed))) for each in _shares(share)]


def lowshot_rows(task: Task, share: float | None = None) -> list[dict[str, Any]]:
    """A row for each share of the labels, 1 % and 10 % where none is given; the mean of five draws at 1 %."""
    return [_row(task, each, SHARES.get(each, 1)) for each in _shares(share)]


def draw_seed(seed: int, draw: int) -> int:
    """The seed of a draw: the first is the evaluation's own, the others share none with another evaluation's."""
    return seed if draw == 0 else int(splitmix64([seed], draw)[0, 0] >> np.uint64(1))


def _row(task: Task, share: float, draws: int) -> dict[str, Any]:
    told, minutes = [], 0.0
    for draw in range(draws):
        seeded = dataclasses.replace(task, seed=draw_seed(task.seed, draw))
        few = balanced(task.train, share, seeded.seed)
        check_few(few)
        recipe = lowshot_recipe(seeded, share, len(few))
        method = FineTuning(cast(FinetuneConfig, recipe.method), recipe, task.encoder, task.classes)
        state = fit(seeded, method, recipe, few)
        told.append(told_right(seeded, method.backbone, method.head))
        minutes += state.seconds / 60
    row = row_of("lowshot", task, few, told, recipe, minutes, **settings_of(recipe))
    if (true := len(few) / len(task.train)) > 1.5 * share:
        log.warning(
            "%s is too small for %s: one image of each class, the least there is, makes %s",
            *(task.train.title, share_of_labels(share), share_of_labels(true)),
        )
    return {**row, "share": share}
