"""UM-MAE beside SimMIM on Swin-T and PVT-S at 256 px, and MAE ViT-B/16 beside an autoencoder that sees all patches.

Whole training steps of our own methods: loss, gradients and AdamW, batches of 8, float32, all processors, on pixels in
memory. Both methods train the encoder of UM-MAE's authors, as in their comparison; SimMIM hides 75 % of 16-px patches
there. Saved for backward: bytes of distinct storages that autograd keeps, parameters left out. The authors' own code
made so many images per second on two processors: UM-MAE 4.1 and SimMIM 1.6 on Swin-T, 3.5 and 1.0 on PVT-S.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from measure import Target, claim, in_turn, report, seconds
from torch import Tensor

from zoo.families import vit
from zoo.masking import draw_mask, visible_indices
from zoo.patches import hidden_error, normalise_patches, patchify
from zoo.training.methods import Method, Step, recipe
from zoo.training.methods.simmim import SimMIMConfig
from zoo.training.optimisers import build_optimizer
from zoo.training.recipe import Arch, Recipe
from zoo.training.saved import saved_bytes

BATCH = 8
PYRAMIDS = {
    "Swin-T": Arch("ssl_zoo_ummae_swin_tiny", family="swin", size=256, pooling="avg"),
    "PVT-S": Arch("ssl_zoo_ummae_pvt_small", family="pvt", size=256, pooling="avg"),
}
SAVED = {"Swin-T": 0.50, "PVT-S": 0.60}  # of SimMIM's bytes, at most
AUTHORS = {"Swin-T": {"UM-MAE": 4.1, "SimMIM": 1.6}, "PVT-S": {"UM-MAE": 3.5, "SimMIM": 1.0}}  # images/s


class Trainer:
    """A method, its optimiser, and steps on one batch of noise."""

    def __init__(self, given: Recipe) -> None:
        torch.manual_seed(0)
        self.method: Method = given.method.build(given).train()
        self.optimizer = build_optimizer(self.method.param_groups(given.optim), given.optim)
        self.pixels = torch.randn(BATCH, 3, given.data.size, given.data.size)
        self.noise = torch.arange(BATCH)

    def loss(self) -> Tensor:
        return self.method([self.pixels], Step(0, 10, 5), self.noise)[0]

    def update(self, loss: Tensor) -> None:
        loss.backward()
        self.method.before_step(Step(0, 10, 5))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def rate(self, loss: Callable[[], Tensor]) -> float:
        """Images/s of one step with this loss."""
        return BATCH / seconds(lambda: self.update(loss()))

    def saved(self) -> int:
        """Bytes that one forward pass keeps for the backward one, parameters left out."""
        return saved_bytes(self.method, self.loss)


def methods(arch: Arch) -> Iterator[tuple[str, Trainer]]:
    """UM-MAE and SimMIM as its paper compares them, on that encoder."""
    theirs = recipe("ummae/imagenet")
    yield "UM-MAE", Trainer(replace(theirs, arch=arch))
    yield "SimMIM", Trainer(replace(theirs, arch=arch, method=SimMIMConfig(ratio=0.75, unit=16)))


def pyramid(name: str) -> bool:
    """Speed, memory, and the authors' speed, of one encoder."""
    trainers = dict(methods(PYRAMIDS[name]))
    saved = {each: trainer.saved() / 2**20 for each, trainer in trainers.items()}
    found = in_turn(
        {each: lambda _, t=trainer: t.rate(t.loss) for each, trainer in trainers.items()}  # type: ignore[misc]
    )
    title = f"{name} at 256 px, whole steps of {BATCH} images, float32, {torch.get_num_threads()} threads"
    good = [report(title, "images/s", found, [Target("UM-MAE", "SimMIM", 2.2, at_least=True)])]
    for each, rate in AUTHORS[name].items():
        median = statistics.median(found[each])
        good.append(claim(f"{each}, {name}: {median:.2f} images/s, the authors' code {rate}", median > rate))
    share = saved["UM-MAE"] / saved["SimMIM"]
    told = f"{saved['UM-MAE']:.0f} of {saved['SimMIM']:.0f} MiB = {share:.3f} ≤ {SAVED[name]:g}"
    good.append(claim(f"{name}, saved for backward: {told}", share <= SAVED[name]))
    return all(good)


def autoencoder() -> bool:
    """MAE's ViT-B/16: the visible quarter through the encoder, or all patches; the decoder has the same to do."""
    trainer = Trainer(recipe("mae/imagenet"))
    method: Any = trainer.method
    grid = (14, 14)
    masked = draw_mask("random", grid, trainer.noise.tolist(), 0.75)
    hidden, target = masked.flatten(1), normalise_patches(patchify(trainer.pixels, 16))
    seen = {
        "visible patches": visible_indices(masked),
        "all patches": visible_indices(torch.zeros_like(masked)),
    }

    def whole(visible: Tensor) -> Tensor:
        tokens = vit.visible_tokens(method.backbone, trainer.pixels, visible)
        return hidden_error(method.pixels(tokens, visible, grid), target, hidden).mean()

    def encoder(visible: Tensor) -> Tensor:
        return vit.visible_tokens(method.backbone, trainer.pixels, visible).square().mean()

    def encoder_rate(visible: Tensor) -> float:
        """Images/s there and back, without the optimiser."""
        taken = seconds(lambda: encoder(visible).backward())
        method.zero_grad(set_to_none=True)
        return BATCH / taken

    steps = in_turn(
        {name: lambda _, v=visible: trainer.rate(lambda: whole(v)) for name, visible in seen.items()}
    )
    alone = in_turn({name: lambda _, v=visible: encoder_rate(v) for name, visible in seen.items()})
    return reported(steps, "MAE ViT-B/16 at 224 px, whole steps", 2.0) & reported(
        alone, "its encoder alone, forward and backward", 3.3
    )


def reported(found: Mapping[str, Sequence[float]], title: str, limit: float) -> bool:
    targets = [Target("visible patches", "all patches", limit, at_least=True)]
    return report(f"{title}, {BATCH} images, float32", "images/s", found, targets)


def run(data: str) -> bool:
    del data  # noise does
    return [*(pyramid(name) for name in PYRAMIDS), autoencoder()].count(False) == 0
