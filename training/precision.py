"""The arithmetic of a run: what the recipe asks for, and what this machine computes in."""

from __future__ import annotations

import logging

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from zoo.errors import RecipeError
from zoo.hardware import hardware

log = logging.getLogger(__name__)

# What torch.cpu.get_capabilities() calls instructions that multiply bfloat16: of x86, then of ARM.
BF16 = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")
# What `machine` says of a processor that computes a run of bf16 in float32.
WITHOUT = "without bfloat16"


def start_accelerator(precision: str, *, cpu: bool = False) -> Accelerator:
    """accelerate, for one run. RecipeError where this machine cannot compute in that precision.

    Where a processor has no instructions for bfloat16, torch imitates them, and a step takes two to four times as long
    as in float32 (measured: ResNet-18 2.0, ViT-Tiny 3.6): such a run computes in float32, and says so.
    """
    # It keeps the precision of the first run of a process for all that follow, and its device.
    AcceleratorState._reset_state(reset_partial_state=not dist.is_initialized())
    try:
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision)
    except ValueError as error:
        wrong = f"--run.precision {precision} does not work here ({error}); give bf16 or no"
        raise RecipeError(wrong) from error
    if accelerator.device.type == "cpu" and precision != (here := on_processor(precision)):
        if accelerator.is_main_process:
            log.warning(
                "this processor has no instructions for bfloat16: computing in float32, which is faster here"
            )
        return start_accelerator(here, cpu=cpu)
    return accelerator


def on_processor(precision: str) -> str:
    """The precision that a run of a recipe's has on this machine's processor."""
    return "no" if precision == "bf16" and not has_bf16() else precision


def has_bf16() -> bool:
    """Whether this machine's processor, and torch's kernels on it, multiply bfloat16 without imitating it."""
    able = torch.cpu.get_capabilities()
    return torch.backends.mkldnn.is_available() and any(able.get(name, False) for name in BF16)


def machine(precision: str) -> str:
    """What a run in that precision computes on, in words: `"1 of 2 CPU cores (x86_64), without bfloat16"`."""
    lacking = not torch.accelerator.is_available() and on_processor(precision) != precision
    return f"{hardware()}, {WITHOUT}" if lacking else hardware()
