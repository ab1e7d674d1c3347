"""The network a method trains: of any family of the zoo, built from a recipe."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from zoo.errors import CardError, MaskError, RecipeError, Unsupported
from zoo.families import family, names, vit
from zoo.masking import hidden_count
from zoo.patches import grid_of
from zoo.training.batchnorm import globalised
from zoo.training.recipe import Arch, Recipe


def backbone(arch: Arch, *, drop_path: float = 0.0) -> nn.Module:
    """A fresh encoder whose call gives pooled features: (B, C, H, W) -> (B, D).

    drop_path: `arch.drop_path` for the network that learns. RecipeError where the family has no such architecture.

    >>> width(backbone(Arch("resnet18", family="resnet", pooling="avg")))
    512
    """
    arguments = {
        **arch.arguments(),
        "drop_path_rate": drop_path,
    }  # always, for timm's Swins have 0.1 of their own
    try:
        module = globalised(family(arch.family).build(arch.name, arguments))
    except (CardError, Unsupported) as error:
        raise RecipeError(
            f"{error}. --arch.name is {arch.name} and --arch.family {arch.family}; families are {', '.join(names())}"
        ) from error
    if arch.pooling == "token" and getattr(module, "cls_token", None) is None:
        raise RecipeError(
            f"--arch.pooling is 'token', and {arch.name} has no class token; give --arch.pooling avg"
        )
    # Convolutions compute faster on pixels that hold their channels side by side, and hand them on so.
    return module.to(memory_format=torch.channels_last) if arch.family == "resnet" else module


def pooled(module: nn.Module, pixels: Tensor) -> Tensor:
    """Pooled features (B, D), as the module's call gives them; without what a pooled class token leaves unread."""
    if isinstance(module, VisionTransformer) and module.global_pool == "token":
        return vit.class_token(module, pixels)
    features: Tensor = module(pixels)
    return features


def width(module: nn.Module) -> int:
    """Width D of the pooled features."""
    return int(module.num_features)  # type: ignore[arg-type]  # timm's convention


def check_sides(recipe: Recipe, module: nn.Module, **method_sides: int) -> None:
    """RecipeError for a side in pixels that is no multiple of the encoder's stride."""
    stride = family(recipe.arch.family).stride(module)
    called = "patch" if recipe.arch.family == "vit" else "stride"
    sides = {"--arch.size": recipe.arch.size, "--data.size": recipe.data.size}
    for knob, side in {**sides, **{f"--method.{k}": v for k, v in method_sides.items()}}.items():
        if side % stride:
            near = max(stride, round(side / stride) * stride)
            raise RecipeError(
                f"{knob} is {side}, not a multiple of the {stride}-pixel {called} of {recipe.arch.name}; give {near}"
            )


def check_hidden(recipe: Recipe, strategy: str, ratio: float, patch: int, also: str = "") -> None:
    """RecipeError for a ratio that hides none or all of an image's patches, of `patch` pixels. also: a knob to name."""
    for knob, side in {"--data.size": recipe.data.size, "--arch.size": recipe.arch.size}.items():
        h, w = grid_of(side, side, patch)
        told = ", ".join(filter(None, (f"{knob} is {side}", f"--method.ratio {ratio}", also)))
        try:
            count = hidden_count(strategy, (h, w), ratio)
        except MaskError as error:
            raise RecipeError(f"{error}. {told}") from error
        if not count:
            raise RecipeError(f"a ratio of {ratio} hides none of {h}×{w} patches; raise it. {told}")


def check_family(recipe: Recipe, method: str, *families: str) -> None:
    """RecipeError where the method cannot train such an encoder."""
    if recipe.arch.family not in families:
        raise RecipeError(
            f"--arch.family is {recipe.arch.family!r}, and {method} trains {' or '.join(families)}: give "
            f"--arch.family {families[0]} and an --arch.name of it, an --init of it, or take a method that pools "
            "features, as dino"
        )


def blocks(module: nn.Module) -> list[nn.Module]:
    """The parts worth compiling: a transformer's blocks, of all its stages, or the whole network where it has none."""
    lists = [each for name, each in module.named_modules() if name.rpartition(".")[2] == "blocks"]
    return [block for each in lists for block in each.children()] or [module]
