"""A pyramid's hierarchy as a picture: each stage's grid over a photo, and a Swin's windows before and after a shift.

Grids and windows are the real module's, for the photo's own size.
"""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, NamedTuple

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from zoo.errors import Unsupported
from zoo.families import swin
from zoo.pictures import resized, tile_size, to_picture
from zoo.sheets import Row, sheet

if TYPE_CHECKING:
    from zoo.encoder import Encoder

FINE, FINE_WINDOW = 5, 10  # pixels of a cell on the tile, below which its lines would cover the photo
LINE, FRAME, EDGE = (
    (255, 255, 255, 90),
    (255, 255, 255, 255),
    (0, 0, 0, 150),
)  # an edge shows on bright photos
WINDOWS = (
    "Windows of each stage's first block: a position sees those in its window and no others.",
    "Windows of its second block, shifted where there are several. Tinted alike: parts of one window, which the shift "
    "joined from far ends and the mask keeps apart.",
)
GOLDEN = 0.381966  # of the circle of hues: windows that follow each other differ


class Regions(NamedTuple):
    """Of every position of a block's grid (h, w): the window it lies in, and which part of it. Parts stay apart."""

    window: Tensor
    part: Tensor


def hierarchy_panel(encoder: Encoder, image: Tensor, *, title: str = "", tile: int = 340) -> Image.Image:
    """One column a stage: the photo at the stage's resolution, and below it a Swin's windows in two blocks running.

    image: (3, H, W) in [0, 1], of the encoder's sizes. Raises Unsupported for an encoder of one stage.
    """
    maps = encoder.pyramid(image[None])
    if len(maps) < 2:
        raise Unsupported(
            f"{encoder.card.name} has one grid from the first block to the last and no hierarchy to draw; "
            "`zoo attend` without --hierarchy draws what its heads look at"
        )
    photo = resized(to_picture(image), tile_size(image, tile))
    grids = [(each.shape[2], each.shape[3]) for each in maps]
    pixels = image.shape[-1]
    labels = [
        f"stage {number}: {h}×{w}, {pixels // w} px each, {each.shape[1]} channels"
        for number, (each, (h, w)) in enumerate(zip(maps, grids, strict=True), start=1)
    ]
    rows = [
        Row([_mosaic(photo, grid) for grid in grids], labels, "The grids of the feature maps, finest first.")
    ]
    if encoder.card.family != "swin":
        return sheet(rows, title=title)
    rows += _window_rows(encoder, photo, grids)
    return sheet(rows, title=title)


def _window_rows(encoder: Encoder, photo: Image.Image, grids: list[tuple[int, int]]) -> list[Row]:
    """The windows of each stage's first block and of its second."""
    stages = swin.stages(encoder.module)  # type: ignore[arg-type]
    depths = [len(stage.blocks) for stage in stages]
    firsts, rows = [sum(depths[:i]) for i in range(len(depths))], []
    for turn in range(min(2, *depths)):
        tiles, labels = [], []
        for stage, grid, number in zip(stages, grids, firsts, strict=True):
            block = stage.blocks[turn]
            found = regions(block, grid)
            tiles.append(_windows_over(photo, found))
            labels.append(f"block {number + turn}: {_told(block, grid, found)}")
        rows.append(Row(tiles, labels, WINDOWS[turn]))
    return rows


def regions(block: torch.nn.Module, grid: tuple[int, int]) -> Regions:
    """The windows of a Swin's block on a grid (h, w), and the parts that its shift mask keeps apart."""
    slots, apart, _ = swin.windows(block, grid)
    count, size = slots.shape
    # A part is named by its first slot that is no padding.
    order = torch.arange(size, device=slots.device)
    meets = (~apart & (slots >= 0)[:, None]).long() * (size - order)
    leader = size - meets.max(dim=2).values
    window, part = (torch.zeros(grid[0] * grid[1], dtype=torch.long, device=slots.device) for _ in range(2))
    real = slots >= 0
    window[slots[real]] = torch.arange(count, device=slots.device)[:, None].expand_as(slots)[real]
    part[slots[real]] = leader[real]
    return Regions(window.reshape(grid).cpu(), part.reshape(grid).cpu())


