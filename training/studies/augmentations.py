"""Removed transformations: what SimCLR and BYOL lose without colours, grey or blur (BYOL's Figure 3b, small)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.training.ablation import METHODS, chart, columns
from zoo.training.cells import Asked, Cell, Column, Found, small
from zoo.training.studies.methods import short

if TYPE_CHECKING:
    from PIL.Image import Image

# As BYOL's figure has them, from all of them to crops alone.
VARIANTS: dict[str, tuple[str, ...]] = {
    "all": (),
    "no grey": ("grey",),
    "no colour": ("grey", "colour"),
    "crop and blur": ("flip", "grey", "colour", "solarise"),
    "crop": ("flip", "grey", "colour", "solarise", "blur"),
}
EPOCHS = 20


def cells(asked: Asked) -> list[Cell]:
    """ResNet-18 at 64 px for 20 epochs with each set of transformations; the rest as in `zoo study methods`."""
    return [
        Cell(
            f"{method}-{variant.replace(' ', '_')}-{asked.seed}",
            f"{method}/imagenette",
            small(
                short(method, asked), asked, {"schedule": {"epochs": EPOCHS}, "method": {"removed": removed}}
            ),
            facts={"method": method, "variant": variant},
        )
        for variant, removed in VARIANTS.items()
        for method in METHODS
    ]


COLUMNS: Sequence[Column] = columns("transformations")


def picture(found: Sequence[Found]) -> Image:
    return chart(found, "Linear accuracy by transformations of the views")
