"""A recipe's fields as words on a command line: `--optim.lr 1e-3`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import typing
from typing import Any

from zoo.errors import RecipeError, did_you_mean
from zoo.training.recipe import Recipe

SECTIONS = tuple(field.name for field in dataclasses.fields(Recipe))


def with_knobs(recipe: Recipe, words: list[str]) -> Recipe:
    """The recipe with the knobs of a command line turned. RecipeError for one that does not exist, or does nothing.

    >>> with_knobs(recipe("mae/smoke"), ["--optim.lr", "1e-3"]).optim.lr
    0.001
    """
    if not words:
        return recipe
    known = knob_types(recipe)
    groups = _grouped(words)
    for name, _ in groups:
        if name not in known:
            near = did_you_mean(name, known)
            section = name.split(".")[0]
            there = [k for k in known if k.startswith(f"{section}.")] or [f"{s}.…" for s in SECTIONS]
            raise RecipeError(f"no knob --{name}{near}; there are " + ", ".join(f"--{k}" for k in there))
    turned = _parse(recipe, [word for _, group in groups for word in group])
    if turned is None:
        raise RecipeError(_culprit(recipe, groups, known))
    _check_read(turned, [name for name, _ in groups])
    return turned


def _check_read(recipe: Recipe, given: list[str]) -> None:
    """RecipeError for a knob that was turned and that the run would not read."""
    kind, steps = recipe.optim.kind, ""
    if recipe.run.minutes is not None:
        steps = "--run.minutes chooses the steps"
    elif recipe.schedule.steps is not None:
        steps = "--schedule.steps gives the steps"
    unread = {
        "optim.betas": f"--optim.kind {kind} has no betas" if kind != "adamw" else "",
        "optim.momentum": "AdamW's are --optim.betas" if kind == "adamw" else "",
        "schedule.epochs": steps,
        "schedule.least_steps": steps,
    }
    for name in given:
        if (why := unread.get(name)) and value_of(recipe, name) is not None:
            raise RecipeError(f"--{name} does nothing here: {why}; leave it out")


def knob_types(recipe: Recipe) -> dict[str, str]:
    """Every knob of a recipe, `section.field`, with its type in words."""
    found = {}
    for section in SECTIONS:
        config: Any = getattr(recipe, section)
        for field in dataclasses.fields(config):
            found[f"{section}.{field.name}"] = str(field.type)
    return found


def value_of(recipe: Recipe, knob: str) -> Any:
    """What `section.field` is set to."""
    section, field = knob.split(".")
    return getattr(getattr(recipe, section), field)


def named(words: list[str]) -> list[str]:
    """The knobs that a command line turns, `section.field` each."""
    return [name for name, _ in _grouped(words)]


def _grouped(words: list[str]) -> list[tuple[str, list[str]]]:
    """[(knob, its words)]: `--optim.betas 0.9 0.95` is one group. Hyphens in names count as underscores."""
    groups: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            name = flag[2:].replace("-", "_")
            groups.append((name, [f"--{name}", *([value] if equals else [])]))
        else:
            groups[-1][1].append(word)
    return groups


def _parse(recipe: Recipe, words: list[str]) -> Recipe | None:
    """The recipe as tyro reads the words, or None where it cannot."""
    import tyro

    # `method` is typed by the recipe's own config, so that its knobs are plain options and not a sub-command.
    hints = {**typing.get_type_hints(Recipe, include_extras=True), "method": type(recipe.method)}
    sections = [(name, hints[name]) for name in SECTIONS]
    knobs = dataclasses.make_dataclass("Knobs", sections, frozen=True)
    default = knobs(**{name: getattr(recipe, name) for name in SECTIONS})
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # our own message says it in one line
            read: Any = tyro.cli(
                knobs,
                default=default,
                args=words,
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit:
        return None
    return Recipe(**{name: getattr(read, name) for name in SECTIONS})


def _culprit(recipe: Recipe, groups: list[tuple[str, list[str]]], known: dict[str, str]) -> str:
    """Which knob's value cannot be read, and what it should be."""
    for name, group in groups:
        if _parse(recipe, group) is None:
            now = value_of(recipe, name)
            value = " ".join(group[1:]) or "nothing"
            return f"--{name} cannot be {value!r}; its type is {known[name]}, and it is {now!r} now"
    return f"these knobs do not go together: {' '.join(word for _, group in groups for word in group)}"
