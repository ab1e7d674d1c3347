"""`--run.compile True`: blocks are compiled in place, and the run is the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import rows, saved
from torch import nn

from zoo.training.engine import run
from zoo.training.recipe import Recipe


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor:UserWarning"
)  # Dynamo looks at every tensor's
@pytest.mark.parametrize("name", ["mae", "dino", "simclr"])
def test_a_compiled_run_is_the_run(
    name: str,
    tiny: Callable[..., Recipe],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same losses, and weights by the same names; by a backend that needs no C++ compiler."""
    usual, made = nn.Module.compile, list[nn.Module]()

    def noted(module: nn.Module) -> None:
        made.append(module)
        usual(module, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", noted)
    recipe = tiny(f"{name}/smoke", schedule={"epochs": 2})
    plain = run(recipe, photos, tmp_path / "plain")
    assert not made
    asked = dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, compile=True))
    compiled = run(asked, photos, tmp_path / "compiled")
    assert len(made) >= 6  # the encoder's blocks
    ours, theirs = ([row["loss"] for row in rows(folder)] for folder in (compiled, plain))
    assert ours == pytest.approx(theirs, abs=1e-4, rel=1e-4)
    assert saved(compiled)["method"].keys() == saved(plain)["method"].keys()
