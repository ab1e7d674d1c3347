"""bfloat16 where a processor has it; float32, told, where it would be imitated."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from zoo.cards import read_card
from zoo.errors import RecipeError
from zoo.hardware import hardware
from zoo.training import precision
from zoo.training.engine import run
from zoo.training.precision import has_bf16, start_accelerator
from zoo.training.recipe import Recipe

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
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert has_bf16() == native
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_bf16(), "torch has no kernels for them"


@pytest.mark.parametrize("native", [True, False])
def test_a_run_computes_as_its_processor_can(
    native: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: native)
    precision._tell.cache_clear()
    for _ in range(2):
        with caplog.at_level(logging.WARNING), start_accelerator("bf16", cpu=True).autocast():
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == (torch.bfloat16 if native else torch.float32)
    assert caplog.text.count("computing in float32") == (0 if native else 1)


def test_half_precision_is_for_gpus() -> None:
    with pytest.raises(RecipeError, match=r"--run\.precision fp16 is for GPUs; give bf16 or no"):
        start_accelerator("fp16", cpu=True)


def test_another_processor_may_go_on_and_says_so(
    tiny: Callable[..., Recipe],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run of bf16 whose last steps are computed where that is none: told in the log, and on the card."""
    recipe = tiny("mae/smoke", run={"precision": "bf16"})
    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    run(recipe, photos, tmp_path / "run")
    claim = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert claim.pop("finished")  # as if it had been killed before it was
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(claim))
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    run(recipe, photos, tmp_path / "run")
    assert "computed in bf16 up to step" in caplog.text and "and in float32 from there" in caplog.text
    training = read_card(tmp_path / "run").training
    assert training is not None and training.hardware == f"{hardware()}, without bfloat16"
