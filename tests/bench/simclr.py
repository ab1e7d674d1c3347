"""SimCLR for the same minutes, ours and lightly's: ResNet-18 at 64 px from random weights (`equal_minutes.py`).

The recipe is that of `zoo study methods`, in bfloat16 where the processor has it.
"""

from __future__ import annotations

from equal_minutes import SEED, Pair, compare

from zoo.training.cells import Asked
from zoo.training.studies.methods import short

FASTER = 1.2


def run(data: str, minutes: float = 2.0) -> bool:
    return compare(Pair("simclr", short("simclr", Asked(SEED, minutes)), faster=FASTER), data)
