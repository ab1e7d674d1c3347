"""A log that a full disk or a power cut left half written is read up to there."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from zoo.errors import DataError
from zoo.training.curve import draw_curve
from zoo.training.logs import forget_after, read_log

WHOLE = '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n'
HALVES = [b'{"step": 3, "lo', b'{"step": 3}'[:-1], b"\0" * 12, b"\xff\xfe", b"{"]


@pytest.mark.parametrize("half", HALVES)
def test_half_a_last_line_is_no_line(half: bytes, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(WHOLE.encode() + half)
    assert [row["step"] for row in read_log(log)] == [1, 2]
    picture = draw_curve(log)
    assert picture is not None
    with Image.open(picture) as image:
        assert image.width > 100
    forget_after(log, 2)
    assert log.read_text() == WHOLE
    forget_after(log, 1)
    assert [row["step"] for row in read_log(log)] == [1]


def test_a_damaged_line_within_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "lo\n' + WHOLE)
    with pytest.raises(DataError, match=r"log\.jsonl, line 1, is no JSON .*; remove that line"):
        read_log(log)


def test_no_lines_are_no_picture(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert read_log(log) == [] and draw_curve(log) is None
    log.write_text('{"step": 1')
    assert read_log(log) == [] and draw_curve(log) is None
