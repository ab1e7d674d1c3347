"""The table of the encoders that were trained here, from their cards alone: `zoo list --markdown trained`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zoo.cards import ModelCard, Result
from zoo.cli.listing import count, order
from zoo.cli.markdown import link, method_title
from zoo.protocols import SPEED, UNTRAINED
from zoo.tables import markdown_table

# Of a result on a card: which training it belongs to, where that is another than the card's own weights.
SEED = "training seed"
# Settings that a baseline must share with the score it stands beside.
_SHARED = ("size", "epochs", "labels", "k", "temperature", "patches", "share")


@dataclass(frozen=True)
class Column:
    """One number of a card: the last result of `task`, on the data it was trained on and at its own size, if any is.

    beside: what stands in brackets after it, the task `TASK, BESIDE` on the same data, at that size and length.
    """

    header: str
    task: str
    beside: str | None = None
    metric: str = "top-1"
    digits: int = 1

    def cell(self, card: ModelCard, seed: int) -> tuple[str, str]:
        """The number, with half its 95 % interval, and the one beside it; nothing for what the card does not have."""
        found = _chosen(card, seed, self.task, self.metric)
        if found is None:
            return "", ""
        number = f"{found.value:.{self.digits}f}"
        if low_high := found.settings.get("interval"):
            number += f" ± {max(abs(end - found.value) for end in low_high):.{self.digits}f}"
        baseline = _baseline(card, seed, f"{self.task}, {self.beside}", found) if self.beside else None
        return number, f"{baseline.value:.{self.digits}f}" if baseline else ""


COLUMNS = (
    Column("k-NN", "knn", UNTRAINED),
    Column("linear", "linear", UNTRAINED),
    Column("linear, SGD", "linear_sgd"),
    Column("1 %", "lowshot, 1% of the labels", "from scratch"),
    Column("10 %", "lowshot, 10% of the labels", "from scratch"),
    Column("fine-tuned", "finetune", "from scratch"),
    Column("object IoU", "foreground", UNTRAINED, "IoU", 2),
    Column("images/s ÷ ResNet-50's", "speed", metric=SPEED, digits=1),
)


def trained_table(cards: Iterable[ModelCard]) -> str:
    """One row for each training, by approach and method; columns that no card fills are left out.

    A card's own weights are one training, and each other `training seed` among its results' settings one more.
    """
    cards = list(cards)
    titles = _titles(cards)
    trainings = [
        (card, seed)
        for card in sorted((card for card in cards if card.training), key=order)
        for seed in _seeds(card)
    ]
    columns = {
        "model": [link(card) for card, _ in trainings],
        "method": [titles.get(card.method, card.method.upper()) for card, _ in trainings],
        "parameters": [count(card.parameters) for card, _ in trainings],
        "seed": [str(seed) for _, seed in trainings],
        **dict(_measured(column, trainings) for column in COLUMNS),
        "epochs": [str(card.training.epochs) for card, _ in trainings if card.training],
        "trained": [_trained(card, seed) for card, seed in trainings],
    }
    if len(set(columns["seed"])) < 2:
        del columns["seed"]
    kept = {header: cells for header, cells in columns.items() if any(cells)}
    return markdown_table([*kept], [list(row) for row in zip(*kept.values(), strict=True)])


def _measured(column: Column, trainings: Sequence[tuple[ModelCard, int]]) -> tuple[str, list[str]]:
    """The header and cells of one column; what stands beside is in brackets, where any card has it."""
    found = [column.cell(card, seed) for card, seed in trainings]
    header = f"{column.header} ({column.beside})" if any(beside for _, beside in found) else column.header
    return header, [f"{number} ({beside})" if beside else number for number, beside in found]


def _trained(card: ModelCard, seed: int) -> str:
    """How long the card's own weights took, and on what."""
    training = card.training
    if training is None or seed != training.seed:
        return ""
    return f"{training.minutes:.0f} min × {training.hardware}"


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
