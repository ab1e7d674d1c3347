"""Freed memory is kept for the next step: on a CPU, taking it anew from the system page by page costs time."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Parameters of mallopt(3), and the values that glibc's own adaptation ends at once large blocks were freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_SETTLED = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _MMAP_MAX: 65536}
# No block of its own for a large tensor, which would go back to the system with it, and no trimming of the heap's end.
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within it, tensors on the CPU get memory that others have left, and the process keeps the most it ever needed.

    At its end what is free goes back to the system. Of use where the C library is glibc; elsewhere nothing happens.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    _set(libc, _KEPT)
    try:
        yield
    finally:
        _set(libc, _SETTLED)
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _set(libc: ctypes.CDLL, parameters: dict[int, int]) -> None:
    for name, value in parameters.items():
        libc.mallopt(name, value)
