"""Going on from a model: its pixels, its architecture, its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo.errors import RecipeError
from zoo.training.engine import run
from zoo.training.recipe import Recipe

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
