"""The same SimCLR for the same minutes: `zoo train`, and lightly's parts in a plain loop over a torch DataLoader.

ResNet-18 at 64 px from random weights, batches of 64, float32, all processors, nothing compiled, AdamW and a cosine
that ends with the minutes; crops, colours and blur of the same strengths. Both read the same JPEG files, whose short
side is the recipe's `data.side`: ours decodes them once, the plain loop as DataLoaders do; its workers are as many as
make it fastest here. Ours holds its channels side by side and takes torch's fused AdamW, the plain loop does as
lightly's guides: `training` shows what those two are worth. The minutes are of steps, and those of the plain loop last
as long as ours did; what ours spends before its first step is told. Both networks are then scored alike.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightly.data import LightlyDataset
from lightly.transforms import SimCLRTransform
from lightly_steps import PlainLoop
from measure import DATA, claim
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import to_pil_image

import zoo
from zoo.cards import read_card
from zoo.decoding import cpus
from zoo.folders import write_folder
from zoo.sources import Source, train_and_test
from zoo.tables import table
from zoo.training import evaluate
from zoo.training.cells import Asked, small
from zoo.training.data import decode
from zoo.training.logs import read_log
from zoo.training.methods import recipe
from zoo.training.recipe import Recipe
from zoo.training.schedules import cosine
from zoo.training.studies.methods import TURNED

SEED, FASTER = 0, 1.2
TRIED = 6  # batches that choose the workers


def run(data: str, minutes: float = 2.0) -> bool:
    if not data:
        raise SystemExit(DATA)
    if torch.cuda.is_available():  # ours would take it, the plain loop would not
        raise SystemExit(
            "simclr compares on processors; hide the GPU: CUDA_VISIBLE_DEVICES= make bench ARGS=simclr"
        )
    given = small(recipe("simclr/imagenette"), Asked(SEED, minutes), TURNED["simclr"])
    with tempfile.TemporaryDirectory() as scratch:
        photos = Path(scratch) / "photos"
        train, test, _ = train_and_test(data, seed=SEED)
        lay_out(train, photos / "train", given.data.side)
        lay_out(test, photos / "validation", given.data.side)
        found = {"ours": ours(given, photos, Path(scratch) / "ours")}
        budget = found["ours"][1]
        found["lightly"] = plain(given, budget, photos, Path(scratch) / "ours", Path(scratch) / "lightly")
        scores = {name: evaluate(zoo.load(str(Path(scratch) / name)), photos) for name in found}
    return told(given, found, scores)


def lay_out(source: Source, folder: Path, side: int) -> None:
    """The photos of a labelled source as JPEGs in class folders, their short side `side` pixels at most."""
    if source.labels is None:
        raise SystemExit(f"{source.title} has no labels, and k-NN needs them")
    for i, label in enumerate(source.labels):
        path = folder / f"{label:03d}" / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(decode(source.read(i), side)).save(path, quality=95)


def ours(given: Recipe, photos: Path, out: Path) -> tuple[int, float]:
    """Steps of `zoo train` and the seconds they took."""
    began = time.monotonic()
    zoo.training.run(given, photos, out, scores=False)
    last = read_log(out / "log.jsonl")[-1]
    before = time.monotonic() - began - last["seconds"]
    print(
        f"ours: {before:.1f} s for decoding, measuring its own speed and writing the model", file=sys.stderr
    )
    return last["step"], last["seconds"]


def plain(given: Recipe, budget: float, photos: Path, finished: Path, out: Path) -> tuple[int, float]:
    """Steps of the plain loop in `budget` seconds; its network is written as ours was, with our card."""
    torch.manual_seed(SEED)
    dataset = LightlyDataset(str(photos / "train"), transform=views(given))
    workers = fastest(given, dataset)
    loop = PlainLoop.of("simclr", given)
    steps, began = 0, time.monotonic()
    for batch in endless(loader(given, dataset, workers)):
        done = (time.monotonic() - began) / budget
        if done >= 1:
            break
        loop.set_rates(rate(given, done), given.optim.weight_decay)
        loss = loop.step(batch)
        steps += 1
        if steps % 50 == 0:
            print(f"  lightly: step {steps}, loss {loss:.3f}, {1 - done:.0%} left", file=sys.stderr)
    seconds = time.monotonic() - began
    backbone: Any = loop.rival.backbone
    out.mkdir()
    write_folder(out, read_card(finished), backbone, None, "")
    return steps, seconds


def views(given: Recipe) -> SimCLRTransform:
    """lightly's, as strong as the recipe's: its blur in proportion to the view, and its crops bicubic as ours."""
    config: Any = given.method
    sigma = 2.0 * given.data.size / 224
    pair = SimCLRTransform(
        input_size=given.data.size,
        cj_strength=config.strength,
        min_scale=config.min_scale,
        gaussian_blur=config.blur,
        sigmas=(min(0.1, sigma), sigma),
    )
    for view in pair.transforms:
        view.transform.transforms[0].interpolation = InterpolationMode.BICUBIC
    return pair


def loader(given: Recipe, dataset: LightlyDataset, workers: int) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        given.optim.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def endless(batches: DataLoader[Any]) -> Iterator[list[Tensor]]:
    while True:
        for pair, _, _ in batches:
            yield pair


def fastest(given: Recipe, dataset: LightlyDataset) -> int:
    """The number of workers with which a few steps, the first left out, take the least time."""
    taken = {}
    for workers in range(cpus() + 1):
        loop, stream = PlainLoop.of("simclr", given), endless(loader(given, dataset, workers))
        loop.step(next(stream))
        began = time.monotonic()
        for _ in range(TRIED):
            loop.step(next(stream))
        taken[workers] = time.monotonic() - began
    best = min(taken, key=taken.__getitem__)
    each = ", ".join(f"{workers}: {seconds:.1f} s" for workers, seconds in taken.items())
    print(f"DataLoader workers by seconds for {TRIED} steps: {each}; taken: {best}", file=sys.stderr)
    return best


def rate(given: Recipe, done: float) -> float:
    """The recipe's schedule, which has no warm-up, by the share of the minutes that is over."""
    peak = given.optim.lr * given.optim.batch / 256
    return cosine(done, 1.0, peak, given.schedule.final_lr)


