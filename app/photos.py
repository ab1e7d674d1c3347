"""The photos that come with the project, by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from zoo.demo import bundled_photos

FIRST = "cat_chelsea"


@cache
def examples() -> dict[str, Path]:
    """Name -> file. The first is a photo with one plain subject."""
    found = {path.stem: path for path in bundled_photos()}
    return {name: found[name] for name in sorted(found, key=lambda name: (name != FIRST, name))}


def title(name: str) -> str:
    """`cat_chelsea` for people: `cat chelsea`."""
    return name.replace("_", " ")
