"""A batch in parts is the batch: gradients are averaged, and all else happens once per step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from runs import rows, saved, tensors
from torch import Tensor, nn

from zoo.errors import RecipeError
from zoo.training.data import Batch
from zoo.training.engine import run, train_step
from zoo.training.methods import Method, Step, Views
from zoo.training.recipe import Recipe
from zoo.training.shares import joined, parts_of

Tiny = Callable[..., Recipe]
# Steps in proportion to gradients: Adam's would turn rounding into steps where a gradient is next to nothing.
PLAIN = {"kind": "sgd", "lr": 1.0, "batch": 4}
FOLLOWS = {"mae": {}, "dino": {"momentum": 0.5, "head_norm": False}}


@pytest.mark.parametrize("name", ["mae", "dino"])
def test_a_run_in_parts_is_the_run(name: str, tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """Weights, teacher, centre and log: no method here compares the images of a batch."""

    def trained(parts: int) -> Path:
        optim, epochs = {**PLAIN, "accumulate": parts}, {"epochs": 2}
        recipe = tiny(f"{name}/smoke", method=FOLLOWS[name], optim=optim, schedule=epochs)
        return run(recipe, photos, tmp_path / f"{parts}", scores=False)

    whole, begun = trained(1), tiny(f"{name}/smoke", method=FOLLOWS[name])
    torch.manual_seed(begun.run.seed)
    start = begun.method.build(begun).state_dict()
    theirs = dict(tensors(saved(whole)["method"]))
    assert max(float((theirs[f".{key}"] - value).abs().max()) for key, value in start.items()) > 1e-3
    for parts in (2, 4):
        ours = dict(tensors(saved(trained(parts))["method"]))
        assert ours.keys() == theirs.keys() and (name == "mae" or ".centre" in ours)
        for key, value in ours.items():
            torch.testing.assert_close(value, theirs[key], rtol=0, atol=1e-5, msg=key)
        logs = zip(rows(tmp_path / f"{parts}"), rows(whole), strict=True)
        for mine, other in logs:
            pace = ("seconds", "images_per_second")
            assert {k: v for k, v in mine.items() if k not in pace} == pytest.approx(
                {k: v for k, v in other.items() if k not in pace}, rel=1e-3, abs=1e-5
            )


class Toy(Method):
    """Scales pictures to be as bright as their noise says, and notes what the loop calls."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.calls = nn.Parameter(torch.tensor([1.0])), list[str]()

    def views(self) -> Views:
        return lambda image, generator: [image]

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        self.calls.append(f"forward {noise.tolist()}")
        bright = self.scale * views[0].mean((1, 2, 3))
        return (bright - noise).square().mean(), {"features": bright.detach()[:, None], "count": len(noise)}

    def before_step(self, step: Step) -> None:
        assert self.scale.grad is not None
        self.calls.append(f"before {self.scale.grad.item():g}")

    def after_step(self, step: Step) -> None:
        self.calls.append(f"after {self.scale.item():g}")

    def encoder(self) -> nn.Module:
        return self


NOISES = {1: ["[3, 5, 7, 9]"], 2: ["[3, 5]", "[7, 9]"]}


@pytest.mark.parametrize("parts", NOISES)
def test_hooks_and_optimiser_come_once(parts: int) -> None:
    toy = Toy()
    batch = Batch([torch.ones(4, 3, 2, 2)], torch.tensor([3, 5, 7, 9]), [])
    optimizer = torch.optim.SGD(toy.parameters(), lr=0.5)
    step = Step(5, 10, 2)
    loss, logs = train_step(Accelerator(cpu=True), toy, toy, optimizer, batch, step, seed=0, parts=parts)
    # (1 - 3)^2, (1 - 5)^2, (1 - 7)^2, (1 - 9)^2: mean 30; the gradient is the mean of 2 * (1 - noise).
    assert toy.calls == [*(f"forward {each}" for each in NOISES[parts]), "before -10", "after 6"]
    assert float(loss) == 30 and not loss.requires_grad
    assert torch.equal(torch.as_tensor(logs["features"]), torch.ones(4, 1))
    assert logs["count"] == 4 / parts


class InTurns(Toy):
    """A loss of two terms, which the first and the second view make."""

    def turns(self, views: list[Tensor]) -> list[list[Tensor]]:
        return [[view] for view in views]


@pytest.mark.parametrize("parts", [1, 2])
def test_turns_are_summed_and_the_first_is_logged(parts: int) -> None:
    toy = InTurns()
    batch = Batch([torch.ones(4, 3, 2, 2), 2 * torch.ones(4, 3, 2, 2)], torch.tensor([3, 5, 7, 9]), [])
    optimizer = torch.optim.SGD(toy.parameters(), lr=0.5)
    loss, logs = train_step(
        Accelerator(cpu=True), toy, toy, optimizer, batch, Step(5, 10, 2), seed=0, parts=parts
    )
    # The means of (1 - noise)^2 and (2 - noise)^2 are 30 and 21; gradients, 2 and 4 * (view - noise), -10 and -16.
    assert float(loss) == 51
    assert toy.calls[-2:] == ["before -26", "after 14"]
    assert toy.calls[: 2 * parts] == [f"forward {noise}" for noise in NOISES[parts] for _ in range(2)]
    assert torch.equal(torch.as_tensor(logs["features"]), torch.ones(4, 1))


def test_parts_hold_the_batch_in_order() -> None:
    views = [torch.arange(12.0).view(6, 2), torch.arange(6.0)]
    batch = Batch(views, torch.arange(6), ["a"], torch.arange(6) % 2)
    parts = [*parts_of(batch, 3)]
    assert [len(part.noise) for part in parts] == [2, 2, 2]
    for i, view in enumerate(views):
        assert torch.equal(torch.cat([part.views[i] for part in parts]), view)
    assert torch.equal(torch.cat([part.noise for part in parts]), batch.noise)
    assert batch.labels is not None
    assert torch.equal(torch.cat([part.labels for part in parts if part.labels is not None]), batch.labels)


def test_logs_of_parts_are_those_of_the_batch() -> None:
    first = {
        "a": 1.0,
        "b": torch.tensor(2.0),
        "features": torch.zeros(2, 3),
        "prototypes": torch.tensor([1.0, 0.0]),
    }
    second = {
        "a": 2.0,
        "b": torch.tensor(4.0),
        "features": torch.ones(2, 3),
        "prototypes": torch.tensor([0.0, 1.0]),
    }
    whole = joined([first, second])
    assert (whole["a"], float(whole["b"])) == (1.5, 3.0)
    assert torch.equal(torch.as_tensor(whole["features"])[:, 0], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert torch.as_tensor(whole["prototypes"]).tolist() == [0.5, 0.5]
    assert joined([first]) == first


@pytest.mark.parametrize("run_for", [{}, {"minutes": 1.0}])
@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (3, r"--optim\.accumulate is 3, and the 4 images that a process takes of each batch .*; give 2"),
        (9, r"--optim\.accumulate is 9, .* cannot be cut into as many equal parts; give 4"),
        (0, r"--optim\.accumulate is 0; give a number above 0"),
    ],
)
def test_parts_that_cannot_be_equal_are_refused(
    parts: int, says: str, run_for: dict[str, Any], tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=says):
        run(tiny("mae/smoke", optim={"accumulate": parts}, run=run_for), photos, tmp_path / "run")
    assert not (tmp_path / "run").exists()
