"""The same method for the same minutes: `zoo train`, and lightly's parts in a plain loop over a torch DataLoader.

Both begin with the same weights of the encoder and read the same JPEG files, whose short side is the recipe's
`data.side`, in the recipe's precision on all processors, nothing compiled: ours decodes them once, the plain loop as
DataLoaders do; its workers are as many as make it fastest here. Batch, optimiser, crops, colours and blur are the
recipe's on both sides, and every schedule goes by the share of the minutes that is over. Ours takes torch's fused
AdamW, holds a ResNet's channels side by side and keeps freed memory; the plain loop does as lightly's guides:
`training` shows what those three are worth. The minutes are of steps, and those of the plain loop last as long as ours
did; what ours spends before its first step is told. Both networks are then scored alike: of one seed, so that a
difference within the intervals beside it may as well be the other way round.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightly.data import LightlyDataset
from lightly_steps import PlainLoop
from lightly_views import VIEWS
from measure import DATA, claim
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2.functional import to_pil_image

import zoo
from zoo.cards import read_card
from zoo.decoding import cpus
from zoo.folders import write_folder
from zoo.sources import Source, train_and_test
from zoo.tables import table
from zoo.training import evaluate
from zoo.training.beginning import start_from
from zoo.training.data import decode
from zoo.training.logs import read_log
from zoo.training.methods import Step
from zoo.training.precision import start_accelerator
from zoo.training.recipe import Recipe

SEED = 0
TRIED = 8  # batches that choose the workers


@dataclass(frozen=True)
class Pair:
    """What is trained twice. init: whose weights both begin with; None: drawn.

    faster: how many times lightly's images/s ours are to be; None: any.
    """

    method: str
    recipe: Recipe
    init: str | None = None
    faster: float | None = None


def compare(pair: Pair, data: str) -> bool:
    """Train both, score both, print the table and the verdicts."""
    if not data:
        raise SystemExit(DATA)
    if torch.cuda.is_available():  # ours would take it, the plain loop would not
        raise SystemExit(
            f"{pair.method} compares on processors; hide the GPU: CUDA_VISIBLE_DEVICES= make bench "
            f"ARGS={pair.method}"
        )
    with tempfile.TemporaryDirectory() as scratch:
        photos = Path(scratch) / "photos"
        train, test, _ = train_and_test(data)
        lay_out(train, photos / "train", pair.recipe.data.side)
        lay_out(test, photos / "validation", pair.recipe.data.side)
        found = {"ours": ours(pair, photos, Path(scratch) / "ours")}
        found["lightly"] = plain(
            pair, found["ours"], photos, Path(scratch) / "ours", Path(scratch) / "lightly"
        )
        scores = {name: evaluate(zoo.load(str(Path(scratch) / name)), photos) for name in found}
    return told(pair, found, scores)


def lay_out(source: Source, folder: Path, side: int) -> None:
    """The photos of a labelled source as JPEGs in class folders, their short side `side` pixels at most."""
    if source.labels is None:
        raise SystemExit(f"{source.title} has no labels, and k-NN needs them")
    for i, label in enumerate(source.labels):
        path = folder / f"{label:03d}" / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(decode(source.read(i), side)).save(path, quality=95)


def ours(pair: Pair, photos: Path, out: Path) -> tuple[int, float]:
    """Steps of `zoo train` and the seconds they took."""
    began = time.monotonic()
    zoo.training.run(pair.recipe, photos, out, init=pair.init, scores=False)
    last = read_log(out / "log.jsonl")[-1]
    before = time.monotonic() - began - last["seconds"]
    print(
        f"ours: {before:.1f} s for decoding, measuring its own speed and writing the model", file=sys.stderr
    )
    return last["step"], last["seconds"]


def plain(pair: Pair, done: tuple[int, float], photos: Path, finished: Path, out: Path) -> tuple[int, float]:
    """Steps of the plain loop and its seconds; its network is written as ours was, with our card.

    done: those of ours, whose seconds it has, and by whose steps schedules go.
    """
    given, (total, budget) = pair.recipe, done
    torch.manual_seed(SEED)
    dataset = LightlyDataset(str(photos / "train"), transform=VIEWS[pair.method](given))
    workers = fastest(pair, dataset)
    loop, per_epoch = begun(pair), len(dataset) // given.optim.batch
    steps, began = 0, time.monotonic()
    for batch in endless(loader(given, dataset, workers)):
        over = (time.monotonic() - began) / budget
        if over >= 1:
            break
        loop.follow(given, Step(int(over * total), total, per_epoch))
        loss = loop.step(batch)
        steps += 1
        if steps % 50 == 0:
            print(f"  lightly: step {steps}, loss {loss:.3f}, {1 - over:.0%} left", file=sys.stderr)
    seconds = time.monotonic() - began
    out.mkdir()
    write_folder(out, read_card(finished), loop.rival.encoder(), None, "")
    return steps, seconds


def begun(pair: Pair) -> PlainLoop:
    """The plain loop with the encoder's weights that ours begins with."""
    torch.manual_seed(SEED)
    method = pair.recipe.method.build(pair.recipe)
    if pair.init is not None:
        start_from(method, pair.recipe, pair.init)
    loop = PlainLoop.of(pair.method, pair.recipe)
    loop.rival.start_from(method.encoder().state_dict())
    return loop


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


def fastest(pair: Pair, dataset: LightlyDataset) -> int:
    """The number of workers with which a few steps take the least time, those of batches cut beforehand left out."""
    taken = {}
    for workers in range(cpus() + 1):
        loop, stream = begun(pair), endless(loader(pair.recipe, dataset, workers))
        for _ in range(1 + 2 * workers):
            loop.follow(pair.recipe, Step(0, 100, 10))
            loop.step(next(stream))
        began = time.monotonic()
        for _ in range(TRIED):
            loop.step(next(stream))
        taken[workers] = time.monotonic() - began
    best = min(taken, key=taken.__getitem__)
    each = ", ".join(f"{workers}: {seconds:.1f} s" for workers, seconds in taken.items())
    print(f"DataLoader workers by seconds for {TRIED} steps: {each}; taken: {best}", file=sys.stderr)
    return best


def told(pair: Pair, found: dict[str, tuple[int, float]], scores: dict[str, dict[str, Any]]) -> bool:
    """Print the table and the verdicts."""
    given = pair.recipe
    speed = {name: steps * given.optim.batch / seconds for name, (steps, seconds) in found.items()}
    knn = {name: score["top1"] for name, score in scores.items()}
    used = scores["ours"]["settings"]
    computed = start_accelerator(given.run.precision).mixed_precision
    print(
        f"\n{pair.method}, {given.arch.name} at {given.data.size} px from {pair.init or 'random weights'}, batches of "
        f"{given.optim.batch}, precision {computed}, {given.run.minutes:g} minutes, "
        f"{torch.get_num_threads()} threads, k {used['k']}, "
        f"T {used['temperature']}, scored at {given.arch.size} px, seed {SEED}"
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
    times, apart = speed["ours"] / speed["lightly"], knn["ours"] - knn["lightly"]
    good = claim(f"k-NN: {apart:+.2f} points beside lightly's ≥ 0", apart >= 0)
    if pair.faster is None:
        print(f"images/s: {times:.3f} times lightly's")
        return good
    return claim(f"images/s: {times:.3f} times lightly's ≥ {pair.faster:g}", times >= pair.faster) and good
