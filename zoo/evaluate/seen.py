"""Whether a model has learnt from the images it is to be measured on."""

from __future__ import annotations

from zoo.cards import ModelCard
from zoo.sources import HELD_OUT, Source


def told_seen(card: ModelCard, train: Source, test: Source) -> str:
    """What to say where test images that were held out are among those that the model's training had; else nothing.

    So it is where `zoo train DATA --test OTHERS` was given all of undivided data. train, test: before any limit.
    """
    training = card.training
    held_out = (test.split or "").startswith(HELD_OUT)
    if training is None or not held_out or training.data != train.title or training.images <= len(train):
        return ""
    return (
        f"{card.name} was trained on all of {train.name}, these test images too: take those of its own --test, "
        "or others"
    )
