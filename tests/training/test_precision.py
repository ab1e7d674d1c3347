"""bfloat16 where a processor has it; float32, told, where it would be imitated."""

from __future__ import annotations

import logging
from types import MappingProxyType

import pytest
import torch

from zoo.hardware import hardware
from zoo.training import precision
from zoo.training.precision import has_bf16, machine, on_processor, start_accelerator

XEON = {"architecture": "x86_64", "avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}


@pytest.mark.parametrize(
    ("able", "native"),
    [
        (XEON, False),
        ({**XEON, "avx512_bf16": True}, True),
        ({**XEON, "amx_bf16": True}, True),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, True),
        ({"architecture": "aarch64", "neon": True, "bf16": False, "sve_max_length": 256}, False),
    ],
)
def test_instructions_decide(able: dict[str, object], native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(able))
    assert has_bf16() == native
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_bf16(), "torch has no kernels for them"


@pytest.mark.parametrize("native", [True, False])
def test_a_run_computes_as_its_processor_can(
    native: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: native)
    with caplog.at_level(logging.WARNING), start_accelerator("bf16", cpu=True).autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if native else torch.float32)
    assert ("computing in float32" in caplog.text) != native
    assert (on_processor("bf16"), on_processor("no")) == ("bf16" if native else "no", "no")


@pytest.mark.parametrize("asked", ["no", "bf16"])
def test_the_machine_tells_what_it_lacks(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert machine(asked) == hardware() + (", without bfloat16" if asked == "bf16" else "")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert machine(asked) == hardware(), "a GPU has it"
