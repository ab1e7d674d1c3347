"""Pictures for people: what a model attends to, and what it imagines. Tensors in, PIL images out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from zoo.attention_maps import top_mass
from zoo.sheets import PAPER, Row, sheet

if TYPE_CHECKING:
    from zoo.encoder import Encoder
    from zoo.images import ImageSource
    from zoo.reconstruction import Reconstruction

Array = npt.NDArray[np.float32]

# Nine even stops of matplotlib's inferno (CC0): equal steps look equally large, and lightness alone keeps the order.
HEAT = np.array([
    (0, 0, 4), (33, 12, 74), (87, 16, 110), (138, 34, 106), (188, 55, 84),
    (228, 90, 49), (249, 142, 9), (249, 203, 53), (252, 255, 164),
], dtype=np.float32)  # fmt: skip

# Fine enough for the outline of an object, coarse enough to see single patches.
FINE_GRID = 28
# Pixels a patch at most counts for where a photo is enlarged: a pyramid's last stage is coarser than what it looks at.
FINEST = 16

RECONSTRUCTED = ("original", "masked", "predicted", "composite")
BORROWED = (
    "The picture borrows the mean and variance of every hidden patch: this model predicts normalised pixels."
)


def as_seen(encoder: Encoder, image: ImageSource, *, fit: str = "whole", size: int | None = None) -> Tensor:
    """What an encoder gets of a photo, as (3, H, W) in [0, 1]: a tensor it takes back as it is.

    size=None enlarges the photo until its short side has 28 patches. Raises ImageError and SizeError.
    """
    short = FINE_GRID * encoder.stride if size is None else size
    return encoder.transform.denormalise(encoder.transform.pixels(image, encoder.stride, fit, short)).clamp(
        0, 1
    )


def enlarged(stride: int, patches: int = FINE_GRID) -> int:
    """Pixels of the short side of a photo that is enlarged to so many patches, of 16 px where the stride is coarser."""
    return max(1, round(patches * min(stride, FINEST) / stride)) * stride


def outlined(image: Tensor, patch: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """A copy of an image (3, H, W) in [0, 1] with a frame around the patch (row, column) of `grid` (h, w)."""
    sides = [image.shape[-2] / grid[0], image.shape[-1] / grid[1]]
    line = max(1, round(min(sides) / 6))
    marked = image.clone()
    for margin, colour in ((line, 0.0), (0, 1.0)):
        box = [
            slice(max(0, round(i * side) - margin), round((i + 1) * side) + margin)
            for i, side in zip(patch, sides, strict=True)
        ]
        marked[:, *box] = colour
    inner = [
        slice(round(i * side) + line, round((i + 1) * side) - line)
        for i, side in zip(patch, sides, strict=True)
    ]
    marked[:, *inner] = image[:, *inner]
    return marked


def attention_panel(image: Tensor, heads: Tensor, *, title: str = "", tile: int = 320) -> Image.Image:
    """The photo, a heat map per head, their mean, and the patches that hold 60 % of the mean's mass.

    image (3, H, W) in [0, 1], heads (heads, h, w), not negative; `tile` is the longer side of one tile in pixels.
    """
    tiles, labels = attention_tiles(image, heads, tile=tile)
    columns = _columns(len(tiles))
    starts = range(0, len(tiles), columns)
    return sheet([Row(tiles[i : i + columns], labels[i : i + columns]) for i in starts], title=title)


def attention_tiles(
    image: Tensor, heads: Tensor, *, tile: int = 320, share: float = 0.6
) -> tuple[list[Image.Image], list[str]]:
    """The tiles of `attention_panel` and their labels; the last shows the patches that hold `share` of the mass."""
    size = tile_size(image, tile)
    photo = resized(to_picture(image), size)
    mean = heads.mean(dim=0)
    heat = [heat_over(photo, head) for head in (*heads, mean)]
    tiles = [photo, *heat, spotlight(photo, top_mass(mean, share))]
    return tiles, [
        "photo",
        *(f"head {i}" for i in range(len(heads))),
        "mean of heads",
        f"top {100 * share:.3g} % of the mean",
    ]


def reconstruction_panel(
    rec: Reconstruction,
    *,
    strategy: str | None = None,
    seed: int | None = None,
    title: str = "",
    tile: int = 256,
) -> Image.Image:
    """One row per image: original, masked, predicted, composite, with what was hidden and the error below.

    seed: of the first image's mask, where one was drawn; the captions then say each image's own.
    """
    rows = []
    for i in range(len(rec.image)):
        labels = RECONSTRUCTED if i == 0 else ()
        caption = reconstruction_caption(rec, i, strategy, seed)
        rows.append(Row(reconstruction_tiles(rec, i, tile=tile), labels, caption))
    return sheet(rows, title=title, footer=BORROWED if rec.uses_target_statistics else "")


def reconstruction_tiles(rec: Reconstruction, index: int, *, tile: int = 256) -> list[Image.Image]:
    """One row of `reconstruction_panel`; `RECONSTRUCTED` names its tiles."""
    columns = (rec.image[index], rec.masked[index], rec.predicted[index], rec.composite[index])
    return [resized(to_picture(column), tile_size(column, tile)) for column in columns]


def reconstruction_caption(
    rec: Reconstruction, index: int, strategy: str | None = None, seed: int | None = None
) -> str:
    """`"random, seed 0, 75 % hidden · error 0.0123"`, with the share of visible patches a secondary mask took."""
    mask = rec.mask[index]
    drawn = [strategy, None if seed is None else f"seed {seed + index}"]
    hidden = f"{100 * float(mask.float().mean()):.3g} % hidden"
    parts = [", ".join([*(word for word in drawn if word), hidden])]
    if rec.secondary is not None and (visible := int((~mask).sum())):
        share = float((rec.secondary[index] & ~mask).sum()) / visible
        parts.append(f"{100 * share:.3g} % of the visible masked too")
    return " · ".join([*parts, f"error {float(rec.error[index]):.4f}"])


def heat_colours(values: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Colours of values in [0, 1] (...) -> (..., 3) uint8, dark for 0 and bright for 1."""
    stops = np.linspace(0.0, 1.0, len(HEAT))
    channels = [np.interp(np.asarray(values, dtype=np.float32), stops, HEAT[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_over(photo: Image.Image, head: Tensor) -> Image.Image:
    """One map (h, w), such as a head, as heat over a grey copy of the photo, on the map's own scale."""
    strength = _stretched(head.detach().float().cpu().numpy())
    heat = resized(Image.fromarray(heat_colours(strength)), photo.size, Image.Resampling.NEAREST)
    return Image.blend(photo.convert("L").convert("RGB"), heat, 0.78)


def spotlight(photo: Image.Image, mask: Tensor) -> Image.Image:
    """The photo where the mask (h, w) is True, a pale ghost of it elsewhere."""
    stencil = Image.fromarray(mask.cpu().numpy().astype(np.uint8) * 255)
    ghost = Image.blend(photo.convert("L").convert("RGB"), Image.new("RGB", photo.size, PAPER), 0.8)
    return Image.composite(photo, ghost, resized(stencil, photo.size, Image.Resampling.NEAREST))


def _stretched(head: Array) -> Array:
    """A map (h, w) from its minimum to its 99.5th percentile as 0 to 1: one outlier patch must not darken the rest."""
    low, high = float(head.min()), float(np.quantile(head, 0.995))
    stretched: Array = np.clip((head - low) / max(high - low, 1e-12), 0.0, 1.0)
    return stretched


def to_picture(image: Tensor) -> Image.Image:
    """(C, H, W) in [0, 1] -> RGB in PIL, rounded to 8 bits: the first three channels, or the first as grey."""
    shown = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    levels = (shown.detach().float().cpu().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def resized(picture: Image.Image, size: tuple[int, int], how: Image.Resampling | None = None) -> Image.Image:
    return picture.resize(size, how if how is not None else Image.Resampling.BICUBIC)


def tile_size(image: Tensor, tile: int) -> tuple[int, int]:
    """Width and height of an image (3, H, W) whose longer side becomes `tile`."""
    height, width = image.shape[-2:]
    scale = tile / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _columns(tiles: int) -> int:
    """How many columns leave the fewest holes: up to six in one row, else three to six, the wider first."""
    return tiles if tiles <= 6 else min((6, 5, 4, 3), key=lambda columns: -tiles % columns)
