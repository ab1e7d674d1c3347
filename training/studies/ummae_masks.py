"""UM-MAE's masks: the pre-training loss of GS, US, RS and of secondary masks, at equal steps (2205.10063, §4.2)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.training.cells import Asked, Cell, Column, Found, small, tell_minutes, tell_seed, tell_steps
from zoo.training.methods import recipe

if TYPE_CHECKING:
    from PIL.Image import Image

# In the paper's order, from the easiest task to the hardest.
MASKS: dict[str, dict[str, Any]] = {
    "GS": {"strategy": "grid", "secondary": 0.0},
    "US": {"strategy": "uniform", "secondary": 0.0},
    "UM 15 %": {"strategy": "uniform", "secondary": 0.15},
    "RS": {"strategy": "random", "secondary": 0.0},
    "UM 25 %": {"strategy": "uniform", "secondary": 0.25},
    "UM 35 %": {"strategy": "uniform", "secondary": 0.35},
}
STEPS = 800


def cells(asked: Asked) -> list[Cell]:
    """ViT-Tiny/16 at 128 px, for a random mask is nothing a pyramid can take; normalised targets, as in the paper."""
    asked.refuse_minutes("ummae_masks", "steps")
    return [
        Cell(
            f"{mask.replace(' %', '').replace(' ', '_')}-{asked.seed}",
            "ummae/imagenette",
            small(
                recipe("ummae/imagenette"),
                asked,
                {
                    "arch": {"name": "vit_tiny_patch16_224", "family": "vit"},
                    "schedule": {"steps": STEPS},
                    "method": {**settings, "normalised_targets": True},
                },
                size=128,
            ),
            protocols=(),
            facts={"mask": mask},
        )
        for mask, settings in MASKS.items()
    ]


COLUMNS: Sequence[Column] = (
    ("mask", lambda found: found.cell.facts["mask"]),
    ("seed", tell_seed),
    ("loss", lambda found: "" if found.loss() is None else f"{found.loss():.4f}"),
    ("steps", tell_steps),
    ("minutes", tell_minutes),
)


def remarks(found: Sequence[Found]) -> str:
    """The masks by their loss, of each seed, and whether that is the paper's order."""
    said = []
    for seed in dict.fromkeys(each.cell.recipe.run.seed for each in found):
        losses = {
            each.cell.facts["mask"]: loss
            for each in found
            if each.cell.recipe.run.seed == seed and (loss := each.loss()) is not None
        }
        order, papers = sorted(losses, key=losses.__getitem__), [mask for mask in MASKS if mask in losses]
        verdict = "as in the paper" if order == papers else f"in the paper {' < '.join(papers)}"
        said.append(f"By loss, seed {seed}: {' < '.join(order)}; {verdict}.")
    return " ".join(["Losses are means over the last tenth of the steps.", *said])


def picture(found: Sequence[Found]) -> Image:
    """The loss over the steps, a line for each mask and seed: means over a tenth of them, the last in the legend."""
    from matplotlib.figure import Figure  # half a second, at the end only
    from PIL import Image

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for each in sorted(found, key=lambda one: -(one.loss() or 0)):  # as the lines end, from the top
        mask, loss, seed = each.cell.facts["mask"], each.loss(), each.cell.recipe.run.seed
        steps, losses = _smoothed(each.log())
        label = f"{mask}, seed {seed}" + ("" if loss is None else f": {loss:.3f}")
        colour, line = f"C{list(MASKS).index(mask)}", "-" if seed == found[0].cell.recipe.run.seed else "--"
        axes.plot(steps, losses, line, color=colour, label=label, lw=1.2)
    axes.set(xlabel="step", ylabel="loss on hidden patches", title="UM-MAE's masks at equal steps")
    axes.legend()
    axes.grid(alpha=0.3)
    with io.BytesIO() as drawn:
        figure.savefig(drawn, format="png", dpi=120)
        return Image.open(drawn).convert("RGB")


def _smoothed(rows: Sequence[Mapping[str, float]]) -> tuple[list[float], list[float]]:
    """Steps, from the end of the first tenth on, and the mean loss of the tenth of all rows up to each."""
    window = max(1, len(rows) // 10)
    losses = [row["loss"] for row in rows]
    ends = range(window, len(rows) + 1)
    return [rows[end - 1]["step"] for end in ends], [sum(losses[end - window : end]) / window for end in ends]
