"""Two encoders on the same photos: what each attends to, which parts and which photos it holds for alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from zoo.app.attention import attend
from zoo.app.neighbours import Neighbours, neighbours
from zoo.colours import colour_picture
from zoo.encoder import Encoder
from zoo.features import Features
from zoo.pictures import heat_over, resized, tile_size, to_picture


@dataclass(frozen=True, eq=False)
class Looked:
    """One encoder on N photos. attention: a picture of each, or None where the model has none. near: None for N = 1."""

    name: str
    attention: tuple[Image.Image | None, ...]
    colours: tuple[Image.Image, ...]
    near: Neighbours | None


def look(
    encoder: Encoder, photos: Sequence[Image.Image], *, count: int = 3, patches: int = 20, tile: int = 240
) -> Looked:
    """What one encoder makes of the photos: mean attention and colours of its last block, and nearest neighbours."""
    attention: list[Image.Image | None] = []
    colours = []
    for photo in photos:
        attended = attend(encoder, photo, patches=patches)
        small = resized(to_picture(attended.photo), tile_size(attended.photo, tile))
        heads = attended.heads
        attention.append(None if heads is None else heat_over(small, heads.mean(dim=0)))
        colours.append(colour_picture(attended.photo, attended.features, tile))
    return Looked(encoder.card.name, tuple(attention), tuple(colours), near(encoder, photos, count))


def near(encoder: Encoder, photos: Sequence[Image.Image], count: int = 3) -> Neighbours | None:
    """The nearest neighbours of each photo among the others by pooled features; None for one photo alone."""
    if len(photos) < 2:
        return None
    features = encoder(list(photos))
    assert isinstance(features, Features)  # cropped to one size, they lie on one grid
    return neighbours(features.pooled, count)
