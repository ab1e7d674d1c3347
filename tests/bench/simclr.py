"""SimCLR for the same minutes, ours and lightly's: ResNet-18 at 64 px from random weights (`equal_minutes.py`).

Batch, optimiser and bfloat16 are those of `zoo study methods`; the cosine ends with the minutes.
"""

from __future__ import annotations

from equal_minutes import SEED, Pair, compare

from zoo.training.cells import Asked, small
from zoo.training.methods import recipe
from zoo.training.studies.methods import TURNED

FASTER = 1.2


def run(data: str, minutes: float = 2.0) -> bool:
    turned = {**TURNED["simclr"], "run": {"precision": "bf16"}}
    given = small(recipe("simclr/imagenette"), Asked(SEED, minutes), turned)
    return compare(Pair("simclr", given, faster=FASTER), data)
