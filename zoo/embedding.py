"""Decoded images through an encoder, batch by batch: what every engine of `zoo.extract` does with its share of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.decoding import decoded
from zoo.shards import Rows
from zoo.sources import Source

if TYPE_CHECKING:
    from zoo.encoder import Encoder


@dataclass(frozen=True)
class Job:
    """What to extract from what, and how."""

    encoder: Encoder
    source: Source
    shapes: dict[str, tuple[int, ...]]  # of each output, for one image
    batch_size: int
    workers: int | None  # threads that decode


def embedded(job: Job, batches: Iterable[Sequence[int]]) -> Iterator[Rows]:
    """The features of each batch of indices, in order."""
    source = job.source
    for batch in decoded(source, job.encoder.transform, batches, job.workers):
        yield Rows(
            [source.ids[i] for i in batch.indices],
            None if source.labels is None else [source.labels[i] for i in batch.indices],
            _forward(job.encoder, tuple(job.shapes), batch.levels) if batch.indices else {},
            [{"path": source.ids[i], "reason": str(error)} for i, error in batch.errors.items()],
        )


def cut(indices: range, size: int) -> list[range]:
    """Consecutive ranges of at most `size` indices."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _forward(
    encoder: Encoder, outputs: tuple[str, ...], levels: NDArray[np.uint8]
) -> dict[str, NDArray[np.float32]]:
    """One forward pass; (B, H, W, C) uint8 -> float32 arrays (B, …)."""
    with torch.inference_mode():
        pixels = encoder.transform.of_levels(levels, encoder.device).to(encoder.dtype)
        features = encoder.forward_features(pixels)
        return {output: getattr(features, output).float().cpu().numpy() for output in outputs}
