"""A disk that fills up: told as such, whichever library met it, with what is safe and what to do."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from zoo.errors import ZooError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room, none left of a quota, none for a file so large


class DiskFull(ZooError):
    """There is no room for what a run writes; its last checkpoint is as it was."""


@contextmanager
def told_when_full(out: Path) -> Iterator[None]:
    """Raises DiskFull in place of whatever a library raises when it cannot write into the run's folder."""
    try:
        yield
    except Exception as error:
        if (number := _number_of(error)) is None:
            raise
        raise DiskFull(
            f"{out} cannot be written to ({os.strerror(number)}; {_room(out)}). {_kept(out)}"
        ) from error


def _number_of(error: BaseException | None) -> int | None:
    """The system's number for a full disk, from the error or one it arose from; safetensors says it in words."""
    while error is not None and not isinstance(error, ZooError):
        said = (
            re.search(r"\(os error (\d+)\)", str(error))
            if type(error).__name__ == "SafetensorError"
            else None
        )
        number = error.errno if isinstance(error, OSError) else int(said[1]) if said else None
        if number in _FULL:
            return number
        error = error.__cause__ or error.__context__
    return None


def _room(out: Path) -> str:
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free / 1e6
    checkpoint = out / "checkpoint.pt"
    if not checkpoint.is_file():
        return f"{free:.1f} MB are free"
    need = checkpoint.stat().st_size / 1e6
    return f"{free:.1f} MB are free, and a checkpoint takes {need:.1f} beside the one it replaces"


def _kept(out: Path) -> str:
    checkpoint = out / "checkpoint.pt"
    if not checkpoint.is_file():
        return "There is no checkpoint yet; make room and start the same command again"
    step = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["step"]
    return f"The checkpoint of step {step} is intact; make room, and the same command continues from it"
