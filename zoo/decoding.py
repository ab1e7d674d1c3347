"""Pictures to pixels ahead of the network: threads read, decode, resize and crop while it computes.

Pillow lets go of the interpreter while it decodes and resizes, so threads do what processes would, without copies
through pipes, without a second import of torch, and with errors that arrive as they were raised.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import ImageError
from zoo.sources import Source
from zoo.transforms import Transform

# Batches decoded before the network asks: one being filled while another waits.
AHEAD = 2
# More threads than this wait for each other's Python between two pictures.
MOST_THREADS = 8


@dataclass(frozen=True)
class Decoded:
    """The readable images of a batch, and why the others are not."""

    indices: list[int]
    levels: NDArray[np.uint8]  # (B, size, size, C)
    errors: dict[int, ImageError]


def decoded(
    source: Source, transform: Transform, batches: Iterable[Sequence[int]], workers: int | None = None
) -> Iterator[Decoded]:
    """Each batch of indices, in order. workers: threads, 0 for none; None chooses.

    Raises what `source.read` raises, but for ImageErrors, which are told of with their batch.
    """

    def one(i: int) -> NDArray[np.uint8] | ImageError:
        try:
            return transform.levels(source.read(i))
        except ImageError as error:
            return error

    workers = min(MOST_THREADS, cpus()) if workers is None else workers
    if workers == 0:
        yield from (_gathered(batch, [one(i) for i in batch]) for batch in batches)
        return
    waiting = iter(batches)
    pool = ThreadPoolExecutor(workers, "decode")
    try:
        queue: deque[tuple[Sequence[int], list[Any]]] = deque()
        for batch in islice(waiting, AHEAD):
            queue.append((batch, [pool.submit(one, i) for i in batch]))
        while queue:
            batch, futures = queue.popleft()
            found = [future.result() for future in futures]
            queue.extend((later, [pool.submit(one, i) for i in later]) for later in islice(waiting, 1))
            yield _gathered(batch, found)
    finally:
        pool.shutdown(cancel_futures=True)


def _gathered(batch: Sequence[int], found: Sequence[NDArray[np.uint8] | ImageError]) -> Decoded:
    levels = {i: each for i, each in zip(batch, found, strict=True) if not isinstance(each, ImageError)}
    errors = {i: each for i, each in zip(batch, found, strict=True) if isinstance(each, ImageError)}
    return Decoded(list(levels), np.stack([*levels.values()]) if levels else np.empty(0, np.uint8), errors)


def cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
