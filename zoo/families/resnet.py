"""Residual networks, on timm's `ResNet`: patches are the positions of the last stage.

Axes: B images, N positions on the grid (h, w), D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from timm.models.resnet import ResNet
from torch import Tensor, nn

from zoo.architectures import create
from zoo.errors import Unsupported
from zoo.features import Features
from zoo.patches import grid_of


def build(architecture: str, arguments: dict[str, Any], interpolation: str = "timm") -> ResNet:
    """An untrained ResNet without a classifier; it has no positions, so that `interpolation` says nothing.

    CardError for what timm does not know or cannot build, Unsupported for what is no ResNet.
    """
    return create(architecture, arguments, ResNet, "a ResNet")


def stride(module: ResNet) -> int:
    """Pixels between neighbouring positions of the last stage: 32, but for modules built with an output_stride."""
    last: Any = module.feature_info[-1]
    return int(last["reduction"])


def features(module: ResNet, pixels: Tensor) -> Features:
    """Positions of the last stage; pooled is their mean."""
    grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))
    return _split(module, module.forward_features(pixels))


def _split(module: ResNet, positions: Tensor) -> Features:
    """A feature map (B, D, h, w) -> Features."""
    height, width = positions.shape[-2:]
    pooled = module.forward_head(positions, pre_logits=True)
    return Features(pooled, None, positions.flatten(2).transpose(1, 2), (height, width))


def depth(module: ResNet) -> int:
    """Number of residual blocks, of all stages."""
    return len(_blocks(module))


def intermediates(module: ResNet, pixels: Tensor, layers: Sequence[int]) -> list[Features]:
    """Features after each of the asked residual blocks, as the block leaves them: a ResNet has no final norm."""
    wanted = set(layers)
    found = {
        index: _split(module, positions)
        for index, positions in enumerate(_after_each(module, pixels))
        if index in wanted
    }
    return [found[index] for index in layers]


def pyramid(module: ResNet, pixels: Tensor) -> list[Tensor]:
    """The four stages' outputs C2 to C5 [(B, C_i, h_i, w_i)], finest first."""
    grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))
    levels: Any = module.forward_intermediates(pixels, indices=[1, 2, 3, 4], intermediates_only=True)
    return list(levels)


def attention_rows(module: ResNet, pixels: Tensor, block: int, query: tuple[int, int] | None) -> Tensor:
    """Never: a ResNet has no attention. Raises Unsupported."""
    raise Unsupported(
        "a ResNet has no attention; ask a vision transformer, such as dino_vits16. This model has intermediates "
        "and pyramid"
    )


def _blocks(module: ResNet) -> list[nn.Module]:
    return [block for stage in (1, 2, 3, 4) for block in module.get_submodule(f"layer{stage}").children()]


def _after_each(module: ResNet, pixels: Tensor) -> Iterator[Tensor]:
    """The feature map after each residual block, from the first on."""
    grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))
    x = module.maxpool(module.act1(module.bn1(module.conv1(pixels))))
    for block in _blocks(module):
        x = block(x)
        yield x
