"""SimMIM: a simple framework for masked image modeling (Xie et al., 2111.09886).

A mask token takes the place of hidden 32-pixel squares once patches are embedded; the encoder sees them all, and one
linear layer predicts raw pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from zoo.cards import DecoderSpec
from zoo.decoders import simmim
from zoo.errors import CardError, RecipeError
from zoo.families import family
from zoo.masking import draw_mask
from zoo.patches import grid_of, patchify
from zoo.training import augment
from zoo.training.backbones import backbone, blocks, check_family, check_hidden, check_sides
from zoo.training.methods import Method, Step, Views, masked_card
from zoo.training.recipe import Arch, Data, Optim, Recipe, Run, Schedule, check_crops


@dataclass(frozen=True)
class SimMIMConfig:
    """Knobs of SimMIM; defaults are the paper's (§4.1)."""

    ratio: float = 0.6
    unit: int = 32
    """Pixels along the side of the squares that are hidden."""
    min_scale: float = 0.67
    """Smallest share of the image a crop covers."""
    clip: float | None = 5.0
    """Largest norm of the gradient of all parameters together; None does not clip."""

    def build(self, recipe: Recipe) -> SimMIM:
        if not 0 < self.ratio < 1:
            raise RecipeError(f"--method.ratio is {self.ratio}; give a share in (0, 1), such as 0.6")
        check_crops(self)
        if self.clip is not None and not self.clip > 0:
            raise RecipeError(f"--method.clip is {self.clip}; give a number above 0, or None")
        return SimMIM(self, recipe)


