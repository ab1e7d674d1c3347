"""Every kind of file and object a picture may come in, and every way it may be broken."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import ExifTags, Image, ImageFile, ImageOps

from zoo.errors import ImageError
from zoo.images import MAX_PIXELS, read_image

RED, BLUE, WHITE, GREY = (255, 0, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)


def picture(height: int = 6, width: int = 8) -> np.ndarray:
    """(height, width, 3) uint8, no two pixels alike."""
    count = height * width * 3
    return (np.arange(count) * 251 % 256).astype(np.uint8).reshape(height, width, 3)


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims width × height grey pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + ihdr + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# --- where a picture may come from


def test_every_source_gives_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(picture()).save(path)
    data = path.read_bytes()
    with path.open("rb") as file, Image.open(path) as lazy:
        sources = [str(path), path, data, bytearray(data), memoryview(data), file, io.BytesIO(data), lazy]
        for source in [*sources, Image.fromarray(picture()), picture()]:
            image = read_image(source)
            assert image.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(image), picture())
        assert not file.closed


def test_a_file_that_cannot_seek() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(encoded(Image.fromarray(picture())))
        np.testing.assert_array_equal(np.asarray(read_image(file)), picture())


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.fromarray(picture()).save(tmp_path / "photo.png")
    assert read_image("~/photo.png").size == (8, 6)
    with pytest.raises(ImageError, match="no such file"):
        read_image("~no_such_user_here/photo.png")


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))))
def test_arrays_keep_their_values(array: np.ndarray) -> None:
    np.testing.assert_array_equal(
        np.asarray(read_image(array)), np.broadcast_to(array, (*array.shape[:2], 3))
    )
    np.testing.assert_array_equal(np.asarray(read_image(array[:, :, 0])), np.stack([array[:, :, 0]] * 3, -1))


def test_an_array_with_alpha_and_an_array_that_is_a_view() -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0] = (*RED, 255)
    assert read_image(rgba).getpixel((0, 0)) == RED
    assert read_image(rgba).getpixel((0, 1)) == WHITE
    np.testing.assert_array_equal(np.asarray(read_image(picture()[::-1, ::2])), picture()[::-1, ::2])


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((4, 4, 3), np.float32), r"float32; pass \(array \* 255\)"),
        (np.zeros((4, 4), np.uint16), "uint16; pass array // 257"),
        (np.zeros((4, 4), bool), r"bool; pass array \* 255"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((3, 4, 5), np.uint8), r"array.transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"list\(array\)"),
        (np.zeros((4, 4, 2), np.uint8), r"array of shape \(4, 4, 2\): .*\(H, W, 3\)"),
        (np.zeros(4, np.uint8), r"\(H, W\)"),
        (np.zeros((0, 4, 3), np.uint8), "nothing to see"),
    ],
)
def test_other_arrays_are_refused_with_the_fix(array: np.ndarray, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        read_image(array)


@pytest.mark.parametrize("thing", [None, 3, [1, 2], {"bytes": b""}, io.StringIO("text")])
def test_other_things_are_refused(thing: object) -> None:
    with pytest.raises(ImageError, match=f"{type(thing).__name__}: is no image; pass a path"):
        read_image(thing)  # type: ignore[arg-type]


# --- what a picture may be like inside


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
def test_orientation(tmp_path: Path, orientation: int, kind: str) -> None:
    """Against ImageOps.exif_transpose, and by hand for the phone held upright (6)."""
    scene = Image.new("RGB", (48, 32), WHITE)
    scene.paste(RED, (0, 0, 24, 16))
    scene.paste(BLUE, (24, 0, 48, 16))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"photo.{kind}"
    scene.save(path, exif=exif)
    image = read_image(path)
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
        np.testing.assert_array_equal(np.asarray(image), expected)
        np.testing.assert_array_equal(np.asarray(read_image(stored)), expected)
    np.testing.assert_array_equal(np.asarray(read_image(image)), expected)  # and is not turned twice
    if orientation == 6:  # a quarter clockwise: the stored top row becomes the right column
        assert image.size == (32, 48)
        assert image.getpixel((24, 8))[0] > 200 > image.getpixel((24, 8))[2]
        assert image.getpixel((24, 40))[2] > 200 > image.getpixel((24, 40))[0]


def exif_block(entries: int, *tags: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of (tag, type, count, four bytes of value), claiming `entries` tags."""
    listed = b"".join(struct.pack("<HHI4s", *tag) for tag in tags)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", entries) + listed + bytes(4)


