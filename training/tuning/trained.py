"""What the protocols that train share: steps in a folder they can continue from, and the row that tells of them."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.decoding import cpus
from zoo.encoder import Encoder
from zoo.errors import DataError, RecipeError
from zoo.evaluate import facts_of
from zoo.evaluate.intervals import resampled
from zoo.extraction import extract, images_hash, weights_hash
from zoo.files import sweep
from zoo.registry import home
from zoo.sources import Source
from zoo.training.data import cut_views
from zoo.training.disk import told_when_full
from zoo.training.engine import loop
from zoo.training.knobs import named, with_knobs
from zoo.training.methods import Method
from zoo.training.precision import start_accelerator
from zoo.training.progress import State
from zoo.training.recipe import Arch, Data, MethodConfig, Optim, Recipe, Run, Schedule
from zoo.words import counted

# Below this many bytes of decoded images they are kept in memory.
CACHED = 2**31
# Knobs of a training that an evaluation does not look at, and what to turn instead.
DEAF = {
    "data.limit": "--limit takes fewer images of either split",
    "data.mean": "images are normalised as the model's card says",
    "data.std": "images are normalised as the model's card says",
    "run.minutes": "give --schedule.epochs or --schedule.steps",
}
# Top-5 says nothing where there are few classes.
FEW_CLASSES = 20


@dataclass(frozen=True)
class Task:
    """One encoder on one split, and the knobs of the command line. scratch: its weights are random ones.

    work: where checkpoints go until all scores of a call are there; None for a folder of $ZOO_HOME. fits: the folders
    that this task and its draws have put there.
    """

    encoder: Encoder
    train: Source
    test: Source
    classes: int
    seed: int = 0
    knobs: Sequence[str] = ()
    scratch: bool = False
    work: Path | None = None
    fits: list[Path] = field(default_factory=list)


def recipe_for(
    task: Task, method: MethodConfig, optim: Optim, schedule: Schedule, *, images: int, drop_path: float = 0.0
) -> Recipe:
    """The recipe of an evaluation on so many images, with the knobs of the command line turned.

    Training views are cut from images as small as the test images are made, where the papers cut them from whole ones.
    RecipeError for knobs that ask for another encoder than the one that is evaluated, or that would do nothing.
    """
    if deaf := [name for name in named(list(task.knobs)) if name in DEAF]:
        raise RecipeError(f"--{deaf[0]} does nothing in an evaluation: {DEAF[deaf[0]]}")
    card, transform = task.encoder.card, task.encoder.transform
    side = round(transform.size / transform.crop_pct)
    own = Arch(
        card.architecture,
        card.family,
        transform.size,
        card.pooling
        if card.family == "vit"
        else "avg",  # what a recipe may build; the encoder pools its own way
        drop_path=drop_path,
        crop_pct=transform.crop_pct,
        in_chans=transform.channels,
    )
    base = Recipe(
        method=method,
        arch=own,
        data=Data(
            size=transform.size,
            side=side,
            cache=(1 + transform.channels) * images * side**2 < CACHED,
            workers=max(1, min(8, cpus() - 1)),
        ),
        optim=dataclasses.replace(optim, batch=max(2, min(optim.batch, images - images % 2))),
        schedule=schedule,
        run=Run(seed=task.seed, sentry=False),  # a poor score is a result
    )
    turned = with_knobs(base, list(task.knobs))
    if dataclasses.replace(turned.arch, drop_path=drop_path) != own:
        raise RecipeError(
            f"an evaluation takes {card.name} as it is: of --arch.… only --arch.drop_path can be turned"
        )
    if turned.run.seed != task.seed:
        raise RecipeError("the seed of an evaluation is given as --seed, which also draws splits and subsets")
    turned.check()
    return turned


def fit(task: Task, method: Method, recipe: Recipe, train: Source) -> State:
    """Every step of `recipe` on `train`, going on where an earlier call stopped."""
    folder = task.work or home().parent / "tuning"
    told = (weights_hash(task.encoder), images_hash(train, range(len(train))), recipe.describe())
    folder = (
        folder
        / f"{task.encoder.card.name}-{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}".replace(
            "/", "--"
        )
    )
    accelerator = start_accelerator(recipe.run.precision, cpu=task.encoder.device.type == "cpu")
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    dataset = cut_views(train, method.views(), recipe)
    state = State(skipped=sorted(dataset.skipped))
    with told_when_full(folder):
        sweep(folder)  # what a killed call was writing
        loop(accelerator, method, dataset, recipe, folder, state)
    task.fits.append(folder)
    return state


def forget(task: Task) -> None:
    """Remove the checkpoints of a task, whose scores nobody will ask for again."""
    for folder in task.fits:
        shutil.rmtree(folder, ignore_errors=True)


Told = dict[int, NDArray[np.bool_]]  # for each k: (M,), whether the class is among the k likeliest


@torch.no_grad()
def told_right(task: Task, backbone: nn.Module, head: Callable[[Tensor], Tensor]) -> Told:
    """Which test images a head (B, D) -> (B, classes) on the backbone's pooled features tells right."""
    logits, labels = scored(task, backbone, head, task.test)
    ranked = logits.topk(5 if task.classes > FEW_CLASSES else 1).indices == labels[:, None]
    return {k: ranked[:, :k].any(1).numpy() for k in {1, ranked.shape[1]}}


