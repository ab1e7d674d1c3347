"""Every method for equal minutes at 64 px: k-NN and linear beside the same networks untrained; masked ones tuned.

Settings for runs this short (batch, rate, momentum) are judgement. Before, two settings of DINO and one of BYOL were
looked at for two minutes each, and their k-NN on Imagenette's validation photos was seen; the one taken of DINO's two
had the lower. Nothing was swept, and another choice may order the methods otherwise. Fine-tuning, for so few epochs, is
on crops and flips alone, at four times its usual rate: of three settings tried on 2,000 photos, judged by 800 others of
Imagenette's train split, the one that served `mae_vitt16_imagenette` at 64 px best; from scratch none was looked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo.charts import Bar, interval_chart, stacked
from zoo.training.cells import (
    Asked,
    Cell,
    Column,
    Found,
    over_seeds,
    small,
    tell_minutes,
    tell_seed,
    tell_steps,
    told_lines,
)
from zoo.training.listing import method_lines
from zoo.training.methods import method_file, method_names, recipe, recipes
from zoo.training.recipe import Arch, Recipe

if TYPE_CHECKING:
    from PIL.Image import Image

MINUTES = 15.0
# For tens of epochs there is no time for what hundreds need.
TUNING = (
    *("--method.mixup", "0", "--method.cutmix", "0", "--method.randaugment", "0", "--method.erase", "0"),
    *("--optim.lr", "4e-3"),
)
# Makes the words of another method, and is none to compare.
TOKENIZERS = ("dvae",)
# What a recipe of hours needs in a quarter of one: smaller batches, so that there are steps enough; shorter memories.
RESNET = {"name": "resnet18", "family": "resnet", "pooling": "avg", "drop_path": 0.0}
SHORT: dict[str, Any] = {
    "kind": "adamw",
    "batch": 64,
    "lr": 2e-3,
    "betas": (0.9, 0.999),
    "weight_decay": 0.05,
}
TURNED: dict[str, dict[str, dict[str, Any]]] = {
    "simclr": {"optim": SHORT, "method": {"min_scale": 0.2}},
    "byol": {"optim": SHORT, "method": {"momentum": 0.97, "min_scale": 0.2}},
    "vicreg": {"optim": SHORT},
    "dino": {
        "arch": RESNET,
        "optim": {**SHORT, "batch": 32, "lr": 8e-3, "weight_decay_end": None},
        "method": {"prototypes": 1024, "momentum": 0.97, "local_crops": 2},
        "schedule": {"epochs": 4, "warmup_epochs": 1},
    },
    "supervised": {"optim": SHORT},
    "simmim": {"method": {"unit": 16}},  # of 32 px there would be four
}


def cells(asked: Asked) -> list[Cell]:
    """A run of each method that has an `imagenette` recipe, on a small network of the kind it is for."""
    asked = dataclasses.replace(asked, minutes=asked.minutes or MINUTES)
    names = [
        name
        for name in method_names()
        if name not in TOKENIZERS and "imagenette" in recipes(method_file(name))
    ]
    return [_cell(name, asked) for name in names]


def short(name: str, asked: Asked) -> Recipe:
    """A method's `imagenette` recipe, turned for minutes; all in bfloat16, where the processor has it."""
    turned = {**TURNED.get(name, {}), "run": {"precision": "bf16"}}
    return small(recipe(f"{name}/imagenette"), asked, turned)


def _cell(name: str, asked: Asked) -> Cell:
    chosen = short(name, asked)
    # Features of masked-image methods are made to be tuned.
    masked = hasattr(chosen.method, "ratio")
    return Cell(
        f"{name}-{asked.seed}",
        f"{name}/imagenette",
        chosen,
        ("knn", "linear", "finetune") if masked else ("knn", "linear"),
        baselines=True,
        tuning=("--schedule.epochs", str(asked.tune_epochs), *TUNING) if masked else (),
        facts={"method": method_lines()[name].partition(":")[0], "network": _network(chosen.arch)},
    )


