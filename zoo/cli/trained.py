"""The table of the encoders that were trained here, from their cards alone: `zoo list --markdown trained`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zoo.cards import ModelCard, Result
from zoo.cli.listing import count, order
from zoo.cli.markdown import link, method_title
from zoo.protocols import SPEED
from zoo.tables import markdown_table

# Of a result on a card: which training it belongs to, where that is another than the card's own weights.
SEED = "training seed"
# Settings that a baseline must share with the score it stands beside.
_SHARED = ("size", "epochs", "labels", "k", "temperature", "patches", "share")


@dataclass(frozen=True)
class Column:
    """One number of a card: the last result of `task`, on the data it was trained on and at its own size, if any is.

    beside: the task of the score that it is a baseline of; it then has that score's data, size and length.
    """

    header: str
    task: str
    beside: str | None = None
    metric: str = "top-1"
    digits: int = 1

    def cell(self, card: ModelCard, seed: int) -> str:
        """The number with its 95 % interval, or nothing where the card has none."""
        found = _chosen(card, seed, self.beside or self.task, self.metric)
        if found and self.beside:
            found = _baseline(card, seed, self.task, found)
        if found is None:
            return ""
        number = f"{found.value:.{self.digits}f}"
        low_high = found.settings.get("interval")
        if not low_high:
            return number
        return f"{number} ({'–'.join(f'{each:.{self.digits}f}' for each in low_high)})"


COLUMNS = (
    Column("k-NN", "knn"),
    Column("k-NN, untrained", "knn, untrained", "knn"),
    Column("k-NN, raw pixels", "knn, raw 16×16 pixels", "knn"),
    Column("linear", "linear"),
    Column("linear, untrained", "linear, untrained", "linear"),
    Column("linear, SGD", "linear_sgd"),
    Column("1 %", "lowshot, 1% of the labels"),
    Column("10 %", "lowshot, 10% of the labels"),
    Column("fine-tuned", "finetune"),
    Column("from scratch", "finetune, from scratch", "finetune"),
    Column("object IoU", "foreground", metric="IoU", digits=2),
    Column("untrained", "foreground, untrained", "foreground", metric="IoU", digits=2),
    Column("centred box", "foreground, centred box", "foreground", metric="IoU", digits=2),
    Column("images/s ÷ ResNet-50's", "speed", metric=SPEED, digits=2),
)


def trained_table(cards: Iterable[ModelCard]) -> str:
    """One row for each training, by approach and method; columns that no card fills are left out.

    A card's own weights are one training, and each other `training seed` among its results' settings one more.
    """
    cards = list(cards)
    titles = _titles(cards)
    header = [
        "model",
        "method",
        "parameters",
        "seed",
        *(each.header for each in COLUMNS),
        "epochs",
        "trained",
    ]
    rows = [
        _row(card, seed, titles.get(card.method, card.method.upper()))
        for card in sorted((card for card in cards if card.training), key=order)
        for seed in _seeds(card)
    ]
    seed = header.index("seed")
    alike = len({row[seed] for row in rows}) < 2
    kept = [i for i in range(len(header)) if any(row[i] for row in rows) and not (i == seed and alike)]
    return markdown_table([header[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _row(card: ModelCard, seed: int, method: str) -> list[str]:
    training = card.training
    assert training is not None
    own = seed == training.seed
    return [
        link(card),
        method,
        count(card.parameters),
        str(seed),
        *(column.cell(card, seed) for column in COLUMNS),
        f"{training.epochs}",
        f"{training.minutes:.0f} min × {training.hardware}" if own else "",
    ]


def _titles(cards: Sequence[ModelCard]) -> dict[str, str]:
    """How published cards write each method that a bundled one has: UM-MAE, where the card's key is ummae."""
    published = {card.method: method_title(card) for card in cards if card.training is None and card.paper}
    return {**published, "supervised": "supervised"}


def _seeds(card: ModelCard) -> list[int]:
    """The card's own seed, then those of its other trainings."""
    assert card.training is not None
    own = card.training.seed
    return [own, *sorted({_seed(card, result) for result in card.results} - {own})]


def _seed(card: ModelCard, result: Result) -> int:
    assert card.training is not None
    return int(result.settings.get(SEED, card.training.seed))


def _chosen(card: ModelCard, seed: int, task: str, metric: str) -> Result | None:
    """Of several results of a task: on the training's own data before others', at the card's size, the last."""
    assert card.training is not None
    data = card.training.data.partition(",")[0]
    fitting = [
        (result.dataset == data, result.settings.get("size") == card.transform.size, place, result)
        for place, result in enumerate(card.results)
        if result.task == task and result.metric == metric and _seed(card, result) == seed
    ]
    return max(fitting, key=lambda each: each[:3])[-1] if fitting else None


def _baseline(card: ModelCard, seed: int, task: str, score: Result) -> Result | None:
    """The last result of a baseline's task that was measured as the score was."""
    fitting = [
        result
        for result in card.results
        if (result.task, result.metric) == (task, score.metric)
        and (result.dataset, result.split) == (score.dataset, score.split)
        and _seed(card, result) == seed
        and all(result.settings.get(key) == score.settings.get(key) for key in _SHARED)
    ]
    return fitting[-1] if fitting else None
