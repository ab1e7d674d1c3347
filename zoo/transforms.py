"""From a picture to the pixels an encoder takes: resize, crop, scale to [0, 1], normalise.

The arithmetic is that of timm's evaluation transform (torchvision's Resize, CenterCrop, ToTensor and Normalize on
PIL images), number for number, as published accuracies were measured with it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zoo.errors import CardError, ImageError, SizeError, did_you_mean
from zoo.images import MAX_PIXELS, ImageSource, read_layers

Size = int | tuple[int, int]  # pixels of the short side, or (h, w)

FITS = ("crop", "whole")
NARROWEST = 64  # times the short side that a picture seen whole may be long

_INTERPOLATIONS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Transform:
    """An encoder's evaluation transform. Raises CardError where a field says something impossible.

    >>> transform = Transform(size=224, crop_pct=0.875)
    >>> transform("model_cards/photos/cat_chelsea.jpg").shape
    torch.Size([3, 224, 224])
    """

    size: int  # pixels of the square the encoder was evaluated at
    crop_pct: float = 1.0  # side of the crop over the resized short side
    interpolation: str = "bicubic"  # or bilinear, lanczos
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # of ImageNet-1k's channels, timm's IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = (0.229, 0.224, 0.225)  # likewise

    def __post_init__(self) -> None:
        if self.size < 1:
            raise CardError(f"transform: size {self.size} is not a number of pixels; write 224, say")
        if not 0 < self.crop_pct <= 1:
            raise CardError(f"transform: crop_pct {self.crop_pct} is not in (0, 1]; write 1.0 for no margin")
        if self.interpolation not in _INTERPOLATIONS:
            known = ", ".join(_INTERPOLATIONS)
            hint = did_you_mean(self.interpolation, _INTERPOLATIONS)
            raise CardError(f"transform: interpolation {self.interpolation!r} is none of {known}{hint}")
        if not self.mean or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise CardError(
                f"transform: mean {self.mean} and std {self.std} must hold one number per channel, std above 0"
            )

    @property
    def channels(self) -> int:
        """C, the encoder's in_chans."""
        return len(self.mean)

    def __call__(self, image: ImageSource) -> Tensor:
        """(C, size, size) float32, normalised: the centre crop of `image` at the native size."""
        return self.of_levels(self.levels(image))

    def levels(self, image: ImageSource) -> NDArray[np.uint8]:
        """(size, size, C) uint8: what `__call__` normalises, to be moved at a quarter of the bytes."""
        return self._fitted(image, lambda picture: self._crop(picture, self.size, self.size))

    def of_levels(self, levels: NDArray[np.uint8], device: torch.device | None = None) -> Tensor:
        """(..., H, W, C) uint8 -> (..., C, H, W) float32, normalised, on `device`."""
        return self.normalise(_unit(torch.from_numpy(levels).to(device)))

    def pixels(self, image: ImageSource, stride: int, fit: str = "crop", size: Size | None = None) -> Tensor:
        """(C, H, W) float32, normalised, H and W multiples of `stride`; size=None is the native size.

        crop: the short side is resized to size / crop_pct, then the centre is cut out; for (h, w), the picture is
        resized to cover it. whole: nothing cut or padded; the short side becomes `size`, the long side the nearest
        multiple of the stride; for (h, w), exactly those.
        Raises ImageError, and SizeError for a size that is no multiple of the stride.
        """
        check_fit(fit)
        sides = sides_of(self.size if size is None else size, stride)
        height, width = sides if len(sides) == 2 else sides * 2

        def fitted(picture: Image.Image) -> Image.Image:
            if fit == "crop":
                return self._crop(picture, height, width)
            if len(sides) == 2:
                return self._resize(picture, height, width)
            return self._resize(picture, *_whole(picture.height, picture.width, sides[0], stride))

        return self.of_levels(self._fitted(image, fitted))

    def _fitted(self, image: ImageSource, fit: Callable[[Image.Image], Image.Image]) -> NDArray[np.uint8]:
        """(H, W, C) uint8: `image` through `fit`, channel by channel where Pillow has no such mode."""
        return np.concatenate([_levels(fit(layer)) for layer in read_layers(image, self.channels)], axis=2)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(..., C, H, W) float in [0, 1] -> normalised by mean and std."""
        return (pixels - self._per_channel(self.mean, pixels)) / self._per_channel(self.std, pixels)

    def denormalise(self, pixels: Tensor) -> Tensor:
        """(..., C, H, W) normalised -> in [0, 1] where they came from there; not clipped."""
        return pixels * self._per_channel(self.std, pixels) + self._per_channel(self.mean, pixels)

    def _per_channel(self, values: tuple[float, ...], pixels: Tensor) -> Tensor:
        """(C, 1, 1) beside `pixels`."""
        if not pixels.is_floating_point():
            raise ImageError(f"{pixels.dtype} pixels cannot be normalised; pass pixels / 255, in [0, 1]")
        return torch.tensor(values, dtype=pixels.dtype, device=pixels.device)[:, None, None]

    def _crop(self, picture: Image.Image, height: int, width: int) -> Image.Image:
        """The centre (height, width) of `picture`, resized to cover it and crop_pct's margin."""
        covered = (math.floor(height / self.crop_pct), math.floor(width / self.crop_pct))
        resized = self._resize(picture, *_covering(picture.height, picture.width, *covered))
        top, left = round((resized.height - height) / 2), round((resized.width - width) / 2)
        return resized.crop((left, top, left + width, top + height))

    def _resize(self, picture: Image.Image, height: int, width: int) -> Image.Image:
        """`picture` at (height, width), antialiased."""
        if height * width > MAX_PIXELS:
            raise SizeError(
                f"a picture of {picture.height}×{picture.width} pixels (h×w) would be resized to "
                f"{height}×{width}, more than {MAX_PIXELS:,} pixels; crop it first, or pass a smaller size"
            )
        return picture.resize((width, height), _INTERPOLATIONS[self.interpolation])


