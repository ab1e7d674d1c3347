"""The contract of a study, and how studies are found: a file = a table and a picture made of many runs.

`training/study.py` runs them. A file says which runs (`cells`), what a line of the table says of each (`COLUMNS`) and
how the picture is drawn (`picture`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from zoo.errors import RecipeError, did_you_mean
from zoo.training.cells import Asked, Cell, Column, Found

if TYPE_CHECKING:
    from PIL.Image import Image


class Study(Protocol):
    """The functions of a study's file."""

    COLUMNS: Sequence[Column]

    def cells(self, asked: Asked) -> list[Cell]:
        """The runs, in the order they are made."""

    def picture(self, found: Sequence[Found]) -> Image:
        """The chart of what there is; not asked while there is nothing."""

    def remarks(self, found: Sequence[Found]) -> str:
        """A sentence or two on what came of it; a file may leave this out. Not asked while there is nothing."""


def study_names() -> list[str]:
    """Stems of the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def study_file(name: str) -> Study:
    """A study by its name. RecipeError names those there are."""
    if name not in study_names():
        known = study_names()
        raise RecipeError(f"no study {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    module: Any = importlib.import_module(f"{__name__}.{name}")
    study: Study = module
    return study
