"""One step of each optimiser against its formula, and who decays, who adapts, and how fast each layer learns."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from zoo.training.methods import Method, recipe
from zoo.training.optimisers import build_optimizer, layer_decayed
from zoo.training.recipe import Optim


class Two(nn.Module):
    """A matrix and a vector, with gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))  # norm 5
        self.vector = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.matrix.grad = torch.tensor([[0.0, 0.6], [0.8, 0.0]])  # norm 1
        self.vector.grad = torch.tensor([0.5, -0.5])

    def undecayed(self) -> tuple[str, ...]:
        return ()

    def groups(self) -> list[dict[str, Any]]:
        return Method.param_groups(self, Optim())  # type: ignore[arg-type]


def stepped(optim: Optim, lr: float, decay: float, steps: int = 1) -> tuple[Tensor, Tensor]:
    """Matrix and vector after steps with constant gradients."""
    module = Two()
    optimizer = build_optimizer(module.groups(), optim)
    for _ in range(steps):
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = lr, decay if group["decays"] else 0.0
        # LARS scales gradients in place.
        kept = [p.grad.clone() for p in module.parameters() if p.grad is not None]
        optimizer.step()
        for p, grad in zip(module.parameters(), kept, strict=True):
            p.grad = grad
    return module.matrix.detach(), module.vector.detach()


def test_sgd_by_hand() -> None:
    matrix, vector = stepped(Optim(kind="sgd", momentum=0.9), lr=0.1, decay=0.5, steps=2)
    w, g = Two().matrix.detach(), Two().matrix.grad
    assert g is not None
    first = g + 0.5 * w
    w1 = w - 0.1 * first
    second = 0.9 * first + g + 0.5 * w1
    torch.testing.assert_close(matrix, w1 - 0.1 * second)
    torch.testing.assert_close(vector, torch.tensor([1 - 0.05 - 0.095, 2 + 0.05 + 0.095]))  # no decay


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lars_adapts_matrices_and_leaves_vectors(decay: float) -> None:
    matrix, vector = stepped(Optim(kind="lars"), lr=2.0, decay=decay)
    w, g = Two().matrix.detach(), Two().matrix.grad
    assert g is not None
    trust = 1e-3 * 5 / (1 + decay * 5)
    torch.testing.assert_close(matrix, w - 2.0 * trust * (g + decay * w), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(vector, torch.tensor([0.0, 3.0]))  # plain: 1 - 2 * 0.5, 2 + 2 * 0.5


def test_adamw_is_torchs() -> None:
    matrix, vector = stepped(Optim(betas=(0.8, 0.9)), lr=0.1, decay=0.5, steps=3)
    module = Two()
    optimizer = torch.optim.AdamW(
        [{"params": [module.matrix], "weight_decay": 0.5}, {"params": [module.vector], "weight_decay": 0.0}],
        lr=0.1,
        betas=(0.8, 0.9),
    )
    for _ in range(3):
        optimizer.step()
    torch.testing.assert_close(matrix, module.matrix.detach())
    torch.testing.assert_close(vector, module.vector.detach())


def test_layers_learn_slower_towards_the_image() -> None:
    module = timm.create_model("test_vit", num_classes=3)
    groups = layer_decayed(module, 0.5)
    names = {id(p): name for name, p in module.named_parameters()}
    rates = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    decays = {names[id(p)]: group["decays"] for group in groups for p in group["params"]}
    assert rates.keys() == dict(module.named_parameters()).keys()
    depth = len(module.blocks)
    top = depth + 1  # patches, blocks, then norm and head
    assert rates["head.weight"] == 1
    assert rates["patch_embed.proj.weight"] == 0.5**top
    for index in range(depth):
        assert rates[f"blocks.{index}.attn.qkv.weight"] == 0.5 ** (top - 1 - index)
    assert all(
        decays[name] == (p.ndim > 1 and name not in ("cls_token", "pos_embed"))
        for name, p in module.named_parameters()
    )


def test_a_group_learns_at_its_own_scale() -> None:
    module = timm.create_model("test_vit", num_classes=3)
    optimizer = build_optimizer(layer_decayed(module, 0.5), recipe("mae/smoke").optim)
    assert {group["lr_scale"] for group in optimizer.param_groups} >= {1.0, 0.5}
