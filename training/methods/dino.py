"""DINO: emerging properties in self-supervised vision transformers (Caron et al., 2104.14294).

A student matches, across crops, the sharpened and centred output of a teacher that is its own moving average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from zoo.errors import RecipeError
from zoo.training import augment
from zoo.training.backbones import backbone, blocks, check_sides, pooled, width
from zoo.training.batchnorm import GlobalBatchNorm1d
from zoo.training.methods import Method, Step, Views, ema_update
from zoo.training.recipe import Arch, Data, Optim, Recipe, Run, Schedule
from zoo.training.schedules import cosine, linear


@dataclass(frozen=True)
class DINOConfig:
    """Knobs of DINO; defaults are those of the authors' run of ViT-S/16 for 300 epochs (their README).

    Their code's own are another `teacher_temperature`, 0.04, and `norm_last_layer` True. The 800 epochs behind
    `dino_vits16` took ten local crops, shares from 0.25 and up to 0.25, a last rate of 1e-5, and no clipping.
    """

    prototypes: int = 65536
    """Width K of the head's output."""
    hidden: int = 2048
    bottleneck: int = 256
    head_norm: bool = False
    """Batch norm in the head's hidden layers: with small batches it keeps images apart from the first step on."""
    norm_last_layer: bool = False
    """Prototypes of unit norm for good, as the authors advise for larger models; otherwise each learns its length."""
    local_crops: int = 8
    local_size: int = 96
    """Pixels of a local crop."""
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07
    warmup_temperature: float = 0.04
    temperature_epochs: float = 30
    """Epochs in which the teacher's temperature rises, a step per epoch; never more than 30 % of the run."""
    momentum: float = 0.996
    """EMA of the teacher at step 0; a cosine takes it to 1."""
    centre_momentum: float = 0.9
    clip: float | None = 3.0
    """Norm that each parameter tensor's gradient, on its own, is clipped to."""
    freeze_epochs: float = 1
    """Epochs without gradients for the head's last layer; never more than a tenth of the run."""

    def build(self, recipe: Recipe) -> DINO:
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise RecipeError(
                    f"--method.{name} is {low} {high}; give two shares of the area, as in 0.4 1.0"
                )
        for name in ("student_temperature", "teacher_temperature", "warmup_temperature"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"--method.{name} is {getattr(self, name)}; give a number above 0")
        for name, least in (("prototypes", 2), ("hidden", 1), ("bottleneck", 1)):
            if getattr(self, name) < least:
                raise RecipeError(f"--method.{name} is {getattr(self, name)}; give {least} or more")
        for name in ("local_crops", "temperature_epochs", "freeze_epochs"):
            if not getattr(self, name) >= 0:
                raise RecipeError(f"--method.{name} is {getattr(self, name)}; give 0 or more")
        for name in ("momentum", "centre_momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"--method.{name} is {getattr(self, name)}; give a number in [0, 1]")
        if self.clip is not None and not self.clip > 0:
            raise RecipeError(f"--method.clip is {self.clip}; give a number above 0, or None")
        return DINO(self, recipe)


class DINOHead(nn.Module):
    """Projection head h (Appendix C): a 3-layer MLP, an L2-normalised bottleneck, K prototypes.

    norm: batch norm in the MLP. norm_last: prototypes have unit norm; otherwise a gain each, which begins with 1.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        bottleneck: int,
        prototypes: int,
        norm: bool = False,
        norm_last: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for into in (width, hidden):
            # A bias before a norm would be subtracted again.
            layers += [
                nn.Linear(into, hidden, bias=not norm),
                *([GlobalBatchNorm1d(hidden)] if norm else []),
                nn.GELU(),
            ]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.last_layer = nn.Parameter(torch.empty(prototypes, bottleneck))
        # torch's own default for a Linear layer; only the direction matters, each row is normalised in forward.
        nn.init.kaiming_uniform_(self.last_layer, a=5**0.5)
        # A column, so that it decays as the authors' does.
        self.last_gain = None if norm_last else nn.Parameter(torch.ones(prototypes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> logits (B, K), each the cosine of the bottleneck and a prototype, times its gain."""
        z = F.normalize(self.mlp(x), dim=-1)
        if self.last_gain is None and len(z) >= self.last_layer.shape[1]:
            return F.linear(z, F.normalize(self.last_layer, dim=-1))
        # The products are scaled anyway, or are fewer numbers than the prototypes.
        length = torch.linalg.vector_norm(self.last_layer, dim=-1).clamp(min=1e-12)  # (K,)
        gain: Tensor = 1 / length if self.last_gain is None else self.last_gain[:, 0] / length
        return F.linear(z, self.last_layer) * gain


class DINO(Method):
    """Algorithm 1, with multi-crop."""

    centre: Tensor

    def __init__(self, config: DINOConfig, recipe: Recipe) -> None:
        super().__init__()
        self.config, self.size, self.statistics = config, recipe.data.size, recipe.statistics
        self.student = backbone(recipe.arch, drop_path=recipe.arch.drop_path)
        self.teacher = backbone(recipe.arch)
        check_sides(recipe, self.student, local_size=config.local_size)
        self.student_head, self.teacher_head = (
            DINOHead(
                width(self.student),
                config.hidden,
                config.bottleneck,
                config.prototypes,
                config.head_norm,
                config.norm_last_layer,
            )
            for _ in range(2)
        )
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher_head.load_state_dict(self.student_head.state_dict())
        self.teacher.requires_grad_(False)
        self.teacher_head.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(config.prototypes))
        self._teacher_means: list[Tensor] = []  # (K,) of each part of this step's batch

    def views(self) -> Views:
        """Two global crops and the local ones (§3.1, "Implementation details"; BYOL's colours)."""
        first, second = augment.two_globals(self.size, self.config.global_scale, (), *self.statistics)
        part = augment.crop_and_flip(self.config.local_size, self.config.local_scale)
        colours = augment.colour_distortion(0.4, 0.4, 0.2, 0.1)
        # As strong in pixels as in the global crops: the authors blur 224- and 96-pixel crops alike.
        local = augment.normalised([*part, *colours, *augment.blur(self.size, 0.5)], *self.statistics)
        transforms = [first, second, *[local] * self.config.local_crops]

        def crops(image: Tensor, generator: Generator) -> list[Tensor]:
            return [augment.seeded(transform, image, generator) for transform in transforms]

        return crops

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Cross-entropy between the teacher's view and every other view of the student (Equation 3).

        views: two global crops (B, C, H, W), then local ones (B, C, h, w).
        """
        batch = len(views[0])
        with torch.no_grad():
            seen = pooled(self.teacher, torch.cat(views[:2]))  # (2B, D)
            teacher = self.teacher_head(seen).float()  # (2B, K)
        features = [pooled(self.student, torch.cat(views[:2]))]
        if views[2:]:
            features.append(pooled(self.student, torch.cat(views[2:])))
        student = self.student_head(torch.cat(features)).float()  # (crops * B, K)

        temperature = self.temperature(step)
        targets = F.softmax((teacher - self.centre) / temperature, dim=-1).unflatten(0, (-1, batch))
        guesses = F.log_softmax(student / self.config.student_temperature, dim=-1).unflatten(0, (-1, batch))
        loss = pairwise_cross_entropy(targets, guesses)
        self._teacher_means.append(teacher.mean(dim=0))
        entropy = -(targets * targets.clamp(min=1e-12).log()).sum(-1).mean()
        return loss, {
            "teacher_entropy": entropy.detach(),
            "teacher_temperature": temperature,
            "prototypes": targets.mean((0, 1)),
            "chance": math.log(self.config.prototypes),
            "features": seen[:batch],
        }

    def temperature(self, step: Step) -> float:
        """Teacher temperature: constant within an epoch, rising linearly over the first epochs."""
        epoch, rising = int(step.epoch), round(min(self.config.temperature_epochs, 0.3 * step.epochs))
        if epoch >= rising:
            return self.config.teacher_temperature
        return linear(
            epoch, max(rising - 1, 1), self.config.warmup_temperature, self.config.teacher_temperature
        )

    def momentum(self, step: Step) -> float:
        """EMA momentum of the teacher."""
        return cosine(step.index, step.total, self.config.momentum, 1.0)

    def frozen(self, step: Step) -> bool:
        """Whether the head's last layer stays as it is."""
        return step.epoch < min(self.config.freeze_epochs, 0.1 * step.epochs)

    def before_step(self, step: Step) -> None:
        """Clip each tensor's gradient on its own, then drop the last layer's in the first epoch."""
        if self.config.clip is not None:
            clip_each(self, self.config.clip)
        if self.frozen(step):
            self.student_head.last_layer.grad = None
            if self.student_head.last_gain is not None:
                self.student_head.last_gain.grad = None

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        """Move the teacher towards the student, and the centre towards the teacher's mean output."""
        momentum = self.momentum(step)
        ema_update(self.teacher, self.student, momentum)
        ema_update(self.teacher_head, self.student_head, momentum)
        mean = torch.stack(self._teacher_means).mean(0)  # forward comes first
        self._teacher_means.clear()
        if dist.is_initialized():
            dist.all_reduce(mean)
            mean = mean / dist.get_world_size()
        self.centre.lerp_(mean, 1 - self.config.centre_momentum)

    def encoder(self) -> nn.Module:
        return self.teacher

    def start_from(self, encoder: dict[str, Tensor], decoder: dict[str, Tensor] | None) -> None:
        """Student and teacher begin alike."""
        self.student.load_state_dict(encoder)
        self.teacher.load_state_dict(encoder)

    def compiled(self) -> list[nn.Module]:
        return [*blocks(self.student), *blocks(self.teacher)]

    def card(self) -> dict[str, Any]:
        return {"kind": "discriminative", "approach": "distillation"}


