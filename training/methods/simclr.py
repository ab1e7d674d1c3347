"""SimCLR: a simple framework for contrastive learning of visual representations (Chen et al., 2002.05709).

Two views of one image attract each other; every other view of the batch, of all processes, is pushed away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from zoo.errors import RecipeError
from zoo.training import augment
from zoo.training.backbones import backbone, blocks, check_sides, pooled, width
from zoo.training.heads import mlp
from zoo.training.methods import Method, Step, Views
from zoo.training.processes import gather_over_processes, rank, world
from zoo.training.recipe import Arch, Data, Optim, Recipe, Run, Schedule, check_crops


@dataclass(frozen=True)
class SimCLRConfig:
    """Knobs of SimCLR; defaults are the paper's for ImageNet (§2 and Appendix A)."""

    temperature: float = 0.1
    hidden: int = 2048
    """Width of the head's hidden layers."""
    out: int = 128
    """Width of z, which the loss compares."""
    layers: int = 2
    """Linear layers of the head g: 2 in the paper, 3 in SimCLR v2 and as the authors' code has it since."""
    strength: float = 1.0
    """Strength s of the colour distortion."""
    blur: float = 0.5
    """Probability that a view is blurred."""
    min_scale: float = 0.08
    """Smallest share of the image a crop covers."""
    removed: tuple[Literal["flip", "colour", "grey", "blur"], ...] = ()
    """Transformations left out of the views: any of flip, colour, grey, blur."""

    def build(self, recipe: Recipe) -> SimCLR:
        if not self.temperature > 0:
            raise RecipeError(
                f"--method.temperature is {self.temperature}; give a number above 0, such as 0.1"
            )
        for name in ("hidden", "out", "layers"):
            if getattr(self, name) < 1:
                raise RecipeError(f"--method.{name} is {getattr(self, name)}; give 1 or more")
        check_crops(self)
        if not 0 <= self.blur <= 1:
            raise RecipeError(f"--method.blur is {self.blur}; give a probability, such as 0.5")
        # Hue turns by at most half the circle, 0.2 of it at s = 1.
        if not 0 <= self.strength <= 2.5:
            raise RecipeError(f"--method.strength is {self.strength}; give a number from 0 to 2.5, such as 1")
        return SimCLR(self, recipe)


