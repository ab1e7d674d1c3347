"""What k-NN scores are to be judged by: the same architecture untrained, and the bare pixels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.errors import ImageError
from zoo.progress import track
from zoo.sources import Source
from zoo.transforms import Transform

# Pixels of the side that images are reduced to, as a feature of 768 numbers.
SIDE = 16


def raw_pixels(source: Source, like: Transform) -> tuple[Tensor, Tensor]:
    """The images' own pixels, (N, 768) in [0, 1], with their labels (N,): cropped as `like` does, 16×16."""
    transform = Transform(
        SIDE, like.crop_pct, like.interpolation, (0.0,) * like.channels, (1.0,) * like.channels
    )
    rows = list(_rows(source, transform))
    return torch.stack([pixels for pixels, _ in rows]), torch.tensor([label for _, label in rows])


def _rows(source: Source, transform: Transform) -> Iterator[tuple[Tensor, int]]:
    for i in track(range(len(source)), "raw pixels"):
        try:
            yield transform(source.read(i)).flatten(), source.labels[i] if source.labels else -1
        except ImageError:
            continue
