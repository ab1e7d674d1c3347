"""BYOL: bootstrap your own latent, a new approach to self-supervised learning (Grill et al., 2006.07733).

An online network predicts what a target network, its own moving average, makes of the other view. No negatives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from zoo.errors import RecipeError
from zoo.training import augment
from zoo.training.backbones import backbone, blocks, check_sides, pooled, width
from zoo.training.heads import mlp
from zoo.training.methods import Method, Step, Views, ema_update
from zoo.training.recipe import Arch, Data, Optim, Recipe, Run, Schedule, check_crops
from zoo.training.schedules import cosine


@dataclass(frozen=True)
class BYOLConfig:
    """Knobs of BYOL; defaults are the paper's for 1,000 epochs (§3.2, §3.3)."""

    hidden: int = 4096
    """Width of the hidden layer of projector and predictor."""
    out: int = 256
    momentum: float = 0.996
    """EMA tau of the target at step 0, which a cosine takes to 1: 0.99 for 100 to 300 epochs, 0.97 for 40."""
    min_scale: float = 0.08
    """Smallest share of the image a crop covers."""
    removed: tuple[augment.Part, ...] = ()
    """Transformations left out of the views: any of flip, colour, grey, blur, solarise."""

    def build(self, recipe: Recipe) -> BYOL:
        for name in ("hidden", "out"):
            if getattr(self, name) < 1:
                raise RecipeError(f"--method.{name} is {getattr(self, name)}; give 1 or more")
        if not 0 <= self.momentum <= 1:
            raise RecipeError(f"--method.momentum is {self.momentum}; give a number in [0, 1], such as 0.99")
        check_crops(self)
        return BYOL(self, recipe)


class BYOL(Method):
    """§3.1: online network theta, predictor q, target network xi."""

    def __init__(self, config: BYOLConfig, recipe: Recipe) -> None:
        super().__init__()
        self.config, self.size, self.statistics = config, recipe.data.size, recipe.statistics
        self.online = backbone(recipe.arch, drop_path=recipe.arch.drop_path)
        self.target = backbone(recipe.arch)
        check_sides(recipe, self.online)
        self.online_projector, self.target_projector = (
            mlp(width(self.online), config.hidden, config.out) for _ in range(2)
        )
        self.predictor = mlp(config.out, config.hidden, config.out)
        self.target.load_state_dict(self.online.state_dict())
        self.target_projector.load_state_dict(self.online_projector.state_dict())
        self.target.requires_grad_(False)
        self.target_projector.requires_grad_(False)

    def views(self) -> Views:
        """Two views of two distributions (Table 6)."""
        scale = (self.config.min_scale, 1.0)
        transforms = augment.two_globals(self.size, scale, self.config.removed, *self.statistics)

        def pair(image: Tensor, generator: Generator) -> list[Tensor]:
            return [augment.seeded(transform, image, generator) for transform in transforms]

        return pair

    def turns(self, views: list[Tensor]) -> list[list[Tensor]]:
        """Each view once as what is seen: both terms of the symmetrised loss (Equation 2)."""
        view, other = views
        return [[view, other], [other, view]]

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """One term of the loss: what the first view tells of the other's target. views: two (B, C, H, W)."""
        view, other = views
        with torch.no_grad():
            target = self.target_projector(pooled(self.target, other))
        # Batch norm's statistics are one view's, as the authors have them.
        features = pooled(self.online, view)
        loss = regression(self.predictor(self.online_projector(features)), target)
        return loss, {
            "momentum": self.momentum(step),
            "target_std": spread_of(target),
            "features": features.detach(),
        }

    def momentum(self, step: Step) -> float:
        """EMA tau of the target: 1 - (1 - tau_0) (cos(pi k / K) + 1) / 2 (§3.2)."""
        return cosine(step.index, step.total, self.config.momentum, 1.0)

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        """Move the target towards the online network (Equation 1); running statistics stay each network's own."""
        tau = self.momentum(step)
        ema_update(self.target, self.online, tau)
        ema_update(self.target_projector, self.online_projector, tau)

    def encoder(self) -> nn.Module:
        return self.online

    def start_from(self, encoder: dict[str, Tensor], decoder: dict[str, Tensor] | None) -> None:
        """Online and target network begin alike."""
        self.online.load_state_dict(encoder)
        self.target.load_state_dict(encoder)

    def compiled(self) -> list[nn.Module]:
        return [*blocks(self.online), *blocks(self.target)]

    def card(self) -> dict[str, Any]:
        return {"kind": "discriminative", "approach": "distillation"}


def spread_of(targets: Tensor) -> Tensor:
    """Std of normalised targets (B, D) over images, the mean over dimensions, times √D: 0 where all are the same."""
    normed = F.normalize(targets.float(), dim=1)
    spread: Tensor = normed.std(dim=0, unbiased=False).mean() * math.sqrt(targets.shape[1])
    return spread


def regression(guess: Tensor, target: Tensor) -> Tensor:
    """2 - 2 cos(guess, target), the squared distance of the normalised vectors; (B, D), (B, D) -> mean over images."""
    return 2 - 2 * F.cosine_similarity(guess.float(), target.float(), dim=-1).mean()


def imagenet() -> Recipe:
    """ResNet-50, batches of 4,096, 1,000 epochs: the paper's §3.3; 74.3 % linear (theirs).

    Eight 80-GB GPUs and days, by our estimate: never run here.

    zoo train byol/imagenet DATA --out runs/byol_resnet50
    """
    return Recipe(
        method=BYOLConfig(),
        arch=Arch("resnet50", family="resnet", size=224, pooling="avg"),
        data=Data(size=224, cache=False, side=512, workers=12),
        optim=Optim(batch=4096, lr=0.2, kind="lars", weight_decay=1.5e-6),
        schedule=Schedule(epochs=1000, warmup_epochs=10),
        run=Run(precision="bf16"),
    )


def imagenette() -> Recipe:
    """ResNet-18 at 128 px, 200 epochs: one GPU, or patience; no result yet.

    SGD and an EMA from 0.99, as in lightly's benchmark, which holds it there; the authors' own recipe for Imagenette
    takes LARS and 1,000 epochs.

    zoo train byol/imagenette DATA --out runs/byol_resnet18_imagenette
    """
    return Recipe(
        method=BYOLConfig(momentum=0.99),
        arch=Arch("resnet18", family="resnet", size=128, pooling="avg"),
        data=Data(size=128),
        optim=Optim(batch=256, lr=0.06, kind="sgd", weight_decay=5e-4),
        schedule=Schedule(epochs=200, warmup_epochs=0),
    )


def smoke() -> Recipe:
    """ViT-Tiny/16 at 64 px, one epoch of 512 images: seconds on a CPU. It proves the path, no more.

    zoo train byol/smoke DATA --out runs/byol_smoke
    """
    return Recipe(
        method=BYOLConfig(hidden=256, out=64, momentum=0.99),
        arch=Arch("vit_tiny_patch16_224", size=64),
        data=Data(size=64, side=80, limit=512, workers=0),
        optim=Optim(batch=32, lr=2e-3, betas=(0.9, 0.999), weight_decay=0.04),
        schedule=Schedule(epochs=1, warmup_epochs=0.1),
    )


__all__ = ["BYOL", "BYOLConfig", "imagenet", "imagenette", "regression", "smoke"]
