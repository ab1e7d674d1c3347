"""SimCLR, BYOL, DINO and MAE from lightly's and timm's parts, in a plain loop: the rivals of our own steps.

Written as lightly's guides put the parts together: views that share a network go through it together where the method's
statistics permit, and MAE predicts hidden patches alone. Layout and AdamW are torch's own, as the guides write them, or
tuned as ours are: channels side by side, and one fused kernel for all of AdamW's arithmetic. What lightly does not
decide is as in the recipe: network, widths, schedules, clipping, which parameters decay, optimiser. Under autocast a
loss is computed in float32, as ours are. Nothing is compiled, as in our recipes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss
from lightly.models import utils
from lightly.models.modules import MaskedVisionTransformerTIMM, heads
from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
from torch import Tensor, nn

from zoo.training.engine import set_rates
from zoo.training.methods import Method, Step
from zoo.training.methods.dino import clip_each
from zoo.training.optimisers import build_optimizer
from zoo.training.precision import has_bf16
from zoo.training.recipe import Recipe


class Rival(nn.Module):
    """Networks and a loss; the loop is `PlainLoop`."""

    def encoder(self) -> nn.Module:
        """The network that is kept when training ends."""
        return self.get_submodule("backbone")

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Begin with an encoder's weights."""
        self.encoder().load_state_dict(weights)

    def forward(self, views: list[Tensor]) -> Tensor:
        """The loss of views (B, 3, H, W)."""
        raise NotImplementedError

    def follow(self, method: Any, step: Step) -> None:
        """Take what has a schedule from our method, as it is at that step."""

    def before_step(self) -> None:
        """After backward, before the optimiser."""

    def after_step(self) -> None:
        """After the optimiser."""


def exact(criterion: Callable[..., Tensor], *given: Tensor | list[Tensor]) -> Tensor:
    """A loss in float32, whatever the networks computed in."""
    wide = [[each.float() for each in one] if isinstance(one, list) else one.float() for one in given]
    with torch.autocast("cpu", enabled=False):
        return criterion(*wide)


class SimCLR(Rival):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        config: Any = recipe.method
        self.backbone = network(recipe, recipe.arch.drop_path)
        self.head = heads.SimCLRProjectionHead(
            self.backbone.num_features, config.hidden, config.out, num_layers=config.layers
        )
        self.criterion = NTXentLoss(temperature=config.temperature)

    def forward(self, views: list[Tensor]) -> Tensor:
        return exact(self.criterion, *self.head(self.backbone(torch.cat(views))).chunk(2))


class BYOL(Rival):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        config: Any = recipe.method
        self.online = self.encoder_and_head(recipe, recipe.arch.drop_path)
        self.predictor = heads.BYOLPredictionHead(config.out, config.hidden, config.out)
        self.target = self.encoder_and_head(recipe, 0.0)
        freeze_as(self.target, self.online)
        self.criterion = NegativeCosineSimilarity()

    def encoder(self) -> nn.Module:
        return self.online.get_submodule("0")

    def start_from(self, weights: dict[str, Tensor]) -> None:
        super().start_from(weights)
        freeze_as(self.target, self.online)

    @staticmethod
    def encoder_and_head(recipe: Recipe, drop_path: float) -> nn.Module:
        config: Any = recipe.method
        backbone = network(recipe, drop_path)
        head = heads.BYOLProjectionHead(backbone.num_features, config.hidden, config.out)
        return nn.Sequential(backbone, head)

    def forward(self, views: list[Tensor]) -> Tensor:
        guesses = [self.predictor(self.online(view)) for view in views]
        with torch.no_grad():
            targets = [self.target(view) for view in views]
        pairs = zip(guesses, reversed(targets), strict=True)
        return torch.stack([exact(self.criterion, *pair) for pair in pairs]).sum()

    def follow(self, method: Any, step: Step) -> None:
        self.momentum = method.momentum(step)

    def after_step(self) -> None:
        utils.update_momentum(self.online, self.target, m=self.momentum)