class SimCLR(Method):
    """Algorithm 1."""

    def __init__(self, config: SimCLRConfig, recipe: Recipe) -> None:
        super().__init__()
        self.config, self.size, self.statistics = config, recipe.data.size, recipe.statistics
        self.backbone = backbone(recipe.arch, drop_path=recipe.arch.drop_path)
        check_sides(recipe, self.backbone)
        hidden = [config.hidden] * (config.layers - 1)
        self.projector = mlp(width(self.backbone), *hidden, config.out, last="scaled")

    def views(self) -> Views:
        """Two views of one distribution: crop, flip, colour distortion, blur (Appendix A)."""
        config, s = self.config, self.config.strength
        view = augment.normalised(
            augment.without(
                config.removed,
                augment.crop_and_flip(self.size, (config.min_scale, 1.0)),
                augment.colour_distortion(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s),
                augment.blur(self.size, config.blur),
            ),
            *self.statistics,
        )

        def pair(image: Tensor, generator: Generator) -> list[Tensor]:
            return [augment.seeded(view, image, generator) for _ in range(2)]

        return pair

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """NT-Xent, and the lower bound log N - L on the views' mutual information, in nats.

        views: two (B, C, H, W). N counts the positive and every negative: 2 B - 1 of the global batch.
        """
        h = pooled(self.backbone, torch.cat(views))  # (2B, D)
        first, second = self.projector(h).float().chunk(2)  # (B, out) each
        loss = nt_xent(first, second, self.config.temperature)
        chance = math.log(2 * len(first) * world() - 1)
        return loss, {
            "mutual_information": chance - loss.detach(),
            "chance": chance,
            "features": h[: len(first)].detach(),
        }

    def encoder(self) -> nn.Module:
        return self.backbone

    def compiled(self) -> list[nn.Module]:
        return blocks(self.backbone)

    def card(self) -> dict[str, Any]:
        return {"kind": "discriminative", "approach": "contrastive"}


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy (Equation 1), the mean over this process's 2B anchors.

    The authors' code adds the means of both directions, which is twice this.

    first, second: (B, D), two views of the same images. Candidates are the 2B - 1 other views of the global batch.
    """
    images = len(first)
    pairs = F.normalize(torch.stack([first, second]), dim=-1)  # (2, B, D)
    everyone = gather_over_processes(pairs.transpose(0, 1)).transpose(0, 1).flatten(0, 1)  # (2 B of all, D)
    with torch.autocast(pairs.device.type, enabled=False):  # half precision would round similarities
        logits = pairs.flatten(0, 1) @ everyone.T / temperature
    own = rank() * images + torch.arange(images, device=logits.device)
    itself = torch.cat([own, own + len(everyone) // 2])
    logits = logits.scatter(1, itself[:, None], -torch.inf)
    return F.cross_entropy(logits, itself.roll(images))  # the other view of the same image


def imagenet() -> Recipe:
    """ResNet-50, batches of 4,096, 1,000 epochs: the paper's §4; 69.3 % linear (theirs).

    Eight 80-GB GPUs and days, by our estimate: never run here.

    zoo train simclr/imagenet DATA --out runs/simclr_resnet50
    """
    return Recipe(
        method=SimCLRConfig(),
        arch=Arch("resnet50", family="resnet", size=224, pooling="avg"),
        data=Data(size=224, cache=False, side=512, workers=12),
        # 1e-6 is the paper's (§2.2); the authors' published command decays by 1e-4.
        optim=Optim(batch=4096, lr=0.3, kind="lars", weight_decay=1e-6),
        schedule=Schedule(epochs=1000, warmup_epochs=10),
        run=Run(precision="bf16"),
    )


def imagenette() -> Recipe:
    """ResNet-18 at 128 px, 200 epochs: one GPU, or patience; no result yet.

    A temperature of 0.5 and half the colours, as small images want them (Appendix B.9); SGD, rate, decay and head are
    those of lightly's Imagenette benchmark.

    zoo train simclr/imagenette DATA --out runs/simclr_resnet18_imagenette
    """
    return Recipe(
        method=SimCLRConfig(temperature=0.5, hidden=512, strength=0.5),
        arch=Arch("resnet18", family="resnet", size=128, pooling="avg"),
        data=Data(size=128),
        optim=Optim(batch=256, lr=0.06, kind="sgd", weight_decay=5e-4),
        schedule=Schedule(epochs=200, warmup_epochs=0),
    )


def imagenette_small() -> Recipe:
    """ResNet-18 on crops of 64 px: hours of a CPU core; no result yet.

    AdamW, as in `zoo study methods`. Objects look larger in a crop than in a whole photo, so the encoder is made for
    96 px.

    zoo train simclr/imagenette_small DATA --out runs/simclr_resnet18_imagenette_small
    """
    return Recipe(
        method=SimCLRConfig(temperature=0.5, hidden=512, strength=0.5, min_scale=0.2),
        arch=Arch("resnet18", family="resnet", size=96, pooling="avg"),
        data=Data(size=64, side=112),
        optim=Optim(batch=128, lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05),
        schedule=Schedule(epochs=24, warmup_epochs=1, final_lr=1e-6),
    )


def smoke() -> Recipe:
    """ViT-Tiny/16 at 64 px, one epoch of 512 images: seconds on a CPU. It proves the path, no more.

    zoo train simclr/smoke DATA --out runs/simclr_smoke
    """
    return Recipe(
        method=SimCLRConfig(temperature=0.5, hidden=256, out=64, strength=0.5),
        arch=Arch("vit_tiny_patch16_224", size=64),
        data=Data(size=64, side=80, limit=512, workers=0),
        optim=Optim(batch=32, lr=2e-3, betas=(0.9, 0.999), weight_decay=0.04),
        schedule=Schedule(epochs=1, warmup_epochs=0.1),
    )


__all__ = ["SimCLR", "SimCLRConfig", "imagenet", "imagenette", "imagenette_small", "nt_xent", "smoke"]
