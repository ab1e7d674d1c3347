"""dVAE: a small discrete VAE, BEiT's tokenizer (Ramesh et al., 2102.12092, §2.1, Appendix A).

An encoder says each square of an image in one of a few hundred words, a decoder paints the image from the words alone.
Its run ends in a folder like any other: `zoo.load` gives its features, `zoo reconstruct` shows what the words keep of a
photo, and `zoo train beit/… --method.tokenizer FOLDER` learns to predict them.

Unlike the paper's, pixels are Gaussian with a fixed variance (A.3 has a logit-Laplace), so that the loss is the mean
squared error of normalised pixels, and never negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from zoo.decoders.dvae import DVAEDecoder
from zoo.errors import RecipeError
from zoo.families import dvae as dvae_family
from zoo.training import augment
from zoo.training.backbones import check_family, check_sides
from zoo.training.methods import Method, Step, Views
from zoo.training.recipe import Arch, Data, Optim, Recipe, Run, Schedule, check_crops
from zoo.training.schedules import cosine


@dataclass(frozen=True)
class DVAEConfig:
    """Knobs of the discrete VAE; temperatures and steps are the paper's (A.2)."""

    temperature: float = 1.0
    """Of the Gumbel-softmax at step 0; a cosine takes it to `final_temperature`."""
    final_temperature: float = 1 / 16
    temperature_steps: int = 150_000
    """Steps in which it falls; never more than half of the run."""
    kl: float = 6.6
    """Weight of the divergence from equally frequent words, beside the squared error of the values it stands for."""
    kl_steps: int = 5_000
    """Steps in which that weight rises from 0, by a cosine; never more than half of the run. 0: there from the start,
    which keeps more words alive in a short run."""
    decoder_width: int = 256
    """Channels of the decoder's last group; each before it has twice as many."""
    decoder_blocks: int = 2
    """Residual blocks in each group of the decoder."""
    min_scale: float = 0.08
    """Smallest share of the image a crop covers."""

    def build(self, recipe: Recipe) -> DVAE:
        for name in ("temperature", "final_temperature"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"--method.{name} is {getattr(self, name)}; give a number above 0")
        for name in ("temperature_steps", "kl_steps", "kl"):
            if not getattr(self, name) >= 0:
                raise RecipeError(f"--method.{name} is {getattr(self, name)}; give 0 or more")
        for name, least in (("decoder_width", 4), ("decoder_blocks", 1)):
            if getattr(self, name) < least:
                raise RecipeError(f"--method.{name} is {getattr(self, name)}; give {least} or more")
        check_crops(self)
        if recipe.arch.drop_path:
            raise RecipeError(
                f"--arch.drop_path is {recipe.arch.drop_path}, and a discrete VAE has no paths to drop; give 0"
            )
        return DVAE(self, recipe)