class SimMIM(Method):
    """Masking, encoder, prediction head and target of §3."""

    def __init__(self, config: SimMIMConfig, recipe: Recipe) -> None:
        super().__init__()
        self.config, self.size, self.statistics = config, recipe.data.size, recipe.statistics
        check_family(recipe, "simmim", "swin", "beit", "vit", "pvt")
        self.family: Any = family(recipe.arch.family)
        self.backbone = backbone(recipe.arch, drop_path=recipe.arch.drop_path)
        check_sides(recipe, self.backbone)
        self.spec = DecoderSpec(
            kind="simmim",
            patch=self.family.stride(self.backbone),
            mask_patch=config.unit,
            normalised_targets=False,
            ratio=config.ratio,
        )
        check_units(config, self.backbone, recipe)
        try:
            self.pixels = simmim.build(self.spec, self.backbone)
        except CardError as error:
            raise RecipeError(f"{error}. --arch.name is {recipe.arch.name}") from error

    def views(self) -> Views:
        """One view: random resized crop and flip, no colour changes (§4.1); bilinear, as the authors' code cuts it."""
        cut = augment.crop_and_flip(self.size, (self.config.min_scale, 1.0), "bilinear")
        crop = augment.normalised(cut, *self.statistics)
        return lambda image, generator: [augment.seeded(crop, image, generator)]

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Mean absolute error on the hidden pixels (§3.4)."""
        (pixels,) = views  # (B, C, H, W)
        unit = self.config.unit
        grid = grid_of(pixels.shape[-2], pixels.shape[-1], unit)
        hidden = draw_mask("random", grid, noise.tolist(), self.config.ratio).to(pixels.device)  # (B, h, w)
        features = self.family.with_mask_token(self.backbone, pixels, hidden, self.pixels.mask_token)
        predicted = self.pixels(features.as_map()).float()  # (B, C, H, W)
        loss = simmim.error(patchify(predicted, unit), patchify(pixels, unit), hidden.flatten(1)).mean()
        return loss, {"features": features.pooled.detach()}

    def undecayed(self) -> tuple[str, ...]:
        """What the authors' encoders name (`no_weight_decay`, and Swin's keyword for its tables).

        In their runs the tables do decay: a prefix that their wrapper puts before the keyword keeps it from matching.
        """
        return "cls_token", "cls_position", "pos_embed", "mask_token", "relative_position_bias_table"

    def before_step(self, step: Step) -> None:
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters(), self.config.clip)

    def encoder(self) -> nn.Module:
        return self.backbone

    def decoder(self) -> nn.Module:
        return self.pixels

    def card(self) -> dict[str, Any]:
        return masked_card(self.spec)

    def compiled(self) -> list[nn.Module]:
        return blocks(self.backbone)


def check_units(config: SimMIMConfig, module: nn.Module, recipe: Recipe) -> None:
    """RecipeError for squares that are no whole number of patches, or images that are no whole number of squares."""
    embedding: Any = module.patch_embed
    patch = int(embedding.proj.kernel_size[0])
    if config.unit < 1 or config.unit % patch:
        near = max(patch, round(config.unit / patch) * patch)
        raise RecipeError(
            f"--method.unit is {config.unit}, not a multiple of the {patch}-pixel patch of {recipe.arch.name}; "
            f"give {near}"
        )
    for knob, side in {"--data.size": recipe.data.size, "--arch.size": recipe.arch.size}.items():
        if side % config.unit:
            near = max(config.unit, round(side / config.unit) * config.unit)
            raise RecipeError(f"{knob} is {side}, not a multiple of --method.unit {config.unit}; give {near}")
    check_hidden(recipe, "random", config.ratio, config.unit, f"--method.unit {config.unit}")


def imagenet() -> Recipe:
    """Swin-B at 192 px with windows of 6, 100 epochs: the paper's §4.1; 83.5 % fine-tuned at 224 px (theirs).

    Eight GPUs and some two days, by our estimate: never run here.

    zoo train simmim/imagenet DATA --out runs/simmim_swinb
    """
    return Recipe(
        method=SimMIMConfig(),
        arch=Arch(
            "swin_base_patch4_window7_224",
            family="swin",
            size=192,
            pooling="avg",
            crop_pct=0.8767,
            window_size=6,
        ),
        data=Data(size=192, cache=False, side=512, workers=12),
        optim=Optim(batch=2048, lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
        schedule=Schedule(epochs=100, warmup_epochs=10, final_lr=4e-5),
        run=Run(precision="bf16"),
    )


def imagenet_vit() -> Recipe:
    """ViT-B/16 at 224 px with shared relative positions, 800 epochs: the paper's §4.4; 83.8 % fine-tuned (theirs).

    The authors drop the rate tenfold at epoch 700; here a cosine ends there. Never run here.

    zoo train simmim/imagenet_vit DATA --out runs/simmim_vitb16
    """
    return Recipe(
        method=SimMIMConfig(),
        arch=Arch("beit_base_patch16_224", family="beit", size=224, pooling="avg", drop_path=0.1),
        data=Data(size=224, cache=False, side=512, workers=12),
        optim=Optim(batch=2048, lr=5e-5, betas=(0.9, 0.999), weight_decay=0.05),
        schedule=Schedule(epochs=800, warmup_epochs=10, final_lr=4e-5),
        run=Run(precision="bf16"),
    )


def imagenette() -> Recipe:
    """A small Swin at 128 px, whose windows of 4 are the paper's share of the grid (6 at 192 px).

    31 minutes on one CPU core, shared: 31.8 % k-NN on Imagenette (untrained 26.4), error on hidden pixels 0.66 of the
    mean colour's (a smooth fill 0.84). The loss was falling still: more `--schedule.epochs` pay.

    zoo train simmim/imagenette DATA --out runs/simmim_swinmicro_imagenette
    """
    return Recipe(
        method=SimMIMConfig(),
        arch=Arch(
            "swin_tiny_patch4_window7_224",
            family="swin",
            size=128,
            pooling="avg",
            embed_dim=48,
            depths=(2, 2, 2, 2),
            window_size=4,
        ),
        data=Data(size=128),
        optim=Optim(batch=64, lr=3.2e-3, betas=(0.9, 0.999), weight_decay=0.05),
        schedule=Schedule(epochs=10, warmup_epochs=1),
        run=Run(precision="bf16"),
    )


def smoke() -> Recipe:
    """A small Swin at 64 px, one epoch of 512 images: seconds on a CPU. It proves the path, no more.

    zoo train simmim/smoke DATA --out runs/simmim_smoke
    """
    return Recipe(
        method=SimMIMConfig(),
        arch=Arch(
            "swin_tiny_patch4_window7_224",
            family="swin",
            size=64,
            pooling="avg",
            embed_dim=48,
            depths=(2, 2, 2, 2),
            window_size=4,
        ),
        data=Data(size=64, side=80, limit=512, workers=0),
        optim=Optim(batch=64, lr=2e-3, betas=(0.9, 0.999)),
        schedule=Schedule(epochs=1, warmup_epochs=0.1),
    )


__all__ = ["SimMIM", "SimMIMConfig", "check_units", "imagenet", "imagenet_vit", "imagenette", "smoke"]
