"""How a model can be measured: the protocols by name, and what their rows say they were measured on. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.errors import Unsupported, did_you_mean

FROZEN = ("knn", "linear")
PROTOCOLS = (*FROZEN, "reconstruction")
# Protocols that train, and so live in the training room: `zoo.training.evaluate`.
TRAINING = ("linear_sgd", "lowshot", "finetune")
LABELLED = (*FROZEN, *TRAINING)

# How a card states a model's speed: the ratio of images per second, on one machine.
SPEED = "images/s over ResNet-50's"

# What a row's scores were measured on: the model's features, or one of the baselines.
TRAINED, UNTRAINED, PIXELS = "trained", "untrained", "raw 16×16 pixels"


def share_of_labels(share: float) -> str:
    """What a row of low-shot is called beside others.

    >>> share_of_labels(0.01)
    '1% of the labels'
    """
    return f"{100 * share:.3g}% of the labels"


def check_protocols(protocols: Sequence[str], known: Sequence[str]) -> None:
    """Raises Unsupported for the first protocol that is none of the known ones."""
    for protocol in protocols:
        if protocol not in known:
            hint = did_you_mean(protocol, known)
            raise Unsupported(f"no protocol {protocol!r}{hint}; there are {', '.join(known)}")