def _told(block: torch.nn.Module, grid: tuple[int, int], found: Regions) -> str:
    """`"64 windows of 7×7, shifted by 3"`."""
    (down, across), shift = swin.window_and_shift(block, grid)
    count = int(found.window.max()) + 1
    what = "1 window" if count == 1 else f"{count} windows"
    moved = f", shifted by {max(shift)}" if any(shift) else ""
    return f"{what} of {down}×{across}{moved}"


def _mosaic(photo: Image.Image, grid: tuple[int, int]) -> Image.Image:
    """The photo with one colour for each position, and their lines where these can be told apart."""
    small = photo.resize((grid[1], grid[0]), Image.Resampling.BOX)
    mosaic = resized(small, photo.size, Image.Resampling.NEAREST)
    return _with_lines(mosaic, grid) if min(_cell(photo, grid)) >= FINE else mosaic


def _cell(photo: Image.Image, grid: tuple[int, int]) -> tuple[float, float]:
    """Width and height on the tile of one position."""
    return photo.width / grid[1], photo.height / grid[0]


def _with_lines(picture: Image.Image, grid: tuple[int, int]) -> Image.Image:
    """Thin lines between the positions."""
    over = Image.new("RGBA", picture.size)
    draw, (wide, high) = ImageDraw.Draw(over), _cell(picture, grid)
    for column in range(1, grid[1]):
        draw.line([(round(column * wide), 0), (round(column * wide), picture.height)], fill=LINE)
    for row in range(1, grid[0]):
        draw.line([(0, round(row * high)), (picture.width, round(row * high))], fill=LINE)
    return Image.alpha_composite(picture.convert("RGBA"), over).convert("RGB")


def _windows_over(photo: Image.Image, found: Regions) -> Image.Image:
    """The photo with a frame around every part of a window, and a tint for windows of several parts."""
    grid = (found.window.shape[0], found.window.shape[1])
    lined = _with_lines(photo, grid) if min(_cell(photo, grid)) >= FINE_WINDOW else photo
    over = Image.new("RGBA", photo.size)
    draw, (wide, high) = ImageDraw.Draw(over), _cell(photo, grid)
    tints = _tints(found)
    for row in range(grid[0]):
        for column in range(grid[1]):
            tint = tints.get(int(found.window[row, column]))
            if tint is not None:
                corner = (round(column * wide), round(row * high))
                end = (round((column + 1) * wide) - 1, round((row + 1) * high) - 1)
                draw.rectangle([corner, end], fill=tint)
    _draw_frames(draw, photo, found)
    return Image.alpha_composite(lined.convert("RGBA"), over).convert("RGB")


def _tints(found: Regions) -> dict[int, tuple[int, int, int, int]]:
    """A colour for every window that has several parts."""
    tints: dict[int, tuple[int, int, int, int]] = {}
    for window in found.window.unique().tolist():
        if len(found.part[found.window == window].unique()) > 1:
            red, green, blue = colorsys.hsv_to_rgb(len(tints) * GOLDEN % 1, 0.85, 1.0)
            tints[window] = (round(255 * red), round(255 * green), round(255 * blue), 120)
    return tints


def _draw_frames(draw: ImageDraw.ImageDraw, photo: Image.Image, found: Regions) -> None:
    """A line wherever neighbours lie in different windows or parts, and around the photo: white on a dark edge."""
    wide, high = _cell(photo, (found.window.shape[0], found.window.shape[1]))
    marks = found.window * (int(found.part.max()) + 1) + found.part
    lines = [
        ((column + 1) * wide, row * high, (column + 1) * wide, (row + 1) * high)
        for row, column in (marks[:, 1:] != marks[:, :-1]).nonzero().tolist()
    ] + [
        (column * wide, (row + 1) * high, (column + 1) * wide, (row + 1) * high)
        for row, column in (marks[1:] != marks[:-1]).nonzero().tolist()
    ]
    for colour, width in ((EDGE, 4), (FRAME, 2)):
        for line in lines:
            draw.line([round(each) for each in line], fill=colour, width=width)
        draw.rectangle([0, 0, photo.width - 1, photo.height - 1], outline=colour, width=width)
