"""Memory that a step leaves is there for the next one, and is given back at the end: page faults and bytes."""

from __future__ import annotations

import os
import platform
import resource

import psutil
import pytest
import torch

from zoo.training.allocator import freed_memory_kept

BYTES = 96 << 20  # more than glibc ever keeps by itself
PAGES = BYTES // os.sysconf("SC_PAGESIZE")

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of use with glibc alone")


def faults_of_a_step() -> int:
    """Pages that the system hands out while a large tensor is made and dropped."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(BYTES, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_later_steps_take_no_new_memory() -> None:
    with freed_memory_kept():
        kept = min(faults_of_a_step() for _ in range(5))  # other threads may need some in one of them
    assert kept < PAGES // 20


def test_memory_goes_back_at_the_end() -> None:
    held = psutil.Process().memory_info
    with freed_memory_kept():
        faults_of_a_step()
        within = held().rss
    assert within - held().rss > BYTES // 2


def test_an_error_ends_it_too() -> None:
    with pytest.raises(ValueError, match="broken"), freed_memory_kept():
        raise ValueError("broken")
    before = psutil.Process().memory_info().rss
    tensor = torch.ones(BYTES, dtype=torch.uint8)
    del tensor
    assert psutil.Process().memory_info().rss - before < BYTES // 2
