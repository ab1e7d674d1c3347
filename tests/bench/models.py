"""Random models written once in the zoo's format and in transformers': the same weights in both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from zoo.cards import ModelCard, TransformSpec
from zoo.folders import write_folder
from zoo.loading import build
from zoo.published import read_published
from zoo.weights import load_into

WIDTHS = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}  # D and heads; all have 12 blocks


def card(size: str, pixels: int = 224) -> ModelCard:
    with torch.device("meta"):
        draft = _card(size, pixels, 1)
        module, _ = build(draft)
    return _card(size, pixels, sum(each.numel() for each in module.parameters()))


def _card(size: str, pixels: int, parameters: int) -> ModelCard:
    return ModelCard(
        name=f"vit_{size}",
        licence="apache-2.0",
        method="random",
        kind="discriminative",
        family="vit",
        architecture=f"vit_{size}_patch16_224",
        arguments={} if pixels == 224 else {"img_size": pixels},
        parameters=parameters,
        pooling="token",
        transform=TransformSpec(size=pixels, crop_pct=0.875),
    )


def write_both(folder: Path, size: str) -> tuple[Path, Path]:
    """The zoo's folder, which timm reads too, and transformers' folder."""
    from transformers import ViTConfig, ViTModel

    theirs, ours = folder / "transformers", folder / f"vit_{size}"
    width, heads = WIDTHS[size]
    config = ViTConfig(
        hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width, layer_norm_eps=1e-6
    )
    torch.manual_seed(0)
    ViTModel(config, add_pooling_layer=False).save_pretrained(theirs)
    described = card(size)
    module, _ = build(described)
    load_into(module, read_published(theirs / "model.safetensors", described).encoder, where=str(theirs))
    write_folder(ours, described, module, None, "# Random weights", torch.float32)
    return ours, theirs


def write_tiny(folder: Path, pixels: int) -> Path:
    """A ViT-Tiny for images of so many pixels, in the zoo's format."""
    torch.manual_seed(0)
    described: Any = card("tiny", pixels)
    write_folder(folder / "vit_tiny", described, build(described)[0], None, "# Random weights", torch.float32)
    return folder / "vit_tiny"
