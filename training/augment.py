"""Views from torchvision's v2 transforms, with their randomness passed in.

Sizes are in pixels. Every transform takes a decoded uint8 image (C, H, W); those of colours, blur and solarisation take
float ones too and give float ones, unless chance leaves an image as it is. `normalised` ends it as float (C, h, w).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Generator, Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from zoo.blur import gaussian_blur
from zoo.cards import TransformSpec
from zoo.channels import RGB
from zoo.images import MODES
from zoo.training.hue import shift_hue

IMAGENET_MEAN, IMAGENET_STD = TransformSpec.mean, TransformSpec.std

Transform = Callable[[Tensor], Tensor]
Part = Literal["flip", "colour", "grey", "blur", "solarise"]


def seeded(transform: Transform, image: Tensor, generator: Generator) -> Tensor:
    """Apply a torchvision transform, which draws from torch's global generator, with draws of `generator`."""
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return transform(image)


@contextmanager
def all_seeded(seed: int) -> Iterator[None]:
    """Python's, NumPy's and torch's generators, which timm's transforms draw from: seeded here, and then as before."""
    python, array = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)


def crop_and_flip(
    size: int, scale: tuple[float, float], interpolation: Literal["bicubic", "bilinear"] = "bicubic"
) -> list[Transform]:
    """A random resized crop of a share `scale` of the area, mirrored half the time."""
    mode = InterpolationMode(interpolation)
    return [
        v2.RandomResizedCrop(size, scale=scale, interpolation=mode, antialias=True),
        v2.RandomHorizontalFlip(),
    ]


