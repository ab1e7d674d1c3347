"""What each head of a block looks at in a photo, on a grid fine enough to see an outline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from PIL import Image
from torch import Tensor

from zoo.app.limits import PATCHES
from zoo.encoder import Encoder
from zoo.errors import Unsupported
from zoo.features import Features
from zoo.pictures import FINE_GRID, as_seen, attention_tiles, enlarged

Query = Literal["cls"] | tuple[int, int]


@dataclass(frozen=True, eq=False)
class Attended:
    """One photo in one block. photo: (3, H, W) in [0, 1]. heads: (heads, h, w), or None where `note` says why.

    query: whose attention it is, the class token's or a patch's.
    """

    photo: Tensor
    features: Features
    heads: Tensor | None
    query: Query
    note: str = ""

    def pictures(self, share: float = 0.6, tile: int = 480) -> list[tuple[Image.Image, str]]:
        """The photo, each head, their mean, and the patches with `share` of its mass; each with its name."""
        if self.heads is None:
            return []
        tiles, labels = attention_tiles(self.photo, self.heads, tile=tile, share=share)
        return list(zip(tiles, labels, strict=True))


def attend(
    encoder: Encoder, image: Image.Image, *, block: int = -1, patches: int = FINE_GRID, query: Query = "cls"
) -> Attended:
    """The heads of a block, and its patch tokens. patches: along the photo's short side.

    Where "cls" cannot be asked, for want of a class token, the patch in the middle is. Raises Unsupported for a block
    that does not exist, SizeError for a patch outside the grid.
    """
    photo = seen(encoder, image, patches)
    return attend_to(encoder, photo, tokens(encoder, photo, block), block, query)


def attend_to(
    encoder: Encoder, photo: Tensor, features: Features, block: int = -1, query: Query = "cls"
) -> Attended:
    """`attend` on a photo (3, H, W) that `seen` gave, with the `tokens` of the block."""
    if query == "cls":
        return _of_class_token(encoder, photo, features, block)
    return Attended(photo, features, encoder.attention(photo[None], block, query)[0].cpu(), query)


def seen(encoder: Encoder, image: Image.Image, patches: int = FINE_GRID) -> Tensor:
    """The photo as the encoder gets it, (3, H, W) in [0, 1]: its short side of `patches`, or as many as are allowed."""
    aspect = max(image.size) / min(image.size)
    allowed = max(2, min(patches, math.isqrt(int(PATCHES / aspect))))
    return as_seen(encoder, image, fit="whole", size=enlarged(encoder.stride, allowed))


def tokens(encoder: Encoder, photo: Tensor, block: int = -1) -> Features:
    """Features of one photo (3, H, W) after a block; after the last one, those that `encoder(photo)` gives."""
    return encoder.intermediates(photo[None], layers=(block,))[0]


def depth(encoder: Encoder) -> int:
    """How many blocks it has."""
    blocks: int = encoder.family.depth(encoder.module)
    return blocks


def _of_class_token(encoder: Encoder, photo: Tensor, features: Features, block: int) -> Attended:
    """The class token's heads; those of the patch in the middle where there is none; or why there are no heads."""
    try:
        return Attended(photo, features, encoder.attention(photo[None], block)[0].cpu(), "cls")
    except Unsupported as error:
        reason = str(error)
    middle = (features.grid[0] // 2, features.grid[1] // 2)
    try:
        heads = encoder.attention(photo[None], block, middle)[0].cpu()
    except Unsupported:
        return Attended(photo, features, None, "cls", reason)
    note = (
        f"There is no class token to ask in this block: this is what patch {middle} in the middle attends to."
    )
    return Attended(photo, features, heads, middle, note)
