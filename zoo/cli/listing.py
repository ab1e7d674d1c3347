"""The models as `zoo list` shows them: a table for a terminal of any width, or plain facts for JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import get_args

from zoo import registry
from zoo.cards import Approach, ModelCard, Result
from zoo.tables import table

IMAGENET = "ImageNet-1k"
# The columns of numbers, and the protocols they show: a supervised model's accuracy stands with the fine-tuned ones.
NUMBERS = {"k-NN": ("knn",), "linear": ("linear",), "tuned": ("finetune", "image-classification")}
RIGHT = ("params", "image", *NUMBERS)
# Columns a narrow terminal goes without, the first of them first.
DISPENSABLE = ("family", "image", "commercial", "tuned", "linear", "licence", "params")
APPROACHES = ("distillation", *(each for each in get_args(Approach) if each != "distillation"))


def listing(cards: Sequence[ModelCard], width: int) -> str:
    """The models in groups by approach, within `width` characters where the names allow it, and a legend."""
    cards = sorted(cards, key=order)
    columns = ["name", "family", "params", "image", *NUMBERS, "licence", "commercial", "weights"]
    rows = [_cells(card) for card in cards]
    text = _table(columns, rows)
    for dispensable in DISPENSABLE:
        if max(map(len, text.splitlines())) <= width:
            break
        columns.remove(dispensable)
        text = _table(columns, rows)
    header, *lines = text.splitlines()
    out, remaining = [header], iter(lines)
    for heading, members in groupby(cards, group):
        out += ["", heading, *(next(remaining) for _ in members)]
    return "\n".join([*out, "", *_legend(cards, columns, width)])


def facts(card: ModelCard) -> dict[str, object]:
    """What `zoo list --json` tells of a model."""
    return {
        "name": card.name,
        "method": card.method,
        "kind": card.kind,
        "approach": card.approach,
        "family": card.family,
        "architecture": card.architecture,
        "parameters": card.parameters,
        "size": card.transform.size,
        "results": [
            {"task": each.task, "metric": each.metric, "value": each.value, "dataset": each.dataset}
            for each in card.results
        ],
        "licence": card.licence,
        "commercial": card.commercial,
        "weights": weights(card),
    }


def weights(card: ModelCard) -> str:
    """Where its weights are: bundled, local, hub, url, or file: somewhere that only its user can fetch them from."""
    if card.path is None or "/" in card.name:  # in somebody's repo
        return "hub"
    if (card.path.parent / "model.safetensors").is_file():
        return "bundled" if registry.MODEL_CARDS in card.path.parents else "local"
    if not card.sources:
        return "file"
    return "hub" if card.sources[0].repo else "url"


def number(card: ModelCard, column: str) -> Result | None:
    """The result a column shows: the one on ImageNet-1k, or the first on other data."""
    fitting = [each for each in card.results if each.task in NUMBERS[column] and each.metric == "top-1"]
    return next((each for each in fitting if each.dataset == IMAGENET), next(iter(fitting), None))


def count(parameters: int) -> str:
    """Parameters as people say them.

    >>> count(85_798_656)
    '86 M'
    """
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if parameters >= 0.9995 * size:
            return f"{parameters / size:.{1 if parameters < 9.95 * size else 0}f} {unit}"
    return f"{parameters / 1e3:.0f} k"


def order(card: ModelCard) -> tuple[int, str, int, str]:
    """By approach, method and size."""
    place = APPROACHES.index(card.approach) if card.approach else len(APPROACHES)
    return place, card.method, card.parameters, card.name


def group(card: ModelCard) -> str:
    """The heading it stands under."""
    return (
        f"{card.approach or 'approach not said'} ({card.kind})" if card.kind != "supervised" else "supervised"
    )


def _cells(card: ModelCard) -> dict[str, str]:
    """What each column says of a card."""
    found = {column: number(card, column) for column in NUMBERS}
    shown = {
        column: "" if each is None else "*" * (each.dataset != IMAGENET) + f"{each.value:.1f}"
        for column, each in found.items()
    }
    return {
        "name": card.name,
        "family": card.family,
        "params": count(card.parameters),
        "image": f"{card.transform.size} px",
        **shown,
        "licence": card.licence_name.removesuffix("-license"),  # the column says that it is one
        "commercial": card.permission,
        "weights": weights(card),
    }


def _table(columns: Sequence[str], rows: Iterable[dict[str, str]]) -> str:
    return table(columns, [[row[column] for column in columns] for row in rows], right=RIGHT)


def _legend(cards: Sequence[ModelCard], columns: Sequence[str], width: int) -> Iterator[str]:
    """Lines below the table: what its columns mean, and how to see fewer models or all of one."""
    shown = {each.dataset for card in cards for column in NUMBERS if (each := number(card, column))}
    others, places = ", ".join(sorted(shown - {IMAGENET})), {weights(card) for card in cards}
    fetched = " and ".join(each for each in ("hub", "url") if each in places)
    notes = [
        f"Numbers are top-1 in %, as published on {IMAGENET}" if IMAGENET in shown else "",
        f"{', ' if IMAGENET in shown else 'Numbers are top-1 in %, '}* on {others}" if others else "",
        "; tuned: fine-tuned, or supervised" if shown and "tuned" in columns else "",
        ". " if shown else "",
        f"Weights from {fetched} are fetched when first loaded. " if fetched else "",
        "Those called file cannot be: zoo show NAME says why, and what to pass instead. "
        if "file" in places
        else "",
    ]
    yield from textwrap.wrap("".join(notes), width, break_on_hyphens=False)
    if len(cards) == 1:
        yield f"1 model. All of it: zoo show {cards[0].name}"
        return
    hint = "zoo list 'dino*' · --method mae · --kind generative · --commercial. All of one: zoo show NAME"
    yield from textwrap.wrap(f"{len(cards)} models. Fewer: {hint}", width, break_on_hyphens=False)
