"""Freed memory is kept for the next step: on a CPU, taking it anew from the system page by page costs time."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

# Parameters of mallopt(3), and the values that glibc's own adaptation ends at once large blocks were freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_SETTLED = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _MMAP_MAX: 65536}
# No block of its own for a large tensor, which would go back to the system with it, and no trimming of the heap's end.
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
# Whoever set one of these has chosen already.
_CHOSEN = ("MALLOC_", "GLIBC_TUNABLES")


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Within it, tensors that the main thread makes on the CPU get memory that others have left; not to be nested.

    The process keeps what it needed at most, and a little for gaps; what is free at the end goes back to the system.
    Where `device` is no CPU, the C library not glibc, or the environment says how it is to manage memory, nothing
    happens.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        yield
        return
    _set(libc, _KEPT)
    try:
        yield
    finally:
        give_back()


def give_back() -> None:
    """Manage memory as glibc does by itself: at the end, and in a process that was forked within."""
    if (libc := _glibc()) is not None:
        _set(libc, _SETTLED)
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    chosen = any(name.startswith(_CHOSEN) for name in os.environ)
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" and not chosen else None


def _set(libc: ctypes.CDLL, parameters: dict[int, int]) -> None:
    for name, value in parameters.items():
        libc.mallopt(name, value)
