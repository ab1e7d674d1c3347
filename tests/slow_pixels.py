"""The pixels of patches and the losses on them by loops, in double precision: what the fast ones are held against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor


def slow_patch(image: Tensor, patch: int, side: int, normalised: bool = False) -> list[float]:
    """One patch of (C, H, W), row-major, flattened as (row, column, channel); by its own mean and variance if asked."""
    columns = image.shape[2] // side
    top, left = patch // columns * side, patch % columns * side
    values = [
        float(image[channel, top + row, left + column])
        for row in range(side)
        for column in range(side)
        for channel in range(len(image))
    ]
    if not normalised:
        return values
    mean = sum(values) / len(values)
    variance = sum((x - mean) ** 2 for x in values) / (len(values) - 1)
    return [(x - mean) / math.sqrt(variance + 1e-6) for x in values]


def slow_loss(
    pixels: Tensor,
    predicted: Iterable[Mapping[int, Tensor] | Sequence[Tensor]],
    hidden: Iterable[Iterable[int]],
    side: int,
    *,
    power: int,
    normalised: bool = False,
) -> float:
    """Mean over images of the mean over hidden patches of the mean over a patch's pixels of |guess - pixel|^power.

    predicted: of each image, the pixels of patch i at i.
    """
    images = []
    for image, guesses, patches in zip(pixels, predicted, hidden, strict=True):
        errors = []
        for patch in patches:
            target = slow_patch(image, patch, side, normalised)
            apart = [
                abs(guess - x) ** power for guess, x in zip(guesses[patch].tolist(), target, strict=True)
            ]
            errors.append(sum(apart) / len(apart))
        images.append(sum(errors) / len(errors))
    return sum(images) / len(images)
