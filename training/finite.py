"""Whether a network still holds numbers: a NaN among its weights spreads to all of them within a few steps."""

from __future__ import annotations

import torch
from torch import nn

# Running statistics of batch norms: training never reads them, so that one bad batch need not end it.
_STATISTICS = ("running_mean", "running_var")


@torch.no_grad()
def not_finite(module: nn.Module) -> list[str]:
    """Names of the parameters, and of the buffers a step reads, that hold NaN or infinity."""
    state = [*module.named_parameters(), *module.named_buffers()]
    read = {
        name: tensor
        for name, tensor in state
        if tensor.is_floating_point() and name.rpartition(".")[2] not in _STATISTICS
    }
    if not read:
        return []
    finite = torch.stack([tensor.isfinite().all() for tensor in read.values()]).tolist()  # a GPU waits once
    return [name for name, fine in zip(read, finite, strict=True) if not fine]
