"""The arithmetic of a run: what the recipe asks for, and what this machine computes in."""

from __future__ import annotations

import logging
from functools import cache

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object

from zoo.errors import RecipeError
from zoo.hardware import hardware

log = logging.getLogger(__name__)

# What torch.cpu.get_capabilities() calls instructions that multiply bfloat16: of x86, then of ARM.
BF16 = ("avx512_bf16", "amx_bf16", "bf16")


def start_accelerator(precision: str, *, cpu: bool = False) -> Accelerator:
    """accelerate, for one run; its `mixed_precision` is what is computed in. RecipeError where this machine cannot.

    Where a processor has no instructions for bfloat16, torch imitates them, and a step takes two to four times as long
    as in float32 (ResNet-18 2.0, ViT-Tiny 3.6, on a Xeon of AVX-512 alone). If any process of a run has such a
    processor, all compute in float32, and say so.
    """
    # It keeps the precision of the first run of a process for all that follow, and its device.
    AcceleratorState._reset_state(reset_partial_state=not dist.is_initialized())
    try:
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision)
    except ValueError as error:
        wrong = f"--run.precision {precision} does not work here ({error}); give bf16 or no"
        raise RecipeError(wrong) from error
    if accelerator.device.type != "cpu" or precision == "no":
        return accelerator
    if precision == "fp16":
        raise RecipeError("--run.precision fp16 is for GPUs; give bf16 or no")
    if all(gather_object([has_bf16()])):
        return accelerator
    if accelerator.is_main_process:
        _tell()
    return start_accelerator("no", cpu=cpu)


def has_bf16() -> bool:
    """Whether torch multiplies bfloat16 on this machine's processor without imitating it."""
    able = torch.cpu.get_capabilities()
    return torch.backends.mkldnn.is_available() and any(able.get(name, False) for name in BF16)


def machine(accelerator: Accelerator, precision: str) -> str:
    """What computes a run of that precision, in words: `"1 of 2 CPU cores (x86_64), without bfloat16"`."""
    return hardware() if accelerator.mixed_precision == precision else f"{hardware()}, without bfloat16"


@cache
def _tell() -> None:
    """Once, however many runs there are."""
    log.warning("torch has no fast bfloat16 on this processor: computing in float32")
