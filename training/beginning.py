"""Going on from a model of the zoo (`--init`): architecture and pixels for the recipe, weights for the method."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path

from zoo.cards import ModelCard
from zoo.encoder import Encoder
from zoo.errors import RecipeError
from zoo.loading import build, load
from zoo.pulling import find
from zoo.resizing import resized_tensors
from zoo.training.methods import Method
from zoo.training.recipe import Arch, Recipe
from zoo.weights import without_storage

# Fewest steps of a run that goes on: most of the zoo's own small runs take from one to four thousand.
LEAST_STEPS = 1000

# Arguments that say for which size an encoder is built, which here is --arch.size.
_OF_SIZE = ("img_size", "dynamic_img_size", "strict_img_size")
# Arguments that a recipe says by itself.
_SAID = (*_OF_SIZE, "in_chans")


def begun_with(recipe: Recipe, init: str | Path, given: Collection[str] = ()) -> Recipe:
    """The recipe for going on from a zoo model: with its architecture and its pixels' mean and deviation.

    Sizes in pixels, drop path and, where the model can pool so, pooling stay the recipe's. The schedule is scaled to
    the data: few images are shown for more epochs, until there are 1,000 steps (`schedule.least_steps`), in which
    warm-ups and whatever else is counted in epochs keep their shares; many images are shown for the recipe's epochs.
    Not so where the recipe itself limits its images, as `smoke` does.

    given: knobs that the user turns afterwards, `section.field` each. `arch.name` or `arch.family` leaves the
    architecture, `schedule.epochs` or `schedule.steps` the schedule as it is.

    >>> begun_with(recipe("dino/imagenette"), "mae_vitt16_imagenette").arch.name
    'vit_tiny_patch16_224'
    """
    card = find(init).card
    arch, schedule, spec = recipe.arch, recipe.schedule, card.transform
    if not {"arch.name", "arch.family"} & set(given):
        arch = _arch_of(card, arch)
    if recipe.data.limit is None and not {"schedule.epochs", "schedule.steps"} & set(given):
        schedule = dataclasses.replace(schedule, least_steps=LEAST_STEPS)
    data = recipe.data
    if len(spec.mean) == arch.in_chans:
        data = dataclasses.replace(data, mean=spec.mean, std=spec.std)
    return dataclasses.replace(recipe, arch=arch, data=data, schedule=schedule)


def _arch_of(card: ModelCard, wanted: Arch) -> Arch:
    """The card's architecture, with what of `wanted` is no part of it."""
    own = tuple((name, json.dumps(value)) for name, value in card.arguments.items() if name not in _SAID)
    return Arch(
        name=card.architecture,
        family=card.family,
        size=wanted.size,
        pooling=wanted.pooling if _pools_both(card) else card.pooling,
        drop_path=wanted.drop_path,
        crop_pct=wanted.crop_pct,
        in_chans=len(card.transform.mean),
        own=own,
    )


def _pools_both(card: ModelCard) -> bool:
    """Whether the same weights may pool the class token or the mean: those of a plain ViT that has one."""
    if card.family != "vit":
        return False
    with without_storage():
        module, _ = build(card)
    return getattr(module, "cls_token", None) is not None


def start_from(method: Method, recipe: Recipe, init: str | Path) -> None:
    """Begin with the encoder of a zoo model, and its decoder where it has one, instead of random weights.

    Stored positions are resized to --arch.size by the model's own rule (zoo/resizing.py), and the first convolution of
    RGB is adapted to --arch.in_chans (zoo/channels.py), without a decoder then. RecipeError where the recipe is of
    another architecture, or normalises pixels otherwise than the model knows them.
    """
    channels = recipe.arch.in_chans
    model = load(str(init), device="cpu", in_chans=channels)
    if (theirs := model.transform.channels) != channels:
        raise RecipeError(
            f"--init {init} takes images of {theirs} channels, and --arch.in_chans is {channels}; give "
            f"--arch.in_chans {theirs}, or begin with a model of 3"
        )
    if len(find(init).card.transform.mean) == channels:  # to others than its own it is new
        _check_pixels(model, recipe, init)
    encoder = model.module.state_dict()
    encoder |= resized_tensors(encoder, method.encoder(), model.card.interpolation)
    decoder = None if model.decoder is None else model.decoder.state_dict()
    try:
        method.start_from(encoder, decoder)
    except RuntimeError as error:  # torch lists every tensor of another shape
        raise RecipeError(
            f"--init {init} does not fit this recipe's encoder: {' '.join(str(error).split())[:300]}. Give it the "
            f"architecture of that model, {model.card.architecture}: `zoo train … --init` does, without --arch.name, "
            "and in Python zoo.training.begun_with(recipe, init)"
        ) from error


def _check_pixels(model: Encoder, recipe: Recipe, init: str | Path) -> None:
    own = model.transform.mean, model.transform.std
    if recipe.statistics != own:
        mean, std = (" ".join(f"{value:g}" for value in values) for values in own)
        raise RecipeError(
            f"--init {init} knows pixels of mean {mean} and std {std}, and this recipe's have "
            f"{recipe.statistics[0]} and {recipe.statistics[1]}; give --data.mean {mean} --data.std {std}"
        )
