"""From a name to an encoder: card, weights, device."""

from __future__ import annotations

import dataclasses
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from zoo import decoders
from zoo.cards import ModelCard
from zoo.channels import adapted_weights, with_channels
from zoo.encoder import Encoder
from zoo.errors import SizeError, Unsupported
from zoo.families import family
from zoo.pulling import find
from zoo.registry import list_cards, most_alike
from zoo.trust import verify_once
from zoo.weights import load_into, load_tensors, without_storage

if TYPE_CHECKING:
    from zoo.cards import DecoderSpec

log = logging.getLogger(__name__)

# Seed of `weights="random"`: the untrained baseline is the same everywhere.
RANDOM_SEED = 0
_drawing = threading.Lock()  # timm initialises from the one generator of the process

_told: set[str] = set()  # models whose licence was noted


def load(
    name: str | Path,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    size: int | None = None,
    in_chans: int = 3,
    policy: Literal["any", "commercial"] = "any",
) -> Encoder:
    """The encoder of that name: a folder, a model of the local zoo, a card's name or alias, or "user/repo[@revision]".

    Weights that are not on this machine are fetched, checked and converted first: see `zoo.pull`.
    weights: None, a file in any published layout (not hash-checked), or "random" for the seeded untrained baseline.
    device="auto": cuda, then mps, then cpu. dtype=None: float32, whatever the file holds. size: pixels of the
    evaluation crop, instead of the card's. in_chans: where images are not RGB; the first convolution's weights are
    summed for 1 channel, else repeated cyclically and scaled by 3 / in_chans, with mean and std to match; there is no
    decoder then. policy="commercial" refuses weights whose licence forbids commercial use.
    Raises UnknownModel, CardError, WeightsError, SizeError or Unsupported.

    >>> zoo.load("dino_vitt16_imagenette", device="cpu")
    Encoder(dino_vitt16_imagenette, vit_tiny_patch16_224, 128 px, D=192, cpu)
    """
    chosen = _device(device)
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise Unsupported(f"dtype={dtype!r} is no torch.dtype; pass torch.float16, say")
    found = find(name)
    _check_policy(found.card, policy)
    if weights is None:
        found = found.fetched()
    card = found.card
    if (wanted := with_channels(card, in_chans)) is card:
        module, decoder = _read(card, found.place) if weights is None else _given(card, weights)
    else:
        card, module, decoder = *_adapted(card, wanted, found.place, weights), None
    if weights != "random":
        _tell_licence(card)
    if size is not None:
        stride = family(card.family).stride(module)
        if size < stride or size % stride:
            near = max(stride, round(size / stride) * stride)
            raise SizeError(
                f"size={size} is not a multiple of {card.name}'s stride {stride}; the nearest is {near}"
            )
        card = dataclasses.replace(card, transform=dataclasses.replace(card.transform, size=size))
    return Encoder(card, module, decoder).to(chosen, dtype)


def _device(name: str | torch.device) -> torch.device:
    """The device of that name. Raises Unsupported for one that torch does not know or this machine lacks."""
    if name == "auto":
        return best_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise Unsupported(
            f"device {str(name)!r} cannot be used here ({why}); 'auto' takes {best_device()}"
        ) from None
    return device


def best_device() -> torch.device:
    """cuda, then mps, then cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def build(card: ModelCard) -> tuple[nn.Module, nn.Module | None]:
    """The card's encoder and decoder with fresh random weights, or without storage under `torch.device("meta")`."""
    module = family(card.family).build(card.architecture, card.model_arguments, card.interpolation)
    return module, build_decoder(card.decoder, module) if card.decoder else None


def build_decoder(spec: DecoderSpec, module: nn.Module) -> nn.Module:
    """The decoder a card describes, for its encoder; CardError for a kind that does not exist."""
    return decoders.kind(spec.kind).build(spec, module)