def one_view(
    size: int, min_scale: float, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Callable[[Tensor, Generator], list[Tensor]]:
    """What masked-image methods and probes look at: one crop of at least a share `min_scale`, mirrored or not."""
    crop = normalised(crop_and_flip(size, (min_scale, 1.0)), mean, std)
    return lambda image, generator: [seeded(crop, image, generator)]


def coloured_crop(jitter: tuple[float, float, float], scale: tuple[float, float]) -> Transform:
    """Brightness, contrast and saturation, a mirror half the time, and a random crop that keeps its own size."""
    before = v2.Compose([by_layer(v2.ColorJitter(*jitter)), v2.RandomHorizontalFlip()])
    place = v2.RandomResizedCrop(1, scale=scale)  # where; resizing is another's

    def cut(image: Tensor) -> Tensor:
        image = before(image)
        part: Tensor = tv.crop(image, **place.make_params([image]))
        return part

    return cut


def by_layer(transform: Transform) -> Transform:
    """A transform of colours, which knows one channel or three: others are changed as grey pictures are, all alike."""

    def of_any(image: Tensor) -> Tensor:
        return transform(image) if len(image) in MODES else transform(image[:, None])[:, 0]

    return of_any


def resize(size: int, interpolation: Literal["bicubic", "lanczos"]) -> Transform:
    """To a square of `size` pixels, antialiased."""
    resized: Transform = v2.Resize(
        (size, size), interpolation=InterpolationMode(interpolation), antialias=True
    )
    return resized


def colour_distortion(
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    probability: float = 0.8,
    grey: float = 0.2,
) -> list[Transform]:
    """Colour jitter in random order with a probability, then grey with another; pixels that were jittered are float.

    Of an image that has no three channels, brightness and contrast change alone.
    """
    drawn = v2.ColorJitter(brightness, contrast, saturation, hue)
    jitter = by_layer(lambda image: jittered(image, drawn.make_params([image])))
    return [
        v2.RandomApply([lambda image: jitter(to_float(image))], p=probability),
        by_layer(v2.RandomGrayscale(p=grey)),
    ]


def jittered(image: Tensor, params: Mapping[str, Any]) -> Tensor:
    """A float image (..., C, H, W) with what torchvision's ColorJitter has drawn for it, in the order that it drew."""
    steps: Sequence[tuple[str, Callable[[Tensor, float], Tensor]]] = (
        ("brightness", tv.adjust_brightness),
        ("contrast", tv.adjust_contrast),
        ("saturation", tv.adjust_saturation),
        ("hue", shift_hue if image.shape[-3] == RGB else lambda image, _: image),
    )
    for index in params["fn_idx"].tolist():
        name, change = steps[index]
        if (factor := params[f"{name}_factor"]) is not None:
            image = change(image, factor)
    return image


def blur(size: int, probability: float) -> list[Transform]:
    """Gaussian blur with sigma U(0.1, 2) pixels where global views have 224, in proportion where they have `size`.

    Its kernel is a tenth of the side, as in SimCLR's code: 23 pixels of 224. The proportion is ours: the authors scale
    the kernel alone.
    """
    most = 2.0 * size / 224
    least, kernel = min(0.1, most), 2 * (size // 20) + 1

    def blurred(image: Tensor) -> Tensor:
        sigma = float(torch.empty(1).uniform_(least, most))
        return gaussian_blur(to_float(image), kernel, sigma)

    return [v2.RandomApply([blurred], p=probability)]


def solarise(probability: float) -> list[Transform]:
    """Invert every value of at least half the range, 128 of 255, with a probability."""
    solarised = v2.RandomSolarize(threshold=128 / 255, p=probability)
    return [lambda image: solarised(to_float(image))]


def without(
    removed: Sequence[Part],
    crop_flip: Sequence[Transform],
    colours: Sequence[Transform],
    blurred: Sequence[Transform],
    solarised: Sequence[Transform] = (),
) -> list[Transform]:
    """The steps of a view in their order, some of them removed, as in BYOL's and SimCLR's ablations."""
    crop, flip = crop_flip
    jitter, grey = colours
    steps = {"flip": [flip], "colour": [jitter], "grey": [grey], "blur": blurred, "solarise": solarised}
    return [crop, *(step for name, kept in steps.items() if name not in removed for step in kept)]


def two_globals(
    size: int,
    scale: tuple[float, float],
    removed: Sequence[Part] = (),
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> tuple[Transform, Transform]:
    """BYOL's two distributions of views (2006.07733, Table 6): always blurred, and seldom blurred but solarised."""
    shared = crop_and_flip(size, scale), colour_distortion(0.4, 0.4, 0.2, 0.1)
    return (
        normalised(without(removed, *shared, blur(size, 1.0)), mean, std),
        normalised(without(removed, *shared, blur(size, 0.1), solarise(0.2)), mean, std),
    )


def rand_augment(magnitude: int, size: int) -> list[Transform]:
    """Two of RandAugment's operations at `magnitude` of 10, jittered by 0.5 (timm's m9-mstd0.5-inc1); 0: none.

    Of one channel or three: they are operations on pictures.
    """
    if not magnitude:
        return []
    fill = tuple(round(255 * level) for level in IMAGENET_MEAN)
    settings = {"translate_const": int(0.45 * size), "img_mean": fill}
    of_picture = rand_augment_transform(f"rand-m{magnitude}-mstd0.5-inc1", settings)

    def augmented(image: Tensor) -> Tensor:
        picture = tv.to_pil_image(image).convert("RGB")
        mode = MODES[len(image)]
        pixels: Tensor = tv.pil_to_tensor(of_picture(picture).convert(mode))
        return pixels

    return [augmented]


def random_erasing(probability: float) -> list[Transform]:
    """A box of a normalised view is filled with noise, with a probability (Zhong et al., 1708.04896)."""
    return [RandomErasing(probability, mode="pixel", device="cpu")] if probability else []


def normalised(
    steps: Sequence[Transform], mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Transform:
    """The steps, then float values with a mean and deviation, ImageNet's by default."""
    composed: Transform = v2.Compose([*steps, to_float, v2.Normalize(list(mean), list(std))])
    return composed


def to_float(image: Tensor) -> Tensor:
    """Values from 0 to 1, as float32; those that are so already stay."""
    values: Tensor = tv.to_dtype(image, torch.float32, scale=True)
    return values
