"""`zoo list` for people and for programs: what it shows of the models, at every width."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from zoo import registry
from zoo.cards import ModelCard, Result, Source, read_card, write_card
from zoo.cli.listing import IMAGENET, count, facts, listing, number, weights
from zoo.cli.markdown import method_title, methods_table

BUNDLED = registry.card("dino_vitt16_imagenette")
KNN = Result("knn", 74.5, IMAGENET, "top-1", unit="%", source="https://example.org")


def official(name: str = "dino_vits16", **changes: object) -> ModelCard:
    """A card as NAME.md, without weights beside it."""
    plain = dataclasses.replace(
        BUNDLED, name=name, body=f"# DINO, {name}", training=None, results=(), sha256={}
    )
    path = registry.MODEL_CARDS / f"{name}.md"
    return dataclasses.replace(plain, path=path, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_all_models_fit_a_terminal(width: int) -> None:
    lines = listing(registry.list_cards(), width).splitlines()
    assert max(map(len, lines)) <= width
    assert {"name", "params", "k-NN", "linear", "tuned", "licence", "weights"} <= set(lines[0].split())
    assert ("commercial" in lines[0]) == (width >= 100)


def test_a_narrow_terminal_still_shows_names_and_scores() -> None:
    lines = listing(registry.list_cards(), 40).splitlines()
    assert lines[0].split() == ["name", "k-NN", "weights"]


def test_models_stand_in_groups_by_method_and_size() -> None:
    cards = [official("mae_b", approach="masked image modelling", kind="generative", method="mae"),
             official("dino_b", parameters=86_000_000), official("dino_s", parameters=21_000_000),
             official("mine", approach=None)]  # fmt: skip
    lines = listing(cards, 80).splitlines()
    firsts = [line.split()[0] for line in lines[1 : lines.index("", 8)] if line]
    assert firsts[:5] == ["distillation", "dino_s", "dino_b", "masked", "mae_b"]
    assert "approach not said (discriminative)" in lines


def test_of_one_model_there_are_no_fewer() -> None:
    assert listing([official()], 100).endswith("\n1 model. All of it: zoo show dino_vits16")


def test_numbers_are_those_on_imagenet_or_say_so() -> None:
    other = dataclasses.replace(KNN, value=43.8, dataset="imagenette160")
    both, lone = official(results=(other, KNN)), official(results=(other,))
    assert number(both, "k-NN") == KNN and number(lone, "k-NN") == other and number(lone, "linear") is None
    lines = listing([both, lone], 80).splitlines()
    assert (
        " 74.5 " in lines[3] and "*43.8 " in lines[4] and any("* on imagenette160" in each for each in lines)
    )
    supervised = official(results=(dataclasses.replace(KNN, task="image-classification"),))
    assert number(supervised, "tuned") is not None


def test_where_the_weights_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    mine = write_card(dataclasses.replace(BUNDLED, path=None), registry.home() / "mine")
    (mine.parent / "model.safetensors").write_bytes(b"weights")
    sources = (Source(repo="a/b", file="c"), Source(url="https://example.org/x.pth"))
    cards = [BUNDLED, read_card(mine), official(sources=sources), official(sources=sources[1:]), official()]
    assert [weights(card) for card in cards] == ["bundled", "local", "hub", "url", "file"]
    assert weights(official("somebody/mine")) == weights(dataclasses.replace(official(), path=None)) == "hub"
    assert "mine" not in {card.name for card in registry.own_cards()}


@pytest.mark.parametrize(
    ("licence", "said", "wanted"),
    [("mit", None, "yes"), ("cc-by-nc-4.0", None, "no"), ("other", None, "unclear"), ("unknown", None, "unclear"),
     ("other", False, "no"), ("other", True, "yes")],
)  # fmt: skip
def test_what_a_licence_permits(licence: str, said: bool | None, wanted: str) -> None:
    assert official(licence=licence, commercial_use=said).permission == wanted


def test_a_licence_that_the_hub_has_no_word_for_stands_by_its_own_name() -> None:
    card = official(licence="other", hub={"license_name": "dinov3-license"})
    assert " dinov3 " in listing([card], 120) and facts(card)["licence"] == "other"
    assert card.licence_name == "dinov3-license" and official().licence_name == "apache-2.0"


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [(9_900, "10 k"), (5_499_072, "5.5 M"), (9_960_000, "10 M"), (85_798_656, "86 M"), (999_600_000, "1.0 B"),
     (1_136_479_232, "1.1 B")],
)  # fmt: skip
def test_parameters_as_people_say_them(parameters: int, wanted: str) -> None:
    assert count(parameters) == wanted


def test_programs_get_every_result() -> None:
    told = facts(official(results=(KNN, dataclasses.replace(KNN, task="linear", value=77.0))))
    assert told["results"] == [
        {"task": "knn", "metric": "top-1", "value": 74.5, "dataset": IMAGENET},
        {"task": "linear", "metric": "top-1", "value": 77.0, "dataset": IMAGENET},
    ]


def test_the_table_of_methods_has_one_row_for_each() -> None:
    cards = [
        official("dino_s", results=(KNN,)),
        official("dino_b", results=(dataclasses.replace(KNN, value=76.1),)),
    ]
    header, _, *rows = methods_table([BUNDLED, *cards]).splitlines()
    assert header.startswith("| method |") and len(rows) == 1
    assert "76.1" in rows[0] and "2, as" in rows[0]


def test_methods_are_called_by_one_name() -> None:
    names: dict[str, set[str]] = {}
    for card in registry.list_cards():
        if card.training is None:
            names.setdefault(card.method, set()).add(method_title(card))
    assert {"dino": {"DINO"}, "moco_v3": {"MoCo v3"}}.items() <= names.items()
    assert not {method: titles for method, titles in names.items() if len(titles) > 1}
