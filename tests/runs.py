"""Runs of `zoo.training.run` in tests: their folders compared to the last bit, and processes of their own, killed."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.training.engine import run
from zoo.training.recipe import Recipe


def saved(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return content


def tensors(content: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a nested state, with its place."""
    if isinstance(content, Tensor):
        yield path, content
    elif isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from tensors(value, f"{path}.{key}")


def assert_same_weights(a: Path, b: Path) -> None:
    """Method and optimiser agree to the last bit, and so do the model files."""
    ours, theirs = saved(a), saved(b)
    for part in ("method", "optimizer"):
        mine, other = dict(tensors(ours[part])), dict(tensors(theirs[part]))
        assert mine.keys() == other.keys()
        assert len(mine) > 50
        assert [name for name in mine if not torch.equal(mine[name], other[name])] == []
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def kill_after(context: ForkServerContext, recipe: Recipe, data: Path, out: Path, steps: int) -> int:
    """Start a run in a process of its own, SIGKILL it once it logged `steps`, and return the step of its checkpoint."""
    process = context.Process(target=run, args=(recipe, data, out))
    process.start()
    deadline = time.monotonic() + 240  # a busy machine takes long to import torch
    while not (logged(out) >= steps and (out / "checkpoint.pt").is_file()):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    step: int = saved(out)["step"]
    return step


def logged(folder: Path) -> int:
    """How many steps the log of a run that logs each tells."""
    log = folder / "log.jsonl"
    return len(log.read_text().splitlines()) if log.is_file() else 0
