"""From whatever a caller calls images to batches of one size each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from zoo.errors import ImageError, SizeError
from zoo.images import ImageSource
from zoo.transforms import Size, Transform, check_fit, check_size, sides_of

Images: TypeAlias = ImageSource | Tensor | Sequence[ImageSource | Tensor]

# Above 1 and below 0 that much is rounding (float16 holds 1/1024 near 1), not another range.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Batch:
    """Images of one size. `indices` are their places in the caller's list."""

    indices: list[int]
    pixels: Tensor  # (B, C, H, W) float32, normalised


def is_single(images: Images) -> bool:
    """True for one picture or (C, H, W) tensor, False for a list or a (B, C, H, W) tensor."""
    return not isinstance(images, list | tuple) and not (isinstance(images, Tensor) and images.ndim == 4)


def to_batches(
    images: Images, transform: Transform, stride: int, *, fit: str = "crop", size: Size | None = None
) -> list[Batch]:
    """All images, normalised, in one batch per size, in order of first appearance.

    Pictures follow `fit` and `size` (Transform.pixels); tensors, uint8 or float in [0, 1], keep their own size.
    In a list, a (B, C, H, W) tensor counts as B images.
    Raises ImageError or SizeError, naming the element of a list that failed.

    >>> [batch.indices for batch in to_batches([photo, torch.zeros(3, 64, 96), photo], transform, stride=16)]
    [[0, 2], [1]]
    """
    check_fit(fit)
    if size is not None:
        sides_of(size, stride)  # here, or a wrong size would read as the fault of a list's first image
    if isinstance(images, list | tuple):
        each = [_element(images, i, transform, stride, fit, size) for i in range(len(images))]
    else:
        each = [_pixels(images, transform, stride, fit, size)]
    if not each:
        raise ImageError("an empty list of images; pass at least one")
    return _grouped(each)


def _element(
    images: Sequence[Any], i: int, transform: Transform, stride: int, fit: str, size: Size | None
) -> Tensor:
    """(B, C, H, W) of the i-th of a list; its errors say which it was."""
    try:
        return _pixels(images[i], transform, stride, fit, size)
    except (ImageError, SizeError) as error:
        raise type(error)(f"image {i + 1} of {len(images)}: {error}") from error


def _pixels(image: Any, transform: Transform, stride: int, fit: str, size: Size | None) -> Tensor:
    """(B, C, H, W) normalised, of a tensor of images or of one picture (B = 1)."""
    if isinstance(image, Tensor):
        return _tensor_pixels(image, transform, stride)
    return transform.pixels(image, stride, fit, size)[None]


def _grouped(each: list[Tensor]) -> list[Batch]:
    """[(B_i, C, H, W)] -> one batch per (H, W); images are numbered through."""
    groups: dict[tuple[int, ...], tuple[list[int], list[Tensor]]] = {}
    number = 0
    for pixels in each:
        indices, members = groups.setdefault(tuple(pixels.shape[-2:]), ([], []))
        indices.extend(range(number, number + len(pixels)))
        members.append(pixels.to(members[0].device) if members else pixels)
        number += len(pixels)
    return [Batch(indices, torch.cat(members)) for indices, members in groups.values()]


def _tensor_pixels(images: Tensor, transform: Transform, stride: int) -> Tensor:
    """(C, H, W) or (B, C, H, W), uint8 or float in [0, 1] -> (B, C, H, W) float32, normalised."""
    _check_channels(images, transform.channels)
    try:
        check_size(images.shape[-2:], stride)
    except SizeError as error:
        raise SizeError(
            f"{error}. Tensors keep their own size: resize it, or pass a picture, which is resized for you"
        ) from error
    if images.is_floating_point():
        _check_range(images)
        unit = images.float()
    elif images.dtype == torch.uint8:
        unit = images.float() / 255
    else:
        raise ImageError(
            f"a tensor must be uint8 or float in [0, 1], not {images.dtype}; pass images.to(torch.uint8)"
        )
    return transform.normalise(unit if images.ndim == 4 else unit[None])


def _check_channels(images: Tensor, channels: int) -> None:
    """Raises ImageError, naming the fix, unless shaped (B, C, H, W) or (C, H, W) and not empty."""
    shape = tuple(images.shape)
    if images.ndim not in (3, 4) or shape[-3] != channels:
        fix = _channel_fix(shape, channels)
        raise ImageError(
            f"a tensor of shape {shape}, where the encoder takes (B, {channels}, H, W) or ({channels}, H, W){fix}"
        )
    if images.numel() == 0:
        raise ImageError(f"a tensor of shape {shape} holds no pixels; pass at least one image")


def _channel_fix(shape: tuple[int, ...], channels: int) -> str:
    """What to type where the channels of a tensor are misplaced, too few or too many."""
    if len(shape) == 2 and channels == 1:
        return "; pass images[None]"
    if len(shape) not in (3, 4):
        return ""
    if shape[-1] == channels:
        order = "2, 0, 1" if len(shape) == 3 else "0, 3, 1, 2"
        return f"; its channels are last: pass images.permute({order})"
    if shape[-3] == 1:
        expanded = f"images.expand({'' if len(shape) == 3 else '-1, '}{channels}, -1, -1)"
        return f"; for grey images pass {expanded}, or load the encoder with in_chans=1"
    if shape[-3] > channels:
        return f"; pass the {channels} channels that are meant, such as images[..., :{channels}, :, :]"
    return f"; an encoder of other channels is loaded by zoo.load(name, in_chans={shape[-3]})"


def _check_range(images: Tensor) -> None:
    """Raises ImageError, naming the fix, for floats that are not in [0, 1]."""
    if not bool(torch.isfinite(images).all()):
        raise ImageError("a float tensor holds NaN or infinite pixels; look for a division by zero before it")
    low, high = (float(end) for end in images.detach().aminmax())
    found = f"a float tensor must be in [0, 1], but goes from {low:.4g} to {high:.4g}"
    if low < -_TOLERANCE:
        raise ImageError(
            f"{found}: it looks already normalised; use encoder.forward_features(pixels), or undo the normalisation"
        )
    if high > 2:
        raise ImageError(f"{found}: it looks like 0–255; pass images / 255, or the same as uint8")
    if high > 1 + _TOLERANCE:
        raise ImageError(f"{found}: resizing may have overshot; pass images.clamp(0, 1)")