def told(given: Recipe, found: dict[str, tuple[int, float]], scores: dict[str, dict[str, Any]]) -> bool:
    """Print the table and both verdicts."""
    speed = {name: steps * given.optim.batch / seconds for name, (steps, seconds) in found.items()}
    knn = {name: score["top1"] for name, score in scores.items()}
    used = scores["ours"]["settings"]
    print(
        f"\nSimCLR, {given.arch.name} at {given.data.size} px, batches of {given.optim.batch}, {given.run.minutes:g} "
        f"minutes, {torch.get_num_threads()} threads, k {used['k']}, T {used['temperature']}, seed {SEED}"
    )
    rows = [
        [
            name,
            f"{steps:,}",
            f"{seconds / 60:.2f}",
            f"{speed[name]:.1f}",
            f"{knn[name]:.2f}",
            f"{scores[name]['low']:.1f}–{scores[name]['high']:.1f}",
        ]
        for name, (steps, seconds) in found.items()
    ]
    columns = ["", "steps", "minutes", "images/s", "k-NN, %", "95 % interval"]
    print(table(columns, rows, right=columns[1:]))
    times = speed["ours"] / speed["lightly"]
    good = claim(f"images/s: {times:.3f} times lightly's ≥ {FASTER:g}", times >= FASTER)
    apart = knn["ours"] - knn["lightly"]
    return claim(f"k-NN: {apart:+.2f} points beside lightly's ≥ 0", apart >= 0) and good
