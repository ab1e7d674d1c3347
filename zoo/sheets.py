"""Rows of tiles on white paper, with their labels, notes and captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, FAINT = (255, 255, 255), (31, 35, 40), (101, 109, 118)
GAP, MARGIN = 14, 24
LABEL, NOTE, CAPTION, TITLE = 17, 13, 16, 22
NARROWEST = 480  # pixels of a footer's lines

# Pillow's own font lacks these and would draw an empty box for each.
_LACKING = str.maketrans({"×": "x", "–": "-", "→": "to", "│": "|", "÷": "/"})


@dataclass(frozen=True)
class Row:
    """One row of a sheet: its tiles from left to right, a label above and a note below each, one caption below all.

    Labels may have several lines; the lowest ends above the tile.
    """

    tiles: Sequence[Image.Image]
    labels: Sequence[str] = ()
    caption: str = ""
    notes: Sequence[str] = ()

    @property
    def above(self) -> int:
        """Pixels that its labels take."""
        lines = max((label.count("\n") + 1 for label in self.labels), default=0)
        return (LABEL + 4) * lines + 4 if lines else 0

    @property
    def height(self) -> int:
        """Pixels of all of it."""
        tallest = max(tile.height for tile in self.tiles)
        below = (NOTE + 6 if any(self.notes) else 0) + (CAPTION + 10 if self.caption else 0)
        return self.above + tallest + below


def sheet(rows: Sequence[Row], *, title: str = "", footer: str = "", gap: int = GAP) -> Image.Image:
    """Rows of tiles; columns are as wide as their widest tile, and tiles are centred in them.

    gap: pixels between columns. A footer is broken into lines as wide as what stands above it, or 480 px.
    """
    count = max(len(row.tiles) for row in rows)
    widths = [max(row.tiles[c].width for row in rows if c < len(row.tiles)) for c in range(count)]
    heading, small = ImageFont.load_default(TITLE), ImageFont.load_default(CAPTION)
    lines = [heading.getlength(drawable(title)), *(small.getlength(drawable(row.caption)) for row in rows)]
    width = max(sum(widths) + gap * (count - 1), NARROWEST if footer else 0, *map(math.ceil, lines))
    footing = wrapped([footer], small, width)
    top = MARGIN + (TITLE + GAP if title else 0)
    height = top + sum(row.height for row in rows) + GAP * (len(rows) - 1) + MARGIN
    height += (GAP + CAPTION) * bool(footer) + (CAPTION + 6) * (len(footing) - 1)
    picture = Image.new("RGB", (width + 2 * MARGIN, height), PAPER)
    draw = ImageDraw.Draw(picture)
    _write(draw, (MARGIN, MARGIN), title, TITLE, INK)
    for row in rows:
        _draw_row(picture, draw, row, widths, top, gap)
        top += row.height + GAP
    for number, line in enumerate(footing):
        _write(draw, (MARGIN, top + number * (CAPTION + 6)), line, CAPTION, FAINT)
    return picture


def drawable(text: str) -> str:
    """`text` in characters that Pillow's own font has."""
    return text.translate(_LACKING)


def wrapped(
    lines: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float
) -> list[str]:
    """Sentences in lines of at most `width` of the font's pixels."""
    found: list[str] = []
    for line in lines:
        found.append("")
        for word in line.split():
            longer = f"{found[-1]} {word}".strip()
            if found[-1] and font.getlength(drawable(longer)) > width:
                found.append(word)
            else:
                found[-1] = longer
    return found


def shortened(text: str, width: int, size: int = NOTE) -> str:
    """The end of a text, which tells an id better than its beginning, within `width` pixels."""
    font = ImageFont.load_default(size)
    cuts = (text if cut == 0 else f"…{text[cut:]}" for cut in range(len(text)))
    return next((each for each in cuts if font.getlength(drawable(each)) <= width), "")


def _draw_row(
    picture: Image.Image, draw: ImageDraw.ImageDraw, row: Row, widths: Sequence[int], top: int, gap: int
) -> None:
    """Labels, tiles, notes and caption of one row whose upper edge is at `top`."""
    bottom, upper = top + row.height, top + row.above
    left = MARGIN
    for column, (tile, width) in enumerate(zip(row.tiles, widths, strict=False)):
        middle = left + width // 2
        if row.labels:
            lines = reversed(row.labels[column].split("\n"))
            for number, line in enumerate(lines):
                _write(draw, (middle, upper - 11 - number * (LABEL + 4)), line, LABEL, INK, "ms")
        picture.paste(tile, (left + (width - tile.width) // 2, upper))
        if any(row.notes):
            _write(draw, (middle, upper + tile.height + NOTE + 2), row.notes[column], NOTE, FAINT, "ms")
        left += width + gap
    _write(draw, (MARGIN, bottom - CAPTION), row.caption, CAPTION, FAINT)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    anchor: str = "lt",
) -> None:
    """Text in Pillow's own font."""
    draw.text(at, drawable(text), fill=colour, font=ImageFont.load_default(size), anchor=anchor)