def untrained(encoder: Encoder, seed: int = RANDOM_SEED) -> Encoder:
    """The same architecture with random weights; with the seed left out, those of `load(name, weights="random")`."""
    return Encoder(encoder.card, *_drawn(encoder.card, seed)).to(encoder.device, encoder.dtype)


def _read(card: ModelCard, place: Path) -> tuple[nn.Module, nn.Module | None]:
    """The modules with the weights of a model folder, which must be those its card was written for."""
    with without_storage():
        module, decoder = build(card)
    for part, file in ((module, "model.safetensors"), (decoder, "decoder.safetensors")):
        if part is not None:
            if file in card.sha256:
                verify_once(place / file, card.sha256[file])
            load_into(part, load_tensors(place / file), where=str(place / file))
    return module, decoder


def _drawn(card: ModelCard, seed: int) -> tuple[nn.Module, nn.Module | None]:
    """The modules with random weights, drawn by that seed alone."""
    with _drawing, torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would set the generators of accelerators too, and for good.
        torch.random.default_generator.manual_seed(seed)
        return build(card)


def _given(card: ModelCard, weights: str | Path) -> tuple[nn.Module, nn.Module | None]:
    """The modules with random weights, or with those of a file: the decoder too where it holds one."""
    if weights == "random":
        return _drawn(card, RANDOM_SEED)
    from zoo.published import read_published  # it builds the card's modules with `build`

    published = read_published(weights, card)
    log.warning("%s: weights from %s (%s), not hash-checked", card.name, weights, published.layout)
    log.info("%s", published.report)
    with without_storage():
        module, decoder = build(card)
    load_into(module, published.encoder, where=str(weights))
    if decoder is None or published.decoder is None:
        return module, None
    load_into(decoder, published.decoder, where=str(weights))
    return module, decoder


def _adapted(
    card: ModelCard, wanted: ModelCard, place: Path, weights: str | Path | None
) -> tuple[ModelCard, nn.Module]:
    """The encoder of `card`, of RGB images, for those of `wanted`; and that card, with its count of parameters."""
    if weights == "random":
        module, _ = _given(wanted, weights)
    else:
        card = dataclasses.replace(card, decoder=None)
        rgb, _ = _read(card, place) if weights is None else _given(card, weights)
        with without_storage():
            module, _ = build(wanted)
        channels = len(wanted.transform.mean)
        load_into(module, adapted_weights(rgb, channels), where=f"{card.name} for {channels} channels")
    count = sum(parameter.numel() for parameter in module.parameters())
    return dataclasses.replace(wanted, parameters=count), module


def _check_policy(card: ModelCard, policy: str) -> None:
    if policy not in ("any", "commercial"):
        raise Unsupported(f"policy={policy!r} does not exist; there are 'any' and 'commercial'")
    if policy == "commercial" and not card.commercial:
        loadable = [each for each in list_cards(commercial=True) if each.sources or each.sha256]
        near = most_alike(card, loadable)
        shared = "same method" if near and near.method == card.method else "nearest"
        hint = f"; the {shared} that may be: {near.name!r} ({near.licence_name})" if near else ""
        raise Unsupported(
            f"{card.name}'s weights are under {card.licence_name}, which {_refusal(card)} commercial use{hint}"
        )


def _tell_licence(card: ModelCard) -> None:
    """Note the licence once per process and model: as a warning where it forbids commercial use."""
    if card.name in _told:
        return
    _told.add(card.name)
    if card.commercial:
        log.info("%s: weights under %s", card.name, card.licence_name)
    elif card.licence == "unknown":
        own = "; give --run.licence where you train it, or name it on its card (`license:`)"
        log.warning(
            "%s: licence of the weights: unknown, so commercial use is not known to be allowed%s",
            *(card.name, own if card.training else ""),
        )
    else:
        log.warning(
            "%s: weights under %s, which %s commercial use", card.name, card.licence_name, _refusal(card)
        )


def _refusal(card: ModelCard) -> str:
    return "forbids" if card.permission == "no" else "is not known to allow"
