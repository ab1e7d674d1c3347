"""What a run that was refused leaves behind: nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zoo.errors import ZooError

# What a run writes before its first step, and what it writes from then on.
_BEFORE = ("recipe.json", "pace.json")
_SINCE = ("log.jsonl", "tensorboard", "checkpoint.pt")


@contextmanager
def nothing_left(out: Path) -> Iterator[None]:
    """Remove what a run wrote into its folder where it is refused before its first step; all else stays."""
    was_there, was_run = out.exists(), (out / _BEFORE[0]).exists()
    try:
        yield
    except ZooError:
        if not was_run and not any((out / name).exists() for name in _SINCE):
            for name in _BEFORE:
                (out / name).unlink(missing_ok=True)
            if not was_there:
                with suppress(OSError):  # a tokenizer lies there, or another process of this run was faster
                    out.rmdir()
        raise
