"""UM-MAE: uniform masking, masked autoencoders for pyramid vision transformers (Li et al., 2205.10063).

One random patch of every 2×2 stays (uniform sampling, §3.1), so that the visible ones laid side by side are an image of
half the side, which a pyramid can take; a share of them hides behind a mask token (secondary masking, §3.2), for a
quarter so evenly spread makes the task too easy.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from zoo.cards import DecoderSpec
from zoo.cells import PATCH, check_halves
from zoo.decoders import ummae
from zoo.errors import MaskError, RecipeError, Unsupported
from zoo.families import family
from zoo.masking import as_seeds, draw_mask, visible_indices
from zoo.patches import grid_of, normalise_patches, patchify, take
from zoo.training import augment
from zoo.training.backbones import backbone, blocks, check_family, check_hidden, check_sides
from zoo.training.methods import Method, Step, Views, light_decoder, masked_card
from zoo.training.methods.mae import MAEConfig, initialise_encoder
from zoo.training.recipe import Arch, Data, Optim, Recipe, Run, Schedule


@dataclass(frozen=True)
class UMMAEConfig(MAEConfig):
    """Knobs of UM-MAE; defaults are the paper's (§4.1). `grid`, `uniform` and `random` are its GS, US and RS."""

    decoder_depth: int = 2
    strategy: Literal["uniform", "grid", "random"] = "uniform"
    """How patches are hidden; a pyramid takes `uniform` or `grid`."""
    secondary: float = 0.25
    """Share of the visible patches that a mask token replaces; 0 for none."""

    def build(self, recipe: Recipe) -> Method:
        self.check()
        if not 0 <= self.secondary < 1:
            raise RecipeError(
                f"--method.secondary is {self.secondary}; give a share in [0, 1), such as 0.25, or 0 for none"
            )
        return UMMAE(self, recipe)


class UMMAE(Method):
    """Uniform sampling, secondary masking, encoder and decoder (§3). Reconstruction goes the same way."""

    def __init__(self, config: UMMAEConfig, recipe: Recipe) -> None:
        super().__init__()
        self.config, self.size, self.statistics = config, recipe.data.size, recipe.statistics
        check_family(recipe, "ummae", "vit", "swin", "pvt")
        self.family: Any = family(recipe.arch.family)
        self.backbone = backbone(recipe.arch, drop_path=recipe.arch.drop_path)
        check_sides(recipe, self.backbone)
        patch = self.family.stride(self.backbone) if recipe.arch.family == "vit" else PATCH
        self.spec = light_decoder(
            "ummae", config, patch, strategy=config.strategy, secondary=config.secondary or None
        )
        try:
            self.pixels = ummae.build(self.spec, self.backbone)
        except Unsupported as error:
            raise RecipeError(f"{error}. --arch.name is {recipe.arch.name}") from error
        check_masks(self.spec, self.backbone, recipe)
        if isinstance(self.backbone, VisionTransformer):  # the pyramids begin as the authors do by themselves
            initialise_encoder(self.backbone)

    def views(self) -> Views:
        """One view: random resized crop and flip, no colour changes, as MAE's."""
        return augment.one_view(self.size, self.config.min_scale, *self.statistics)

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Mean squared error on the hidden patches; those of the secondary mask do not count."""
        (pixels,) = views  # (B, C, H, W)
        patch, seeds = self.spec.patch, as_seeds(noise.tolist())
        grid = grid_of(pixels.shape[-2], pixels.shape[-1], patch)
        hidden = draw_mask(self.spec.strategy, grid, seeds, self.spec.ratio)
        masks = ummae.settle(self.spec, self.backbone, hidden, self.spec.secondary, seeds).to(pixels.device)
        tokens, seen = ummae.encode(self.family, self.backbone, self.pixels, pixels, masks)
        asked = visible_indices(~masks.hidden)  # (B, K)
        predicted = ummae.decode(self.pixels, tokens, seen, masks.hidden, asked).float()  # (B, K, P*P*C)
        target = take(patchify(pixels, patch), asked)
        if self.spec.normalised_targets:
            target = normalise_patches(target)
        loss = ummae.error(predicted, target, torch.ones_like(asked, dtype=torch.bool)).mean()
        return loss, {"features": tokens.flatten(1, -2).mean(1).detach()}

    def encoder(self) -> nn.Module:
        return self.backbone

    def decoder(self) -> nn.Module:
        return self.pixels

    def card(self) -> dict[str, Any]:
        return masked_card(self.spec)

    def compiled(self) -> list[nn.Module]:
        return [*blocks(self.backbone), *self.pixels.blocks]


def check_masks(spec: DecoderSpec, module: nn.Module, recipe: Recipe) -> None:
    """RecipeError for masks that the encoder cannot take or that images of the recipe's sizes cannot have."""
    strategy = f"--method.strategy {spec.strategy}"
    for knob, side in {"--data.size": recipe.data.size, "--arch.size": recipe.arch.size}.items():
        try:
            ummae.check_strategy(spec, module, spec.strategy)
            if recipe.arch.family != "vit":
                check_halves(side, side, family(recipe.arch.family).stride(module))
        except MaskError as error:
            raise RecipeError(f"{error}. {knob} is {side}, {strategy}") from error
    check_hidden(recipe, spec.strategy, spec.ratio, spec.patch, strategy)


