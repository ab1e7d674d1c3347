"""Projection heads: multilayer perceptrons whose batch norms see the batches of all processes."""

from __future__ import annotations

import itertools
from typing import Literal

from torch import nn

from zoo.training.batchnorm import GlobalBatchNorm1d


def mlp(*widths: int, last: Literal["linear", "scaled"] = "linear") -> nn.Sequential:
    """Linear layers through these widths, (B, D) -> (B, D'), a batch norm and ReLU after all but the last.

    last: "linear" ends there; "scaled" ends in a batch norm with a gain and no shift. A bias before a norm would be
    subtracted again, so that no layer has one.

    >>> mlp(512, 512, 128)
    """
    layers: list[nn.Module] = []
    for into, out in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(into, out, bias=False), GlobalBatchNorm1d(out), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=False))
    if last == "scaled":
        norm = GlobalBatchNorm1d(widths[-1])
        norm.register_parameter("bias", None)
        layers.append(norm)
    return nn.Sequential(*layers)
