"""The table of what was trained here: which of a card's results stand in it, and beside which."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from zoo import registry
from zoo.cards import ModelCard, Result
from zoo.cli.trained import COLUMNS, SEED, trained_table

BUNDLED = registry.card("dino_vitt16_imagenette")
OWN, SIZE = "imagenette160", BUNDLED.transform.size


def result(task: str, value: float, dataset: str = OWN, metric: str = "top-1", **settings: Any) -> Result:
    return Result(task, value, dataset, metric, settings={"size": SIZE, **settings})


def card(*results: Result, **changes: Any) -> ModelCard:
    return dataclasses.replace(BUNDLED, results=results, **changes)


def cells(*cards: ModelCard) -> list[dict[str, str]]:
    """Each row of the table by the names of its columns."""
    header, _, *rows = [line.strip("|").split("|") for line in trained_table(cards).splitlines()]
    return [dict(zip(map(str.strip, header), map(str.strip, row), strict=True)) for row in rows]


def test_every_protocol_has_its_column_and_an_empty_one_is_left_out() -> None:
    results = []
    for i, column in enumerate(COLUMNS):
        results.append(result(column.task, 50 + i, metric=column.metric))
        if column.beside:
            results.append(result(f"{column.task}, {column.beside}", 20 + i, metric=column.metric))
    [row] = cells(card(*results))
    for i, column in enumerate(COLUMNS):
        header, wanted = column.header, f"{50 + i:.{column.digits}f}"
        if column.beside:
            header, wanted = f"{header} ({column.beside})", f"{wanted} ({20 + i:.{column.digits}f})"
        assert row[header] == wanted
    assert BUNDLED.training is not None
    trained = dataclasses.replace(BUNDLED.training, minutes=54.6, hardware="an abacus, shared")
    [row] = cells(card(result("knn", 43.75), training=trained))
    assert list(row) == ["model", "method", "parameters", "k-NN", "epochs", "trained"]
    assert row["parameters"] == "5.5 M" and row["k-NN"] == "43.8"
    assert row["trained"] == "55 min × an abacus, shared"


@pytest.mark.parametrize(
    "others",
    [
        [result("knn", 90, "other")],
        [result("knn", 90, size=SIZE // 2)],
        [result("knn", 90)],  # the same measured with another k, say: the later one stands
        [result("knn", 91, "other"), result("knn", 90, size=SIZE // 2)],
    ],
)
def test_of_several_results_the_one_on_its_own_data_at_its_own_size(others: list[Result]) -> None:
    [row] = cells(card(*others, result("knn", 40)))
    assert row["k-NN"] == "40.0"
    if all((each.dataset, each.settings["size"]) != (OWN, SIZE) for each in others):
        assert cells(card(result("knn", 40), *others)) == [row]


def test_a_result_on_other_data_is_better_than_none() -> None:
    [row] = cells(card(result("knn", 40, "other")))
    assert row["k-NN"] == "40.0"


def test_a_baseline_is_one_of_the_same_measurement() -> None:
    short, long = result("finetune", 60, epochs=20), result("finetune", 70, epochs=100)
    scratch = result("finetune, from scratch", 50, epochs=20)
    assert cells(card(short, scratch))[0]["fine-tuned (from scratch)"] == "60.0 (50.0)"
    assert cells(card(short, scratch, long))[0]["fine-tuned"] == "70.0"  # of 100 epochs, 50.0 of 20
    assert not [
        name for name in cells(card(result("knn, untrained", 30)))[0] if "k-NN" in name
    ]  # beside nothing


def test_intervals_stand_where_the_card_has_them() -> None:
    known = result("knn", 38.7, interval=[37.2, 40.23])
    [row] = cells(card(known, result("knn, untrained", 34.11)))
    assert row["k-NN (untrained)"] == "38.7 ± 1.5 (34.1)"


def test_a_second_seed_is_a_row_of_its_own() -> None:
    first, second = (result("knn", 43.75), result("linear", 60)), result("knn", 44.5, **{SEED: 7})
    rows = cells(card(*first, second))
    assert [(row["seed"], row["k-NN"], row["linear"]) for row in rows] == [
        ("0", "43.8", "60.0"),
        ("7", "44.5", ""),
    ]
    assert rows[0]["trained"] and not rows[1]["trained"]  # nobody wrote down how long the second took
    assert BUNDLED.training is not None
    other = card(*first, name="other", training=dataclasses.replace(BUNDLED.training, seed=1))
    assert [row["seed"] for row in cells(card(*first), other)] == ["0", "1"]


def test_methods_are_written_as_published_cards_write_them() -> None:
    published = [each for each in registry.own_cards() if each.training is None]
    mine = [card(result("knn", 1), method=method) for method in ("ummae", "simclr", "supervised", "unheard")]
    found = {line.split("|")[2].strip() for line in trained_table([*published, *mine]).splitlines()[2:]}
    assert found == {"UM-MAE", "SimCLR", "supervised", "UNHEARD"}
