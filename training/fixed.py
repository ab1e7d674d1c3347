"""Knobs that a study sets itself: turned by the caller, they would make its labels untrue."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch

from zoo.errors import RecipeError
from zoo.training.cells import Cell
from zoo.training.knobs import knob_types, named, value_of
from zoo.training.methods import recipe

# What every study's titles, names of cells and budgets speak of, whatever it is set to.
ALWAYS = ("arch.*", "data.size", "data.side", "run.seed", "run.minutes", "schedule.epochs", "schedule.steps")
INSTEAD = {"run.seed": "give --seeds", "run.minutes": "give --minutes"}


def refuse_knobs(study: str, cells: Sequence[Cell], words: Sequence[str]) -> None:
    """RecipeError for the first knob on a command line that the study sets or varies."""
    mine = set_by(cells) if words else set()
    for knob in named(list(words)):
        if knob in mine or any(fnmatch(knob, always) for always in ALWAYS):
            instead = INSTEAD.get(knob, "leave it out")
            raise RecipeError(
                f"--{knob} is for `zoo study {study}` itself to set, whose table names it; {instead}"
            )


def set_by(cells: Sequence[Cell]) -> set[str]:
    """Knobs in which a cell differs from the recipe it is made of."""
    found = set()
    for cell in cells:
        base = recipe(cell.recipe_name)
        found |= {knob for knob in knob_types(base) if value_of(cell.recipe, knob) != value_of(base, knob)}
    return found
