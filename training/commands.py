"""What the command line asks of this room."""

from __future__ import annotations

import inspect
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.training.listing import check_recipe, method_lines, recipe_lines
from zoo.words import counted

if TYPE_CHECKING:
    from zoo.training.recipe import Recipe

log = logging.getLogger(__name__)


def train_command(name: str, data: str, out: str, init: str | None, knobs: list[str]) -> None:
    """`zoo train NAME DATA [--init MODEL] [--section.knob VALUE …] --out OUT`."""
    from zoo.training.beginning import begun_with
    from zoo.training.engine import run
    from zoo.training.knobs import named, with_knobs
    from zoo.training.methods import recipe

    chosen = recipe(name) if init is None else begun_with(recipe(name), init, given=named(knobs))
    turned = with_knobs(chosen, knobs)
    extra = [*(["--init", init] if init else []), *knobs]
    command = shlex.join(["zoo", "train", name, data, *extra, "--out", out])
    folder = run(turned, data, out, init=init, name=name, command=command)
    print(
        f"the model is in {folder}: load it with zoo.load({str(folder)!r}), or keep it: zoo register {folder} NAME"
    )


def study_command(
    name: str,
    data: str,
    out: str,
    *,
    test: str | None,
    seeds: list[int],
    minutes: float | None,
    tune_epochs: int,
    knobs: list[str],
) -> Path:
    """`zoo study NAME DATA --out OUT …`; the table that it wrote."""
    from zoo.training.study import run_study

    words = ["zoo", "study", name, data, *(["--test", test] if test else [])]
    words += ["--minutes", f"{minutes:g}"] if minutes is not None else []
    words += ["--seeds", *map(str, seeds), "--tune-epochs", str(tune_epochs), *knobs, "--out", out]
    return run_study(
        name,
        data,
        out,
        test=test,
        seeds=seeds,
        minutes=minutes,
        tune_epochs=tune_epochs,
        knobs=knobs,
        command=shlex.join(words),
    )


def recipe_text(name: str) -> str:
    """The recipe's docstring: hardware, cost, expected result and command."""
    check_recipe(name)
    from zoo.training.methods import recipe_function

    return inspect.getdoc(recipe_function(name)) or ""


def knobs_table(name: str) -> list[tuple[str, str, str]]:
    """(--section.knob, what the recipe sets it to, its type)."""
    from zoo.training.knobs import knob_types, value_of
    from zoo.training.methods import recipe

    chosen = recipe(name)
    return [(f"--{knob}", str(value_of(chosen, knob)), kind) for knob, kind in knob_types(chosen).items()]


def methods_table() -> list[tuple[str, str]]:
    """(method, first line of its file's docstring)."""
    return [*method_lines().items()]


def recipes_table() -> list[tuple[str, str]]:
    """(method/recipe, first line of its docstring)."""
    return [*recipe_lines().items()]


def studies_table() -> list[tuple[str, str, str, str]]:
    """(study, how many runs for a seed, how much of training each has, first line of its file's docstring)."""
    from zoo.training.cells import Asked
    from zoo.training.studies import study_file, study_names

    rows = []
    for name in study_names():
        study = study_file(name)
        cells = study.cells(Asked())
        title = (inspect.getdoc(study) or "").partition("\n")[0]
        rows.append((name, str(len(cells)), _budget(cells[0].recipe), title))
    return rows


def _budget(recipe: Recipe) -> str:
    """The minutes, steps or epochs of a run."""
    if recipe.run.minutes is not None:
        return counted(recipe.run.minutes, "minute")
    if recipe.schedule.steps is not None:
        return counted(recipe.schedule.steps, "step")
    return counted(recipe.schedule.epochs, "epoch")