class DVAE(Method):
    """Encoder, relaxed words, decoder and the evidence lower bound (Equation 1)."""

    def __init__(self, config: DVAEConfig, recipe: Recipe) -> None:
        super().__init__()
        self.config, self.size, self.statistics = config, recipe.data.size, recipe.statistics
        check_family(recipe, "dvae", "dvae")
        self.backbone = dvae_family.build(recipe.arch.name, recipe.arch.arguments())
        check_sides(recipe, self.backbone)
        self.painter = DVAEDecoder(
            self.backbone.vocabulary,
            config.decoder_width,
            config.decoder_blocks,
            self.backbone.stride,
            self.backbone.in_chans,
        )

    def views(self) -> Views:
        """One view: random resized crop and flip."""
        return augment.one_view(self.size, self.config.min_scale, *self.statistics)

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Squared error of the painted image, and the divergence of the words from equally frequent ones."""
        (pixels,) = views  # (B, C, H, W)
        positions = self.backbone.forward_features(pixels)
        logits = self.backbone.spoken(positions).float()  # (B, V, h, w)
        temperature = self.temperature(step)
        words = ((logits + gumbel(logits, noise)) / temperature).softmax(dim=1)
        reconstruction = F.mse_loss(self.painter(words).float(), pixels)
        divergence = divergence_from_uniform(logits)
        values = pixels.shape[1] * dvae_family.stride(self.backbone) ** 2  # that one word stands for
        loss = reconstruction + self.kl(step) / values * divergence
        return loss, {
            "reconstruction": reconstruction.detach(),
            "divergence": divergence.detach(),
            "temperature": temperature,
            "prototypes": logits.detach().softmax(dim=1).mean(dim=(0, 2, 3)),
            "features": self.backbone.forward_head(positions).detach(),
        }

    def temperature(self, step: Step) -> float:
        """Of the Gumbel-softmax at a step (A.2)."""
        steps = min(self.config.temperature_steps, step.total / 2)
        return cosine(step.index, steps, self.config.temperature, self.config.final_temperature)

    def kl(self, step: Step) -> float:
        """Weight of the divergence at a step (A.2)."""
        return cosine(step.index, min(self.config.kl_steps, step.total / 2), 0.0, self.config.kl)

    def encoder(self) -> nn.Module:
        return self.backbone

    def decoder(self) -> nn.Module:
        return self.painter

    def card(self) -> dict[str, Any]:
        word = dvae_family.stride(self.backbone)
        return {
            "kind": "generative",
            "decoder": {
                "kind": "dvae",
                "patch": word,
                "mask_patch": word,
                "normalised_targets": False,
                "ratio": 0.0,
                **self.painter.sizes,
            },
        }


def gumbel(logits: Tensor, noise: Tensor) -> Tensor:
    """Gumbel noise for logits (B, V, h, w), image b's by the seed noise[b]."""
    exponential = torch.empty_like(logits)
    generator = Generator(logits.device)
    for image, seed in zip(exponential, noise.tolist(), strict=True):
        image.exponential_(generator=generator.manual_seed(seed))
    return -exponential.clamp(min=torch.finfo(logits.dtype).tiny).log()


def divergence_from_uniform(logits: Tensor) -> Tensor:
    """Mean over positions of KL(q || uniform) = ln V - H(q) in nats; logits: (B, V, h, w)."""
    log_q = logits.log_softmax(dim=1)
    return math.log(logits.shape[1]) + (log_q.exp() * log_q).sum(dim=1).mean()


def imagenet() -> Recipe:
    """DALL·E's encoder of 8,192 words at 112 px, 50 epochs: eight GPUs; never run here.

    Batch, weight decay and learning rate are the paper's (A.2), which trains on 250 million images and keeps an average
    of the weights, as this does not.

    zoo train dvae/imagenet DATA --out runs/dvae_imagenet
    """
    return Recipe(
        method=DVAEConfig(),
        arch=Arch("ssl_zoo_dvae", family="dvae", size=112, pooling="avg"),
        data=Data(size=112, cache=False, side=256, workers=12),
        optim=Optim(batch=512, lr=5e-5, betas=(0.9, 0.999), weight_decay=1e-4),
        schedule=Schedule(epochs=50, warmup_epochs=0, final_lr=1.25e-6),
        run=Run(precision="bf16"),
    )


def imagenette() -> Recipe:
    """An encoder of 512 words at 64 px, ten epochs: an hour or so on one CPU core, by our estimate; no result yet.

    zoo train dvae/imagenette DATA --out runs/dvae_imagenette
    """
    return Recipe(
        method=DVAEConfig(kl_steps=0, decoder_width=64, decoder_blocks=1),
        arch=Arch("ssl_zoo_dvae_small", family="dvae", size=64, pooling="avg"),
        data=Data(size=64, side=80),
        optim=Optim(batch=64, lr=2e-3, betas=(0.9, 0.999), weight_decay=1e-4),
        schedule=Schedule(epochs=10, warmup_epochs=0.2),
    )


def smoke() -> Recipe:
    """512 words at 32 px, one epoch of 512 images: seconds on a CPU. It proves the path, no more.

    zoo train dvae/smoke DATA --out runs/dvae_smoke
    """
    return Recipe(
        method=DVAEConfig(kl_steps=0, decoder_width=32, decoder_blocks=1),
        arch=Arch("ssl_zoo_dvae_small", family="dvae", size=32, pooling="avg"),
        data=Data(size=32, side=40, limit=512, workers=0),
        optim=Optim(batch=32, lr=4e-3, betas=(0.9, 0.999), weight_decay=1e-4),
        schedule=Schedule(epochs=1, warmup_epochs=0.1),
    )


__all__ = ["DVAE", "DVAEConfig", "divergence_from_uniform", "gumbel", "imagenet", "imagenette", "smoke"]
