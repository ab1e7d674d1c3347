"""Encoders of RGB images for images of other channels: the first convolution's weights, and the transform to match."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from zoo.cards import ModelCard
from zoo.errors import Unsupported

if TYPE_CHECKING:
    from torch import Tensor, nn

RGB = 3


def with_channels(card: ModelCard, channels: int) -> ModelCard:
    """The card of the same model for images of `channels` channels; the card itself where they are its own.

    One channel: the means of RGB's means and of its stds. More: they repeat cyclically, as the weights do. A decoder
    predicts RGB and is left out. Raises Unsupported for a model that is not of RGB images.
    """
    own = len(card.transform.mean)
    if channels == own or (channels == RGB and own != RGB):  # in_chans=3 is also what nobody asked for
        return card
    if own != RGB or channels < 1:
        raise Unsupported(
            f"in_chans={channels}: {card.name} takes {own} channels, and only weights of 3 are adapted to 1 or more"
        )
    spec = card.transform
    mean, std = (adapted_statistics(values, channels) for values in (spec.mean, spec.std))
    return dataclasses.replace(
        card,
        arguments={**card.arguments, "in_chans": channels},
        decoder=None,
        transform=dataclasses.replace(spec, mean=mean, std=std),
    )


def adapted_statistics(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Means or deviations of RGB for other channels: their mean for one, else repeated cyclically."""
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(channels))


def adapted_weights(module: nn.Module, channels: int) -> dict[str, Tensor]:
    """The weights of a module for RGB images, as its twin for `channels` channels takes them.

    The first convolution's are summed for one channel, and otherwise repeated cyclically and scaled by 3 / channels:
    timm's rule, under which an image with the same in every channel means what its RGB twin does. Raises Unsupported
    where timm does not know which convolution is the first.
    """
    from timm.models import adapt_input_conv

    tensors: dict[str, Tensor] = module.state_dict()
    configuration: dict[str, Any] = getattr(module, "pretrained_cfg", None) or {}
    first = configuration.get("first_conv")
    names = [f"{name}.weight" for name in ([first] if isinstance(first, str) else first or ())]
    if not names or not all(name in tensors for name in names):
        raise Unsupported(
            f"in_chans={channels}: nothing says which convolution of this {type(module).__name__} comes first; "
            "repeat or sum your channels to 3"
        )
    return {**tensors, **{name: adapt_input_conv(channels, tensors[name]) for name in names}}
