"""Encoders of discrete VAEs, on our `DVAEEncoder`: patches are the positions that are said in words, before the words.

Axes: B images, N positions on the grid (h, w), D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from zoo.architectures import create
from zoo.architectures.dvae import DVAEEncoder
from zoo.errors import Unsupported
from zoo.features import Features
from zoo.patches import grid_of


def build(architecture: str, arguments: dict[str, Any], interpolation: str = "timm") -> DVAEEncoder:
    """An untrained encoder; it has no positions to resize, so that `interpolation` says nothing.

    CardError for what cannot be built, Unsupported for what is none.
    """
    return create(architecture, arguments, DVAEEncoder, "a discrete VAE")


def stride(module: DVAEEncoder) -> int:
    """Pixels between neighbouring words."""
    return module.stride


def features(module: DVAEEncoder, pixels: Tensor) -> Features:
    """Positions of the last group; pooled is their mean."""
    grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))
    return _split(module, module.forward_features(pixels))


def _split(module: DVAEEncoder, positions: Tensor) -> Features:
    """A feature map (B, D, h, w) -> Features."""
    height, width = positions.shape[-2:]
    return Features(
        module.forward_head(positions), None, positions.flatten(2).transpose(1, 2), (height, width)
    )


def depth(module: DVAEEncoder) -> int:
    """Number of residual blocks, of all groups."""
    return sum(1 for _ in _blocks(module))


def _blocks(module: DVAEEncoder) -> Iterator[tuple[Any, bool]]:
    """Each block, and whether the grid is halved before it."""
    for index, group in enumerate(module.groups):
        for place, block in enumerate(group.children()):
            yield block, index > 0 and place == 0


def intermediates(module: DVAEEncoder, pixels: Tensor, layers: Sequence[int]) -> list[Features]:
    """Features after each of the asked residual blocks, as the block leaves them."""
    grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))
    wanted, found, x = set(layers), {}, module.stem(pixels)
    for index, (block, halved) in enumerate(_blocks(module)):
        x = block(F.max_pool2d(x, 2) if halved else x)
        if index in wanted:
            found[index] = _split(module, x)
    return [found[index] for index in layers]


def pyramid(module: DVAEEncoder, pixels: Tensor) -> list[Tensor]:
    """What each group leaves [(B, C_i, h_i, w_i)], finest first."""
    last, ends = -1, []
    for group in module.groups:
        last += sum(1 for _ in group.children())
        ends.append(last)
    return [found.as_map() for found in intermediates(module, pixels, ends)]


def attention_rows(module: DVAEEncoder, pixels: Tensor, block: int, query: tuple[int, int] | None) -> Tensor:
    """Never: convolutions have no attention. Raises Unsupported."""
    raise Unsupported(
        "a discrete VAE has no attention; ask a vision transformer, such as dino_vits16. This model has intermediates "
        "and pyramid"
    )
