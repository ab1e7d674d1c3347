"""Batch size: what SimCLR and BYOL lose with smaller ones, at equal epochs (BYOL's Figure 3a, small)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.training.ablation import METHODS, chart, columns
from zoo.training.cells import Asked, Cell, Column, Found, small
from zoo.training.methods import recipe

if TYPE_CHECKING:
    from PIL.Image import Image

BATCHES = (512, 256, 128, 64, 32)
EPOCHS = 20


def cells(asked: Asked) -> list[Cell]:
    """ResNet-18 at 64 px for 20 epochs of each batch size; the learning rate grows with the batch."""
    asked.refuse_minutes("batch_size", "epochs")
    return [
        Cell(
            f"{method}-{batch}-{asked.seed}",
            f"{method}/imagenette",
            small(
                recipe(f"{method}/imagenette"),
                asked,
                {"optim": {"batch": batch}, "schedule": {"epochs": EPOCHS}},
            ),
            facts={"method": method, "variant": f"batches of {batch}"},
        )
        for batch in BATCHES
        for method in METHODS
    ]


COLUMNS: Sequence[Column] = columns("batch")


def picture(found: Sequence[Found]) -> Image:
    return chart(found, "Linear accuracy by batch size, equal epochs")