def imagenet() -> Recipe:
    """Swin-T at 256 px, 200 epochs: the paper's §4.1. Eight GPUs, 25 hours; 82.04 % fine-tuned (theirs).

    Never run here.

    zoo train ummae/imagenet DATA --out runs/ummae_swint
    """
    return Recipe(
        method=UMMAEConfig(),
        arch=Arch("ssl_zoo_ummae_swin_tiny", family="swin", size=256, pooling="avg"),
        data=Data(size=256, cache=False, side=512, workers=12),
        optim=Optim(batch=4096, lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=Schedule(epochs=200, warmup_epochs=10),
        run=Run(precision="bf16"),
    )


def imagenette() -> Recipe:
    """A small Swin at 128 px on raw pixels, so that its pictures owe nothing to the hidden patches.

    58 minutes on one CPU core: 38.7 % k-NN on Imagenette (untrained 34.1), error on hidden pixels 0.52 of the mean
    colour's (a smooth fill 0.63).

    zoo train ummae/imagenette DATA --out runs/ummae_swinmicro_imagenette
    """
    return Recipe(
        method=UMMAEConfig(decoder_width=192, decoder_heads=6, normalised_targets=False),
        arch=Arch("ssl_zoo_ummae_swin_micro", family="swin", size=128, pooling="avg"),
        data=Data(size=128),
        optim=Optim(batch=64, lr=3.2e-3, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=Schedule(epochs=20, warmup_epochs=2),
        run=Run(precision="bf16"),
    )


def imagenette_pvt() -> Recipe:
    """A small PVT at 128 px on raw pixels: one CPU core; no result yet.

    zoo train ummae/imagenette_pvt DATA --out runs/ummae_pvtmicro_imagenette
    """
    return dataclasses.replace(
        imagenette(), arch=Arch("ssl_zoo_ummae_pvt_micro", family="pvt", size=128, pooling="avg")
    )


def smoke() -> Recipe:
    """A small Swin at 128 px, one epoch of 512 images: seconds on a CPU. It proves the path, no more.

    zoo train ummae/smoke DATA --out runs/ummae_smoke
    """
    return Recipe(
        method=UMMAEConfig(decoder_width=48, decoder_depth=1, decoder_heads=3, normalised_targets=False),
        arch=Arch("ssl_zoo_ummae_swin_micro", family="swin", size=128, pooling="avg"),
        data=Data(size=128, side=144, limit=512, workers=0),
        optim=Optim(batch=64, lr=2e-3),
        schedule=Schedule(epochs=1, warmup_epochs=0.1),
    )


__all__ = ["UMMAE", "UMMAEConfig", "check_masks", "imagenet", "imagenette", "imagenette_pvt", "smoke"]
