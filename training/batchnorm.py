"""Batch norm over the batches of all processes.

torch's SyncBatchNorm refuses CPU tensors; this one runs wherever the process group does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.training.processes import sum_over_processes, world


class _Global(nn.modules.batchnorm._BatchNorm):
    """Training statistics of the global batch, though processes may hold shares of different size."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, …) -> (B, C, …), every channel normed over all else."""
        if not (self.training and world() > 1):
            return super().forward(x)
        wide, axes = x.float(), [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = torch.full((1,), float(x.numel() // x.shape[1]), device=x.device)
        sums = sum_over_processes(torch.cat([wide.sum(axes), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = wide - mean.view(shape)
        variance = sum_over_processes(centred.square().sum(axes)) / total  # (C,), biased
        self._remember(mean, variance, float(total))
        normed = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            normed = normed * self.weight.view(shape)
        if self.bias is not None:
            normed = normed + self.bias.view(shape)
        return normed.to(x.dtype)

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


class GlobalBatchNorm1d(_Global, nn.BatchNorm1d):
    """`nn.BatchNorm1d` of (B, D) over the global batch; alone in the world it is the same."""


class GlobalBatchNorm2d(_Global, nn.BatchNorm2d):
    """`nn.BatchNorm2d` of (B, C, h, w) over the global batch; alone in the world it is the same."""


def globalised(module: nn.Module) -> nn.Module:
    """The module, each of its 2-D batch norms now over the global batch; parameters and their names stay."""
    for layer in module.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = GlobalBatchNorm2d  # the same layer with another forward
    return module
