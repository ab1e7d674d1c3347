"""Small masked-image models of every kind, with weights large enough that a misplaced tensor shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from zoo.cards import DecoderSpec, ModelCard, TransformSpec
from zoo.encoder import Encoder
from zoo.loading import build

UMMAE = DecoderSpec(
    kind="ummae",
    width=16,
    depth=1,
    heads=2,
    patch=16,
    mask_patch=16,
    normalised_targets=True,
    ratio=0.75,
    strategy="uniform",
    secondary=0.25,
)
SIMMIM = DecoderSpec(kind="simmim", patch=32, mask_patch=32, normalised_targets=False, ratio=0.6)
SWIN: dict[str, Any] = {"embed_dim": 8, "num_heads": [1, 2, 2, 4], "window_size": 8}
PVT: dict[str, Any] = {"embed_dims": [8, 16, 32, 64], "num_heads": [1, 2, 2, 4]}
PLAIN_SWIN = {"img_size": 128, "depths": [2, 2, 2, 2], "strict_img_size": False, **SWIN, "window_size": 4}
VIT: dict[str, Any] = {"img_size": 128, "depth": 2, "embed_dim": 48, "num_heads": 3, "fc_norm": False}
BEIT: dict[str, Any] = {"img_size": 128, "depth": 2, "embed_dim": 48, "num_heads": 3, "use_fc_norm": False}
MODELS: dict[str, tuple[str, str, dict[str, Any], DecoderSpec]] = {
    "ummae swin": ("swin", "ssl_zoo_ummae_swin_micro", SWIN, UMMAE),
    "ummae pvt": ("pvt", "ssl_zoo_ummae_pvt_micro", PVT, UMMAE),
    "ummae vit": ("vit", "vit_tiny_patch16_224", VIT, UMMAE),
    "simmim swin": ("swin", "swin_tiny_patch4_window7_224", PLAIN_SWIN, SIMMIM),
    "simmim ummae swin": (
        "swin",
        "ssl_zoo_ummae_swin_micro",
        SWIN,
        dataclasses.replace(SIMMIM, mask_patch=16),
    ),
    "simmim pvt": ("pvt", "ssl_zoo_ummae_pvt_micro", PVT, dataclasses.replace(SIMMIM, mask_patch=16)),
    "simmim vit": ("vit", "vit_tiny_patch16_224", VIT, dataclasses.replace(SIMMIM, patch=16)),
    "simmim beit": ("beit", "beit_base_patch16_224", BEIT, dataclasses.replace(SIMMIM, patch=16)),
}


def masked_model(kind: str, randomise: Callable[..., None], name: str = "tiny") -> Encoder:
    """The model `MODELS` calls so, at 128 px, drawn anew."""
    family, architecture, arguments, spec = MODELS[kind]
    card = ModelCard(
        name=name,
        licence="apache-2.0",
        method=spec.kind,
        kind="generative",
        family=family,
        architecture=architecture,
        parameters=1,
        pooling="avg",
        transform=TransformSpec(size=128),
        arguments=arguments,
        decoder=spec,
    )
    module, decoder = build(card)
    assert decoder is not None
    randomise(module)
    randomise(decoder, seed=1)
    count = sum(parameter.numel() for parameter in module.parameters())
    return Encoder(dataclasses.replace(card, parameters=count), module, decoder)
