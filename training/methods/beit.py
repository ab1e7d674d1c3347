"""BEiT: BERT pre-training of image transformers (Bao et al., 2106.08254).

Blocks of patches are replaced by a mask token, and the transformer says which words a tokenizer has for them. The
tokenizer is a discrete VAE: `--method.tokenizer FOLDER` names one that `zoo train dvae/…` made, or a file of the
tensors of DALL·E's encoder, the authors' own. Without one, the run trains a discrete VAE on the same images first, by
the recipe `--method.tokenizer_recipe`; it stays in the folder `tokenizer` of the run, and other runs may use it.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models.beit import Beit
from torch import Generator, Tensor, nn

from zoo.cards import DecoderSpec
from zoo.decoders.beit import BEiTDecoder
from zoo.decoders.dvae import DVAEDecoder
from zoo.errors import RecipeError
from zoo.families import beit
from zoo.masking import DEFAULT_RATIO, draw_mask
from zoo.patches import grid_of
from zoo.training import augment
from zoo.training.backbones import backbone, check_family, check_hidden, check_sides
from zoo.training.chance import chance_level
from zoo.training.methods import Method, Step, Views, masked_card
from zoo.training.methods.dvae import DVAE, DVAEConfig
from zoo.training.recipe import Arch, Data, Optim, Recipe, Run, Schedule, check_crops
from zoo.training.tokenizer import Tokenizer, read_tokenizer

# Of `run.minutes`, what the tokenizer's run is given; they count as this run's.
SHARE = 1 / 3


@dataclass(frozen=True)
class BEiTConfig:
    """Knobs of BEiT; defaults are the authors' for ViT-B/16 (§3.1)."""

    tokenizer: str | None = None
    """A folder that `zoo train dvae/…` made, or a file of the tensors of DALL·E's encoder; None trains one first."""
    tokenizer_recipe: str = "dvae/imagenet"
    """What trains it where none is given."""
    ratio: float = DEFAULT_RATIO["blockwise"]
    """Share of the patches that blocks hide: 75 of 196."""
    clip: float = 3.0
    """Norm that the gradient as a whole is clipped to."""
    min_scale: float = 0.08
    """Smallest share of the image a crop covers."""

    def build(self, recipe: Recipe) -> BEiT:
        if not 0 < self.ratio < 1:
            raise RecipeError(f"--method.ratio is {self.ratio}; give a share in (0, 1), such as 0.4")
        if not self.clip > 0:
            raise RecipeError(f"--method.clip is {self.clip}; give a number above 0")
        check_crops(self)
        return BEiT(self, recipe)


