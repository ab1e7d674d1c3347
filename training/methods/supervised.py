"""Supervised: the baseline of every table, the same loop with labels (label smoothing: Szegedy et al., 1512.00567)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import RecipeError
from zoo.training import augment
from zoo.training.backbones import backbone, blocks, check_sides, pooled, width
from zoo.training.chance import chance_level
from zoo.training.methods import Method, Step, Views
from zoo.training.recipe import Arch, Data, Optim, Recipe, Run, Schedule, check_crops


@dataclass(frozen=True)
class SupervisedConfig:
    """Knobs of the supervised baseline."""

    classes: int = 1000
    """Classes the head tells apart: as many as the data has, or more."""
    smoothing: float = 0.1
    """Share of the target that is spread over all classes (§7)."""
    min_scale: float = 0.08
    """Smallest share of the image a crop covers."""

    def build(self, recipe: Recipe) -> Supervised:
        if self.classes < 2:
            raise RecipeError(f"--method.classes is {self.classes}; give 2 or more")
        if not 0 <= self.smoothing < 1:
            raise RecipeError(f"--method.smoothing is {self.smoothing}; give a share in [0, 1), such as 0.1")
        check_crops(self)
        return Supervised(self, recipe)


class Supervised(Method):
    """A linear head on pooled features."""

    def __init__(self, config: SupervisedConfig, recipe: Recipe) -> None:
        super().__init__()
        self.config, self.size, self.statistics = config, recipe.data.size, recipe.statistics
        self.classes = config.classes
        self.backbone = backbone(recipe.arch, drop_path=recipe.arch.drop_path)
        check_sides(recipe, self.backbone)
        self.head = nn.Linear(width(self.backbone), config.classes)

    def views(self) -> Views:
        """One view: random resized crop and flip."""
        return augment.one_view(self.size, self.config.min_scale, *self.statistics)

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Cross-entropy with smoothed labels, and the share of the batch that is told right."""
        assert labels is not None  # the loop passes them where `classes` is set
        features = pooled(self.backbone, views[0])  # (B, D)
        logits = self.head(features).float()  # (B, classes)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.smoothing)
        return loss, {
            "accuracy": (logits.argmax(1) == labels).float().mean(),
            "chance": chance_level(labels, self.config.classes, self.config.smoothing),
            "features": features.detach(),
        }

    def encoder(self) -> nn.Module:
        return self.backbone

    def compiled(self) -> list[nn.Module]:
        return blocks(self.backbone)

    def card(self) -> dict[str, Any]:
        return {"kind": "supervised", "approach": "supervised"}


def imagenette() -> Recipe:
    """ResNet-18 at 128 px, 100 epochs: one GPU, or patience; no result yet.

    zoo train supervised/imagenette DATA --out runs/supervised_resnet18_imagenette
    """
    return Recipe(
        method=SupervisedConfig(classes=10),
        arch=Arch("resnet18", family="resnet", size=128, pooling="avg"),
        data=Data(size=128),
        optim=Optim(batch=128, lr=0.1, kind="sgd", weight_decay=5e-4),
        schedule=Schedule(epochs=100, warmup_epochs=5),
    )


def imagenette_vit() -> Recipe:
    """ViT-Tiny/16 on crops of 80 px: sized for a CPU core.

    96 minutes on one core, shared, from a masked autoencoder's weights: 76.3 % k-NN on Imagenette, and the loss was
    falling still.

    zoo train supervised/imagenette_vit DATA --init mae_vitt16_imagenette --out runs/supervised_vitt16_imagenette
    """
    return Recipe(
        method=SupervisedConfig(classes=10, min_scale=0.2),
        arch=Arch("vit_tiny_patch16_224", size=128, drop_path=0.1),
        data=Data(size=80),
        optim=Optim(batch=64, lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05),
        schedule=Schedule(epochs=40, warmup_epochs=2, final_lr=1e-6),
        run=Run(precision="bf16"),
    )


def smoke() -> Recipe:
    """ViT-Tiny/16 at 64 px, one epoch of 512 images: seconds on a CPU. It proves the path, no more.

    zoo train supervised/smoke DATA --out runs/supervised_smoke
    """
    return Recipe(
        method=SupervisedConfig(),
        arch=Arch("vit_tiny_patch16_224", size=64),
        data=Data(size=64, side=80, limit=512, workers=0),
        optim=Optim(batch=32, lr=2e-3, betas=(0.9, 0.999), weight_decay=0.04),
        schedule=Schedule(epochs=1, warmup_epochs=0.1),
    )


__all__ = ["Supervised", "SupervisedConfig", "imagenette", "imagenette_vit", "smoke"]