class DINO(Rival):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        config: Any = recipe.method
        self.clip = config.clip
        self.student = self.encoder_and_head(recipe, recipe.arch.drop_path)
        self.teacher = self.encoder_and_head(recipe, 0.0)
        freeze_as(self.teacher, self.student)
        self.criterion = DINOLoss(
            config.prototypes,
            teacher_temp=config.teacher_temperature,
            student_temp=config.student_temperature,
            center_momentum=config.centre_momentum,
        )

    def encoder(self) -> nn.Module:
        return self.teacher.get_submodule("0")

    def start_from(self, weights: dict[str, Tensor]) -> None:
        self.student.get_submodule("0").load_state_dict(weights)
        freeze_as(self.teacher, self.student)

    @staticmethod
    def encoder_and_head(recipe: Recipe, drop_path: float) -> nn.Module:
        config: Any = recipe.method
        backbone = network(recipe, drop_path)
        sizes = (backbone.num_features, config.hidden, config.bottleneck, config.prototypes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch's older weight norm
            head = heads.DINOProjectionHead(
                *sizes, batch_norm=config.head_norm, norm_last_layer=config.norm_last_layer
            )
        return nn.Sequential(backbone, head)

    def forward(self, views: list[Tensor]) -> Tensor:
        large = torch.cat(views[:2])
        with torch.no_grad():
            targets = self.teacher(large).chunk(2)
        backbone, head = self.student
        seen = [backbone(large), *([backbone(torch.cat(views[2:]))] if views[2:] else [])]
        guesses = head(torch.cat(seen)).chunk(len(views))  # all crops at once, for its batch norm's sake
        criterion = partial(self.criterion, teacher_temp=self.temperature)
        return exact(criterion, [*targets], [*guesses])

    def follow(self, method: Any, step: Step) -> None:
        self.momentum, self.temperature, self.frozen = (
            each(step) for each in (method.momentum, method.temperature, method.frozen)
        )

    def before_step(self) -> None:
        if self.clip is not None:
            clip_each(self.student, self.clip)
        if self.frozen:
            self.student[1].last_layer.zero_grad(set_to_none=True)

    def after_step(self) -> None:
        utils.update_momentum(self.student, self.teacher, m=self.momentum)


class MAE(Rival):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        config: Any = recipe.method
        vit = network(recipe, recipe.arch.drop_path)
        self.config, self.patch = config, vit.patch_embed.patch_size[0]
        self.backbone = MaskedVisionTransformerTIMM(vit)
        self.tokens = self.backbone.sequence_length  # 1 + N
        self.embed = nn.Linear(vit.embed_dim, config.decoder_width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=vit.patch_embed.num_patches,
            embed_dim=config.decoder_width,
            depth=config.decoder_depth,
            num_heads=config.decoder_heads,
        )
        self.head = nn.Linear(config.decoder_width, 3 * self.patch**2)

    def encoder(self) -> nn.Module:
        return self.backbone.vit

    def forward(self, views: list[Tensor]) -> Tensor:
        (pixels,) = views
        size = (len(pixels), self.tokens)
        kept, hidden = utils.random_token_mask(size, mask_ratio=self.config.ratio, device=pixels.device)
        seen = self.embed(self.backbone.encode(pixels, idx_keep=kept))
        blank = utils.repeat_token(self.decoder.mask_token, size)
        decoded = self.decoder(utils.set_at_index(blank, kept, seen))
        guess = self.head(utils.get_at_index(decoded, hidden))
        # Masks count the class token; patches do not.
        target = utils.get_at_index(utils.patchify(pixels, self.patch), hidden - 1)
        if self.config.normalised_targets:
            target = utils.normalize_mean_var(target)
        return exact(nn.functional.mse_loss, guess, target)


RIVALS: dict[str, type[Rival]] = {"simclr": SimCLR, "byol": BYOL, "dino": DINO, "mae": MAE}


@dataclass
class PlainLoop:
    """One of them with its optimiser. ours: our method on no device, which tells the schedules.

    bf16: whether networks compute under autocast to bfloat16, else in float32.
    """

    rival: Rival
    optimizer: torch.optim.Optimizer
    ours: Method
    bf16: bool

    @classmethod
    def of(cls, method: str, recipe: Recipe, *, tuned: bool = False) -> PlainLoop:
        """tuned: what ours does with memory and arithmetic, the rival does too."""
        rival = RIVALS[method](recipe).train()
        trained = [p for p in rival.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "decays": True},
            {"params": [p for p in trained if p.ndim <= 1], "decays": False},
        ]
        if tuned and recipe.arch.family == "resnet":
            rival.to(memory_format=torch.channels_last)
        optimizer: torch.optim.Optimizer
        if tuned or recipe.optim.kind != "adamw":
            optimizer = build_optimizer(groups, recipe.optim)
        else:
            optimizer = torch.optim.AdamW(groups, betas=recipe.optim.betas)
        if recipe.run.precision not in ("no", "bf16"):
            raise SystemExit(f"the plain loop computes in float32 or bf16, not in {recipe.run.precision}")
        with torch.device("meta"):
            ours = recipe.method.build(recipe)
        return cls(rival, optimizer, ours, recipe.run.precision == "bf16" and has_bf16())

    def follow(self, recipe: Recipe, step: Step) -> None:
        """Set what has a schedule as the recipe has it at that step."""
        set_rates(self.optimizer, recipe, step)
        self.rival.follow(self.ours, step)

    def step(self, views: list[Tensor]) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.rival(views)
        loss.backward()
        self.rival.before_step()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.rival.after_step()
        return float(loss.detach())


def network(recipe: Recipe, drop_path: float) -> Any:
    """timm's, with pooled features for an output."""
    arch = recipe.arch
    return timm.create_model(arch.name, num_classes=0, drop_path_rate=drop_path, **arch.arguments())


def freeze_as(teacher: nn.Module, student: nn.Module) -> None:
    """Begin alike, and never be trained."""
    teacher.load_state_dict(student.state_dict())
    utils.deactivate_requires_grad(teacher)
