"""The tables of models in README.md and docs/models.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from zoo import registry
from zoo.cards import ModelCard
from zoo.cli.listing import IMAGENET, NUMBERS, count, group, number, order, weights
from zoo.tables import markdown_table

_HEAD = f"""\
# The models

Made from the cards by `zoo list --markdown models`. Numbers are top-1 in % on {IMAGENET}, as each card's source
published them, or marked with the data they are on; *tuned* is fine-tuned with labels, or supervised. Weights that are
`bundled` lie in the checkout, and the README says which of them a wheel carries; those from `hub` and `url` are fetched
when a model is first loaded; why a `file` cannot be, and what to pass instead, is on its card. The licences are those
of the weights. ImageNet's images, which most models saw, are for non-commercial research and education only; whether
that binds a model is for a lawyer to say."""


def models_page(cards: Iterable[ModelCard]) -> str:
    """docs/models.md: every model, in groups by approach."""
    parts = [_HEAD]
    header = ["model", "parameters", "image", *NUMBERS, "licence", "weights"]
    for heading, members in groupby(sorted(cards, key=order), group):
        parts += [
            f"## {heading[0].upper()}{heading[1:]}",
            markdown_table(header, [_model_row(card) for card in members]),
        ]
    return "\n\n".join(parts) + "\n"


def methods_table(cards: Iterable[ModelCard]) -> str:
    """The README's table: one row per method, with its best published numbers on ImageNet-1k."""
    official = sorted((card for card in cards if card.training is None), key=order)
    rows = [
        _method_row(list(members))
        for _, members in groupby(official, lambda card: (group(card), card.method))
    ]
    return markdown_table(
        ["method", "how it learns", "models", *(f"best {each}" for each in NUMBERS), "licence"], rows
    )


def _model_row(card: ModelCard) -> list[str]:
    numbers = []
    for column in NUMBERS:
        found = number(card, column)
        where = f" ({found.dataset})" if found and found.dataset != IMAGENET else ""
        numbers.append(f"{found.value:.1f}{where}" if found else "")
    permitted = ", no commercial use" if card.permission == "no" else ""
    return [link(card, "../"), count(card.parameters), f"{card.transform.size} px", *numbers,
            card.licence_name + permitted, weights(card)]  # fmt: skip


def _method_row(cards: Sequence[ModelCard]) -> list[str]:
    typical = _typical(cards)
    # Licence and numbers are of the same models: those that somebody may have weights of.
    released = [card for card in cards if card.licence != "unknown" or weights(card) != "file"] or cards
    models = f"{len(cards)}, as " if len(cards) > 1 else ""
    return [
        f"[{method_title(typical)}]({typical.paper})" if typical.method != "supervised" else "supervised",
        typical.approach or typical.kind,
        f"{models}{link(typical)}",
        *(_best(released, column) for column in NUMBERS),
        ", ".join(sorted({card.licence_name for card in released})),
    ]


def _best(cards: Sequence[ModelCard], column: str) -> str:
    """The highest number of a column on ImageNet-1k, or nothing."""
    found = [each.value for card in cards if (each := number(card, column)) and each.dataset == IMAGENET]
    return f"{max(found):.1f}" if found else ""


def method_title(card: ModelCard) -> str:
    """A method as people write it: the card's title up to its first comma or bracket."""
    return card.title.partition(",")[0].partition(" (")[0]


def _typical(cards: Sequence[ModelCard]) -> ModelCard:
    """The smallest model whose weights can be fetched, or else exist."""
    return min(cards, key=lambda card: (weights(card) == "file", card.licence == "unknown"))


def link(card: ModelCard, root: str = "") -> str:
    """A model's name, leading to its card from the folder that `root` leads out of."""
    assert card.path is not None  # read from a file
    place = card.path.relative_to(registry.MODEL_CARDS).as_posix()
    return f"[`{card.name}`]({root}model_cards/{place})"
