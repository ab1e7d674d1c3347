"""What a run says: the same numbers in log.jsonl and TensorBoard, and a line on a terminal."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zoo.training import online
from zoo.training.engine import run
from zoo.training.progress import duration
from zoo.training.recipe import Recipe

Tiny = Callable[..., Recipe]


class Terminal(io.StringIO):
    """What rich draws a bar on."""

    def isatty(self) -> bool:
        return True


def test_tensorboard_has_the_numbers_of_the_log(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """Also those of a run that was continued: none twice."""
    recipe = tiny("dino/smoke", schedule={"epochs": 2})
    folder = run(recipe, photos, tmp_path / "run", scores=False)
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    logged = rows(folder)
    assert len(logged) == 6
    for name in ("loss", "lr", "feature_std", "images_per_second"):
        told = board.Scalars(name)
        assert [event.step for event in told] == [row["step"] for row in logged]
        assert [event.value for event in told] == pytest.approx([row[name] for row in logged], rel=1e-5)


def test_a_terminal_shows_step_loss_neighbours_speed_and_time_left(
    tiny: Tiny, paints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(online, "FEW", 24)  # of so few images
    run(
        tiny("simclr/smoke", optim={"batch": 24}, schedule={"epochs": 4}),
        paints,
        tmp_path / "run",
        scores=False,
    )
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    loss = rows(tmp_path / "run")[-1]["loss"]
    assert re.search(rf"step 12/12 .*loss {loss:.4f}  \d+ images/s  k-NN \d+ % 0:00:00", shown)


@pytest.mark.parametrize(
    ("seconds", "says"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3540, "59 min"), (3900, "1 h 05 min")]
)
def test_durations_are_words(seconds: float, says: str) -> None:
    assert duration(seconds) == says
