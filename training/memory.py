"""How much memory is free, for a cache of decoded images that must fit."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

# Long side over short side of a usual photo; and what a cache may take of the memory that is free.
ASPECT, SHARE = 1.4, 0.8

_CGROUP = Path("/sys/fs/cgroup")


def cache_bytes(images: int, side: int, channels: int = 3) -> int:
    """Bytes of that many decoded photos, at most, in all processes that train on this machine: each keeps its own."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's and accelerate's
    return round(images * side**2 * ASPECT * channels * processes)


def free_bytes() -> int:
    """Bytes that may still be taken, of the machine's memory and of the limit that a container sets (cgroup v2)."""
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError, KeyError):  # no cgroup v2, or no limit: "max"
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(stat["inactive_file"]))  # files that it kept are given back
    return max(0, free)