QUARTER_TURN = (ExifTags.Base.Orientation, 3, 1, b"\6\0\0\0")
TEXT_AS_RESOLUTION = (ExifTags.Base.XResolution, 2, 4, b"abc\0")


def test_a_damaged_exif_block_does_not_spoil_the_picture() -> None:
    """Nor does Pillow's warning of it come through: warnings are errors here."""
    grey = Image.new("RGB", (8, 6), GREY)
    assert read_image(encoded(grey, "JPEG", exif=b"Exif\0\0nonsense")).size == (8, 6)
    short = encoded(grey, "JPEG", exif=exif_block(9, QUARTER_TURN))
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(io.BytesIO(short)) as image:
        image.getexif()
    assert read_image(short).size == (6, 8)


def test_orientation_beside_a_tag_that_cannot_be_written_back() -> None:
    data = encoded(Image.new("RGB", (8, 6)), "JPEG", exif=exif_block(2, QUARTER_TURN, TEXT_AS_RESOLUTION))
    with Image.open(io.BytesIO(data)) as image, pytest.raises(TypeError):
        ImageOps.exif_transpose(image)
    assert read_image(data).size == (6, 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_alpha_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 51))
    image = image.convert("LA").convert("La") if mode == "La" else image.convert(mode)
    row = [read_image(image).getpixel((x, 0)) for x in range(3)]
    assert row[:2] == [(0, 0, 0), WHITE]
    assert row[2] == pytest.approx((204,) * 3, abs=1)


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_transparency(transparency: int | bytes, kind: str) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREY, *BLUE])
    image.putdata([0, 1, 2])
    if kind == "GIF":
        transparency = 1  # all that GIF can say
    read = read_image(encoded(image, kind, transparency=transparency))
    assert [read.getpixel((x, 0)) for x in range(3)] == [RED, WHITE, BLUE]


def test_a_colour_that_means_transparent() -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    read = read_image(encoded(image, transparency=BLUE))
    assert [read.getpixel((x, 0)) for x in range(2)] == [RED, WHITE]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_other_modes(mode: str) -> None:
    colour = (128,) * 3 if mode in ("1", "L") else (200, 100, 50)
    image = Image.new("RGB", (8, 6), (255,) * 3 if mode == "1" else colour).convert(mode)
    expected = WHITE if mode == "1" else colour
    assert read_image(image).getpixel((3, 3)) == pytest.approx(expected, abs=4)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.new("RGB", (16, 16), (200, 100, 50)).convert("CMYK").save(path, quality=95)
    image = read_image(path)
    assert image.mode == "RGB"
    assert image.getpixel((8, 8)) == pytest.approx((200, 100, 50), abs=4)


