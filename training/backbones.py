"""The network a method trains: of any family of the zoo, built from a recipe."""

from __future__ import annotations

from typing import Any

from torch import nn

from zoo.errors import RecipeError
from zoo.families import family
from zoo.training.batchnorm import globalised
from zoo.training.recipe import Arch, Recipe


def backbone(arch: Arch, *, drop_path: float = 0.0) -> Any:
    """A fresh encoder whose call gives pooled features: (B, C, H, W) -> (B, num_features).

    drop_path: `arch.drop_path` for the network that learns. Raises CardError or Unsupported as the family does.

    >>> backbone(Arch("resnet18", family="resnet", pooling="avg")).num_features
    512
    """
    extra = {"drop_path_rate": drop_path} if drop_path else {}
    return globalised(family(arch.family).build(arch.name, {**arch.arguments(), **extra}))


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


def check_family(recipe: Recipe, method: str, *families: str) -> None:
    """RecipeError where the method cannot train such an encoder."""
    if recipe.arch.family not in families:
        raise RecipeError(
            f"--arch.family is {recipe.arch.family!r}, and {method} trains {' or '.join(families)}: give "
            f"--arch.family {families[0]} and an --arch.name of it, or take a method that pools features, as dino"
        )


def blocks(module: Any) -> list[nn.Module]:
    """The parts worth compiling: a transformer's blocks, which are all alike, or the whole network."""
    return [*module.blocks] if hasattr(module, "blocks") else [module]
