"""What a study is made of: cells, each a run and what is measured of it, and what came of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import RecipeError
from zoo.training.logs import read_log
from zoo.training.recipe import Recipe

Point = tuple[float, float, float]  # a value with its interval
# In a cell's folder: bytes that a step keeps for its backward pass.
SAVED = "saved.json"


@dataclass(frozen=True)
class Asked:
    """What the command line asks of a study. minutes: of training for each cell, None for the study's own budget."""

    seed: int = 0
    minutes: float | None = None
    tune_epochs: int = 10

    def refuse_minutes(self, study: str, equal: str) -> None:
        """RecipeError where minutes are given to a study whose cells have something else in equal measure."""
        if self.minutes is not None:
            raise RecipeError(f"`zoo study {study}` compares runs of equal {equal}; leave out --minutes")


@dataclass(frozen=True)
class Cell:
    """One run of a study, and what is measured of it. recipe_name: METHOD/RECIPE, for the card."""

    name: str
    recipe_name: str
    recipe: Recipe
    protocols: tuple[str, ...] = ("knn", "linear")
    baselines: bool = False
    """Measure the same architecture untrained as well, and from scratch where it is tuned."""
    tuning: tuple[str, ...] = ()
    """Knobs of the protocols that train."""
    activations: bool = False
    """Count the bytes that a step keeps for its backward pass."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What tells this cell from others, for the table and the picture."""


@dataclass(frozen=True)
class Found:
    """A cell and what came of it so far. rows: as `zoo evaluate --json` has them. stopped: why the sentry ended it.

    untuned: protocols whose training broke off, each with why.
    """

    cell: Cell
    folder: Path
    rows: Sequence[Mapping[str, Any]] = ()
    stopped: str = ""
    done: bool = False
    untuned: Mapping[str, str] = field(default_factory=dict)

    def point(self, protocol: str, features: str = "trained") -> Point | None:
        """Top-1 with its interval; None where it is not measured."""
        for row in self.rows:
            if row["protocol"] == protocol and row["features"] == features:
                return row["top1"], row["low"], row["high"]
        return None

    def score(self, protocol: str, features: str = "trained") -> str:
        """The same in words."""
        found = self.point(protocol, features)
        return "" if found is None else f"{found[0]:.1f} ({found[1]:.1f}–{found[2]:.1f})"

    def minutes(self, protocol: str | None = None, features: str = "trained") -> float | None:
        """Minutes of pre-training, with a run that had to come first, or of a protocol that trains."""
        if protocol is None:
            last = [
                lines[-1] for lines in (self.log(), *map(read_log, self.folder.glob("*/log.jsonl"))) if lines
            ]
            return sum(line["seconds"] for line in last) / 60 if last else None
        found = [row for row in self.rows if row["protocol"] == protocol and row["features"] == features]
        return found[0]["minutes"] if found else None

    def saved(self) -> float | None:
        """MiB that a step keeps for its backward pass, where it was counted."""
        path = self.folder / SAVED
        return json.loads(path.read_text())["bytes"] / 2**20 if path.is_file() else None

    def log(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl."""
        return read_log(self.folder / "log.jsonl")

    def loss(self) -> float | None:
        """Mean loss over the last tenth of the steps that were logged."""
        losses = [row["loss"] for row in self.log()]
        last = losses[-max(1, len(losses) // 10) :]
        return sum(last) / len(last) if losses else None

    def state(self) -> str:
        """Done, stopped and why, or missing."""
        if self.stopped:
            return (
                f"stopped: {self.stopped}; to try again, remove {self.cell.name}/ in the folder of this table"
            )
        if not self.done:
            return "missing"
        return "; ".join(["done", *(f"{which} broke off: {why}" for which, why in self.untuned.items())])


Column = tuple[str, Callable[[Found], str]]


def small(recipe: Recipe, asked: Asked, sections: Mapping[str, dict[str, Any]], size: int = 64) -> Recipe:
    """A recipe at `size` px, with the asked seed and minutes and these fields of its sections replaced."""
    turned: dict[str, dict[str, Any]] = {
        "arch": {"size": size},
        "data": {"size": size, "side": round(1.25 * size)},
        "run": {"seed": asked.seed, "minutes": asked.minutes},
    }
    for section, fields in sections.items():
        turned[section] = {**turned.get(section, {}), **fields}
    replaced = {s: dataclasses.replace(getattr(recipe, s), **fields) for s, fields in turned.items()}
    return dataclasses.replace(recipe, **replaced)


def tell_seed(found: Found) -> str:
    return str(found.cell.recipe.run.seed)


def tell_minutes(found: Found) -> str:
    """Those it took, and those it was given."""
    minutes, given = found.minutes(), found.cell.recipe.run.minutes
    if minutes is None:
        return ""
    return f"{minutes:.1f}" if given is None else f"{minutes:.1f} of {given:g}"


def tell_steps(found: Found) -> str:
    logged = found.log()
    return f"{logged[-1]['step']:,}" if logged else ""


def told_lines(found: Sequence[Found]) -> str:
    """What the lines of a chart mean, for one seed or for several; see `over_seeds`."""
    seeds = sorted({each.cell.recipe.run.seed for each in found})
    if len(seeds) == 1:
        return (
            f"Top-1 on the test images, seed {seeds[0]}; lines are 95 % intervals over resampled test images."
        )
    return (
        f"Top-1 on the test images, the mean of seeds {', '.join(map(str, seeds))}; lines go from the lowest to the "
        "highest end of each seed's 95 % interval over resampled test images."
    )


def over_seeds(points: Sequence[Point | None]) -> Point | None:
    """The mean of several seeds, from the lowest end of their intervals to the highest; None where there is none."""
    there = [point for point in points if point is not None]
    if not there:
        return None
    return sum(p[0] for p in there) / len(there), min(p[1] for p in there), max(p[2] for p in there)
