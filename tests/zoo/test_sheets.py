"""Sheets of tiles: how large they are, where things stand, and that every letter is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from zoo.sheets import GAP, MARGIN, PAPER, Row, drawable, sheet, wrapped

TINY = Image.new("RGB", (8, 6), (200, 30, 30))


def red(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the picture's red pixels."""
    found: tuple[np.ndarray, np.ndarray] = np.nonzero((np.asarray(picture) == (200, 30, 30)).all(axis=2))
    return found


def test_a_sheet_takes_rows_of_unequal_length_and_size() -> None:
    wide = Image.new("RGB", (30, 10))
    picture = sheet([Row([TINY, wide], ("a", "b")), Row([wide])])
    assert picture.width == 2 * MARGIN + 30 + 30 + GAP
    assert sheet([Row([TINY, wide])], gap=3).width == 2 * MARGIN + 8 + 30 + 3


def test_a_sheet_is_as_wide_as_its_title() -> None:
    widths = [sheet([Row([TINY])], title="a long line " * count).width for count in (10, 20)]
    assert widths[0] > 500 and widths[1] > 1.8 * widths[0] - 100


def test_a_footer_is_broken_into_lines() -> None:
    short, long = (sheet([Row([TINY])], footer="a long line " * count) for count in (2, 20))
    assert short.width == long.width == 2 * MARGIN + 480 and long.height > short.height + 40
    assert (np.asarray(long)[:, -MARGIN:] == PAPER[0]).all()  # nothing runs over the edge


def test_labels_of_several_lines_end_above_the_tile_and_notes_stand_below() -> None:
    plain, labelled = sheet([Row([TINY])]), sheet([Row([TINY], ("one\ntwo",), notes=("note",))])
    rows, columns = red(labelled)
    assert len(rows) == TINY.width * TINY.height and columns.min() >= MARGIN
    lines = rows.min() - red(plain)[0].min()
    assert 2 * 17 < lines < 2 * 17 + 20
    dark = np.asarray(labelled.convert("L")) < 160
    dark[rows, columns] = False
    assert dark[: rows.min()].any() and dark[rows.max() + 1 :].any()
    assert not dark[rows.min() : rows.max() + 1].any()


def test_lines_hold_all_words_and_no_more_than_fits() -> None:
    font = ImageFont.load_default(16)
    text = "one two three four five six seven eight nine ten"
    found = wrapped([text], font, 120)
    assert " ".join(found) == text and len(found) > 2
    assert all(font.getlength(line) <= 120 for line in found)


@pytest.mark.parametrize("letter", "×–→│÷·…%")
def test_no_letter_is_an_empty_box(letter: str) -> None:
    font = ImageFont.load_default(16)
    box = bytes(font.getmask("\uffff"))
    for drawn in drawable(letter):
        assert bytes(font.getmask(drawn)) != box
