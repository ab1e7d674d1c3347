"""What a forward pass keeps for the backward one: counted by hand for small networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from zoo.training.recipe import Recipe
from zoo.training.saved import saved_bytes, step_bytes


def test_of_a_small_network_by_hand() -> None:
    """Its input for the first layer, what the ReLU hands on for itself and for the second, no parameter."""
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    x = torch.randn(4, 8)

    def loss() -> Tensor:
        value: Tensor = module(x).sum()
        return value

    assert saved_bytes(module, loss) == 4 * (4 * 8 + 4 * 16)
    loss().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_autocast_keeps_its_copies_of_the_weights() -> None:
    """Input and hidden layer in half the bytes, and the second layer's weights, whose copy its gradient needs."""
    module = nn.Sequential(nn.Linear(8, 16, bias=False), nn.ReLU(), nn.Linear(16, 2, bias=False))
    x = torch.randn(4, 8)

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            value: Tensor = module(x)
        return value.sum()

    assert saved_bytes(module, loss) == 2 * (4 * 8 + 4 * 16 + 16 * 2)


def test_a_storage_counts_once_and_nothing_without_gradients() -> None:
    x = torch.randn(4, 8, requires_grad=True)
    module = nn.Identity()
    assert saved_bytes(module, lambda: (x * x * x[:2].sum()).sum()) == 2 * x.numel() * 4 + 4
    with torch.no_grad():
        assert saved_bytes(module, lambda: (x * x).sum()) == 0


@pytest.mark.parametrize("name", ["mae/smoke", "dino/smoke", "simclr/smoke", "byol/smoke"])
def test_a_step_keeps_more_of_larger_batches(tiny: Callable[..., Recipe], name: str) -> None:
    """In proportion, but for what does not grow with them; the same whenever it is counted."""
    few, many = (tiny(name, optim={"batch": batch}) for batch in (4, 16))
    kept = [step_bytes(each) for each in (few, few, many)]
    assert kept[0] == kept[1] and [each["batch"] for each in kept] == [4, 4, 16]
    assert 2.5 < kept[2]["bytes"] / kept[0]["bytes"] < 4.5


def test_a_batch_in_parts_keeps_one_of_them(tiny: Callable[..., Recipe]) -> None:
    parts = tiny("mae/smoke", optim={"batch": 16, "accumulate": 4})
    assert step_bytes(parts) == step_bytes(tiny("mae/smoke", optim={"batch": 4}))


def test_a_masked_encoder_keeps_less(tiny: Callable[..., Recipe]) -> None:
    """A quarter of the patches, against three quarters of them."""
    seen = [step_bytes(tiny("mae/smoke", method={"ratio": ratio}))["bytes"] for ratio in (0.75, 0.25)]
    assert seen[0] < 0.9 * seen[1]
