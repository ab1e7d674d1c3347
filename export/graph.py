"""What is exported of an encoder: a torch module with named inputs and outputs, no randomness, no branch on values.

Everything goes through the family's and the decoder's own functions, so that a graph computes what the zoo computes.
Axes: B images, C channels, (H, W) pixels, N patches on the grid (h, w), D width, P patch side, V visible patches.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from zoo.encoder import Encoder
from zoo.export.free import free_sides
from zoo.patches import grid_of
from zoo.resizing import resize_positions, rule_of
from zoo.transforms import sides_of

# Whatever batch is traced, 1 would be taken for a constant.
TRACED = 2


@dataclass(frozen=True)
class Graph:
    """A module to trace, with example inputs and what they and its outputs are called."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    free: dict[str, dict[int, Any]]  # of each input, the axes of any length and what they are called


class FeaturesGraph(nn.Module):
    """(B, C, H, W) normalised pixels -> pooled (B, D), patches (B, N, D), and what else the encoder is asked for.

    cls: (B, D) where there is a class token. attention: (B, heads, h, w), its rows in the last block. pyramid_i:
    (B, C_i, h_i, w_i), finest first.
    """

    def __init__(self, encoder: Encoder, module: nn.Module, *, attention: bool, pyramid: bool) -> None:
        super().__init__()
        self.family, self.module = encoder.family, module
        self.attention, self.pyramid = attention, pyramid

    def named(self, pixels: Tensor) -> dict[str, Tensor]:
        features = self.family.features(self.module, pixels)
        found = {"pooled": features.pooled, "patches": features.patches}
        if features.cls is not None:
            found["cls"] = features.cls
        if self.attention:
            last = self.family.depth(self.module) - 1
            found["attention"] = self.family.attention_rows(self.module, pixels, last, None)
        if self.pyramid:
            levels = self.family.pyramid(self.module, pixels)
            found |= {f"pyramid_{i}": level for i, level in enumerate(levels)}
        return found

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.named(pixels).values())


def features_graph(
    encoder: Encoder,
    *,
    size: int | tuple[int, int] | None = None,
    dynamic: bool = False,
    attention: bool = False,
    pyramid: bool = False,
) -> Graph:
    """The encoder's features as a graph of `pixels`.

    size: of the images, in pixels, by default the encoder's. dynamic: height and width are any multiples of the stride.
    Raises SizeError for a size that is none, Unsupported for attention where there is no class token, and for dynamic
    where the family's positions forbid it.
    """
    height, width = _sides(encoder, size)
    if dynamic:  # off the native size, and with sides that no constant could be confused with
        height, width = height + 2 * encoder.stride, width + 4 * encoder.stride
    traced = FeaturesGraph(
        encoder, settled(encoder, None if dynamic else (height, width)), attention=attention, pyramid=pyramid
    ).eval()
    pixels = torch.zeros(TRACED, encoder.transform.channels, height, width)
    with torch.no_grad():
        outputs = tuple(traced.named(pixels))
    free: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=4096)}
    if dynamic:
        rows, columns = (torch.export.Dim(name, min=1, max=512) for name in ("rows", "columns"))
        free |= {2: encoder.stride * rows, 3: encoder.stride * columns}
    return Graph(traced, {"pixels": pixels}, outputs, {"pixels": free})


def settled(encoder: Encoder, sides: tuple[int, int] | None) -> nn.Module:
    """A copy of the encoder's module in float32 on the CPU; a ViT's positions are those of (H, W) for good.

    sides: None where they are free; then positions are resized by operators that every runtime has. Raises Unsupported
    where no graph can.
    """
    module = copy.deepcopy(encoder.module).to("cpu", torch.float32).eval()
    module.requires_grad_(False)
    if sides is not None and isinstance(module, VisionTransformer) and module.pos_embed is not None:
        # Else the graph would resize its constant positions, which TensorRT cannot where it is antialiased.
        old: tuple[int, int] = tuple(module.patch_embed.grid_size)
        new = grid_of(*sides, encoder.stride)
        positions: Any = module.pos_embed
        with torch.no_grad():
            resized = resize_positions(positions, old, new, rule_of(module))
        module.pos_embed = nn.Parameter(resized, requires_grad=False)
        module.patch_embed.grid_size = new
    if sides is None:
        free_sides(module, encoder)
    return module


def _sides(encoder: Encoder, size: int | tuple[int, int] | None) -> tuple[int, int]:
    sides = sides_of(encoder.size if size is None else size, encoder.stride)
    return (sides[0], sides[-1])
