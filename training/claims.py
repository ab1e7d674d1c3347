"""What a cell's folder says it holds, so that old scores are never told as the result of another call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import RecipeError
from zoo.files import write_json
from zoo.training.cells import Cell
from zoo.training.continued import differences, which_images
from zoo.training.engine import split

CLAIM = "cell.json"
# What a claim says of the images.
IMAGES = ("trained_on", "tested_on")
# What it notes beside: the hardware that worked on the cell, in words, and the precisions it was computed in.
NOTED = ("hardware", "computed")
# What a killed, a stopped or a finished cell leaves, and another would spoil.
LEFT = ("checkpoint.pt", "model.safetensors", "scores.json", "stopped.json")


def images_of(data: str | Path, test: str | Path | None) -> dict[str, str]:
    """Which images a study trains and tests on."""
    train, held_out, _ = split(data, test)
    tested = {} if held_out is None else {"tested_on": which_images(held_out)}
    return {"trained_on": which_images(train), **tested}


def claim_of(
    cell: Cell, data: str | Path, test: str | Path | None, images: Mapping[str, str]
) -> dict[str, Any]:
    """All that a cell's scores depend on, as plain JSON. images: as `images_of` tells them."""
    asked = {
        "images": str(data),
        "test": None if test is None else str(test),
        "protocols": list(cell.protocols),
        "tuning": list(cell.tuning),
        "baselines": cell.baselines,
    }
    return {**asked, **images, **cell.recipe.describe()}


def check_claim(folder: Path, claim: dict[str, Any]) -> None:
    """RecipeError where the folder holds a cell of another call: what differs, and what to do.

    A claim without images is compared without them.
    """
    if not _begun(folder):
        return
    theirs = {key: value for key, value in _read(folder).items() if key in claim or key not in IMAGES}
    changed = (
        differences({**theirs, **dict.fromkeys(NOTED)}, {**claim, **dict.fromkeys(NOTED)})
        if theirs
        else [f"it has no {CLAIM}, which says of what its scores are"]
    )
    if changed:
        raise RecipeError(
            f"{folder} holds a cell of another call ({'; '.join(changed)}). "
            f"Give another --out, or remove {folder} to make it anew"
        )


def write_claim(folder: Path, claim: dict[str, Any], machine: str, precision: str) -> None:
    """Keep the claim, and machine and precision beside those of what worked on the cell before."""
    before = {key: noted(folder, key) if _begun(folder) else [] for key in NOTED}
    now = dict(zip(NOTED, (machine, precision), strict=True))
    write_json(
        folder / CLAIM, {**claim, **{key: [*dict.fromkeys([*before[key], now[key]])] for key in NOTED}}
    )


def noted(folder: Path, what: str) -> list[str]:
    """All the `hardware`, or what was `computed` in, of a cell; none where nothing was made or noted."""
    found: list[str] = _read(folder).get(what, [])
    return found


def _begun(folder: Path) -> bool:
    return any((folder / name).is_file() for name in LEFT)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / CLAIM
    read: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return read
