"""Several masked-image models under one mask: the crop, the size, the grid and the strategy that all of them take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from zoo.cards import DecoderSpec
from zoo.decoders import kind
from zoo.encoder import Encoder
from zoo.errors import MaskError, Unsupported
from zoo.images import ImageSource
from zoo.masking import STRATEGIES


def cropped(encoder: Encoder, image: ImageSource, size: int) -> Tensor:
    """(1, 3, size, size) uint8: what the encoder's evaluation transform leaves of a photo, before it is normalised."""
    levels = replace(encoder.transform, size=size).levels(image)  # (S, S, 3)
    return torch.from_numpy(levels).permute(2, 0, 1)[None]


def common_size(encoders: Sequence[Encoder]) -> int:
    """Pixels of a square image that all of these can mask, the nearest to the first one's own size.

    Raises Unsupported where they take different channels.
    """
    if len({encoder.transform.channels for encoder in encoders}) > 1:
        each = ", ".join(f"{encoder.card.name} ({encoder.transform.channels})" for encoder in encoders)
        raise Unsupported(f"these take images of different channels: {each}; choose some of one kind")
    unit, own = math.lcm(*map(_unit, encoders)), encoders[0].size
    return own if own % unit == 0 else max(1, round(own / unit)) * unit


def common_grid(encoders: Sequence[Encoder], size: int) -> tuple[int, int]:
    """The finest grid that divides all of their masks' grids."""
    side = math.gcd(*(encoder.mask_grid(size, size)[0] for encoder in encoders))
    if side < 2:
        names = ", ".join(encoder.card.name for encoder in encoders)
        raise MaskError(f"{names}: their patches share no grid at {size} pixels; compare fewer of them")
    return side, side


def _unit(encoder: Encoder) -> int:
    """What the side of an image must be a multiple of. UM-MAE's pyramids see an image of half the side."""
    spec = _spec(encoder)
    halves = spec.kind == "ummae" and encoder.stride > spec.mask_patch
    return math.lcm(spec.mask_patch, encoder.stride * (2 if halves else 1))


def common_strategy(encoders: Sequence[Encoder]) -> str:
    """The first of the strategies that these were trained with, in the order of the models, that all of them take."""
    own = [_spec(encoder).strategy for encoder in encoders]
    return next(each for each in (*own, *STRATEGIES) if all(_takes(encoder, each) for encoder in encoders))


def _takes(encoder: Encoder, strategy: str) -> bool:
    spec = _spec(encoder)
    try:
        kind(spec.kind).check_strategy(spec, encoder.module, strategy)
    except MaskError:
        return False
    return True


def _spec(encoder: Encoder) -> DecoderSpec:
    """What its card says of its decoder. Raises Unsupported where there is none."""
    if encoder.card.decoder is None:
        raise Unsupported(f"{encoder.card.name} has no decoder, so it imagines nothing; choose another")
    return encoder.card.decoder
