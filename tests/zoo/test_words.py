"""Numbers in sentences: one of a thing, several, and times that are hardly there."""

from __future__ import annotations

import pytest

from zoo.words import counted, lasted


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0 epochs"),
        (1, "1 epoch"),
        (2, "2 epochs"),
        (1000, "1,000 epochs"),
        (1.0, "1 epoch"),
        (0.5, "0.5 epochs"),
    ],
)
def test_one_is_singular(number: float, told: str) -> None:
    assert counted(number, "epoch") == told


@pytest.mark.parametrize(
    ("minutes", "told"),
    [
        (0.0, "under a minute"),
        (0.9, "under a minute"),
        (1.0, "1 minute"),
        (1.5, "1.5 minutes"),
        (95.0, "95 minutes"),
    ],
)
def test_no_training_lasts_0_minutes(minutes: float, told: str) -> None:
    assert lasted(minutes) == told
