"""Going on from a model: its pixels, its architecture, its weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.cli import main
from zoo.errors import RecipeError
from zoo.loading import build
from zoo.resizing import resize_positions, resized_tensors
from zoo.training.backbones import backbone
from zoo.training.beginning import LEAST_STEPS, begun_with
from zoo.training.engine import count_steps, run
from zoo.training.methods import recipe
from zoo.training.recipe import Recipe, Schedule
from zoo.training.schedules import warmup_steps
from zoo.weights import fit_report, without_storage

HALVES: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.fixture(scope="module")
def halves(tiny: Callable[..., Recipe], photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows pixels from -1 to 1, as BEiT's authors' do. Not to be written to."""
    return run(
        tiny("mae/smoke", data=HALVES), photos, tmp_path_factory.mktemp("halves") / "model", scores=False
    )


def test_the_card_says_how_pixels_were_normalised(halves: Path) -> None:
    transform = zoo.load(halves, device="cpu").transform
    assert (transform.mean, transform.std) == (HALVES["mean"], HALVES["std"])


def test_a_model_of_other_pixels_is_refused(
    halves: Path, tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"give --data\.mean 0\.5 0\.5 0\.5 --data\.std 0\.5 0\.5 0\.5"):
        run(tiny("dino/smoke"), photos, tmp_path / "run", init=halves)
    folder = run(tiny("dino/smoke", data=HALVES), photos, tmp_path / "run", init=halves, scores=False)
    assert zoo.card(str(folder)).transform.mean == HALVES["mean"]


@pytest.mark.parametrize("wrong", [{"mean": (0.5,)}, {"std": (1.0, 0.0, 1.0)}])
def test_statistics_that_cannot_be(wrong: dict[str, Any], tiny: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match=r"--data\.mean is"):
        tiny("mae/smoke", data=wrong).check()


# Architecture

SIDES = {"dinov2_vits14_reg": 70, "msn_vitl7": 70}


@pytest.mark.parametrize(
    "name",
    [
        "beit_vitb16",
        "beit_vitb16_ft22k",
        "dino_vits8",
        "dino_xcit_small_12_p16",
        "dinov2_vits14_reg",
        "dinov3_vits16",
        "ibot_swint14",
        "ijepa_vith14",
        "mae_vitt16_imagenette",
        "moco_v3_vits16",
        "msn_vitl7",
        "simclr_resnet50x2",
        "simmim_swinb",
        "supervised_pvts",
        "ummae_pvts",
        "ummae_swint_finetuned",
    ],
)
def test_a_recipe_takes_the_architecture_of_any_model(name: str) -> None:
    """At the recipe's size, where the model's weights fit once their positions are resized."""
    card, mine = zoo.card(name), begun_with(recipe("dino/smoke"), name)
    assert (mine.arch.name, mine.arch.family) == (card.architecture, card.family)
    assert mine.statistics == (card.transform.mean, card.transform.std)
    arch = dataclasses.replace(mine.arch, size=SIDES.get(name, 64))
    dataclasses.replace(mine, arch=arch).check()
    with without_storage():
        theirs, ours = build(card)[0].state_dict(), backbone(arch)
        moved = resized_tensors(theirs, ours, card.interpolation)
    assert fit_report(ours, {**theirs, **moved}) == ""


@pytest.mark.parametrize(
    ("name", "pooling"),
    [("mae_vitt16_imagenette", "token"), ("ijepa_vith14", "avg"), ("dino_resnet50", "avg")],
)
def test_pooling_stays_the_recipes_where_the_model_has_a_class_token(name: str, pooling: str) -> None:
    assert begun_with(recipe("dino/smoke"), name).arch.pooling == pooling


def test_what_the_user_turns_is_not_taken_from_the_model() -> None:
    chosen = recipe("dino/imagenette")
    assert begun_with(chosen, "dino_resnet50", given=["arch.name"]).arch == chosen.arch
    assert begun_with(chosen, "dino_resnet50", given=["schedule.epochs"]).schedule == chosen.schedule
    assert begun_with(chosen, "dino_resnet50", given=["arch.size"]).arch.name == "resnet50"


@pytest.mark.parametrize(
    ("name", "init", "says"),
    [
        ("mae/imagenette", "dino_resnet50", r"mae trains vit: .* an --init of it"),
        ("beit/imagenette", "dino_vits16", r"beit trains beit: .* an --init of it"),
        ("ummae/imagenette", "dinov2_vits14_reg", r"patches and one class token"),
    ],
)
def test_a_method_that_cannot_train_the_model_says_so(name: str, init: str, says: str) -> None:
    mine = begun_with(recipe(name), init)
    mine = dataclasses.replace(mine, arch=dataclasses.replace(mine.arch, size=112))
    mine = dataclasses.replace(mine, data=dataclasses.replace(mine.data, size=112))
    with pytest.raises(RecipeError, match=says), without_storage():
        mine.method.build(mine)


def test_the_command_needs_no_architecture(tiny: Callable[..., Recipe], photos: Path, tmp_path: Path) -> None:
    """`zoo train RECIPE DATA --init MODEL`: another network than the recipe's, at another size than the model's."""
    model = run(
        tiny("mae/smoke", arch={"size": 64, "depth": 2, "num_heads": 2}),
        photos,
        tmp_path / "model",
        scores=False,
    )
    still = ["--optim.lr", "1e-12", "--optim.weight_decay", "0", "--optim.batch", "4", "--arch.size", "32"]
    words = ["train", "mae/smoke", str(photos), "--init", str(model), *still, "--data.size", "32"]
    assert main([*words, "--out", str(tmp_path / "on")]) == 0
    before, after = zoo.load(model, device="cpu"), zoo.load(tmp_path / "on", device="cpu")
    said = after.card.arguments
    assert (after.card.architecture, said["depth"], said["num_heads"], after.size) == ("test_vit", 2, 2, 32)
    weights = before.module.state_dict()
    weights["pos_embed"] = resize_positions(weights["pos_embed"], (4, 4), (2, 2), "timm")
    for key, tensor in after.module.state_dict().items():
        assert torch.allclose(tensor, weights[key], atol=2e-3), key  # float16 in the file


# Schedule


def test_few_images_are_shown_until_the_steps_are_enough() -> None:
    mine = begun_with(recipe("dino/imagenette"), "mae_vitt16_imagenette")
    batch, epochs = mine.optim.batch, mine.schedule.epochs
    few, many = (count_steps(mine, images, "photos") for images in (5 * batch, 500 * batch))
    whole = math.ceil(LEAST_STEPS / epochs)
    assert (few.total, few.per_epoch) == (whole * epochs, whole)
    assert (many.total, many.per_epoch) == (500 * epochs, 500)
    # What is counted in epochs keeps its share of the run: a tenth at most for the warm-up, DINO's temperature.
    for steps in (few, many):
        assert steps.epochs == epochs
        assert warmup_steps(0.2, steps.per_epoch, steps.total) == pytest.approx(0.2 / epochs * steps.total)


def test_a_recipe_that_limits_its_images_is_short_on_purpose() -> None:
    assert begun_with(recipe("dino/smoke"), "mae_vitt16_imagenette").schedule == recipe("dino/smoke").schedule


def test_steps_that_are_given_are_taken() -> None:
    chosen = dataclasses.replace(recipe("dino/imagenette"), schedule=Schedule(steps=7, least_steps=1000))
    assert count_steps(chosen, 320, "photos").total == 7
