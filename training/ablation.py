"""Tables and charts of one change after another, made to SimCLR and to BYOL alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.charts import Bar, interval_chart
from zoo.training.cells import Column, Found, over_seeds, tell_minutes, tell_seed, tell_steps, told_lines

if TYPE_CHECKING:
    from PIL.Image import Image

METHODS = {"simclr": "SimCLR", "byol": "BYOL"}


def columns(what: str) -> Sequence[Column]:
    """Method, variant, and its scores."""
    return (
        ("method", lambda found: METHODS[found.cell.facts["method"]]),
        (what, lambda found: found.cell.facts["variant"]),
        ("seed", tell_seed),
        ("k-NN", lambda found: found.score("knn")),
        ("linear", lambda found: found.score("linear")),
        ("steps", tell_steps),
        ("minutes", tell_minutes),
    )


def chart(found: Sequence[Found], title: str) -> Image:
    """Linear accuracy: a row for each variant, a series for each method, the mean over seeds."""
    bars = []
    for variant in dict.fromkeys(each.cell.facts["variant"] for each in found):
        points = [
            over_seeds(
                [
                    each.point("linear")
                    for each in found
                    if each.cell.facts["variant"] == variant and each.cell.facts["method"] == method
                ]
            )
            for method in METHODS
        ]
        bars.append(Bar(variant, "", points))
    return interval_chart(bars, [*METHODS.values()], title=title, unit=" %", footer=[told_lines(found)])
