"""`zoo show`: what a card tells people, in which order, at every width."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pytest

from zoo import registry
from zoo.cards import DecoderSpec, Result, Source, TrainingFacts, TransformSpec, read_card
from zoo.cli.showing import show, summary

DINO = registry.card("dino_vits16")
KNN = Result("knn", 74.5, "ImageNet-1k", "top-1", unit="%", split="validation", source="https://example.org")
LINEAR = dataclasses.replace(KNN, task="linear", value=77.0)
DECODER = DecoderSpec(
    kind="mae", width=96, depth=2, heads=3, patch=16, mask_patch=16, normalised_targets=False, ratio=0.75
)


@pytest.mark.parametrize("width", [80, 120])
def test_every_card_fits_a_terminal(width: int) -> None:
    for card in registry.list_cards():
        facts, _, notes = show(card, width).partition("```")
        long = [
            line for line in facts.splitlines() if len(line) > width and "://" not in line and line[0] != "#"
        ]
        assert not [line for line in long if " " in line.strip() and not line.startswith(("card", " "))], (
            card.name
        )
        assert "```" in notes


def test_licence_and_numbers_come_first_then_how_to_load_it() -> None:
    labels = [label for label, _ in summary(dataclasses.replace(DINO, results=(KNN, LINEAR)))]
    assert labels[:6] == ["licence", "k-NN", "linear", "", "load", "weights"]
    assert labels[-1] == "card"


def test_results_that_share_their_source_say_it_once() -> None:
    measured = dataclasses.replace(KNN, source="", command="zoo evaluate x", settings={"k": 20})
    rows = summary(dataclasses.replace(DINO, results=(KNN, LINEAR, measured)))[1:6]
    assert rows == [
        ("k-NN", "74.5 % top-1"),
        ("linear", "77 % top-1"),
        ("", "on ImageNet-1k validation; as published, https://example.org"),
        ("k-NN", "74.5 % top-1"),
        ("", "on ImageNet-1k validation (k 20); zoo evaluate x"),
    ]


def test_a_task_of_several_metrics_is_named_once() -> None:
    told = summary(registry.card("mae_vitt16_imagenette"))
    (reconstruction,) = (value.splitlines() for label, value in told if label == "reconstruction")
    assert [re.sub(r"^[\d.]+ ", "", line) for line in reconstruction] == [
        "error on hidden pixels",
        "error of the mean colour",
        "error of a smooth fill",
        "error over the mean colour's",
    ]


@pytest.mark.parametrize(
    ("licence", "hub", "wanted"),
    [
        ("cc-by-nc-4.0", {}, "cc-by-nc-4.0: no commercial use"),
        ("mit", {}, "mit: commercial use allowed"),
        ("other", {"license_name": "x-license"}, "x-license: commercial use not known to be allowed"),
    ],
)
def test_what_the_licence_permits(licence: str, hub: dict[str, str], wanted: str) -> None:
    assert summary(dataclasses.replace(DINO, licence=licence, hub=hub))[0] == ("licence", wanted)


def test_sources_say_place_and_hash() -> None:
    sources = (Source(repo="a/b", revision="0123456789ab", file="m.bin", sha256="0" * 64),
               Source(url="https://example.org/x.pth", md5_prefix="abcdef"))  # fmt: skip
    told = dict(summary(dataclasses.replace(DINO, sources=sources)))
    assert told["weights"].splitlines() == [
        "hub: a/b m.bin",
        "     commit 0123456789ab",
        f"     sha256 {'0' * 12}…",
        "url: https://example.org/x.pth",
        "     md5 abcdef",
    ]
    assert told["load"] == 'zoo.load("dino_vits16")'


def test_what_cannot_be_fetched_says_why_and_what_to_pass() -> None:
    told = dict(summary(dataclasses.replace(DINO, sources=(), unavailable="Lost. Pass one as weights=.")))
    assert told["load"] == 'zoo.load("dino_vits16", weights=FILE)'
    assert told["no weights"].startswith("Lost.") and not told["weights"]


def test_the_rest_of_the_card_is_told_too() -> None:
    spec = TransformSpec(size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    told = dict(
        summary(dataclasses.replace(DINO, decoder=DECODER, transform=spec, arguments={"num_heads": 12}))
    )
    assert told["decoder"] == "mae, 2 blocks of width 96, predicts raw pixels; random masks hide 0.75"
    assert told["image"] == "224 px, crop 1, bicubic, mean 0.5 0.5 0.5, std 0.5 0.5 0.5"
    assert told["network"] == "vit_small_patch16_224(num_heads=12), 21,665,664 parameters"
    assert told["data"] == "imagenet-1k: images for non-commercial research and education only"
    trained = dict(summary(registry.card("dino_vitt16_imagenette")))
    training = TrainingFacts("dino/smoke", "zoo train", "photos", 1, 1, 1, 0, "a CPU", 0.0)
    once = dataclasses.replace(DINO, training=training)
    assert dict(summary(once))["trained"] == "dino/smoke, 1 epoch of 1 image, seed 0; under a minute on a CPU"
    assert "minutes on" in trained["trained"] and trained["command"].startswith("zoo train dino/")


def test_a_model_outside_the_zoo_is_loaded_by_its_folder(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "first"
    shutil.copytree(registry.find("dino_vitt16_imagenette"), place)
    assert ("load", f'zoo.load("{place}")') in summary(read_card(place))
    assert ("load", 'zoo.load("dino_vits16")') in summary(DINO)


def test_prose_is_filled_and_code_is_not() -> None:
    body = "# Title\n\none\ntwo **three**\nfour\n\n- a\n- b\n\n```python\na  =  1\nb\n```\n"
    shown = show(dataclasses.replace(DINO, body=body), 80)
    assert shown.startswith("dino_vits16: Title\n\nlicence")
    assert shown.endswith("\n\none two **three** four\n\n- a\n- b\n\n```python\na  =  1\nb\n```")
