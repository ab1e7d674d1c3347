"""A run's `log.jsonl`, read back: a JSON line for each step that was logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo.errors import DataError
from zoo.files import atomic_write


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; none where there is no such file.

    A last line that is cut off, as a full disk or a power cut leaves it, is no line. DataError for any other.
    """
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise DataError(f"{path}, line {number}, is no JSON ({error}); remove that line") from error
    return rows


def forget_after(path: Path, step: int) -> None:
    """Drop lines later than the checkpoint, and what is no line, so that a resumed run logs every step once."""
    if path.is_file():
        kept = [line for line in path.read_text(errors="replace").splitlines() if _step_of(line) <= step]
        with atomic_write(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    """The step a line is about; infinity for half a line."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return float("inf")
