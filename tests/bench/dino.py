"""DINO for the same minutes, ours and lightly's: ViT-Tiny/16, from the bundled MAE's weights (`equal_minutes.py`).

The recipe that `dino_vitt16_imagenette` was trained by, with its schedules shortened to the minutes.
"""

from __future__ import annotations

import dataclasses

from equal_minutes import SEED, Pair, compare

from zoo.training.beginning import begun_with
from zoo.training.methods import recipe

INIT = "mae_vitt16_imagenette"


def run(data: str, minutes: float = 5.0) -> bool:
    given = begun_with(recipe("dino/imagenette"), INIT)
    given = dataclasses.replace(given, run=dataclasses.replace(given.run, seed=SEED, minutes=minutes))
    return compare(Pair("dino", given, init=INIT), data)
