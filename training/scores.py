"""Scores of an encoder on labelled data, by protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.evaluate import measure
from zoo.sources import train_and_test

if TYPE_CHECKING:
    from zoo.encoder import Encoder


def evaluate(
    encoder: Encoder,
    train: str | Path,
    test: str | Path | None = None,
    protocol: str = "knn",
    **settings: Any,
) -> dict[str, Any]:
    """A score and the settings it was measured with. protocol: "knn", "linear" (top-1) or "reconstruction".

    test=None: the data's own test split, or a seeded one.

    >>> zoo.training.evaluate(encoder, "imagenette160/")["top1"]
    """
    bank, queries, _ = train_and_test(train, test, seed=settings.get("seed", 0))
    return measure(encoder, bank, queries, [protocol], **settings)[0]
