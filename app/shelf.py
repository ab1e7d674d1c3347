"""The models in memory: each loaded once, whoever asks, and evicted when they grow too many."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from zoo.app.attention import tokens
from zoo.app.catalogue import here
from zoo.app.kept import Kept
from zoo.encoder import Encoder
from zoo.errors import UnknownModel, did_you_mean
from zoo.features import Features
from zoo.loading import load
from zoo.registry import card

FEATURES = 2**28  # bytes of patch tokens that are kept for the next click


# Where a container's limit stands, of either version of cgroups.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def half_of_memory(limits: Sequence[str | Path] = _LIMITS) -> int:
    """Half of this machine's or container's memory in bytes; 4 GiB where neither says."""
    known = []
    with suppress(AttributeError, ValueError, OSError):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in limits:
        with suppress(ValueError, OSError):  # "max" is no number: there is no limit
            known.append(int(Path(limit).read_text()))
    return min(known, default=8 * 2**30) // 2


class Shelf:
    """The encoders of an app. Visitors may ask for what is on this machine, and nothing is fetched for them.

    extra: model folders that are shown too, as `zoo app --model FOLDER` names them.
    """

    def __init__(self, extra: Sequence[str | Path] = (), budget: int | None = None) -> None:
        self._extra = {card(place).name: str(place) for place in extra}
        self._encoders = Kept(half_of_memory() if budget is None else budget, encoder_bytes)
        self._features = Kept(FEATURES, features_bytes)

    def names(self, *, masked: bool = False) -> list[str]:
        """Models that can be asked for, those named at the start first; masked: only those with a decoder."""
        own = [name for name, place in self._extra.items() if not masked or card(place).decoder is not None]
        return [*own, *(name for name in here(masked=masked) if name not in own)]

    def encoder(self, name: str, say: Callable[[str], None] = lambda text: None) -> Encoder:
        """The encoder of that name; `say` is told where it has to be loaded. Raises UnknownModel."""
        if name not in self._encoders and name not in (known := self.names()):  # which reads every card
            raise UnknownModel(f"no model {name!r} on this machine{did_you_mean(name, known)}; zoo pull NAME")

        def make() -> Encoder:
            say(f"loading {name}")
            return load(self._extra.get(name, name))

        return self._encoders.get(name, make)

    def tokens(self, encoder: Encoder, photo: torch.Tensor, block: int) -> Features:
        """Patch tokens of a photo (3, H, W) that may just have been looked at."""
        seen = hashlib.sha256(photo.numpy().tobytes()).digest()
        key = (encoder.card.name, block, tuple(photo.shape), seen)
        return self._features.get(key, lambda: tokens(encoder, photo, block))


def encoder_bytes(encoder: Encoder) -> int:
    """Bytes of an encoder's and its decoder's tensors."""
    parts = [part for part in (encoder.module, encoder.decoder) if part is not None]
    tensors = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def features_bytes(features: Features) -> int:
    """Bytes of one image's features."""
    parts = (features.pooled, features.patches, *(() if features.cls is None else (features.cls,)))
    return sum(part.numel() * part.element_size() for part in parts)
