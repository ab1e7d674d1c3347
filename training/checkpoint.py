"""A run's checkpoint: one file, replaced atomically, read without executing anything in it."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from zoo.errors import WeightsError
from zoo.files import atomic_write
from zoo.training.methods import Method
from zoo.training.progress import State
from zoo.training.sentry import Sentry

log = logging.getLogger(__name__)


class Checkpoint:
    """Method, optimiser, loss scale (of float16), what the sentry has seen and progress of a run in one file.

    Random state needs no room: every draw of a run is seeded by (seed, step) or (seed, epoch, image).
    """

    def __init__(
        self,
        path: Path,
        method: Method,
        optimizer: torch.optim.Optimizer,
        sentry: Sentry,
        scaler: torch.amp.GradScaler | None = None,
        precision: str = "no",
    ) -> None:
        self.path, self.method, self.optimizer = path, method, optimizer
        self.sentry, self.scaler, self.precision = sentry, scaler, precision

    def exists(self) -> bool:
        return self.path.is_file()

    def save(self, state: State) -> None:
        """Replace the file; a crash in between leaves the previous one."""
        content = {
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "sentry": self.sentry.state_dict(),
            "precision": self.precision,
            "step": state.step,
            "seconds": state.seconds,
            "skipped": list(state.skipped),
        }
        # Into an open file: torch's own writer would not say why it failed.
        with atomic_write(self.path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)

    def restore(self, state: State) -> None:
        """Load all in place, and how far the run is into `state`. WeightsError where the file cannot be used."""
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            self.method.load_state_dict(content["method"])
            self.optimizer.load_state_dict(content["optimizer"])
            if self.scaler is not None and content.get("scaler"):
                self.scaler.load_state_dict(content["scaler"])
            if "sentry" in content:  # not in those of earlier versions
                self.sentry.load_state_dict(content["sentry"])
            state.step, state.seconds = int(content["step"]), float(content["seconds"])
            state.skip(content.get("skipped", []))
        except Exception as error:  # torch raises a dozen kinds for a damaged file, some without a word
            reason = (str(error) or "it ends too early").splitlines()[0]
            raise WeightsError(
                f"{self.path} cannot continue this run ({type(error).__name__}: {reason}). "
                "Remove it to start from the beginning"
            ) from error
        before = content.get("precision", self.precision)
        if before != self.precision:
            words = {"no": "float32"}
            log.warning(
                "computed in %s up to step %d, and in %s from there: this is another machine",
                words.get(before, before),
                state.step,
                words.get(self.precision, self.precision),
            )
