"""Going on from a model of the zoo (`--init`): its pixels, its weights."""

from __future__ import annotations

from pathlib import Path

from zoo.encoder import Encoder
from zoo.errors import RecipeError
from zoo.loading import load
from zoo.training.methods import Method
from zoo.training.recipe import Recipe


def start_from(method: Method, recipe: Recipe, init: str | Path) -> None:
    """Begin with the encoder of a zoo model, and its decoder where it has one, instead of random weights.

    RecipeError where the recipe is of another architecture, or normalises pixels otherwise than the model knows them.
    """
    model = load(str(init), device="cpu")
    _check_pixels(model, recipe, init)
    decoder = None if model.decoder is None else model.decoder.state_dict()
    try:
        method.start_from(model.module.state_dict(), decoder)
    except RuntimeError as error:  # torch lists every tensor of another shape
        raise RecipeError(
            f"--init {init} does not fit this recipe's encoder: {' '.join(str(error).split())[:300]}. "
            "Give the recipe its --arch.name and --arch.size, or another model"
        ) from error


def _check_pixels(model: Encoder, recipe: Recipe, init: str | Path) -> None:
    own = model.transform.mean, model.transform.std
    if recipe.statistics != own:
        mean, std = (" ".join(f"{value:g}" for value in values) for values in own)
        raise RecipeError(
            f"--init {init} knows pixels of mean {mean} and std {std}, and this recipe's have "
            f"{recipe.statistics[0]} and {recipe.statistics[1]}; give --data.mean {mean} --data.std {std}"
        )