@torch.no_grad()
def scored(
    task: Task, backbone: nn.Module, head: Callable[[Tensor], Tensor], source: Source
) -> tuple[Tensor, Tensor]:
    """Logits (M, classes) and labels (M,) of the images of a source, as the evaluation transform shows them."""
    encoder = Encoder(task.encoder.card, backbone, through=task.encoder.family)
    _, labels, arrays = extract(encoder, source)
    pooled = torch.from_numpy(arrays["pooled"]).to(encoder.device)
    logits = torch.cat([head(rows) for rows in pooled.float().split(4096)])
    return logits.float().cpu(), torch.as_tensor(labels)


def row_of(
    protocol: str,
    task: Task,
    train: Source,
    told: Sequence[Told],
    recipe: Recipe,
    minutes: float,
    **more: Any,
) -> dict[str, Any]:
    """A row as `zoo.evaluate.measure` has them. told: of each draw of the labels; their mean is the score.

    more: further settings.
    """
    mean = {k: np.mean([each[k] for each in told], axis=0) for k in told[0]}
    facts = facts_of(task.encoder, train, task.test, len(train), len(mean[1]))
    schedule = recipe.schedule
    settings = {
        "labels": len(train),
        **({"steps": schedule.steps} if schedule.steps else {"epochs": schedule.epochs}),
        "batch": recipe.optim.batch,
        "lr": recipe.optim.lr,
        "optimiser": recipe.optim.kind,
        "weight_decay": recipe.optim.weight_decay,
        "seed": task.seed,
        **more,
        "minutes": round(minutes, 1),
        **facts.pop("settings"),
    }
    if len(told) > 1:
        settings["draws"] = [round(100 * float(each[1].mean()), 2) for each in told]
    return {
        "protocol": protocol,
        **dataclasses.asdict(resampled(mean[1], task.seed)),
        **({"top5": 100 * float(mean[5].mean())} if 5 in mean else {}),
        **facts,
        "minutes": minutes,
        "features": "from scratch" if task.scratch else "trained",
        "settings": settings,
    }


def check_trainable(encoder: Encoder) -> None:
    """Raises RecipeError for an encoder that has no weights to train."""
    module = getattr(encoder, "module", None)
    if not isinstance(module, nn.Module) or next(module.parameters(), None) is None:
        raise RecipeError("an exported graph cannot be trained; leave out --backend onnx")


def check_few(train: Source) -> None:
    """DataError where there are too few images for a single step."""
    if len(train) < 2:
        raise DataError(f"{train.title!r} has {counted(len(train), 'image')} to train on; give two or more")