def unit_pixels(picture: Image.Image) -> Tensor:
    """L or RGB image -> (C, H, W) float32 in [0, 1]."""
    return _unit(torch.from_numpy(_levels(picture)))


def _levels(picture: Image.Image) -> NDArray[np.uint8]:
    """L or RGB image -> (H, W, C) uint8."""
    array = np.array(picture)  # (H, W) or (H, W, C); a copy, as torch warns of read-only memory
    return array if array.ndim == 3 else array[:, :, None]


def _unit(levels: Tensor) -> Tensor:
    """(..., H, W, C) uint8 -> (..., C, H, W) float32 in [0, 1]."""
    return levels.movedim(-1, -3).contiguous().float() / 255


def check_fit(fit: str) -> None:
    """Raises SizeError for a `fit` that does not exist."""
    if fit not in FITS:
        raise SizeError(f"fit={fit!r} is neither 'crop' nor 'whole'{did_you_mean(str(fit), FITS)}")


def check_size(sides: Sequence[int], stride: int) -> None:
    """Raises SizeError, naming the nearest size, where a side in pixels is no multiple of `stride`."""
    if any(side < 1 or side % stride for side in sides):
        given = "×".join(str(side) for side in sides)
        nearest = "×".join(str(_nearest_multiple(side, stride)) for side in sides)
        raise SizeError(
            f"{given} pixels is no multiple of the encoder's stride, {stride}; the nearest is {nearest}"
        )


def _nearest_multiple(side: int, stride: int) -> int:
    """The multiple of `stride` nearest to `side`, at least one stride; of two, the larger."""
    return max(1, (2 * side + stride) // (2 * stride)) * stride


def sides_of(size: object, stride: int) -> tuple[int, ...]:
    """An int -> (side,), a pair -> (h, w). Raises SizeError for anything else, and for no multiples of `stride`."""
    try:
        sides = tuple(map(operator.index, size if isinstance(size, Sequence) else (size,)))
    except TypeError:
        sides = ()
    if len(sides) not in (1, 2) or isinstance(size, bool):
        raise SizeError(f"size={size!r} is neither pixels of the short side, such as 224, nor (h, w)")
    check_size(sides, stride)
    return sides


def _covering(height: int, width: int, covered_height: int, covered_width: int) -> tuple[int, int]:
    """The (h, w) a picture is resized to, aspect kept, to cover a box; rounded as torchvision and timm do.

    A square box is torchvision's Resize(int), which truncates the long side; others are timm's ResizeKeepRatio,
    which rounds.
    """
    if covered_height == covered_width:
        if width <= height:
            return int(covered_width * height / width), covered_width
        return covered_height, int(covered_height * width / height)
    ratio = min(height / covered_height, width / covered_width)
    return round(height / ratio), round(width / ratio)


def _whole(height: int, width: int, short: int, stride: int) -> tuple[int, int]:
    """(h, w) of short side `short` and the long side the multiple of `stride` nearest to the same aspect.

    Raises SizeError for a strip so narrow that its patches would be more than any attention is made for.
    """
    if max(height, width) > NARROWEST * min(height, width):
        raise SizeError(
            f"a strip of {height}×{width} pixels (h×w) is too narrow to be seen whole: at most 1:{NARROWEST}; cut it "
            "into pieces, or take fit='crop'"
        )
    # The long side would be `reached / narrow` pixels: rounded in integers, where floats would misplace halves.
    narrow, reached = min(height, width), short * max(height, width)
    long = (2 * reached + stride * narrow) // (2 * stride * narrow) * stride
    return (long, short) if height >= width else (short, long)
