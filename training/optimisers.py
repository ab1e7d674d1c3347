"""Optimisers by name, from torch and timm, and their groups of parameters. `lr` and `weight_decay` are set each step.

A group says whether its parameters decay: biases, norms and other 1-D ones never do, and LARS does not adapt them.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import Lars, param_groups_layer_decay
from torch import nn

from zoo.training.recipe import Optim


def build_optimizer(groups: list[dict[str, Any]], optim: Optim) -> torch.optim.Optimizer:
    """The optimiser of a recipe on a method's groups: {"params": …, "decays": bool, "lr_scale": optional factor}."""
    if optim.kind == "adamw":
        return torch.optim.AdamW(groups, betas=optim.betas, fused=True)
    if optim.kind == "sgd":
        return torch.optim.SGD(groups, momentum=optim.momentum)
    # What decays is adapted, though the decay be 0. eta is that of SimCLR and BYOL; trust is timm's, as in You et al.
    # (2017), eta |w| / (|g| + decay |w|), where those two have the norm of the sum: alike at decays of 1e-6.
    adapted = [{**group, "always_adapt": group["decays"]} for group in groups]
    return Lars(adapted, momentum=optim.momentum, trust_coeff=1e-3)


def layer_decayed(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Groups for fine-tuning: layer l of L learns `decay ** (L - l)` times as fast as the head (BEiT, MAE §A.1).

    Layers are timm's own grouping of the architecture; what it groups nowhere, as a head, is the last.
    """
    own: Any = getattr(module, "no_weight_decay", tuple)  # positions and tokens
    # Its weight decay of 1 only marks the groups that decay.
    groups = param_groups_layer_decay(module, weight_decay=1.0, no_weight_decay_list=own(), layer_decay=decay)
    return [
        {"params": group["params"], "lr_scale": group["lr_scale"], "decays": group["weight_decay"] > 0}
        for group in groups
    ]