class BEiT(Method):
    """Masked image modelling over visual tokens (§2.3, §2.4)."""

    def __init__(self, config: BEiTConfig, recipe: Recipe) -> None:
        super().__init__()
        self.config, self.recipe, self.size = config, recipe, recipe.data.size
        check_family(recipe, "beit", "beit")
        self.backbone = cast(Beit, backbone(recipe.arch, drop_path=recipe.arch.drop_path))
        check_sides(recipe, self.backbone)
        check_hidden(recipe, "blockwise", config.ratio, beit.stride(self.backbone))
        painter: DVAEDecoder | None
        if config.tokenizer is None:
            self.tokenizer, painter = self._untrained()
        else:
            self.tokenizer, painter = read_tokenizer(config.tokenizer)
            self._check_channels()
        if painter is not None:
            painter.requires_grad_(False)
            self._check_colours()
        self.words = BEiTDecoder(self.backbone.num_features, self.tokenizer.encoder.vocabulary, painter)

    def views(self) -> Views:
        """One crop, resized twice: for the transformer, and for the tokenizer at a word for each patch.

        Pixels are normalised by ImageNet's numbers, as others' are here; the authors' code takes 0.5 unless told so.
        """
        cut = augment.coloured_crop((0.4, 0.4, 0.4), (self.config.min_scale, 1.0))
        seen = augment.normalised([augment.resize(self.size, "bicubic")], *self.recipe.statistics)
        said = augment.normalised([augment.resize(self._words_side(), "lanczos")], *self.tokenizer.statistics)

        def twice(image: Tensor, generator: Generator) -> list[Tensor]:
            crop = augment.seeded(cut, image, generator)
            return [seen(crop), said(crop)]

        return twice

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Cross-entropy of the words at hidden patches (Equation 2). views: (B, C, H, W) and (B, C, h*S, w*S)."""
        pixels, words = views[0], self.tokenizer(views[1])  # (B, C, H, W), (B, h, w)
        grid = grid_of(pixels.shape[-2], pixels.shape[-1], beit.stride(self.backbone))
        hidden = draw_mask("blockwise", grid, noise.tolist(), self.config.ratio).to(pixels.device)
        seen = beit.with_mask_token(self.backbone, pixels, hidden, self.words.mask_token)
        logits = self.words.head(seen.patches[hidden.flatten(1)]).float()  # (B * M, V)
        asked = words[hidden]
        return F.cross_entropy(logits, asked), {
            "accuracy": (logits.argmax(dim=1) == asked).float().mean(),
            "commonest": asked.bincount().max() / len(asked),  # the accuracy of saying one word always
            "chance": chance_level(asked, logits.shape[1]),
            "features": seen.pooled.detach(),
        }

    def undecayed(self) -> tuple[str, ...]:
        """The authors' (modeling_pretrain.py): their mask token and tables of relative positions do decay."""
        return "cls_token", "pos_embed"

    def before_step(self, step: Step) -> None:
        """Clip the gradient as a whole."""
        nn.utils.clip_grad_norm_([p for p in self.parameters() if p.requires_grad], self.config.clip)

    def first(self) -> tuple[str, Recipe] | None:
        """The tokenizer's run, where none is given: with this run's images, precision and seed."""
        if self.config.tokenizer is not None:
            return None
        mine, theirs = self.recipe, _recipe_of(self.config.tokenizer_recipe)
        side = max(theirs.data.side, round(self._words_side() * theirs.data.side / theirs.data.size))
        chosen = dataclasses.replace(
            theirs,
            arch=dataclasses.replace(theirs.arch, size=self._words_side(), in_chans=mine.arch.in_chans),
            data=dataclasses.replace(mine.data, size=self._words_side(), side=side),
            optim=dataclasses.replace(theirs.optim, batch=min(mine.optim.batch, theirs.optim.batch)),
            run=dataclasses.replace(
                mine.run, compile=False, minutes=mine.run.minutes and SHARE * mine.run.minutes
            ),
        )
        return "tokenizer", chosen

    def follow(self, folder: Path) -> None:
        """Take the tokenizer that the first run made."""
        tokenizer, painter = read_tokenizer(folder)
        assert painter is not None and self.words.painter is not None  # what `dvae` makes has one
        self.tokenizer.load_state_dict(tokenizer.state_dict())
        self.words.painter.load_state_dict(painter.state_dict())

    def start_from(self, encoder: dict[str, Tensor], decoder: dict[str, Tensor] | None) -> None:
        """Another model's encoder, and its head; what paints stays that of a tokenizer that was given."""
        given = None if self.config.tokenizer is None else copy.deepcopy(self.words.painter)
        super().start_from(encoder, decoder)
        if given is not None and self.words.painter is not None:
            self.words.painter.load_state_dict(given.state_dict())

    def _untrained(self) -> tuple[Tokenizer, DVAEDecoder]:
        """What the first run will train, without a draw that a run with a given tokenizer would not make."""
        theirs, channels = _recipe_of(self.config.tokenizer_recipe), self.recipe.arch.in_chans
        theirs = dataclasses.replace(theirs, arch=dataclasses.replace(theirs.arch, in_chans=channels))
        with torch.random.fork_rng(devices=[]):
            method = theirs.method.build(theirs)
        assert isinstance(method, DVAE)  # _recipe_of saw to it
        return Tokenizer(method.backbone, statistics=self.recipe.statistics), method.painter

    def _check_channels(self) -> None:
        """RecipeError where the tokenizer reads images of other channels."""
        if (theirs := self.tokenizer.encoder.in_chans) != self.recipe.arch.in_chans:
            raise RecipeError(
                f"--method.tokenizer {self.config.tokenizer} reads images of {theirs} channels, and --arch.in_chans is "
                f"{self.recipe.arch.in_chans}; leave the tokenizer out, so that another is trained first"
            )

    def _check_colours(self) -> None:
        """RecipeError where the tokenizer paints pixels of another normalisation than this model's card will say."""
        theirs, mine = self.tokenizer.statistics, self.recipe.statistics
        if theirs != mine:
            raise RecipeError(
                f"--method.tokenizer {self.config.tokenizer} paints pixels of mean {theirs[0]} and std {theirs[1]}, "
                f"and this run's have {mine[0]} and {mine[1]}; leave it out, so that another is trained first, or "
                "give DALL·E's"
            )

    def _words_side(self) -> int:
        """Pixels of the tokenizer's view."""
        return self.size // beit.stride(self.backbone) * self.tokenizer.encoder.stride

    def encoder(self) -> nn.Module:
        return self.backbone

    def decoder(self) -> nn.Module | None:
        """Mask token, head and what paints; None where the tokenizer cannot, and words are nothing to look at."""
        return None if self.words.painter is None else self.words

    def compiled(self) -> list[nn.Module]:
        return [*self.backbone.blocks]

    def card(self) -> dict[str, Any]:
        if self.words.painter is None:
            return masked_card(None)
        patch, sizes = beit.stride(self.backbone), cast(dict[str, Any], self.words.painter.sizes)
        return masked_card(
            DecoderSpec(
                kind="beit",
                patch=patch,
                mask_patch=patch,
                normalised_targets=False,
                strategy="blockwise",
                ratio=self.config.ratio,
                **sizes,
            )
        )


