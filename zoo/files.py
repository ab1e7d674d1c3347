"""Writing files so that a crash never leaves half of one behind, and nobody writes over another."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it into place, on failure remove it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers such as PIL choose the format by it.
    writer = f"{threading.get_ident()}.{os.getpid()}"
    temporary = path.with_name(f".{path.stem}.{writer}.tmp{path.suffix}")
    temporary.touch()
    mode = stat.S_IMODE(
        temporary.stat().st_mode
    )  # the umask's; asking for it would change it for all threads
    try:
        yield temporary
        temporary.chmod(mode)  # some writers leave a file that only its owner may read
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """`atomic_write` of plain data as JSON for people and programs to read."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold the lock beside `path` against other threads and processes; whoever comes later waits."""
    from filelock import FileLock, Timeout

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that is busy with %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def sweep(folder: Path) -> None:
    """Remove what `atomic_write` left in a folder when a process was killed; a living one's files stay."""
    for path in folder.glob(".*.tmp*"):
        if (named := re.fullmatch(r"\..+\.(\d+)\.tmp(\.\w+)?", path.name)) and not _is_alive(int(named[1])):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if os.name != "posix":
        return True  # asking would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def _fsync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
