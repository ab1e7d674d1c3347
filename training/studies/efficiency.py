"""SimMIM and UM-MAE on a small Swin and PVT for equal epochs: minutes, memory, fine-tuned beside from scratch.

Encoder, image size, batch, optimiser and schedule are UM-MAE's in all runs; crops, clipping and what is hidden are each
method's own: SimMIM hides 60 % of the squares of 32 px behind a mask token, UM-MAE 75 % of the patches of 16 px, which
its encoder does not see, and a quarter of the others behind a token. Saved for backward: what autograd keeps of one
step's forward pass, parameters left out. Fine-tuning is that of the study of methods, chosen there for a plain
transformer; nothing was looked for on pyramids. From scratch stands once for each encoder, beside UM-MAE.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.charts import Bar, interval_chart
from zoo.training.cells import (
    Asked,
    Cell,
    Column,
    Found,
    over_seeds,
    tell_minutes,
    tell_seed,
    tell_steps,
    told_lines,
)
from zoo.training.methods import recipe
from zoo.training.recipe import Arch, Recipe
from zoo.training.studies.methods import TUNING

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE, EPOCHS = 128, 10
PYRAMIDS = {
    "Swin": Arch("ssl_zoo_ummae_swin_micro", family="swin", size=SIZE, pooling="avg"),
    "PVT": Arch("ssl_zoo_ummae_pvt_micro", family="pvt", size=SIZE, pooling="avg"),
}
METHODS = {"simmim": "SimMIM", "ummae": "UM-MAE"}


def cells(asked: Asked) -> list[Cell]:
    """A run of each method on each pyramid."""
    asked.refuse_minutes("efficiency", "epochs")
    return [
        Cell(
            f"{pyramid.lower()}-{method}-{asked.seed}",
            f"{method}/imagenette",
            _recipe(method, pyramid, asked.seed),
            ("finetune",),
            baselines=method == "ummae",
            tuning=("--schedule.epochs", str(asked.tune_epochs), *TUNING),
            activations=True,
            facts={"pyramid": pyramid, "method": METHODS[method]},
        )
        for pyramid in PYRAMIDS
        for method in METHODS
    ]


def _recipe(method: str, pyramid: str, seed: int) -> Recipe:
    """The method's own, with UM-MAE's optimiser and schedule."""
    chosen, shared = recipe(f"{method}/imagenette"), recipe("ummae/imagenette")
    return dataclasses.replace(
        chosen,
        arch=PYRAMIDS[pyramid],
        data=shared.data,
        optim=shared.optim,
        schedule=dataclasses.replace(shared.schedule, epochs=EPOCHS, warmup_epochs=1),
        run=dataclasses.replace(shared.run, seed=seed),
    )


COLUMNS: Sequence[Column] = (
    ("encoder", lambda found: found.cell.facts["pyramid"]),
    ("method", lambda found: found.cell.facts["method"]),
    ("seed", tell_seed),
    ("minutes", tell_minutes),
    ("saved for backward, MiB", lambda found: "" if found.saved() is None else f"{found.saved():.0f}"),
    ("fine-tuned", lambda found: found.score("finetune")),
    ("from scratch", lambda found: found.score("finetune", "from scratch")),
    ("steps", tell_steps),
)


def remarks(found: Sequence[Found]) -> str:
    """Of each encoder: UM-MAE's share of SimMIM's minutes and bytes, and what each method adds to from scratch."""
    said = []
    for pyramid in PYRAMIDS:
        for seed in dict.fromkeys(each.cell.recipe.run.seed for each in found):
            mine = {
                each.cell.facts["method"]: each
                for each in found
                if each.cell.facts["pyramid"] == pyramid and each.cell.recipe.run.seed == seed
            }
            if told := [*_cheaper(mine), *_gains(mine)]:
                said.append(f"- {pyramid}, seed {seed}: {'; '.join(told)}.")
    return "\n".join(said)


def _cheaper(mine: dict[str, Found]) -> list[str]:
    """UM-MAE's minutes and memory by SimMIM's, where both are there."""
    if len(mine) < len(METHODS):
        return []
    ours, theirs = mine["UM-MAE"], mine["SimMIM"]
    told = []
    if (less := ours.minutes()) and (more := theirs.minutes()):
        told.append(f"UM-MAE took {less / more:.2f} of SimMIM's minutes")
    if (less := ours.saved()) and (more := theirs.saved()):
        told.append(f"kept {less / more:.2f} of its bytes")
    return told


def _gains(mine: dict[str, Found]) -> list[str]:
    """`SimMIM +2.1, UM-MAE +3.0 points over from scratch`."""
    scratch = [point for each in mine.values() if (point := each.point("finetune", "from scratch"))]
    told = [
        f"{method} {point[0] - scratch[0][0]:+.1f}"
        for method, each in mine.items()
        if scratch and (point := each.point("finetune"))
    ]
    return [f"{', '.join(told)} points over from scratch"] if told else []


def picture(found: Sequence[Found]) -> Image:
    """Fine-tuned accuracy of each encoder: from scratch, after SimMIM, after UM-MAE."""
    bars = []
    for pyramid in PYRAMIDS:
        mine = [each for each in found if each.cell.facts["pyramid"] == pyramid]
        if not mine:
            continue
        scratch = over_seeds([each.point("finetune", "from scratch") for each in mine])
        bars.append(Bar(f"{pyramid} from scratch", "", [scratch]))
        for method in METHODS.values():
            cell = [each for each in mine if each.cell.facts["method"] == method]
            bars.append(
                Bar(
                    f"{pyramid} after {method}",
                    _cost(cell),
                    [over_seeds([each.point("finetune") for each in cell])],
                )
            )
    return interval_chart(
        bars,
        ["fine-tuned"],
        title="Pyramids fine-tuned for equal epochs",
        unit=" %",
        footer=[told_lines(found)],
    )


def _cost(cell: Sequence[Found]) -> str:
    """`12.3 minutes, 480 MiB` of the first seed."""
    if not cell or (minutes := cell[0].minutes()) is None or (saved := cell[0].saved()) is None:
        return ""
    return f"{minutes:.1f} minutes, {saved:.0f} MiB"
