"""Fine-tuning as BEiT and MAE do it (2106.08254, §3.1; 2111.06377, §A.1): all weights learn, early layers slower.

Layers are grouped as timm groups them: a final norm before the pooling learns as fast as the last block, where BEiT and
MAE have it learn as fast as the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.data import Mixup
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from zoo.encoder import Encoder
from zoo.errors import RecipeError
from zoo.families import Family
from zoo.images import MODES
from zoo.training import augment
from zoo.training.methods import Method, Step, Views
from zoo.training.optimisers import layer_decayed
from zoo.training.recipe import Optim, Recipe, Schedule
from zoo.training.tuning.trained import Task, fit, recipe_for, row_of, told_right

# Families whose grids shrink from stage to stage.
PYRAMIDS = ("swin", "pvt", "resnet")


@dataclass(frozen=True)
class FinetuneConfig:
    """Knobs of fine-tuning; defaults are MAE's for its ViT-B (Table 9), but for the layer decay (`usual_decay`)."""

    layer_decay: float = 0.75
    """How much slower than the layer above each layer learns; 1: all alike, as from random weights."""
    mixup: float = 0.8
    """Alpha of mixup (Zhang et al., 1710.09412); 0: none."""
    cutmix: float = 1.0
    """Alpha of CutMix (Yun et al., 1905.04899), which takes turns with mixup; 0: none."""
    smoothing: float = 0.1
    """Share of the target that is spread over all classes."""
    randaugment: int = 9
    """Magnitude of RandAugment's two operations, up to 10 (Cubuk et al., 1909.13719); 0: none."""
    erase: float = 0.25
    """Probability that a box of a view is filled with noise."""
    min_scale: float = 0.08
    """Smallest share of the image a crop covers."""

    def build(self, recipe: Recipe) -> Method:
        """Never: fine-tuning begins with an encoder (`FineTuning`). Raises RecipeError."""
        raise RecipeError("fine-tuning begins with a model: zoo evaluate MODEL DATA --protocol finetune")

    def check(self, recipe: Recipe) -> None:
        """RecipeError for a knob whose value cannot work in that recipe."""
        shares = {"smoothing": self.smoothing, "erase": self.erase}
        if wrong := [name for name, value in shares.items() if not 0 <= value < 1]:
            raise RecipeError(
                f"--method.{wrong[0]} is {shares[wrong[0]]}; give a share in [0, 1), such as 0.1"
            )
        above = {"layer_decay": self.layer_decay, "min_scale": self.min_scale}
        if wrong := [name for name, value in above.items() if not 0 < value <= 1]:
            raise RecipeError(
                f"--method.{wrong[0]} is {above[wrong[0]]}; give a share in (0, 1], such as 0.75"
            )
        if not 0 <= self.randaugment <= 10:
            raise RecipeError(f"--method.randaugment is {self.randaugment}; give a magnitude from 0 to 10")
        if self.mixup < 0 or self.cutmix < 0:
            raise RecipeError("--method.mixup and --method.cutmix are alphas; give 0 for none, or more")
        batch, parts = recipe.optim.batch, recipe.optim.accumulate
        if (self.mixup or self.cutmix) and batch // parts % 2:
            cut = f" in {parts} parts" if parts > 1 else ""
            raise RecipeError(f"--optim.batch is {batch}{cut}, and mixing takes pairs; give {batch + parts}")
        if self.randaugment and recipe.arch.in_chans not in MODES:
            raise RecipeError(
                f"RandAugment changes pictures of 1 or 3 channels, and these images have {recipe.arch.in_chans}; give "
                "--method.randaugment 0"
            )


