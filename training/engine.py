"""The loop. A method gives the loss; everything else a run does is here, in the order it happens."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from zoo.errors import DataError, RecipeError
from zoo.files import sweep, write_json
from zoo.sources import Source, open_source, splits, train_and_test
from zoo.training.allocator import freed_memory_kept
from zoo.training.beginning import start_from
from zoo.training.checkpoint import Checkpoint
from zoo.training.continued import claim_folder, which_images
from zoo.training.data import Batch, CutViews, Order, cut_views, loader
from zoo.training.disk import told_when_full
from zoo.training.finish import RunFacts, call_of, measure_model, write_model
from zoo.training.finite import not_finite
from zoo.training.leftovers import nothing_left
from zoo.training.methods import Method, Step
from zoo.training.online import OnlineKNN
from zoo.training.optimisers import build_optimizer
from zoo.training.precision import machine, start_accelerator
from zoo.training.progress import Progress, State
from zoo.training.recipe import Optim, Recipe
from zoo.training.schedules import cosine, warmup_cosine, warmup_steps
from zoo.training.sentry import Sentry
from zoo.training.shares import Logs, check_shares, joined, parts_of
from zoo.words import counted

log = logging.getLogger(__name__)

# A run of fewer steps hardly leaves its warm-up.
FEW_STEPS = 5


def run(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    *,
    test: str | Path | None = None,
    init: str | Path | None = None,
    name: str | None = None,
    command: str | None = None,
    scores: bool = True,
) -> Path:
    """Train `recipe` on `data` and return `out`, a model folder that `zoo.load` reads.

    test: images that only measure; without them the data's own split, a share held out of labelled data, or none.
    init: a zoo model to begin with, for a recipe of its architecture: `zoo.training.begun_with(recipe, init)`.
    name, command: of the recipe, for the card. scores: measure the model at the end.

    The same call on the same folder continues from its last checkpoint, and leaves a finished run as it is. Raises
    RecipeError where the folder holds a run of another recipe or other images, DataError where there are fewer images
    than a batch, DiskFull where there is no room for what it writes.
    With several processes the first one measures the model, after the others have returned.

    >>> zoo.training.run(recipe("mae/smoke"), "photos/", "runs/mine")
    PosixPath('runs/mine')
    """
    recipe.check()
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    with nothing_left(Path(out)), told_when_full(Path(out)):
        return _run(recipe, data, Path(out), test, init, name, command, scores)


def _run(
    recipe: Recipe,
    data: str | Path,
    out: Path,
    test: str | Path | None,
    init: str | Path | None,
    name: str | None,
    command: str | None,
    scores: bool,
) -> Path:
    """`run`, on a disk with room."""
    train, held_out, note = split(data, test, recipe.data.limit)
    command = command or call_of(recipe, data, out, test=test, init=init, name=name, scores=scores)
    claim = {
        "images": str(data),
        "test": None if test is None else str(test),
        "trained_on": which_images(train),
        "init": None if init is None else str(init),
        **recipe.describe(),
    }
    if claim_folder(out, claim):
        log.warning("%s is finished already; to train it anew, remove it or give another --out", out)
        return out
    sweep(out)  # what a killed run was writing
    method = _prepared(recipe, train, init)
    before = _run_first(method, data, out, test, command)
    accelerator = start_accelerator(recipe.run.precision)
    dataset = cut_views(train, method.views(), recipe)
    if recipe.run.minutes is not None:
        from zoo.training.pace import in_minutes  # it takes steps of this file

        recipe, how = in_minutes(accelerator, dataset, recipe, out, before)
        note = f"{note} {how}"
    state = State(skipped=sorted(dataset.skipped))
    loop(accelerator, method, dataset, recipe, out, state)
    state.skip(gather_object(state.skipped))  # each process knows of its own share
    if accelerator.is_main_process and state.skipped:
        log.warning("%s", state.told_skipped().strip())
    facts = RunFacts(
        recipe=name or type(recipe.method).__module__.rpartition(".")[-1],
        command=command,
        data=str(data),
        test=None if test is None else str(test),
        init="random" if init is None else str(init),
        images=len(dataset),
        note=note,
        hardware=machine(accelerator, recipe.run.precision),
    )
    _finish(accelerator, out, recipe, method, (dataset.source, held_out if scores else None), state, facts)
    if accelerator.is_main_process:
        write_json(out / "recipe.json", {**claim, "finished": True})
    return out


def _prepared(recipe: Recipe, train: Source, init: str | Path | None) -> Method:
    """The method at its beginning: by the seed at random, or with the weights of `init`."""
    torch.manual_seed(recipe.run.seed)
    method = recipe.method.build(recipe)
    check_labels(method, train)
    if init is not None:
        start_from(method, recipe, init)
    return method


def _run_first(
    method: Method, data: str | Path, out: Path, test: str | Path | None, command: str
) -> Path | None:
    """The run that a method needs before its own, in a folder inside that one's; it may be finished already."""
    if (first := method.first()) is None:
        return None
    name, recipe = first
    log.warning("%s needs a %s of its own: %s", out, name, out / name)
    before = run(recipe, data, out / name, test=test, command=command, scores=False)
    method.follow(before)
    return before


