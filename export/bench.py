"""What running a model costs, by every way there is on this machine: eager, compiled, ONNX, OpenVINO.

A machine's speed drifts, so no two ways are timed apart: each round calls every way once, in an order that rotates,
and a ratio is the median of the ratios within the rounds. Memory is the peak of a process that runs nothing else.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from zoo.encoder import Encoder
from zoo.errors import Unsupported
from zoo.export.memory import peak_mebibytes
from zoo.export.ways import WAYS, Way, graphs, opened
from zoo.progress import track

WARM_UPS = 2
ROUNDS, FEWEST_ROUNDS, SECONDS = 15, 5, 40.0  # of one batch size: slow models get fewer rounds
SEED = 0


@dataclass(frozen=True)
class Timing:
    """One way to run the model at one batch size."""

    way: str
    batch: int
    milliseconds: float  # of one call, median
    low: float  # its quartiles
    high: float
    images_per_second: float
    against_eager: float  # times as fast, median of the rounds
    rounds: int
    cosine: float  # of pooled with eager's, the least of the batch: a fast wrong answer is none
    peak_mebibytes: float | None  # None where it would be a compiler's


@dataclass(frozen=True)
class Bench:
    """All timings of one run, and the ways that could not be taken."""

    model: str
    size: int
    threads: int
    timings: list[Timing]
    missing: dict[str, str]  # way -> why


def bench(encoder: Encoder, *, batches: Sequence[int] = (1, 8), threads: int | None = None) -> Bench:
    """Time an encoder's features at its own size on the processor, by every way.

    threads: of every way alike; None: as many as torch uses. Raises Unsupported where the encoder cannot be exported.

    >>> for timing in bench(zoo.load("dino_vitt16_imagenette")).timings:
    ...     print(timing.way, timing.batch, timing.images_per_second)
    """
    encoder = encoder.to("cpu", torch.float32)
    shape = (max(batches), encoder.transform.channels, encoder.size, encoder.size)
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(SEED))
    with threads_of_torch(threads) as count, TemporaryDirectory() as named:
        folder, ways, missing = Path(named), list[Way](), dict[str, str]()
        graphs(encoder, folder)
        for name in track(WAYS, "opening", len(WAYS)):
            try:
                ways.append(opened(name, encoder, folder, count))
            except Unsupported as error:
                missing[name] = str(error)
        peaks = {
            way.name: peak_mebibytes(*way.alone, shape, count) if way.alone else None
            for way in track(ways, "measuring memory", len(ways))
        }
        with torch.inference_mode():
            timings = [each for batch in batches for each in timed(ways, pixels[:batch], peaks)]
    return Bench(encoder.card.name, encoder.size, count, timings, missing)


def timed(ways: Sequence[Way], pixels: Tensor, peaks: dict[str, float | None]) -> list[Timing]:
    """Each way on the same pixels (B, C, H, W), in turn; the first is what the others are held against."""
    calls = [partial(way.call, pixels) for way in ways]
    pooled, spent = in_turn(calls, f"batch {len(pixels)}")
    timings = []
    for way, each, answer in zip(ways, spent, pooled, strict=True):
        low, median, high = statistics.quantiles(each, n=4)
        timings.append(
            Timing(
                way=way.name,
                batch=len(pixels),
                milliseconds=median,
                low=low,
                high=high,
                images_per_second=1000 * len(pixels) / median,
                against_eager=statistics.median(a / b for a, b in zip(spent[0], each, strict=True)),
                rounds=len(each),
                cosine=float(torch.cosine_similarity(answer, pooled[0]).min()),
                peak_mebibytes=peaks[way.name],
            )
        )
    return timings


def in_turn(calls: Sequence[Callable[[], Tensor]], title: str) -> tuple[list[Tensor], list[list[float]]]:
    """What each call gives, and the milliseconds it took in each round, in an order that rotates."""
    answers = [[call() for _ in range(WARM_UPS)][-1] for call in track(calls, "warming up", len(calls))]
    spent: list[list[float]] = [[] for _ in calls]
    began = time.perf_counter()
    for round_ in track(range(ROUNDS), title, ROUNDS):
        if round_ >= FEWEST_ROUNDS and time.perf_counter() - began > SECONDS:
            break
        for turn in range(len(calls)):
            index = (turn + round_) % len(calls)
            start = time.perf_counter()
            calls[index]()
            spent[index].append(1000 * (time.perf_counter() - start))
    return answers, spent


@contextmanager
def threads_of_torch(threads: int | None) -> Iterator[int]:
    """So many threads of torch's, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if threads is None else threads)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
