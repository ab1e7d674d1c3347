"""Charts for people, drawn with Pillow as the pictures are: nothing more to install."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from zoo.sheets import FAINT, INK, MARGIN, PAPER, drawable, wrapped

# Told apart by the colour-blind too, and each by its own shape.
SERIES = ((31, 95, 174), (214, 96, 20))
GRID, BAND = (222, 226, 230), (247, 248, 250)
TITLE, LABEL, SMALL = 22, 17, 15
ROW, DOT, CAP, AXIS = 58, 6, 5, 640
SHARP = 2  # drawn so many times larger, then reduced: Pillow's lines have no soft edges


@dataclass(frozen=True)
class Bar:
    """One row of a chart: a name, a note below it, and (value, low, high) of each series; None where there is none."""

    name: str
    note: str
    points: Sequence[tuple[float, float, float] | None]


def interval_chart(
    bars: Sequence[Bar], series: Sequence[str], *, title: str, unit: str = "", footer: Sequence[str] = ()
) -> Image.Image:
    """Points with their intervals on one axis, a row for each name and a colour for each series."""
    name, small = ImageFont.load_default(LABEL * SHARP), ImageFont.load_default(SMALL * SHARP)
    names = max(
        *(name.getlength(bar.name) for bar in bars), *(small.getlength(bar.note) for bar in bars), 0.0
    )
    left = 2 * MARGIN + math.ceil(names / SHARP)
    top = MARGIN + TITLE + 16 + SMALL + 18
    bottom = top + ROW * len(bars)
    footing = wrapped(footer, small, (left + AXIS - MARGIN) * SHARP)
    size = (left + AXIS + 2 * MARGIN, bottom + 34 + (SMALL + 8) * len(footing) + MARGIN)
    picture = Image.new("RGB", (size[0] * SHARP, size[1] * SHARP), PAPER)
    pen = _Pen(ImageDraw.Draw(picture))
    ticks = _ticks(bars)

    def at(value: float) -> float:
        return left + AXIS * (value - ticks[0]) / (ticks[-1] - ticks[0])

    pen.text((MARGIN, MARGIN), title, INK, TITLE)
    _legend(pen, left, MARGIN + TITLE + 16, series)
    for index in range(0, len(bars), 2):
        pen.box((MARGIN / 2, top + ROW * index, left + AXIS + 1.5 * MARGIN, top + ROW * (index + 1)), BAND)
    for tick in ticks:
        pen.line((at(tick), top), (at(tick), bottom), GRID, 1)
        pen.text((at(tick), bottom + 8), f"{tick:g}{unit}", FAINT, SMALL, "mt")
    for index, bar in enumerate(bars):
        middle = top + ROW * (index + 0.5)
        pen.text((MARGIN, middle - (9 if bar.note else 0)), bar.name, INK, LABEL, "lm")
        pen.text((MARGIN, middle + 13), bar.note, FAINT, SMALL, "lm")
        for number, point in enumerate(bar.points):
            if point is None:
                continue
            lane = middle + 18 * (number - (len(bar.points) - 1) / 2)
            _interval(pen, [at(value) for value in point], lane, number, f"{point[0]:.1f}")
    for number, line in enumerate(footing):
        pen.text((MARGIN, bottom + 38 + (SMALL + 8) * number), line, FAINT, SMALL)
    return picture.resize(size, Image.Resampling.LANCZOS)


def stacked(charts: Sequence[Image.Image]) -> Image.Image:
    """Charts one below the other."""
    size = (max(chart.width for chart in charts), sum(chart.height for chart in charts))
    picture, top = Image.new("RGB", size, PAPER), 0
    for chart in charts:
        picture.paste(chart, (0, top))
        top += chart.height
    return picture


def _interval(pen: _Pen, x: Sequence[float], y: float, number: int, value: str) -> None:
    """One point with its interval, x = (value, low, high), and the value beside it."""
    colour = SERIES[number % len(SERIES)]
    pen.line((x[1], y), (x[2], y), colour, 2)
    for end in x[1:]:
        pen.line((end, y - CAP), (end, y + CAP), colour, 2)
    pen.mark((x[0], y), colour, number)
    pen.text((x[2] + 8, y), value, colour, SMALL, "lm")


def _legend(pen: _Pen, left: float, y: float, series: Sequence[str]) -> None:
    for number, name in enumerate(series):
        colour = SERIES[number % len(SERIES)]
        pen.line((left, y + SMALL / 2), (left + 28, y + SMALL / 2), colour, 2)
        pen.mark((left + 14, y + SMALL / 2), colour, number)
        left = pen.text((left + 36, y + SMALL / 2), name, INK, SMALL, "lm") + 28


class _Pen:
    """A drawing in small units on a picture SHARP times as large."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self.draw = draw

    def text(
        self, at: tuple[float, float], text: str, colour: tuple[int, ...], size: int, anchor: str = "lt"
    ) -> float:
        """Write `text`; where it ends on the right."""
        font, text = ImageFont.load_default(size * SHARP), drawable(text)
        self.draw.text((at[0] * SHARP, at[1] * SHARP), text, fill=colour, font=font, anchor=anchor)
        return at[0] + font.getlength(text) / SHARP

    def line(
        self, start: tuple[float, float], end: tuple[float, float], colour: tuple[int, ...], width: int
    ) -> None:
        ends = [(x * SHARP, y * SHARP) for x, y in (start, end)]
        self.draw.line(ends, fill=colour, width=width * SHARP)

    def box(self, sides: tuple[float, float, float, float], colour: tuple[int, ...]) -> None:
        self.draw.rectangle([side * SHARP for side in sides], fill=colour)

    def mark(self, at: tuple[float, float], colour: tuple[int, ...], number: int) -> None:
        """A dot for the first series, a diamond for the second."""
        x, y, r = at[0] * SHARP, at[1] * SHARP, DOT * SHARP
        if number % 2 == 0:
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=colour, outline=PAPER, width=SHARP)
        else:
            r = round(1.25 * r)
            self.draw.polygon([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], fill=colour, outline=PAPER)


def _ticks(bars: Sequence[Bar]) -> list[float]:
    """Four to eight round numbers around all intervals."""
    points = [point for bar in bars for point in bar.points if point is not None]
    low, high = min(point[1] for point in points), max(point[2] for point in points)
    wide = max(high - low, 1e-9)
    step = next(
        scale * unit
        for scale in (10.0**power for power in range(-3, 6))
        for unit in (1, 2, 5)
        if wide / (scale * unit) <= 6
    )
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * number for number in range(first, max(last, first + 1) + 1)]
