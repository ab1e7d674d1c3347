"""What masked-image models imagine, side by side under one mask: the UM-MAE paper's Figure 8 on any photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from zoo.app.masks import Asked
from zoo.encoder import Encoder
from zoo.errors import Unsupported
from zoo.one_mask import common_grid, common_size, cropped
from zoo.pictures import BORROWED
from zoo.reconstruction import Reconstruction


@dataclass(frozen=True, eq=False)
class Imagined:
    """What one model made of it. asked: (h, w) bool on its own grid; `rec.mask` is what it really used."""

    name: str
    rec: Reconstruction
    asked: Tensor
    notes: tuple[str, ...]

    @property
    def projected(self) -> bool:
        """Whether the model hid something else than what was asked for."""
        return not torch.equal(self.asked, self.rec.mask[0].cpu())


@dataclass(frozen=True, eq=False)
class Scene:
    """One photo under one mask, and what each model makes of it.

    photo: (1, 3, S, S) uint8, the crop that all of them see. mask: (h, w) bool on the coarsest of their grids.
    """

    photo: Tensor
    mask: Tensor
    imagined: tuple[Imagined, ...]


def imagine(encoders: Sequence[Encoder], image: Image.Image, asked: Asked) -> Scene:
    """Hide the same places from every model and let each predict them.

    All see the first one's crop, at a size that every one can take. Raises MaskError for an impossible mask,
    Unsupported where a model has no decoder or none is given.
    """
    if not encoders:
        raise Unsupported("no model is chosen; choose one or more")
    size = common_size(encoders)
    photo = cropped(encoders[0], image, size)
    mask = asked.on(common_grid(encoders, size))
    return Scene(photo, mask, tuple(_imagined(encoder, photo, mask, asked) for encoder in encoders))


def _imagined(encoder: Encoder, photo: Tensor, mask: Tensor, asked: Asked) -> Imagined:
    spec = encoder.card.decoder
    assert spec is not None  # common_size has seen to it
    secondary = asked.secondary if spec.secondary is not None and asked.secondary > 0 else None
    rec = encoder.reconstruct(photo, mask, secondary=secondary, seed=asked.seed)
    down, across = (mine // given for mine, given in zip(rec.mask.shape[1:], mask.shape, strict=True))
    own = mask.repeat_interleave(down, 0).repeat_interleave(across, 1)
    notes = [_projection(own, rec)] if not torch.equal(own, rec.mask[0].cpu()) else []
    notes += [_blind(rec)] if _blind(rec) else []
    if asked.secondary > 0 and secondary is None:
        notes.append("It has no token for a secondary mask, so it sees all that is visible.")
    if rec.secondary is not None and bool((rec.secondary & ~rec.mask).any()):
        notes.append("Pale patches are visible ones whose place its secondary mask token takes.")
    if rec.uses_target_statistics:
        notes.append(BORROWED)
    return Imagined(encoder.card.name, rec, own, tuple(notes))


def _projection(asked: Tensor, rec: Reconstruction) -> str:
    """What became of the mask (h, w) that was asked for, and why."""
    used = rec.mask[0].cpu()
    more, patches = int((used & ~asked).sum()), asked.numel()
    return (
        f"Your mask was projected: this model sees exactly one patch of every 2×2, so it hid {more} of {patches} "
        f"patches more than you did (of several visible ones in a cell, the seed keeps one)."
    )


def _blind(rec: Reconstruction) -> str:
    """Cells that show nothing."""
    blind = 0 if rec.secondary is None else int((rec.secondary & rec.mask).sum())
    if not blind:
        return ""
    return (
        f"In {blind} of its 2×2 cells your mask shows nothing; its secondary mask token stands there instead."
    )