def _network(arch: Arch) -> str:
    """An architecture, and its width where the recipe has one of its own."""
    return f"{arch.name}, width {arch.embed_dim}" if arch.embed_dim else arch.name


def _total(found: Found) -> str:
    """Minutes of pre-training and fine-tuning, and those of the same fine-tuning from scratch."""
    before, tuned, scratch = (
        found.minutes(),
        found.minutes("finetune"),
        found.minutes("finetune", "from scratch"),
    )
    if before is None or tuned is None or scratch is None:
        return ""
    return f"{before + tuned:.1f} ({before:.1f} + {tuned:.1f}); {scratch:.1f}"


COLUMNS: Sequence[Column] = (
    ("method", lambda found: found.cell.facts["method"]),
    ("network", lambda found: found.cell.facts["network"]),
    ("seed", tell_seed),
    ("k-NN", lambda found: found.score("knn")),
    ("untrained", lambda found: found.score("knn", "untrained")),
    ("linear", lambda found: found.score("linear")),
    ("untrained", lambda found: found.score("linear", "untrained")),
    ("fine-tuned", lambda found: found.score("finetune")),
    ("from scratch", lambda found: found.score("finetune", "from scratch")),
    ("minutes", tell_minutes),
    ("steps", tell_steps),
    ("minutes with tuning; from scratch", _total),
)


def remarks(found: Sequence[Found]) -> str:
    """Who is better than the baseline beside it, and who is not: by k-NN, by the probe, and tuned."""
    said = [
        _compared(found, "knn", "untrained", "k-NN against the same network untrained"),
        _compared(found, "linear", "untrained", "linear probe against the same network untrained"),
        _compared(found, "finetune", "from scratch", "fine-tuned against from scratch"),
    ]
    return "\n".join(filter(None, said))


def _compared(found: Sequence[Found], protocol: str, baseline: str, title: str) -> str:
    """`title: higher, intervals apart: SimCLR (+9.1), …; within the intervals: …; lower, intervals apart: ….`"""
    groups: dict[str, list[str]] = {}
    for each in found:
        mine, theirs = each.point(protocol), each.point(protocol, baseline)
        if mine is None or theirs is None:
            continue
        how = "higher, intervals apart" if mine[1] > theirs[2] else "within the intervals"
        how = "lower, intervals apart" if mine[2] < theirs[1] else how
        groups.setdefault(how, []).append(f"{each.cell.facts['method']} ({mine[0] - theirs[0]:+.1f})")
    told = "; ".join(f"{how}: {', '.join(names)}" for how, names in sorted(groups.items()))
    return f"- {title}: {told}." if told else ""


def picture(found: Sequence[Found]) -> Image:
    """k-NN and linear of each method and of its network untrained; below, masked methods tuned and from scratch."""
    frozen, tuned = [], []
    for name in dict.fromkeys(each.cell.facts["method"] for each in found):
        mine = [each for each in found if each.cell.facts["method"] == name]
        network = mine[0].cell.facts["network"]
        for features, called in (("trained", name), ("untrained", f"{name}'s, untrained")):
            points = [over_seeds([each.point(by, features) for each in mine]) for by in ("knn", "linear")]
            frozen.append(Bar(called, network, points))
        both = ("trained", "from scratch")
        points = [over_seeds([each.point("finetune", features) for each in mine]) for features in both]
        if any(points):
            tuned.append(Bar(name, network, points))
    charts = [
        interval_chart(bars, series, title=title, unit=" %", footer=[told_lines(found)])
        for bars, series, title in (
            (frozen, ["k-NN", "linear probe"], "Frozen features after equal minutes"),
            (tuned, ["fine-tuned", "from scratch"], "Fine-tuned for equal epochs"),
        )
        if bars
    ]
    return stacked(charts)
