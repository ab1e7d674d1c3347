"""Contenders in turn, A B C B C A …, and their ratios: a machine's speed drifts, a ratio within one round less."""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.tables import table

ROUNDS = 5
# For commands with a tiny model, whose operations are too small to be worth sharing out.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
DATA = "the photos are missing: make bench DATA=FOLDER, where FOLDER is Imagenette as parquet or as class folders"


@dataclass(frozen=True)
class Target:
    """A promise on the median over the rounds of one contender's number over another's."""

    ours: str
    rival: str
    limit: float
    at_least: bool  # or at most

    def holds(self, ratio: float) -> bool:
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call, without the garbage of the call before."""
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(contenders: Mapping[str, Callable[[int], float]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Each contender's number in each round, which they are given, in an order that rotates.

    Round -1 warms up and is not counted.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for work in contenders.values():
        work(-1)
    names = list(contenders)
    for number in range(rounds):
        for turn in range(len(names)):
            name = names[(turn + number) % len(names)]
            found[name].append(contenders[name](number))
            print(f"  round {number + 1}/{rounds}: {name} {found[name][-1]:.4g}", file=sys.stderr)
    return found


def report(title: str, unit: str, found: Mapping[str, Sequence[float]], targets: Sequence[Target]) -> bool:
    """Print medians, ratios and whether each target holds; whether all do."""
    rows = [
        [name, f"{statistics.median(numbers):.4g}", f"{min(numbers):.4g}", f"{max(numbers):.4g}"]
        for name, numbers in found.items()
    ]
    print(f"\n{title}")
    print(table(["", f"{unit}, median", "min", "max"], rows, right=[f"{unit}, median", "min", "max"]))
    good, rows = True, []
    for target in targets:
        pairs = zip(found[target.ours], found[target.rival], strict=True)
        ratio = statistics.median([ours / rival for ours, rival in pairs])
        good &= target.holds(ratio)
        verdict = "PASS" if target.holds(ratio) else "FAIL"
        rows.append([f"{target.ours} / {target.rival}", f"{ratio:.3f}", str(target), verdict])
    print(table(["ratio, round by round", "median", "target", ""], rows, right=["median", "target"]))
    return good


def claim(what: str, holds: bool) -> bool:
    """Print one line that is true or false, and return it."""
    print(f"{'PASS' if holds else 'FAIL'}  {what}")
    return holds


def photos(data: str, folder: Path, count: int) -> Path:
    """`count` photos, evenly spread over the data, as image files in `folder`."""
    from zoo.sources import open_source

    if not data:
        raise SystemExit(DATA)
    source = open_source(data).spread(count)
    if len(source) < count:
        raise SystemExit(f"{data!r} holds {len(source)} photos, and {count} are wanted")
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:05d}.jpg").write_bytes(source.read(i))
    return folder
