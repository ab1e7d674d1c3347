"""Contact sheets: the same few tiles for every photo, photo after photo, on one picture of readable size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from PIL import Image

from zoo.sheets import PAPER, Row, sheet, shortened

BETWEEN, APART = 4, 18  # pixels between tiles, and more between two photos
WIDEST, WIDTH = 14, 1300  # tiles in a row, and their pixels
LARGEST = 112  # pixels of a tile's side


def contact_sheet(
    title: str,
    labels: Sequence[str],
    groups: Sequence[Sequence[Image.Image]],
    notes: Sequence[Sequence[str]],
    said: Sequence[str],
) -> Image.Image:
    """Groups of tiles, one for each photo, as many beside each other as there is room for.

    labels: above each tile of a group. notes: below each tile of every group. said: the sentences below it all.
    """
    across = min(_across(labels), len(groups))
    gap = Image.new("RGB", (APART, 1), PAPER)
    head = [_stacked(label) for label in labels]
    rows: list[Row] = []
    for start in range(0, len(groups), across):
        tiles, above, below = list[Image.Image](), list[str](), list[str]()
        for i in range(start, min(start + across, len(groups))):
            between = i > start
            tiles += [*([gap] if between else []), *groups[i]]
            above += [*([""] if between else []), *head]
            below += [*([""] if between else []), *notes[i]]
        rows.append(Row(tiles, () if rows else above, notes=below))
    return sheet(rows, title=title, footer=" ".join(said), gap=BETWEEN)


def tile_side(labels: Sequence[str], step: int) -> int:
    """Pixels of a tile's side, a multiple of `step`, so that every patch is equally large."""
    room = WIDTH // (_across(labels) * len(labels)) - BETWEEN
    return max(1, min(LARGEST, room) // step) * step


def named(name: str, tile: int) -> str:
    """A photo's id without folder and suffix, as far as it fits below a tile."""
    return shortened(PurePosixPath(name).stem, tile)


def _across(labels: Sequence[str]) -> int:
    """How many photos stand beside each other, each with a tile for every label."""
    return max(1, min(4, WIDEST // len(labels)))


def _stacked(name: str) -> str:
    """A model's name on several lines, broken after its underscores and commas.

    >>> _stacked("mae_vitt16_imagenette, untrained")
    'mae_\\nvitt16_\\nimagenette,\\nuntrained'
    """
    return name.replace("_", "_\n").replace(", ", ",\n")
