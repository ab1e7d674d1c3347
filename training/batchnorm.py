"""Batch norm over the batches of all processes.

torch's SyncBatchNorm refuses CPU tensors; this one runs wherever the process group does.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class GlobalBatchNorm1d(nn.BatchNorm1d):
    """`nn.BatchNorm1d` whose training statistics are those of the global batch; alone in the world it is the same.

    x: (B, D), where processes may hold batches of different size.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D)"""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        wide = x.float()
        count = torch.full((1,), float(len(x)), device=x.device)
        sums = _sum_over_processes(torch.cat([wide.sum(0), count]))
        total, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        variance = _sum_over_processes((wide - mean).square().sum(0)) / total  # (D,), biased
        self._remember(mean, variance, float(total))
        normed = (wide - mean) * torch.rsqrt(variance + self.eps)
        return (normed * self.weight + self.bias).to(x.dtype) if self.affine else normed.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, total: float) -> None:
        """Move the running statistics; the variance unbiased, as torch does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        # momentum=None: a plain average of all batches so far.
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_((variance * total / max(total - 1, 1)).to(self.running_var), momentum)


class _Sum(torch.autograd.Function):
    """Sum over processes. Every process's loss sees the sum, so the gradient is summed likewise."""

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


def _sum_over_processes(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)
    return total
