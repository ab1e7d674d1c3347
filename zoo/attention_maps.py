"""Where an attention map puts the object: the patches that hold its mass, and how well they match the truth."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import SizeError


def top_mass(heads: Tensor, share: float = 0.6) -> Tensor:
    """The smallest set of patches that holds `share` of each map's mass: DINO's thresholded attention.

    heads (..., h, w), not negative -> bool (..., h, w). Equal patches are taken in row-major order, a map of zeros
    keeps none. Raises SizeError unless 0 <= share <= 1. Source: 2104.14294, Figure 4 (60 % of the mass).

    >>> top_mass(torch.tensor([[0.5, 0.3], [0.2, 0.0]]), 0.6)
    tensor([[ True,  True],
            [False, False]])
    """
    if not 0 <= share <= 1:
        raise SizeError(
            f"the share of attention mass is a fraction from 0 to 1, not {share!r}; DINO shows 0.6"
        )
    mass, order = heads.detach().cpu().double().flatten(-2).sort(dim=-1, descending=True, stable=True)
    held = mass.cumsum(dim=-1)  # (..., N): the mass of a patch and all that are stronger
    held_by_stronger = torch.cat([torch.zeros_like(held[..., :1]), held[..., :-1]], dim=-1)
    wanted = share * held[..., -1:]
    kept = held_by_stronger < wanted
    mask: Tensor = torch.zeros_like(kept).scatter(-1, order, kept).unflatten(-1, heads.shape[-2:])
    return mask.to(heads.device)


def iou(mask: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of two masks; two empty masks agree: 1.

    mask (..., h, w) bool, truth (..., h, w) bool, leading axes broadcast -> (...) float. Raises SizeError where the
    grids differ.
    """
    if mask.shape[-2:] != truth.shape[-2:]:
        given, wanted = tuple(mask.shape[-2:]), tuple(truth.shape[-2:])
        raise SizeError(f"masks on grids of {given} and {wanted} cannot be compared; resize one of them")
    both = (mask & truth).sum(dim=(-2, -1))
    either = (mask | truth).sum(dim=(-2, -1))
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones(()))
