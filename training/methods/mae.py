"""MAE: masked autoencoders are scalable vision learners (He et al., 2111.06377).

The encoder sees the visible quarter of the patches; a small decoder predicts the pixels of the hidden ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from zoo.decoders.mae import MAEDecoder
from zoo.errors import RecipeError
from zoo.families import vit
from zoo.masking import draw_mask, visible_indices
from zoo.patches import grid_of, hidden_error, normalise_patches, patchify, take
from zoo.positions import sincos_positions
from zoo.training import augment
from zoo.training.backbones import check_family, check_hidden, check_sides
from zoo.training.methods import Method, Step, Views, light_decoder, masked_card
from zoo.training.recipe import Arch, Data, Optim, Recipe, Run, Schedule, check_crops


@dataclass(frozen=True)
class MAEConfig:
    """Knobs of MAE; defaults are the paper's (§4, Table 1)."""

    ratio: float = 0.75
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    normalised_targets: bool = True
    """Predict each patch after normalising it by its own mean and variance (`norm_pix_loss`)."""
    min_scale: float = 0.2
    """Smallest share of the image a crop covers."""

    def build(self, recipe: Recipe) -> Method:
        self.check()
        return MAE(self, recipe)

    def check(self) -> None:
        """RecipeError for a number that cannot be."""
        counts = ("decoder_width", "decoder_depth", "decoder_heads")
        if wrong := [name for name in counts if getattr(self, name) < 1]:
            raise RecipeError(f"--method.{wrong[0]} is {getattr(self, wrong[0])}; give 1 or more")
        if not 0 < self.ratio < 1:
            raise RecipeError(f"--method.ratio is {self.ratio}; give a share in (0, 1), such as 0.75")
        check_crops(self)
        step = math.lcm(4, self.decoder_heads)
        if self.decoder_width % step:
            near = max(step, round(self.decoder_width / step) * step)
            raise RecipeError(
                f"--method.decoder_width is {self.decoder_width}, not a multiple of 4 and of "
                f"--method.decoder_heads {self.decoder_heads}; give {near}"
            )


class MAE(Method):
    """Masking, encoder, decoder and loss of §3."""

    def __init__(self, config: MAEConfig, recipe: Recipe) -> None:
        super().__init__()
        self.config, self.size, self.statistics = config, recipe.data.size, recipe.statistics
        check_family(recipe, "mae", "vit")
        self.backbone = vit.build(
            recipe.arch.name, {**recipe.arch.arguments(), "drop_path_rate": recipe.arch.drop_path}
        )
        check_sides(recipe, self.backbone)
        check_hidden(recipe, "random", config.ratio, vit.stride(self.backbone))
        self.pixels = MAEDecoder(
            self.backbone.num_features,
            config.decoder_width,
            config.decoder_depth,
            config.decoder_heads,
            vit.stride(self.backbone),
            recipe.arch.in_chans,
        )
        initialise_encoder(self.backbone)

    def views(self) -> Views:
        """One view: random resized crop and flip, no colour changes (§A.1)."""
        return augment.one_view(self.size, self.config.min_scale, *self.statistics)

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Mean squared error on the hidden patches."""
        (pixels,) = views  # (B, C, H, W)
        patch = vit.stride(self.backbone)
        grid = grid_of(pixels.shape[-2], pixels.shape[-1], patch)
        hidden = draw_mask("random", grid, noise.tolist(), self.config.ratio).flatten(1).to(pixels.device)
        visible = visible_indices(hidden)  # (B, V)
        tokens = vit.visible_tokens(self.backbone, pixels, visible)  # (B, 1 + V, D)
        asked = visible_indices(~hidden)  # (B, K)
        predicted = self.pixels(tokens, visible, grid, asked).float()  # (B, K, P*P*C)
        target = take(patchify(pixels, patch), asked)
        if self.config.normalised_targets:
            target = normalise_patches(target)
        loss = hidden_error(predicted, target, torch.ones_like(asked, dtype=torch.bool)).mean()
        return loss, {"features": tokens[:, 1:].mean(1).detach()}

    def encoder(self) -> nn.Module:
        return self.backbone

    def decoder(self) -> nn.Module:
        return self.pixels

    def card(self) -> dict[str, Any]:
        return masked_card(light_decoder("mae", self.config, vit.stride(self.backbone), strategy="random"))

    def compiled(self) -> list[nn.Module]:
        return [*self.backbone.blocks, *self.pixels.blocks]


def initialise_encoder(backbone: VisionTransformer) -> None:
    """Fixed sine-cosine positions (zero for the class token); Xavier-uniform weights as in the authors' code.

    RecipeError for a ViT with other tokens than patches and one class token, or without positions of its own.
    """
    if backbone.cls_token is None or backbone.pos_embed is None or backbone.num_prefix_tokens != 1:
        raise RecipeError(
            "MAE and UM-MAE train ViTs of patches and one class token, which this architecture is not: take a method "
            "that pools features, as dino, or another --arch.name or --init"
        )
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(backbone.patch_embed.proj.weight.view(backbone.num_features, -1))
    nn.init.normal_(backbone.cls_token, std=0.02)
    positions = sincos_positions(backbone.patch_embed.grid_size, backbone.num_features)
    backbone.pos_embed.requires_grad_(False)
    backbone.pos_embed.zero_()[:, 1:] = positions


def imagenet() -> Recipe:
    """ViT-B/16 at 224 px, 800 epochs: the paper's Table 8. 83.6 % fine-tuned (theirs, 1,600).

    Eight GPUs and two days, by our estimate: never run here.

    zoo train mae/imagenet DATA --out runs/mae_vitb16
    """
    return Recipe(
        method=MAEConfig(),
        arch=Arch("vit_base_patch16_224", size=224),
        data=Data(size=224, cache=False, side=512, workers=12),
        optim=Optim(batch=4096, lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=Schedule(epochs=800, warmup_epochs=40),
        run=Run(precision="bf16"),
    )


def imagenette() -> Recipe:
    """ViT-Tiny/16 at 128 px on raw pixels, so that its pictures owe nothing to the hidden patches.

    95 minutes on one CPU core: 39.3 % k-NN on Imagenette (untrained 30.8), error on hidden pixels 0.52 of the mean
    colour's. Another 20 epochs from there (`--init`), 106 minutes: 42.1 % and 0.50.

    zoo train mae/imagenette DATA --out runs/mae_vitt16_imagenette
    """
    return Recipe(
        method=MAEConfig(decoder_width=192, decoder_depth=2, decoder_heads=6, normalised_targets=False),
        arch=Arch("vit_tiny_patch16_224", size=128, pooling="avg"),
        data=Data(size=128),
        optim=Optim(batch=64, lr=3.2e-3, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=Schedule(epochs=24, warmup_epochs=2),
    )


def smoke() -> Recipe:
    """ViT-Tiny/16 at 64 px, one epoch of 512 images: seconds on a CPU. It proves the path, no more.

    zoo train mae/smoke DATA --out runs/mae_smoke
    """
    return Recipe(
        method=MAEConfig(decoder_width=48, decoder_depth=1, decoder_heads=3, normalised_targets=False),
        arch=Arch("vit_tiny_patch16_224", size=64, pooling="avg"),
        data=Data(size=64, side=80, limit=512, workers=0),
        optim=Optim(batch=64, lr=2e-3),
        schedule=Schedule(epochs=1, warmup_epochs=0.1),
    )


__all__ = ["MAE", "MAEConfig", "imagenet", "imagenette", "initialise_encoder", "smoke"]
