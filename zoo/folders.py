"""Model folders on disk: card, configuration and weights that zoo, timm and transformers all load."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.architectures import create
from zoo.cards import README, ModelCard, read_card, write_card
from zoo.errors import CardError, WeightsError
from zoo.files import sha256, write_json
from zoo.registry import WEIGHTS
from zoo.weights import fit_report, save_tensors

CONFIG = "config.json"


def write_folder(
    folder: str | Path,
    card: ModelCard,
    encoder: nn.Module,
    decoder: nn.Module | None,
    body: str,
    dtype: torch.dtype = torch.float16,
) -> ModelCard:
    """Write a model folder; the card as written, with the sha256 of each weight file.

    A folder without card is no model: the old card goes first and the new one comes last, so that a crash between
    leaves no card beside another model's weights. dtype: of the stored floating-point weights.
    Raises CardError where card and modules disagree, WeightsError where a weight does not fit `dtype`.
    """
    folder = Path(folder)
    parts = dict(zip(WEIGHTS, (encoder, decoder), strict=True))
    config = architecture_config(card)
    _check_encoder(card, encoder)
    if (card.decoder is None) != (decoder is None):
        given, said = ("no decoder", "one") if decoder is None else ("a decoder", "none")
        raise CardError(f"{card.name}: {given} was given and its card describes {said}; make them agree")
    stored = {file: _stored(file, part, dtype) for file, part in parts.items() if part is not None}
    (folder / README).unlink(missing_ok=True)
    for file in WEIGHTS:
        if file in stored:
            save_tensors(folder / file, stored[file])
        else:
            (folder / file).unlink(missing_ok=True)
    write_json(folder / CONFIG, config)
    digests = {file: sha256(folder / file) for file in stored}
    write_card(dataclasses.replace(card, sha256=digests), folder, body)
    return read_card(folder)


def architecture_config(card: ModelCard) -> dict[str, Any]:
    """timm's config.json of a card. Raises CardError where timm cannot build what the card describes.

    "dtype" is for transformers, which would otherwise compute in the float16 that the file stores; it also passes
    num_classes itself, so model_args must not.
    """
    model, spec = _blank(card), card.transform
    channels = len(spec.mean)
    pretrained = {
        "input_size": [channels, spec.size, spec.size],
        # Whether timm resizes an image of another size for good: not where the card lets the model take any.
        "fixed_input_size": bool(model.pretrained_cfg.get("fixed_input_size")) and not _any_size(card),
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_pct,
        "crop_mode": "center",
        "mean": list(spec.mean),
        "std": list(spec.std),
        "num_classes": 0,
        "pool_size": None,
        "first_conv": model.pretrained_cfg.get("first_conv"),
        "classifier": model.pretrained_cfg.get("classifier"),
        "custom_load": False,
        "license": card.licence,
    }
    return {
        "architecture": card.architecture,
        "num_classes": 0,
        "num_features": model.num_features,
        "global_pool": card.pooling,
        "model_args": card.model_arguments,
        "dtype": "float32",
        "pretrained_cfg": pretrained,
    }


def config_matches(folder: str | Path) -> bool:
    """Whether a folder's config.json says exactly what its card does. Raises CardError for a bad card."""
    try:
        written = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return bool(written == architecture_config(read_card(folder)))


def _any_size(card: ModelCard) -> bool:
    return bool(card.arguments.get("dynamic_img_size")) or card.arguments.get("strict_img_size") is False


def _blank(card: ModelCard) -> Any:
    """The card's encoder as timm builds it from config.json, without storage."""
    try:
        with torch.device("meta"):
            return create(card.architecture, card.model_arguments, nn.Module, "module")
    except CardError as error:
        raise CardError(f"{card.name}: {error}") from error


def _check_encoder(card: ModelCard, encoder: nn.Module) -> None:
    """Whether the encoder is what the card describes, so that what is written can be loaded."""
    if report := fit_report(_blank(card), encoder.state_dict()):
        raise CardError(f"{card.name}: the encoder is not the {card.architecture} of its card:\n{report}")
    count = sum(parameter.numel() for parameter in encoder.parameters())
    if count != card.parameters:
        raise CardError(
            f"{card.name}: the encoder has {count} parameters and its card says {card.parameters}"
        )


def _stored(file: str, part: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """A module's tensors as they go to disk: floating-point ones in `dtype`, others as they are."""
    stored = {}
    for name, tensor in part.state_dict().items():
        stored[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        if tensor.is_floating_point() and not stored[name].isfinite().all():
            cause = (
                "is not finite"
                if not tensor.isfinite().all()
                else f"is too large for {dtype}; pass torch.float32"
            )
            raise WeightsError(f"{file}: {name} {cause}")
    return stored
