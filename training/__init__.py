"""Recipe -> run -> a folder the zoo can load. `zoo.training.run(recipe, data, out)` is the whole of it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.training.beginning import begun_with as begun_with
    from zoo.training.engine import run as run
    from zoo.training.recipe import Recipe as Recipe
    from zoo.training.scores import evaluate as evaluate

_PUBLIC = {
    "run": "zoo.training.engine",
    "begun_with": "zoo.training.beginning",
    "Recipe": "zoo.training.recipe",
    "evaluate": "zoo.training.scores",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'zoo.training' has no attribute {name!r}")
