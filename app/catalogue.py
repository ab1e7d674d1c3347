"""The models as the app shows them: what is on this machine, what a search finds, and a card for people to read."""

from __future__ import annotations

from collections.abc import Sequence

from zoo import registry
from zoo.cards import ModelCard
from zoo.cli.listing import NUMBERS, count, number, order, weights
from zoo.cli.showing import summary

COLUMNS = ("model", "licence", "commercial use", *NUMBERS, "parameters", "method", "weights")
HERE = ("bundled", "local")


def here(*, masked: bool = False) -> list[str]:
    """Names of the models whose weights are on this machine, the bundled first; masked: those with a decoder."""
    return [
        card.name
        for card in sorted(registry.list_cards(), key=lambda card: (weights(card) != HERE[0], order(card)))
        if weights(card) in HERE and not (masked and card.decoder is None)
    ]


def found(query: str = "", *, commercial: bool = False, local: bool = False) -> list[ModelCard]:
    """The cards in which every word of the query occurs, in name, method, family, licence, approach or title."""
    words = query.lower().split()
    return [
        card
        for card in sorted(registry.list_cards(commercial=True if commercial else None), key=order)
        if all(word in _searched(card) for word in words) and not (local and weights(card) not in HERE)
    ]


def row(card: ModelCard) -> list[str]:
    """Its cells under COLUMNS: licence and numbers first."""
    results = [number(card, column) for column in NUMBERS]
    numbers = ["" if each is None else f"{each.value:.1f}" for each in results]
    facts = (card.name, card.licence_name, card.permission, *numbers, count(card.parameters))
    return [*facts, card.method, weights(card)]


def told(card: ModelCard) -> str:
    """A card as Markdown: its facts as a table, then what it says itself."""
    facts = [(label, value) for label, value in summary(card) if value and label != "card"]
    lines = [f"| {_cell(label)} | {_cell(value)} |" for label, value in facts]
    ways = _ways(card)
    body = card.body if card.body.startswith("# ") else f"# {card.title}\n\n{card.body}"
    heading, _, rest = body.partition("\n")
    return "\n".join([heading.replace("# ", "## ", 1), "", *ways, "|  |  |", "|---|---|", *lines, "", rest])


def _ways(card: ModelCard) -> list[str]:
    """Links to the pages that can show it, or how to get it."""
    if weights(card) == "file":
        return []  # the facts say why there is nothing to fetch
    if weights(card) not in HERE:
        return [f"Not on this machine. To look at it here, type `zoo pull {card.name}` and reload.", ""]
    links = [f"[its attention](/?model={card.name})"]
    if card.decoder is not None:
        links.append(f"[what it imagines](/reconstruction?models={card.name})")
    return [" · ".join(links), ""]


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return escaped.replace("\n", "<br>")


def _searched(card: ModelCard) -> str:
    parts: Sequence[str | None] = (
        card.name,
        card.title,
        card.method,
        card.family,
        card.architecture,
        card.licence_name,
        card.approach,
        card.kind,
        *card.aliases,
        *card.datasets,
    )
    return " ".join(part.lower() for part in parts if part)