def _recipe_of(name: str) -> Recipe:
    """The recipe of a tokenizer's run; RecipeError where it trains something else."""
    from zoo.training.methods import recipe

    found = recipe(name)
    if not isinstance(found.method, DVAEConfig):
        raise RecipeError(
            f"--method.tokenizer_recipe is {name}, which trains no tokenizer; give dvae/imagenette, say"
        )
    return found


def imagenet() -> Recipe:
    """ViT-B/16 at 224 px, 800 epochs: the authors' recipe, whose tokenizer is DALL·E's; 83.2 % fine-tuned (theirs).

    Eight GPUs and days, by our estimate: never run here. As it stands it trains a tokenizer first; add
    `--method.tokenizer encoder.pth` for DALL·E's (zoo.training.tokenizer says how to get the file).

    zoo train beit/imagenet DATA --out runs/beit_vitb16
    """
    return Recipe(
        method=BEiTConfig(),
        arch=Arch("beit_base_patch16_224", family="beit", size=224, pooling="avg", drop_path=0.1),
        data=Data(size=224, cache=False, side=512, workers=12),
        optim=Optim(batch=2048, lr=1.5e-3 / 8, betas=(0.9, 0.999), weight_decay=0.05),
        schedule=Schedule(epochs=800, warmup_epochs=10, final_lr=1e-5),
        run=Run(precision="bf16"),
    )


def imagenette() -> Recipe:
    """ViT-Tiny/16 at 128 px with 512 words of its own: one GPU, or patience; no result yet.

    A second beta of 0.98, where the authors' base model has 0.999.

    zoo train beit/imagenette DATA --out runs/beit_vitt16_imagenette
    """
    return Recipe(
        method=BEiTConfig(tokenizer_recipe="dvae/imagenette"),
        arch=_tiny(128),
        data=Data(size=128),
        optim=Optim(batch=64, lr=3.2e-3, betas=(0.9, 0.98), weight_decay=0.05),
        schedule=Schedule(epochs=24, warmup_epochs=2, final_lr=1e-5),
    )


def smoke() -> Recipe:
    """ViT-Tiny/16 at 64 px, one epoch of 512 images, after one of its tokenizer: seconds on a CPU. It proves the path.

    zoo train beit/smoke DATA --out runs/beit_smoke
    """
    return Recipe(
        method=BEiTConfig(tokenizer_recipe="dvae/smoke"),
        arch=_tiny(64),
        data=Data(size=64, side=80, limit=512, workers=0),
        optim=Optim(batch=32, lr=2e-3, betas=(0.9, 0.999)),
        schedule=Schedule(epochs=1, warmup_epochs=0.1),
    )


def _tiny(size: int) -> Arch:
    """The authors' architecture with the sizes of a ViT-Tiny."""
    return Arch(
        "beit_base_patch16_224", family="beit", size=size, pooling="avg", embed_dim=192, depth=12, num_heads=3
    )


__all__ = ["BEiT", "BEiTConfig", "imagenet", "imagenette", "smoke"]
