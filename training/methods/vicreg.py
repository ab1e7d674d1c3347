"""VICReg: variance-invariance-covariance regularization for self-supervised learning (Bardes et al., 2105.04906).

Embeddings of two views are pulled together; a hinge keeps every dimension spread, and dimensions are decorrelated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from zoo.errors import RecipeError
from zoo.training import augment
from zoo.training.backbones import backbone, blocks, check_sides, pooled, width
from zoo.training.heads import mlp
from zoo.training.methods import Method, Step, Views
from zoo.training.processes import gather_over_processes
from zoo.training.recipe import Arch, Data, Optim, Recipe, Run, Schedule, check_crops


@dataclass(frozen=True)
class VICRegConfig:
    """Knobs of VICReg; defaults are the paper's (§4.2), for its Algorithm 1.

    There the invariance term is a mean over dimensions. The authors' published code has half of the hinge besides.
    """

    invariance: float = 25.0
    """Weight lambda of the distance between two views."""
    variance: float = 25.0
    """Weight mu of the hinge that keeps each dimension's std at 1 or more."""
    covariance: float = 1.0
    """Weight nu of the squared covariances of different dimensions."""
    hidden: int = 8192
    """Width of the expander's three layers."""
    min_scale: float = 0.08
    """Smallest share of the image a crop covers."""

    def build(self, recipe: Recipe) -> VICReg:
        for name in ("invariance", "variance", "covariance"):
            if not getattr(self, name) >= 0:
                raise RecipeError(f"--method.{name} is {getattr(self, name)}; give 0 or more")
        if self.hidden < 2:
            raise RecipeError(f"--method.hidden is {self.hidden}; give 2 or more")
        check_crops(self)
        return VICReg(self, recipe)


class VICReg(Method):
    """Algorithm 1."""

    def __init__(self, config: VICRegConfig, recipe: Recipe) -> None:
        super().__init__()
        self.config, self.size, self.statistics = config, recipe.data.size, recipe.statistics
        self.backbone = backbone(recipe.arch, drop_path=recipe.arch.drop_path)
        check_sides(recipe, self.backbone)
        self.expander = mlp(width(self.backbone), config.hidden, config.hidden, config.hidden)

    def views(self) -> Views:
        """Two views, of BYOL's two distributions (Appendix C.1)."""
        transforms = augment.two_globals(self.size, (self.config.min_scale, 1.0), (), *self.statistics)

        def pair(image: Tensor, generator: Generator) -> list[Tensor]:
            return [augment.seeded(transform, image, generator) for transform in transforms]

        return pair

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The three terms (Algorithm 1) over the images of all processes. views: two (B, C, H, W)."""
        features = [pooled(self.backbone, view) for view in views]  # (B, D) each
        first, second = (gather_over_processes(self.expander(y).float()) for y in features)
        invariance = F.mse_loss(first, second)
        variance = spread_loss(first) + spread_loss(second)
        covariance = covariance_loss(first) + covariance_loss(second)
        config = self.config
        loss = config.invariance * invariance + config.variance * variance + config.covariance * covariance
        terms = {"invariance": invariance, "variance": variance, "covariance": covariance}
        return loss, {**{k: v.detach() for k, v in terms.items()}, "features": features[0].detach()}

    def encoder(self) -> nn.Module:
        return self.backbone

    def compiled(self) -> list[nn.Module]:
        return blocks(self.backbone)

    def card(self) -> dict[str, Any]:
        return {"kind": "discriminative", "approach": "redundancy reduction"}


def spread_loss(z: Tensor) -> Tensor:
    """Mean over dimensions of max(0, 1 - std), the std over images (Algorithm 1); z: (B, D)."""
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


def covariance_loss(z: Tensor) -> Tensor:
    """Squared covariances of all pairs of different dimensions, summed, over D (Algorithm 1); z: (B, D)."""
    centred = z - z.mean(dim=0)
    with torch.autocast(z.device.type, enabled=False):
        covariance = centred.T @ centred / (len(z) - 1)  # (D, D)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def imagenet() -> Recipe:
    """ResNet-50, batches of 2,048, 1,000 epochs: the paper's §4.2; 73.2 % linear (theirs).

    Eight 80-GB GPUs and days, by our estimate: never run here.

    zoo train vicreg/imagenet DATA --out runs/vicreg_resnet50
    """
    return Recipe(
        method=VICRegConfig(),
        arch=Arch("resnet50", family="resnet", size=224, pooling="avg"),
        data=Data(size=224, cache=False, side=512, workers=12),
        optim=Optim(batch=2048, lr=0.2, kind="lars", weight_decay=1e-6),
        schedule=Schedule(epochs=1000, warmup_epochs=10, final_lr=0.002),
        run=Run(precision="bf16"),
    )


def imagenette() -> Recipe:
    """ResNet-18 at 128 px, 200 epochs: one GPU, or patience; no result yet.

    zoo train vicreg/imagenette DATA --out runs/vicreg_resnet18_imagenette
    """
    return Recipe(
        method=VICRegConfig(hidden=2048),
        arch=Arch("resnet18", family="resnet", size=128, pooling="avg"),
        data=Data(size=128),
        optim=Optim(batch=256, lr=0.06, kind="sgd", weight_decay=5e-4),
        schedule=Schedule(epochs=200, warmup_epochs=0),
    )


def smoke() -> Recipe:
    """ViT-Tiny/16 at 64 px, one epoch of 512 images: seconds on a CPU. It proves the path, no more.

    zoo train vicreg/smoke DATA --out runs/vicreg_smoke
    """
    return Recipe(
        method=VICRegConfig(hidden=256),
        arch=Arch("vit_tiny_patch16_224", size=64),
        data=Data(size=64, side=80, limit=512, workers=0),
        optim=Optim(batch=32, lr=2e-3, betas=(0.9, 0.999), weight_decay=0.04),
        schedule=Schedule(epochs=1, warmup_epochs=0.1),
    )


__all__ = ["VICReg", "VICRegConfig", "covariance_loss", "imagenet", "imagenette", "smoke", "spread_loss"]
