"""Bytes that a training step holds for its backward pass: what masking saves, counted and not sampled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from zoo.training.methods import Step
from zoo.training.precision import start_accelerator
from zoo.training.recipe import Recipe


def saved_bytes(module: nn.Module, loss: Callable[[], Tensor]) -> int:
    """Bytes of the distinct storages that autograd keeps of one forward pass, the module's parameters left out.

    Copies of parameters that autocast made do count.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        held = loss()  # keeps them alive, so that no storage stands where another stood
    del held
    return sum(size for place, size in kept.items() if place not in own)


def step_bytes(recipe: Recipe) -> dict[str, int]:
    """The same of a step of the recipe, uncompiled, in its precision, on pixels that are noise.

    `batch`: images that a pass holds, of a batch in `optim.accumulate` parts; of several turns (`Method.turns`), the
    one that holds most. For methods that learn without labels; views have the sizes that they cut from a photo.
    """
    accelerator = start_accelerator(recipe.run.precision)
    torch.manual_seed(recipe.run.seed)
    method = recipe.method.build(recipe).to(accelerator.device).train()
    draw = torch.Generator().manual_seed(recipe.run.seed)
    side, batch = recipe.data.side, recipe.optim.batch // recipe.optim.accumulate
    photo = torch.randint(256, (recipe.arch.in_chans, side, side), generator=draw, dtype=torch.uint8)
    shapes = [view.shape for view in method.views()(photo, draw)]
    views = [torch.randn(batch, *shape, generator=draw).to(accelerator.device) for shape in shapes]

    def loss(turn: list[Tensor]) -> Tensor:
        with accelerator.autocast():
            value: Tensor = method(turn, Step(0, 10, 5), torch.arange(batch))[0]
        return value

    held = [saved_bytes(method, partial(loss, turn)) for turn in method.turns(views)]
    return {"bytes": max(held), "batch": batch}
