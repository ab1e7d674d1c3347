"""Scores as results of a card: what is kept, what is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from zoo.cards import ModelCard, Result, TransformSpec, parse_card, render_card
from zoo.evaluate.results import results_of, with_results
from zoo.protocols import TRAINED, UNTRAINED
from zoo.sources import Source, open_source


@pytest.fixture
def photos(tmp_path: Path) -> Source:
    (tmp_path / "photos" / "val").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "val" / "a.png")
    return open_source(tmp_path / "photos", "val")


def score(protocol: str = "knn", top1: float = 61.23456, **settings: Any) -> dict[str, Any]:
    """A row of `frozen_scores`."""
    return {"protocol": protocol, "top1": top1, "train": "photos, train", "n_test": 1, "settings": settings}


def card(*results: Result) -> ModelCard:
    return ModelCard(
        name="a", licence="mit", method="dino", kind="discriminative", family="vit",
        architecture="vit_tiny_patch16_224", parameters=1, pooling="token", transform=TransformSpec(224),
        results=results,
    )  # fmt: skip


def test_a_score_says_what_it_takes_to_get_it_again(photos: Source) -> None:
    [result] = results_of(score(k=20, size=128), photos, "zoo evaluate a photos")
    assert (result.task, result.value, result.metric, result.unit) == ("knn", 61.23, "top-1", "%")
    assert (result.dataset, result.split) == ("photos", "validation")
    assert result.settings == {"images": 1, "trained on": "photos, train", "k": 20, "size": 128}
    assert result.command == "zoo evaluate a photos"


def test_the_same_measurement_replaces_the_old_one_in_its_place(photos: Source) -> None:
    old = [
        *results_of(score("linear", 50, l2=0.1), photos, ""),
        *results_of(score("knn", 40, k=20), photos, ""),
    ]
    new = results_of(score("linear", 55, l2=0.01), photos, "")
    assert [result.value for result in with_results(card(*old), new).results] == [55, 40]


def test_another_setting_is_another_measurement(photos: Source) -> None:
    old = results_of(score(k=20, size=128), photos, "")
    new = results_of(score(k=20, size=64), photos, "")
    assert with_results(card(*old), new).results == (*old, *new)


def test_a_baseline_never_stands_in_for_the_model(photos: Source) -> None:
    trained, untrained = (
        results_of({**score(k=20), "features": features}, photos, "") for features in (TRAINED, UNTRAINED)
    )
    both = with_results(card(*trained), untrained)
    assert [result.task for result in both.results] == ["knn", "knn, untrained"]


def test_a_reconstruction_is_told_with_what_it_is_to_be_judged_by(photos: Source) -> None:
    row = {"error": 0.011, "mean_fill": 0.04, "smooth_fill": 0.03, "ratio": 0.275}
    results = results_of({**score("reconstruction", ratio=0.75), **row}, photos, "")
    assert {result.metric: result.value for result in results} == {
        "error on hidden pixels": 0.011,
        "error of the mean colour": 0.04,
        "error of a smooth fill": 0.03,
        "error over the mean colour's": 0.275,
    }


def test_results_survive_the_card_s_text(photos: Source) -> None:
    written = with_results(card(), results_of(score(k=20, temperature=0.07), photos, "zoo evaluate a photos"))
    assert parse_card(render_card(written), "a").results == written.results
