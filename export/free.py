"""Modules whose graph takes any height and width: positions computed from sizes that tracing must not fix."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from torch import Tensor, nn

from zoo.encoder import Encoder
from zoo.errors import Unsupported
from zoo.resizing import IN_GRAPHS, keep_rule, rule_of


def free_sides(module: nn.Module, encoder: Encoder) -> None:
    """Make a copy of the encoder's module one that is traced for any size. Raises Unsupported where none can be."""
    if encoder.card.family == "beit" and any(
        getattr(each, "relative_position_bias_table", None) is not None for each in module.modules()
    ):
        raise Unsupported(
            f"{encoder.card.name}'s biases by distance are resized along a curve that is searched for each size, which "
            f"no graph can do; leave --dynamic out and export one graph a size: --size {encoder.size}"
        )
    keep_rule(module, IN_GRAPHS.get(rule_of(module), rule_of(module)))
    rope = getattr(module, "rope", None)
    if isinstance(rope, RotaryEmbeddingDinoV3) and (rope.normalize_coords, rope.grid_indexing) == (
        "separate",
        "ij",
    ):
        whole: Any = module
        whole.rope = _FreeRotation(rope)


class _FreeRotation(nn.Module):
    """DINOv3's rotations of a grid (h, w), divided by sides that the graph itself counts."""

    def __init__(self, rope: RotaryEmbeddingDinoV3) -> None:
        super().__init__()
        self.rope: Any = rope

    def get_embed(self, shape: list[int]) -> Tensor:
        """(h * w, 2 * width of a head): sines, then cosines."""
        places = []
        for side in shape:
            centres = torch.arange(side, dtype=torch.float32) + (0.5 + self.rope.grid_offset)
            places.append(centres / torch.ones_like(centres).sum())
        grid = torch.stack(torch.meshgrid(*places, indexing="ij"), dim=-1)  # (h, w, 2)
        coordinates = 2.0 * grid.flatten(0, 1) - 1.0
        return torch.cat(self.rope._get_pos_embed_from_coords(coordinates), dim=-1)