def pairwise_cross_entropy(targets: Tensor, guesses: Tensor) -> Tensor:
    """Mean of H(target t, guess v) over all pairs t != v. targets: (T, B, K); guesses: (V, B, K) log-probabilities."""
    with torch.autocast(targets.device.type, enabled=False):  # which would round a loss near ln K to 0.03
        pairs = -torch.einsum("tbk,vbk->tv", targets, guesses) / targets.shape[1]
    other = ~torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs[other].mean()


def clip_each(module: nn.Module, limit: float) -> None:
    """Clip the norm of each parameter's gradient on its own, as the authors do; not the norm of all together."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if not gradients:
        return
    norms = torch._foreach_norm(gradients)
    scales = [(limit / (norm + 1e-6)).clamp(max=1.0) for norm in norms]
    torch._foreach_mul_(gradients, scales)


def imagenet() -> Recipe:
    """ViT-S/16, 2×224 and 8×96 px, 300 epochs, the authors'; 73.3 % k-NN (theirs, 2.6 days on 16 GPUs).

    Eight GPUs and five days, by our estimate: never run here.

    zoo train dino/imagenet DATA --out runs/dino_vits16
    """
    return Recipe(
        method=DINOConfig(momentum=0.996),
        arch=Arch("vit_small_patch16_224", size=224, drop_path=0.1),
        data=Data(size=224, cache=False, side=512, workers=12),
        optim=Optim(batch=1024, lr=5e-4, betas=(0.9, 0.999), weight_decay=0.04, weight_decay_end=0.4),
        schedule=Schedule(epochs=300, warmup_epochs=10, final_lr=1e-6),
        run=Run(precision="bf16"),
    )


def imagenette() -> Recipe:
    """ViT-Tiny/16, 2×80 and 4×32 px: sized for two CPU cores.

    67 minutes on one CPU core, shared, from a masked autoencoder's weights: 53.7 % k-NN and 64.4 % linear on Imagenette
    (untrained 29.9 and 37.2). From random weights these epochs were not tried: expect to need more.

    zoo train dino/imagenette DATA --init mae_vitt16_imagenette --out runs/dino_vitt16_imagenette
    """
    return Recipe(
        method=DINOConfig(
            prototypes=1024,
            hidden=1024,
            head_norm=True,
            norm_last_layer=True,
            local_crops=4,
            local_size=32,
            teacher_temperature=0.04,
            momentum=0.99,
        ),
        arch=Arch("vit_tiny_patch16_224", size=128),
        data=Data(size=80),
        optim=Optim(batch=32, lr=4e-3, betas=(0.9, 0.999), weight_decay=0.04, weight_decay_end=0.4),
        schedule=Schedule(epochs=16, warmup_epochs=1, final_lr=1e-6),
        run=Run(precision="bf16"),
    )


def no_multicrop() -> Recipe:
    """Algorithm 1 of the paper, to the letter: two 224-px views, no local crops, no clipping; 100 epochs.

    Eight GPUs and a day, by our estimate: never run here.

    zoo train dino/no_multicrop DATA --out runs/dino_no_multicrop
    """
    return Recipe(
        method=DINOConfig(local_crops=0, global_scale=(0.14, 1.0), teacher_temperature=0.04, clip=None),
        arch=Arch("vit_small_patch16_224", size=224, drop_path=0.1),
        data=Data(size=224, cache=False, side=512, workers=12),
        optim=Optim(batch=1024, lr=5e-4, betas=(0.9, 0.999), weight_decay=0.04, weight_decay_end=0.4),
        schedule=Schedule(epochs=100, warmup_epochs=10, final_lr=1e-6),
        run=Run(precision="bf16"),
    )


def imagenet_resnet50() -> Recipe:
    """ResNet-50, 2×224 and 8×96 px, 100 epochs, the authors' README; 67.5 % k-NN (their longest).

    Eight GPUs and two days, by our estimate: never run here.

    zoo train dino/imagenet_resnet50 DATA --out runs/dino_resnet50
    """
    return Recipe(
        method=DINOConfig(
            teacher_temperature=0.04, norm_last_layer=True, global_scale=(0.14, 1.0), local_scale=(0.05, 0.14)
        ),
        arch=Arch("resnet50", family="resnet", size=224, pooling="avg"),
        data=Data(size=224, cache=False, side=512, workers=12),
        optim=Optim(batch=512, lr=0.03, kind="sgd", weight_decay=1e-4),
        schedule=Schedule(epochs=100, warmup_epochs=10, final_lr=1e-6),
        run=Run(precision="bf16"),
    )


def smoke() -> Recipe:
    """ViT-Tiny/16, 2×64 and 2×32 px, one epoch of 512 images: seconds on a CPU. It proves the path, no more.

    zoo train dino/smoke DATA --out runs/dino_smoke
    """
    return Recipe(
        method=DINOConfig(
            prototypes=256,
            hidden=256,
            bottleneck=64,
            norm_last_layer=True,
            local_crops=2,
            local_size=32,
            teacher_temperature=0.04,
            momentum=0.99,
        ),
        arch=Arch("vit_tiny_patch16_224", size=64),
        data=Data(size=64, side=80, limit=512, workers=0),
        optim=Optim(batch=32, lr=2e-3, betas=(0.9, 0.999), weight_decay=0.04, weight_decay_end=0.4),
        schedule=Schedule(epochs=1, warmup_epochs=0.1, final_lr=1e-6),
    )


__all__ = [
    "DINO",
    "DINOConfig",
    "DINOHead",
    "imagenet",
    "imagenet_resnet50",
    "imagenette",
    "no_multicrop",
    "smoke",
]