SIXTEEN = np.array([[0, 128, 129, 257], [32768, 40000, 65407, 65535]], np.uint16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    read = np.asarray(read_image(encoded(Image.fromarray(SIXTEEN), kind)))
    np.testing.assert_array_equal(read[:, :, 0], np.round(SIXTEEN / 65535 * 255))
    np.testing.assert_array_equal(read[:, :, 0], read[:, :, 2])


def test_big_endian_and_32_bit_grey_hold_sixteen_bits() -> None:
    expected = np.round(SIXTEEN / 65535 * 255)
    big = Image.frombytes("I;16B", (4, 2), SIXTEEN.astype(">u2").tobytes())
    wide = Image.fromarray(SIXTEEN.astype(np.int32))
    assert (big.mode, wide.mode) == ("I;16B", "I")
    for image in (big, wide):
        np.testing.assert_array_equal(np.asarray(read_image(image))[:, :, 1], expected)


def test_sixteen_bit_transparency() -> None:
    data = encoded(Image.fromarray(SIXTEEN), transparency=257)
    assert read_image(data).getpixel((3, 0)) == WHITE
    assert read_image(data).getpixel((2, 0)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("array", "says"),
    [([[70_000]], "70000 do not fit 16 bit"), ([[-1]], "from -1"), ([[0.5]], "no fixed range")],
)
def test_grey_without_a_known_range_is_refused(array: list[list[float]], says: str) -> None:
    pixels = np.array(array)
    kind = np.float32 if pixels.dtype.kind == "f" else np.int32
    with pytest.raises(ImageError, match=says):
        read_image(Image.fromarray(pixels.astype(kind)))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_many(kind: str) -> None:
    frames = [Image.new("RGB", (16, 12), colour) for colour in (RED, BLUE, WHITE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as animation:
        assert animation.n_frames == 3
    assert read_image(data).getpixel((8, 6)) == RED


def test_one_channel(tmp_path: Path) -> None:
    image = read_image(picture(), channels=1)
    assert image.mode == "L"
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    np.testing.assert_array_equal(np.asarray(read_image(grey, channels=1)), grey)
    with pytest.raises(ImageError, match=r"or a \(B, 4, H, W\) tensor"):
        read_image(picture(), channels=4)


def test_the_callers_image_is_left_alone() -> None:
    image = Image.fromarray(picture())
    image.info["exif"] = b"Exif\0\0nonsense"
    read = read_image(image)
    read.paste(RED, (0, 0, 8, 6))
    np.testing.assert_array_equal(np.asarray(image), picture())
    assert image.info["exif"] and not read.info


# --- what may be broken


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated_files(tmp_path: Path, kind: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    path = tmp_path / f"photo.{kind.lower()}"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ImageError, match=rf"photo\.{kind.lower()}: (damaged or incomplete|the bytes are)"):
        read_image(path)


def test_damaged_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "ICO", "PPM"):
        whole = np.frombuffer(encoded(noise, kind), np.uint8)
        for _ in range(30):
            damaged = whole.copy()
            damaged[rng.integers(0, min(len(whole), 200), 4)] = rng.integers(0, 256, 4)
            try:
                assert read_image(damaged.tobytes()).mode == "RGB"
            except ImageError as error:
                assert f"image of {len(whole)} bytes: " in str(error)


def test_files_that_are_no_image(tmp_path: Path) -> None:
    text, empty = tmp_path / "text.jpg", tmp_path / "empty.jpg"
    text.write_text("this is no image")
    empty.write_bytes(b"")
    with pytest.raises(ImageError, match=r"text\.jpg: .*no image format"):
        read_image(text)
    with pytest.raises(ImageError, match=r"empty\.jpg: the file is empty"):
        read_image(empty)
    with pytest.raises(ImageError, match=r"image of 0 bytes: the file is empty"):
        read_image(b"")


def test_eps_is_never_run() -> None:
    with pytest.raises(ImageError, match="Ghostscript"):
        read_image(encoded(Image.new("RGB", (8, 8)), "EPS"))


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "chelsea.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"chelsae\.jpg: no such file in .*; did you mean 'chelsea\.jpg'\?"):
        read_image(tmp_path / "chelsae.jpg")
    with pytest.raises(ImageError, match=r"there is no folder .*nowhere"):
        read_image(tmp_path / "nowhere" / "chelsea.jpg")
    with pytest.raises(ImageError, match="download"):
        read_image("https://example.org/cat.jpg")
    with pytest.raises(ImageError, match="no such file"):
        read_image("cat\0.jpg")


def test_a_folder_names_what_takes_folders(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"zoo embed.*zoo\.extract"):
        read_image(tmp_path)


def test_a_bomb_is_refused_from_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(50_000, 50_000))
    assert path.stat().st_size < 200
    with pytest.raises(ImageError, match=r"bomb\.png: too large"):
        read_image(path)
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", None
    )  # a caller who lifted Pillow's limit has not lifted ours
    with pytest.raises(ImageError, match=r"bomb\.png: 50000×50000 pixels .* 178,956,970"):
        read_image(path)
    with Image.open(path) as lazy, pytest.raises(ImageError, match="more than"):
        read_image(lazy)


def test_pillow_may_warn_of_what_we_accept() -> None:
    """Between Pillow's warning and its refusal a picture is decoded: here it has no pixels to give."""
    side = 10_000
    assert Image.MAX_IMAGE_PIXELS < side * side < MAX_PIXELS
    with pytest.raises(ImageError, match="truncated"):
        read_image(png_header(side, side))


# --- what must not change


def test_no_global_switch_is_touched() -> None:
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    read_image(encoded(Image.fromarray(SIXTEEN)))
    with pytest.raises(ImageError):
        read_image(b"nothing")
    assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def test_eight_threads_at_once_leave_the_warning_filters_as_they_were(tmp_path: Path) -> None:
    data = {kind: encoded(Image.new("RGB", (64, 48), RED), kind) for kind in ("PNG", "JPEG", "TIFF", "ICO")}
    before = list(warnings.filters)
    seen: list[tuple[int, ...]] = []

    def read_all() -> None:
        for _ in range(10):
            seen.extend(read_image(one).getpixel((5, 5)) for one in data.values())

    threads = [threading.Thread(target=read_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8 * 10 * len(data)
    assert all(pixel == pytest.approx(RED, abs=2) for pixel in seen)
    assert list(warnings.filters) == before
