"""What this process computes on, in words, for cards and tables."""

from __future__ import annotations

import os
import platform

import torch


def hardware() -> str:
    """Its GPUs, or its share of the processor."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    return processor()


def processor() -> str:
    """`"2 of 2 CPU cores (x86_64)"`: the threads that torch uses of this machine's."""
    return f"{torch.get_num_threads()} of {os.cpu_count()} CPU cores ({platform.machine()})"
