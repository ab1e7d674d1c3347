"""Galleries: what models make of the same photos, side by side, as pictures for a paper.

The photos are a sample that nobody chose (`zoo.sample.uncurated`), and each picture says so below itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from zoo.attention_maps import top_mass
from zoo.colours import colour_picture
from zoo.contact_sheet import contact_sheet, named, tile_side
from zoo.encoder import Encoder
from zoo.errors import DataError, ImageError, Unsupported
from zoo.evaluate.filling import fill_errors
from zoo.images import read_image
from zoo.masking import batch_seeds, draw_mask
from zoo.one_mask import common_grid, common_size, common_strategy, cropped
from zoo.pictures import (
    BORROWED,
    FINE_GRID,
    as_seen,
    enlarged,
    heat_over,
    resized,
    spotlight,
    tile_size,
    to_picture,
)
from zoo.progress import track
from zoo.reconstruction import Reconstruction
from zoo.sample import COUNT, uncurated
from zoo.sources import Source

PATCHES = 8  # a tile of a reconstruction is a multiple of so many pixels

SHARE = 0.6  # of the attention's mass, as DINO shows it


@dataclass(frozen=True)
class Shown:
    """An encoder under the name that a gallery gives it: a model, or the architecture of one, untrained."""

    name: str
    encoder: Encoder


@dataclass(frozen=True, eq=False)
class Sample:
    """Photos with their ids, and in words where they come from."""

    ids: Sequence[str]
    photos: Sequence[Image.Image]
    said: str


def sample(source: Source, count: int = COUNT) -> Sample:
    """The first photos of a source by the hash of their id. Raises DataError for none, ImageError for a broken one."""
    if count < 1:
        raise DataError(f"a gallery of {count} photos shows nothing; ask for 1 or more")
    chosen = uncurated(source, count)
    photos = []
    for i in track(range(len(chosen)), "photos"):
        try:
            photos.append(read_image(chosen.read(i)))
        except ImageError as error:
            raise ImageError(f"{chosen.ids[i]}: {error}") from error
    said = (
        f"The first {len(photos)} of {len(source):,} photos ({source.title}) by the SHA-256 of their id: "
        "none was chosen."
    )
    return Sample(chosen.ids, photos, said)


def reconstructions(
    models: Sequence[Shown],
    of: Sample,
    *,
    strategy: str | None = None,
    ratio: float | None = None,
    seed: int = 0,
    tile: int | None = None,
) -> tuple[Image.Image, dict[str, Tensor]]:
    """Each photo, what is left of it under a mask, and what each model makes of that; and the errors (N,) of each.

    All models see one crop under one mask, photo i's drawn by seed + i; strategy=None is the first of the models' own
    that all take. Raises Unsupported where a model has no decoder, MaskError for an impossible mask.
    """
    encoders = [each.encoder for each in models]
    size = common_size(encoders)
    crops = torch.cat([cropped(encoders[0], photo, size) for photo in of.photos])  # (N, 3, S, S)
    strategy = strategy or common_strategy(encoders)
    hidden = draw_mask(strategy, common_grid(encoders, size), batch_seeds(seed, len(crops)), ratio)
    found = [each.encoder.reconstruct(crops, hidden, seed=seed) for each in track(models, "imagining")]
    labels = ["photo", "masked", *(each.name for each in models)]
    tile = tile or tile_side(labels, PATCHES)
    groups, notes = [], []
    for i, name in enumerate(of.ids):
        pictures = [found[0].image[i], found[0].masked[i], *(rec.composite[i] for rec in found)]
        groups.append([resized(to_picture(each), (tile, tile)) for each in pictures])
        notes.append([named(name, tile), "", *(f"{float(rec.error[i]):.4f}" for rec in found)])
    errors = {each.name: rec.error.cpu() for each, rec in zip(models, found, strict=True)}
    smooth = float(fill_errors(found[0])[:, 1].mean())
    means = ", ".join(f"{name} {float(error.mean()):.4f}" for name, error in errors.items())
    said = [
        of.said,
        f"Masks: {strategy}, {100 * float(hidden.float().mean()):.3g} % hidden, seed {seed} + i for photo i; "
        "visible patches are kept.",
        f"Numbers: mean squared error on the hidden pixels, which lie in [0, 1]; mean of all: {means}, a smooth fill "
        f"that knows nothing of images {smooth:.4f}.",
        *_owned_up(models, found, hidden),
    ]
    return contact_sheet("Reconstructions under the same masks", labels, groups, notes, said), errors


def attentions(models: Sequence[Shown], of: Sample, *, tile: int | None = None) -> Image.Image:
    """Each photo, and for each model the mean of its last block's heads and the patches with 60 % of it.

    Raises Unsupported where a model has no class token to ask.
    """

    def drawn(encoder: Encoder, photo: Image.Image, tile: int) -> list[Image.Image]:
        seen = _seen(encoder, photo)
        mean = encoder.attention(seen[None])[0].cpu().mean(dim=0)  # (h, w)
        small = _thumb(encoder, photo, tile)
        return [heat_over(small, mean), spotlight(small, top_mass(mean, SHARE))]

    said = (
        "Attention of the last block's class token, mean of its heads, each map on its own scale; beside it the "
        f"patches that hold {100 * SHARE:.3g} % of its mass."
    )
    columns = [part for each in models for part in (each.name, f"top {100 * SHARE:.3g} %")]
    return _photo_by_photo("Where the class token looks", models, of, columns, drawn, said, tile)


def colours(models: Sequence[Shown], of: Sample, *, tile: int | None = None) -> Image.Image:
    """Each photo, and for each model the three main directions of its patch tokens as red, green and blue."""

    def drawn(encoder: Encoder, photo: Image.Image, tile: int) -> list[Image.Image]:
        seen = _seen(encoder, photo)
        return [colour_picture(seen, encoder.intermediates(seen[None], layers=(-1,))[0], tile)]

    said = (
        "Main directions (PCA) of the last block's patch tokens as red, green and blue, of every photo and model by "
        "itself: equal colours in one tile are alike, colours of two tiles cannot be compared."
    )
    columns = [each.name for each in models]
    return _photo_by_photo("What the patch tokens tell apart", models, of, columns, drawn, said, tile)


def _photo_by_photo(
    title: str,
    models: Sequence[Shown],
    of: Sample,
    columns: Sequence[str],
    drawn: Callable[[Encoder, Image.Image, int], list[Image.Image]],
    said: str,
    tile: int | None,
) -> Image.Image:
    """A sheet of each photo, its id below, and the tiles `drawn` makes of it for each model, under `columns`."""
    labels = ["photo", *columns]
    tile = tile or tile_side(labels, FINE_GRID)
    groups, notes = [], []
    for name, photo in zip(of.ids, track(of.photos, "drawing"), strict=True):
        tiles = [each_tile for each in models for each_tile in drawn(each.encoder, photo, tile)]
        groups.append([_thumb(models[0].encoder, photo, tile), *tiles])
        notes.append([named(name, tile), *("" for _ in columns)])
    return contact_sheet(title, labels, groups, notes, [of.said, said])


def with_class_token(models: Sequence[Shown]) -> list[Shown]:
    """Those whose last block has a class token to ask."""
    return [each for each in models if _has_class_token(each.encoder)]


def _has_class_token(encoder: Encoder) -> bool:
    blank = torch.zeros(1, encoder.transform.channels, *(2 * encoder.stride,) * 2)
    try:
        encoder.attention(blank)
    except Unsupported:
        return False
    return True


def _seen(encoder: Encoder, photo: Image.Image) -> Tensor:
    """What an encoder gets of a photo, (3, S, S) in [0, 1]: its own crop, enlarged to 28 patches of 16 px."""
    return as_seen(encoder, photo, fit="crop", size=enlarged(encoder.stride))


def _thumb(encoder: Encoder, photo: Image.Image, tile: int) -> Image.Image:
    seen = _seen(encoder, photo)
    return resized(to_picture(seen), tile_size(seen, tile))


def _owned_up(models: Sequence[Shown], found: Sequence[Reconstruction], hidden: Tensor) -> list[str]:
    """What the errors of models that were not asked the same, or were helped, have to say."""
    said = []
    for each, rec in zip(models, found, strict=True):
        used = float(rec.mask.float().mean())
        if abs(used - float(hidden.float().mean())) > 1e-6:
            said.append(
                f"{each.name} sees one patch of every 2×2, so {100 * used:.3g} % were hidden from it."
            )
    if any(rec.uses_target_statistics for rec in found):
        borrowers = [each.name for each, rec in zip(models, found, strict=True) if rec.uses_target_statistics]
        said.append(f"{', '.join(borrowers)}: {BORROWED}")
    return said