class FineTuning(Method):
    """An encoder's weights, all of them trained, and a linear head on its pooled features."""

    def __init__(self, config: FinetuneConfig, recipe: Recipe, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.config, self.size, self.classes = config, recipe.data.size, classes
        self.family: Family = encoder.family
        self.transform = encoder.transform
        self.backbone = trainable(encoder, recipe.arch.drop_path)
        # A part of the backbone, so that timm groups its layers with a last one above them.
        self.backbone.add_module("classifier", new_head(encoder.dim, classes, recipe.run.seed))
        self.mix: Mixup | None = None
        if config.mixup or config.cutmix:
            self.mix = Mixup(
                config.mixup, config.cutmix, label_smoothing=config.smoothing, num_classes=classes
            )

    @property
    def head(self) -> nn.Linear:
        """(B, D) -> (B, classes)."""
        return cast(nn.Linear, self.backbone.classifier)

    def views(self) -> Views:
        """One view: random resized crop, flip, RandAugment, and a box erased."""
        config, transform = self.config, self.transform
        shown = augment.normalised(
            [
                *augment.crop_and_flip(self.size, (config.min_scale, 1.0)),
                *augment.rand_augment(config.randaugment, self.size),
            ],
            transform.mean,
            transform.std,
        )
        after = augment.random_erasing(config.erase)

        def one_view(image: Tensor, generator: Generator) -> list[Tensor]:
            with augment.all_seeded(int(torch.randint(2**63 - 1, (), generator=generator))):
                view = shown(image)
                for step in after:
                    view = step(view)
            return [view]

        return one_view

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Cross-entropy with smoothed labels, of images that are mixed in pairs. views: one (B, C, H, W)."""
        assert labels is not None  # the loop passes them where `classes` is set
        pixels, target = views[0], labels
        if self.mix is not None and self.training:
            with augment.all_seeded(int(noise[0])):
                pixels, target = self.mix(pixels.clone(), labels)  # target: (B, classes), smoothed
        logits = self.head(self.family.features(self.backbone, pixels).pooled).float()
        smoothing = self.config.smoothing if target.ndim == 1 else 0.0
        return F.cross_entropy(logits, target, label_smoothing=smoothing), {}

    def param_groups(self, optim: Optim) -> list[dict[str, Any]]:
        return layer_decayed(self.backbone, self.config.layer_decay)

    def encoder(self) -> nn.Module:
        return self.backbone


def trainable(encoder: Encoder, drop_path: float) -> nn.Module:
    """A copy of the encoder's network, in float32 and with drop path, whose weights may change."""
    card = encoder.card
    arguments = {
        **card.model_arguments,
        "drop_path_rate": drop_path,
    }  # always: timm's Swins have some of their own
    module = encoder.family.build(card.architecture, arguments, card.interpolation)
    module.load_state_dict(encoder.module.state_dict())
    return module.requires_grad_(True)


def new_head(width: int, classes: int, seed: int) -> nn.Linear:
    """A linear head near zero (MAE's standard deviation), so that every class begins as likely as the next."""
    head = nn.Linear(width, classes)
    nn.init.trunc_normal_(head.weight, std=2e-5, generator=Generator().manual_seed(seed))
    nn.init.zeros_(head.bias)
    return head


def usual_decay(task: Task) -> float:
    """Layer decay: 0.75 for plain transformers (MAE, Table 9, ViT-L), 0.85 for pyramids (UM-MAE's Swin).

    None, 1, from random weights, whose early layers have everything to learn.
    """
    if task.scratch:
        return 1.0
    return 0.85 if task.encoder.card.family in PYRAMIDS else 0.75


def finetune_recipe(task: Task) -> Recipe:
    """30 epochs of AdamW at 1e-3 for a batch of 256: BEiT's rate, fewer epochs than MAE's 100."""
    recipe = recipe_for(
        task,
        FinetuneConfig(layer_decay=usual_decay(task)),
        Optim(batch=128, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
        Schedule(epochs=30, warmup_epochs=5, final_lr=1e-6),
        images=len(task.train),
        drop_path=0.1,
    )
    cast(FinetuneConfig, recipe.method).check(recipe)
    return recipe


def finetune_rows(task: Task) -> list[dict[str, Any]]:
    """One row: top-1 of the last epoch, never the best."""
    recipe = finetune_recipe(task)
    method = FineTuning(cast(FinetuneConfig, recipe.method), recipe, task.encoder, task.classes)
    state = fit(task, method, recipe, task.train)
    told = told_right(task, method.backbone, method.head)
    return [row_of("finetune", task, task.train, [told], recipe, state.seconds / 60, **settings_of(recipe))]


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a row says of fine-tuning beyond every recipe's settings."""
    config = cast(FinetuneConfig, recipe.method)
    return {
        "layer_decay": config.layer_decay,
        "drop_path": recipe.arch.drop_path,
        "mixup": config.mixup,
        "cutmix": config.cutmix,
        "smoothing": config.smoothing,
        "randaugment": config.randaugment,
        "erase": config.erase,
    }