def _finish(
    accelerator: Accelerator,
    out: Path,
    recipe: Recipe,
    method: Method,
    data: tuple[Source, Source | None],
    state: State,
    facts: RunFacts,
) -> None:
    """The model's folder, written by the first process, and its scores where there are images to measure on."""
    train, held_out = data
    if accelerator.is_main_process:
        card = write_model(out, recipe, method, train, state, facts)
    # Measuring may take longer than a process waits for the others.
    accelerator.wait_for_everyone()
    if accelerator.is_main_process and held_out is not None:
        measure_model(out, card, recipe, (train, held_out), facts)


def loop(
    accelerator: Accelerator, bare: Method, dataset: CutViews, recipe: Recipe, out: Path, state: State
) -> None:
    """Every step of a run, from its last checkpoint to its end; `state` and `bare` hold the result."""
    steps = count_steps(recipe, len(dataset), dataset.source.title)
    check_shares(recipe.optim, accelerator.num_processes)
    _warn_of_few(steps)
    optimizer = build_optimizer(bare.param_groups(recipe.optim), recipe.optim)
    method, optimizer = accelerator.prepare(bare, optimizer)
    sentry, knn = Sentry(recipe, steps), OnlineKNN(len(dataset))
    checkpoint = Checkpoint(
        out / "checkpoint.pt", bare, optimizer, sentry, accelerator.scaler, accelerator.mixed_precision
    )
    if checkpoint.exists():
        checkpoint.restore(state)
        log.warning("continuing %s from step %d of %d", out, state.step, steps.total)
    if recipe.run.compile:
        _compile(bare)

    main, rank, world = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
    order = Order(len(dataset), recipe.optim.batch, recipe.run.seed, state.step, steps.total, rank, world)
    showing = Progress(out, recipe, state, steps.total, quiet=not main)
    with freed_memory_kept(accelerator.device), showing as progress:
        method.train()
        started, saved = time.monotonic() - state.seconds, time.monotonic()
        for batch in loader(dataset, order, recipe.data.workers):
            step = dataclasses.replace(steps, index=state.step)
            rate = set_rates(optimizer, recipe, step)
            seed, parts = recipe.run.seed, recipe.optim.accumulate
            loss, logs = train_step(accelerator, method, bare, optimizer, batch, step, seed, parts)
            state.step += 1
            state.skip(batch.skipped)
            state.seconds = time.monotonic() - started
            knn.add(logs.get("features"), batch.labels)
            row = sentry.look(state.step, loss, logs)  # stops the run, on all processes alike
            if progress.due(state) and row is not None:
                # The score is the first process's own: no other may fail over it.
                progress.step(state, {**row, "lr": rate, **(knn.score() if main else {})})
            due = time.monotonic() - saved > 60 * recipe.run.checkpoint_minutes
            # What is no number must not replace the last good checkpoint; the sentry stops the run over it. The loss is
            # this process's and from before the update, the weights are those of all and from after it.
            if main and due and bool(loss.isfinite()) and not not_finite(bare):
                checkpoint.save(state)
                saved = time.monotonic()
    if len(order) and (broken := not_finite(bare)):  # on all processes alike
        raise sentry.no_number(state.step, f"{broken[0]} holds NaN or infinity")
    if main and len(order):
        checkpoint.save(state)
        log.warning("%s", sentry.verdict())


def _compile(method: Method) -> None:
    """Compile what the method names as worth it."""
    modules = method.compiled()
    if not modules:
        log.warning("--run.compile finds nothing to compile: %s names no parts", type(method).__name__)
    for module in modules:
        module.compile()


def _warn_of_few(steps: Step) -> None:
    """A warning of a run that is over at once."""
    if steps.total < FEW_STEPS:
        log.warning(
            "%s in all, and the learning rate begins at 0: next to nothing will be learnt. "
            "Give more images, a smaller --optim.batch or more --schedule.epochs",
            counted(steps.total, "step"),
        )


