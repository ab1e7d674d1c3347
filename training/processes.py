"""What processes tell each other inside a loss, with gradients. Alone in the world each gives back its input."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of every process's `x`."""
    if world() == 1:
        return x
    total: Tensor = _Sum.apply(x)
    return total


def gather_over_processes(x: Tensor) -> Tensor:
    """Every process's (B, …), of equal shapes -> (world * B, …), in the order of the processes."""
    if world() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)
    return gathered


# Every process's loss sees what the others sent, so gradients are summed over processes on the way back.


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(world())[rank()]
