"""Photos as visitors have them, and work that does not end."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.app import limits
from zoo.app.limits import Deadline, TooLong, read_photo, read_photos
from zoo.encoder import Encoder
from zoo.errors import DataError, ImageError

RED, GREEN = (200, 30, 30), (30, 160, 30)


def halves() -> Image.Image:
    """Red on the left, green on the right."""
    picture = Image.new("RGB", (60, 40), RED)
    picture.paste(GREEN, (30, 0, 60, 40))
    return picture


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    return encoded(halves().rotate(180), "JPEG", exif=exif, quality=95)


def transparent() -> bytes:
    picture = halves().convert("RGBA")
    picture.putalpha(Image.new("L", picture.size, 255))
    return encoded(picture, "PNG")


def animated() -> bytes:
    return encoded(halves(), "GIF", save_all=True, append_images=[Image.new("RGB", (60, 40), "blue")])


def encoded(picture: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


KINDS: dict[str, Callable[[], bytes]] = {
    "turned by EXIF.jpg": rotated,
    "with alpha.png": transparent,
    "animated.gif": animated,
    "CMYK.jpg": lambda: encoded(halves().convert("CMYK"), "JPEG", quality=95),
    "palette.png": lambda: encoded(halves().convert("P"), "PNG"),
    "named wrongly.png": lambda: encoded(halves(), "WEBP", lossless=True),
    "CMYK.tiff": lambda: encoded(halves().convert("CMYK"), "TIFF"),
}


@pytest.mark.parametrize("name", KINDS)
def test_photos_of_every_kind(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(KINDS[name]())
    found = np.asarray(read_photo(tmp_path / name), dtype=int)
    assert found.shape == (40, 60, 3)
    assert np.abs(found[20, 10] - RED).max() < 40 and np.abs(found[20, 50] - GREEN).max() < 40


def test_a_grey_photo(tmp_path: Path) -> None:
    halves().convert("L").save(tmp_path / "grey.png")
    assert read_photo(tmp_path / "grey.png").mode == "RGB"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no picture", "no image format"),
        (b"", "empty"),
        (encoded(halves(), "PNG")[:70], "damaged or incomplete"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image format"),
    ],
)
def test_what_is_no_photo_is_told_without_its_place(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=says) as told:
        read_photo(path)
    assert "holiday.jpg" in str(told.value) and str(tmp_path) not in str(told.value)
    with pytest.raises(ImageError, match="choose an example"):
        read_photo(None)


def test_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves().save(tmp_path / "large.png")
    monkeypatch.setattr(limits, "PIXELS", 60 * 40 - 1)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"60×40 pixels .* more than the 2,399"):
        read_photo(tmp_path / "large.png")


def test_threads_of_pixels_are_refused(tmp_path: Path) -> None:
    """A crop would enlarge their short side to the model's, and the long one with it."""
    Image.new("RGB", (10 * limits.ASPECT, 10)).save(tmp_path / "long.png")
    assert read_photo(tmp_path / "long.png").size == (10 * limits.ASPECT, 10)
    Image.new("RGB", (10, 10 * limits.ASPECT + 1)).save(tmp_path / "thread.png")
    with pytest.raises(ImageError, match=r"10×161 pixels is too narrow; the longer side may be 16 times"):
        read_photo(tmp_path / "thread.png")


def test_large_photos_are_kept_small(tmp_path: Path) -> None:
    Image.new("RGB", (2 * limits.SHOWN, limits.SHOWN)).save(tmp_path / "wide.png")
    assert read_photo(tmp_path / "wide.png").size == (limits.SHOWN, limits.SHOWN // 2)


def test_a_page_takes_so_many_photos(tmp_path: Path) -> None:
    halves().save(tmp_path / "one.png")
    paths = [tmp_path / "one.png"] * (limits.PHOTOS + 1)
    assert len(read_photos(paths[:3])) == 3
    for wrong in ([], None, paths):
        with pytest.raises(DataError, match=f"1 to {limits.PHOTOS}"):
            read_photos(wrong)


def test_work_that_takes_too_long_is_given_up(dino: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.zeros(1, 3, 64, 64)
    with Deadline(60):
        dino(image)
    now = time.monotonic()
    with pytest.raises(TooLong, match="given up after 5 s"), Deadline(5):
        dino(image)
        monkeypatch.setattr(time, "monotonic", lambda: now + 6)
        dino(image)
    dino(image)  # and only within it
