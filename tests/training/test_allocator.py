"""Memory that a step leaves is there for the next one, and is given back at the end: page faults and bytes."""

from __future__ import annotations

import platform
import subprocess
import sys

import psutil
import pytest
import torch

from zoo.training.allocator import freed_memory_kept

CPU = torch.device("cpu")
BYTES = 96 << 20  # more than glibc ever keeps by itself

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of use with glibc alone")


# In a process of its own: what other tests have left in this one's heap decides what fits where.
STEPS = f"""
import resource, torch
from zoo.training.allocator import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones({BYTES}, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = [faults() for _ in range(12)]
with freed_memory_kept(torch.device("cpu")):
    kept = [faults() for _ in range(12)]  # the first ones find their places
print(min(usual), min(kept))
"""


def test_later_steps_take_no_new_memory() -> None:
    """Counted in pages that the system hands out while a large tensor is made and dropped."""
    said = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True).stdout
    usual, kept = map(int, said.split())
    assert kept < usual / 10


def test_memory_goes_back_at_the_end() -> None:
    held = psutil.Process().memory_info
    with freed_memory_kept(CPU):
        torch.ones(BYTES, dtype=torch.uint8)
        within = held().rss
    assert within - held().rss > BYTES // 2


def test_an_error_ends_it_too() -> None:
    with pytest.raises(ValueError, match="broken"), freed_memory_kept(CPU):
        raise ValueError("broken")
    before = psutil.Process().memory_info().rss
    tensor = torch.ones(BYTES, dtype=torch.uint8)
    del tensor
    assert psutil.Process().memory_info().rss - before < BYTES // 2
