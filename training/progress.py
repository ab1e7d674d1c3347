"""What a run says while it runs: a line on the terminal, a JSON line per few steps in `log.jsonl`, and TensorBoard."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from torch.utils.tensorboard import SummaryWriter

from zoo.training.curve import draw_curve
from zoo.training.logs import forget_after
from zoo.words import counted

if TYPE_CHECKING:
    from zoo.training.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass
class State:
    """How far a run is."""

    step: int = 0
    seconds: float = 0.0
    """Time spent training, over all the times the run was started."""
    skipped: list[str] = field(default_factory=list)
    """Ids of the images that could not be read, over all the times the run was started."""

    def skip(self, ids: Iterable[str]) -> None:
        """Count images that could not be read, each once."""
        self.skipped += [name for name in dict.fromkeys(ids) if name not in self.skipped]

    def told_skipped(self) -> str:
        """A sentence of the images that could not be read, after a space; nothing where all could."""
        if not self.skipped:
            return ""
        many = len(self.skipped) > 1
        said = f" {counted(len(self.skipped), 'image')} could not be read and {'were' if many else 'was'} skipped"
        return f"{said}{', the first' if many else ':'} {self.skipped[0]}."


class Progress:
    """Context manager around the loop; `step` is called after every step."""

    def __init__(self, out: Path, recipe: Recipe, state: State, total: int, *, quiet: bool) -> None:
        self.path, self.total, self.every, self.quiet = out / "log.jsonl", total, recipe.run.log_every, quiet
        self.batch = recipe.optim.batch
        self.last = (state.step, time.monotonic())
        self.bar: Any = None
        self.task: Any = None
        if not quiet:
            forget_after(self.path, state.step)
            # What an earlier start logged after its last checkpoint is dropped there too.
            self.board = SummaryWriter(str(out / "tensorboard"), purge_step=state.step + 1)

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("step {task.completed}/{task.total}"),
                BarColumn(),
                TextColumn("{task.description}"),
            )
            self.bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task("", total=self.total, completed=self.last[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        if not self.quiet:
            self.board.close()
            draw_curve(self.path)

    def due(self, state: State) -> bool:
        """Whether this step is logged: every few, and the last."""
        return state.step % self.every == 0 or state.step == self.total

    def step(self, state: State, numbers: Mapping[str, float]) -> None:
        """Log the numbers of a step that is due."""
        now = time.monotonic()
        speed = self.batch * (state.step - self.last[0]) / max(now - self.last[1], 1e-9)
        self.last = (state.step, now)
        if self.quiet:
            return
        pace = {"images_per_second": round(speed, 2), "seconds": round(state.seconds, 1)}
        row = {**numbers, **pace, "step": state.step}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in row.items():
            self.board.add_scalar(name, value, state.step)
        line = f"loss {row['loss']:.4f}  {speed:.0f} images/s"
        if "knn_online" in row:
            line += f"  k-NN {row['knn_online']:.0f} %"
        if self.bar is not None:
            self.bar.update(self.task, completed=state.step, description=line)
        elif state.step % (self.every * 10) == 0 or state.step == self.total:
            left = (self.total - state.step) * self.batch / max(speed, 1e-9)
            log.warning("step %d/%d  %s  %s left", state.step, self.total, line, duration(left))


def duration(seconds: float) -> str:
    """`1 h 05 min`, `3 min` or `40 s`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