def train_step(
    accelerator: Accelerator,
    method: nn.Module,
    bare: Method,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    step: Step,
    seed: int,
    parts: int = 1,
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Forward and backward of each turn of each part of the batch, then the method's hooks and the optimiser."""
    # Drop path draws from torch's generator: seeded by the step, so that a resumed run repeats what it would draw.
    torch.manual_seed(hash((seed, step.index, accelerator.process_index)) % 2**63)
    losses, logs = list[Tensor](), list[Logs]()
    turns = [
        (number == 0, views, part)
        for part in parts_of(batch.to(accelerator.device), parts)
        for number, views in enumerate(bare.turns(part.views))
    ]
    for left, (first, views, part) in zip(reversed(range(len(turns))), turns, strict=True):
        # Gradients add up in each process; with the last turn's, processes tell each other the sum.
        with accelerator.no_sync(method) if left else nullcontext():
            with accelerator.autocast():
                taught = {} if bare.classes is None else {"labels": part.labels}
                loss, told = method(views, step, part.noise, **taught)
            accelerator.backward(loss / parts)
        losses.append(loss.detach())
        if first:
            logs.append(told)
    accelerator.unscale_gradients(optimizer)  # clipping must see them at their true size
    bare.before_step(step)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    bare.after_step(step)
    return torch.stack(losses).sum() / parts, joined(logs)


def set_rates(optimizer: torch.optim.Optimizer, recipe: Recipe, step: Step) -> float:
    """Set this step's learning rate and weight decay in every group; return the learning rate."""
    optim, schedule = recipe.optim, recipe.schedule
    warmup = warmup_steps(schedule.warmup_epochs, step.per_epoch, step.total)
    peak = optim.lr * optim.batch / 256
    rate = warmup_cosine(step.index, step.total, warmup, peak, schedule.final_lr)
    decay = weight_decay(optim, step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
        group["weight_decay"] = decay if group["decays"] else 0.0
    return rate


def weight_decay(optim: Optim, step: Step) -> float:
    """Constant, or half a cosine to `weight_decay_end`."""
    if optim.weight_decay_end is None:
        return optim.weight_decay
    return cosine(step.index, step.total, optim.weight_decay, optim.weight_decay_end)


def split(
    data: str | Path, test: str | Path | None, limit: int | None = None
) -> tuple[Source, Source | None, str]:
    """Images to train on, images to measure on, and a sentence that says which. Unlabelled ones are all trained on."""
    train, held_out, note = _whole_or_split(data, test)
    if limit is None:
        return train, held_out, note
    return (
        train.spread(limit),
        held_out and held_out.spread(limit),
        f"{note} At most {limit} images of each.",
    )


def _whole_or_split(data: str | Path, test: str | Path | None) -> tuple[Source, Source | None, str]:
    if test is None and not splits(data):
        whole = open_source(data)
        if whole.labels is None:
            return whole, None, "All images were trained on; nothing was measured, for want of labels."
    return train_and_test(data, test)


def check_labels(method: Method, train: Source) -> None:
    """DataError where a supervised method has no labels to learn, RecipeError where it has too few classes for them."""
    if method.classes is None:
        return
    if train.labels is None:
        raise DataError(
            f"{train.title} has no labels to learn: lay its images in one sub-folder per class, "
            "or train it with a self-supervised method (`zoo methods`)"
        )
    if max(train.labels) >= method.classes:
        raise RecipeError(
            f"--method.classes is {method.classes}, and {train.title} has {max(train.labels) + 1}; give as many"
        )


def count_steps(recipe: Recipe, images: int, title: str) -> Step:
    """Step 0 of the run: how many steps an epoch and the run have.

    Where `schedule.least_steps` asks for more than the images make, an epoch is several passes over them.
    """
    if images < recipe.optim.batch:
        raise DataError(
            f"{title} has {counted(images, 'usable image')}, fewer than a batch of {recipe.optim.batch}: "
            f"type --optim.batch {max(1, images // 2)} or give more images"
        )
    per_epoch, schedule = images // recipe.optim.batch, recipe.schedule
    if schedule.steps is not None:
        return Step(0, schedule.steps, per_epoch)
    per_epoch = max(per_epoch, math.ceil((schedule.least_steps or 0) / schedule.epochs))
    return Step(0, schedule.epochs * per_epoch, per_epoch)
