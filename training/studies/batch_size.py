"""Batch size: what SimCLR and BYOL lose with smaller ones (BYOL's Figure 3a, small).

As in the paper, the updates stay as they are: gradients of N batches a N-th as large are averaged for each, so that
rates and moving averages need no new settings. What the size changes is what a loss and a batch norm see at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.training.ablation import METHODS, chart, columns
from zoo.training.cells import Asked, Cell, Column, Found, small
from zoo.training.studies.methods import short

if TYPE_CHECKING:
    from PIL.Image import Image

UPDATE = 128  # images of each
BATCHES = (128, 64, 32, 16, 8)
EPOCHS = 20


def cells(asked: Asked) -> list[Cell]:
    """ResNet-18 at 64 px for 20 epochs of each batch size; the rest as in `zoo study methods`."""
    asked.refuse_minutes("batch_size", "epochs")
    return [
        Cell(
            f"{method}-{batch}-{asked.seed}",
            f"{method}/imagenette",
            small(
                short(method, asked),
                asked,
                {"optim": {"batch": UPDATE, "accumulate": UPDATE // batch}, "schedule": {"epochs": EPOCHS}},
            ),
            facts={"method": method, "variant": f"batches of {batch}"},
        )
        for batch in BATCHES
        for method in METHODS
    ]


COLUMNS: Sequence[Column] = columns("batch")


def picture(found: Sequence[Found]) -> Image:
    return chart(found, f"Linear accuracy by batch size, equal updates (of {UPDATE} images)")
