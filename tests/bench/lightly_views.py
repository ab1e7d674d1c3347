"""lightly's transforms, as strong as a recipe's own: crops, colours, and blur in proportion to the view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightly.transforms import BYOLTransform, DINOTransform, MAETransform, SimCLRTransform
from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, RandomResizedCrop

from zoo.training.recipe import Recipe

Views = Callable[[Any], list[Tensor]]  # of a Pillow image


def simclr(given: Recipe) -> Views:
    config: Any = given.method
    settings = of_a_pair(given)
    return bicubic(SimCLRTransform(cj_strength=config.strength, gaussian_blur=config.blur, **settings))


def byol(given: Recipe) -> Views:
    settings = of_a_pair(given)
    return bicubic(BYOLTransform(BYOLView1Transform(**settings), BYOLView2Transform(**settings)))


def dino(given: Recipe) -> Views:
    config: Any = given.method
    return DINOTransform(
        global_crop_size=given.data.size,
        global_crop_scale=config.global_scale,
        local_crop_size=config.local_size,
        local_crop_scale=config.local_scale,
        n_local_views=config.local_crops,
        sigmas=sigmas(given),
        normalize=statistics(given),
    )


def mae(given: Recipe) -> Views:
    config: Any = given.method
    return MAETransform(given.data.size, config.min_scale, statistics(given))


VIEWS: dict[str, Callable[[Recipe], Views]] = {"mae": mae, "dino": dino, "simclr": simclr, "byol": byol}


def of_a_pair(given: Recipe) -> dict[str, Any]:
    """What SimCLR's views and BYOL's are both told."""
    config: Any = given.method
    return {
        "input_size": given.data.size,
        "min_scale": config.min_scale,
        "sigmas": sigmas(given),
        "normalize": statistics(given),
    }


def sigmas(given: Recipe) -> tuple[float, float]:
    """Of the blur, in pixels."""
    most = 2.0 * given.data.size / 224
    return min(0.1, most), most


def statistics(given: Recipe) -> dict[str, list[float]]:
    mean, std = given.statistics
    return {"mean": [*mean], "std": [*std]}


def bicubic(pair: Any) -> Views:
    """Where lightly's crops are bilinear, ours are not."""
    for view in pair.transforms:
        crop = view.transform.transforms[0]
        assert isinstance(crop, RandomResizedCrop)
        crop.interpolation = InterpolationMode.BICUBIC
    views: Views = pair
    return views
