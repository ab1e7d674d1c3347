"""How a batch is shared out: among processes, and among the parts that each of them computes one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from zoo.errors import RecipeError
from zoo.training.data import Batch
from zoo.training.recipe import Optim
from zoo.words import counted

Logs = Mapping[str, float | Tensor]


def check_shares(optim: Optim, world: int) -> None:
    """RecipeError where `world` processes cannot share a batch equally, or cut their shares into equal parts."""
    if optim.batch % world:
        near = max(world, round(optim.batch / world) * world)
        raise RecipeError(
            f"--optim.batch is {optim.batch}, which {world} processes cannot share equally; give {near}"
        )
    share = optim.batch // world
    if share % optim.accumulate:
        equal = [parts for parts in range(1, share + 1) if share % parts == 0]
        near = min(equal, key=lambda parts: abs(parts - optim.accumulate))
        raise RecipeError(
            f"--optim.accumulate is {optim.accumulate}, and the {counted(share, 'image')} that a process takes of "
            f"each batch cannot be cut into as many equal parts; give {near}"
        )


def parts_of(batch: Batch, count: int) -> Iterator[Batch]:
    """The batch in `count` equal parts, in order."""
    size = len(batch.noise) // count
    for first in range(0, size * count, size):
        part = slice(first, first + size)
        labels = None if batch.labels is None else batch.labels[part]
        yield Batch([view[part] for view in batch.views], batch.noise[part], batch.skipped, labels)


def joined(logs: Sequence[Logs]) -> dict[str, float | Tensor]:
    """What the parts of a batch logged, as of the whole: features one after the other, the mean of all else."""
    if len(logs) == 1:
        return dict(logs[0])
    return {key: _joined(key, [each[key] for each in logs]) for key in logs[0]}


def _joined(key: str, values: Sequence[float | Tensor]) -> float | Tensor:
    tensors = [value for value in values if isinstance(value, Tensor)]
    if len(tensors) < len(values):
        return sum(float(value) for value in values) / len(values)
    return torch.cat(tensors) if key == "features" else torch.stack(tensors).mean(0)
