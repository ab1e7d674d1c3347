"""Reading one picture from wherever it lies, upright and in the mode an encoder expects.

Pillow's global switches (`LOAD_TRUNCATED_IMAGES`, `MAX_IMAGE_PIXELS`) belong to the caller and are never set here.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from zoo.arrays import is_array, read_array
from zoo.errors import ImageError, did_you_mean

ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | np.ndarray[Any, Any]
)

# Where Pillow itself refuses as a decompression bomb (twice its MAX_IMAGE_PIXELS): 0.7 GB once decoded. Held here
# too, as a program around us may have lifted Pillow's limit.
MAX_PIXELS = 178_956_970
EMPTY = "the file is empty (0 bytes); fetch or save it again"

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode

_PICTURES = "an array must be uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"

# EXIF 2.3 §4.6.4, tag 0x0112: what turns each stored orientation upright. ImageOps.exif_transpose also writes the
# EXIF block back, and so fails on blocks with any other tag it cannot write.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Their decoders never warn, so they run outside the lock of `_quiet` and threads decode side by side.
_SILENT_DECODERS = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "PPM"}

# `warnings.catch_warnings` swaps one list for the whole process: one thread at a time, and no fork in between.
_FILTERS = threading.RLock()
if hasattr(os, "register_at_fork"):
    _release = _FILTERS.release
    os.register_at_fork(before=_FILTERS.acquire, after_in_parent=_release, after_in_child=_release)


def read_image(source: ImageSource, *, channels: int = 3, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in `source` as a fresh 8-bit image: mode RGB, or L for one channel.

    EXIF orientation is applied, transparency laid on white, 16-bit grey scaled to 8 bit; of several frames, the
    first is taken. source: a path ("~" allowed), encoded bytes, a binary file, a PIL image, or a uint8 array of
    shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), which may lie in a .npy file.
    Raises ImageError, naming the source, for whatever is no whole picture of at most max_pixels, which are counted
    before any is decoded.

    >>> read_image("model_cards/photos/cat_chelsea.jpg").mode
    'RGB'
    """
    if channels not in MODES:
        raise ImageError(
            f"pictures are read with 1 or 3 channels, but {channels} are asked for (the encoder's in_chans); "
            f"pass an (H, W, {channels}) uint8 array or a (B, {channels}, H, W) tensor instead"
        )
    name = _name(source)
    try:
        with _opened(source, max_pixels) as image:
            _check_pixels(image.width, image.height, max_pixels)
            with nullcontext() if image.format in _SILENT_DECODERS else _quiet():
                image.load()
            rgb = _upright(image, _orientation(image))
            return rgb if channels == 3 else rgb.convert(MODES[channels])
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__
    # Pillow's decoders raise nearly any type on damaged data (struct.error, KeyError, SyntaxError, zlib.error, ...).
    except Exception as error:
        raise ImageError(f"{name}: {_reason(error)}") from error


def read_layers(source: ImageSource, channels: int, *, max_pixels: int = MAX_PIXELS) -> list[Image.Image]:
    """The picture in `source` as 8-bit images that together have `channels`: itself, where Pillow has such a mode.

    Otherwise one grey image a channel of an (H, W, C) uint8 array, in memory or in a .npy file. Raises ImageError,
    naming the source, as `read_image` does.
    """
    if channels in MODES:
        return [read_image(source, channels=channels, max_pixels=max_pixels)]
    name = _name(source)
    try:
        array = _array_of(source, channels, max_pixels)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__
    except OSError as error:
        raise ImageError(f"{name}: {_reason(error)}") from error
    return [Image.fromarray(np.ascontiguousarray(array[:, :, channel])) for channel in range(channels)]


def _array_of(source: ImageSource, channels: int, max_pixels: int) -> np.ndarray[Any, Any]:
    """(H, W, C) uint8 of an array or of a .npy file."""

    def check(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        _check_array(
            dtype, shape, f"an encoder of {channels} channels takes (H, W, {channels}) uint8", {channels}
        )
        _check_pixels(shape[1], shape[0], max_pixels)

    if isinstance(source, np.ndarray):
        check(source.dtype, source.shape)
        return source
    if not isinstance(source, Image.Image):
        with _closing(source) as file:
            if is_array(file):
                return read_array(file, check)
    raise ImageError(
        f"an encoder of {channels} channels takes (H, W, {channels}) uint8 arrays, in memory or in .npy files, or "
        f"(B, {channels}, H, W) tensors"
    )


def _name(source: object) -> str:
    """What to call `source` in a message."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return f"image of {len(source)} bytes"
    if isinstance(source, np.ndarray):
        return f"array of shape {source.shape}"
    path = getattr(source, "filename", "") or getattr(source, "name", "")
    return f"{type(source).__name__} {path!r}" if path else type(source).__name__


@contextmanager
def _opened(source: ImageSource, max_pixels: int) -> Iterator[Image.Image]:
    """The image in `source` with its header read and, but for arrays, its pixels perhaps not yet."""
    if isinstance(source, Image.Image):
        yield source
    elif isinstance(source, np.ndarray):
        yield _from_array(source)
    else:
        with _closing(source) as file:
            if is_array(file):
                yield _from_array(read_array(file, partial(_check_picture, max_pixels=max_pixels)))
                return
            with _quiet():
                image = Image.open(file)
            with image:
                if image.format == "EPS":
                    raise ImageError("EPS is a program that Ghostscript would run; save it as PNG first")
                yield image


@contextmanager
def _closing(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes],
) -> Iterator[IO[bytes]]:
    """`source` as a binary file, which is closed in the end if it was opened here."""
    file = _binary(source)
    try:
        yield file
    finally:
        if file is not source:
            file.close()


def _binary(source: str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]) -> IO[bytes]:
    """`source` as a binary file. Raises ImageError where there is none, naming the nearest."""
    if isinstance(source, bytes | bytearray | memoryview):
        if not len(source):
            raise ImageError(EMPTY)
        source = io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        with suppress(RuntimeError):  # "~name" of no user here: a file may really be called so
            path = path.expanduser()
        if path.is_dir():
            raise ImageError(
                "is a folder; pass one of its files, or take the whole folder with "
                "`zoo embed MODEL FOLDER --out features/` (in Python: zoo.extract)"
            )
        if not path.exists():
            raise ImageError(_missing(path))
        source = path.open("rb")
        if os.fstat(source.fileno()).st_size == 0 and path.is_file():
            source.close()
            raise ImageError(EMPTY)
    if not hasattr(source, "read") or isinstance(source, io.TextIOBase):
        raise ImageError(
            "is no image; pass a path, encoded bytes, a file opened with mode 'rb', a PIL image, "
            "an (H, W, 3) uint8 array or a (B, 3, H, W) tensor"
        )
    return source


def _missing(path: Path) -> str:
    """Why there is no file at `path`, and which one may be meant."""
    if "://" in str(path) or str(path).startswith(("http:/", "https:/")):
        return "addresses are not fetched; download the image and pass the file"
    if not path.parent.is_dir():
        return f"no such file: there is no folder {path.parent.absolute()}"
    # A folder may hold millions of names, and each comparison is slow.
    names = [entry.name for entry in islice(path.parent.iterdir(), 10_000)]
    return f"no such file in {path.parent.absolute()}" + did_you_mean(path.name, names)


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    """(H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8 -> image. Raises ImageError naming the fix for others."""
    _check_picture(array.dtype, array.shape)
    return Image.fromarray(array[:, :, 0] if array.shape[2:] == (1,) else array)


def _check_picture(dtype: np.dtype[Any], shape: tuple[int, ...], max_pixels: int = MAX_PIXELS) -> None:
    """Raises ImageError, naming the fix, for an array that is no picture of at most max_pixels."""
    _check_array(dtype, shape[:2] + (shape[2:] or (1,)), _PICTURES, {1, 3, 4})
    _check_pixels(shape[1], shape[0], max_pixels)


def _check_array(dtype: np.dtype[Any], shape: tuple[int, ...], accepted: str, channels: set[int]) -> None:
    """Raises ImageError, naming the fix, for an array that is not (H, W, C) uint8 of some of these channels."""
    if dtype != np.uint8:
        scaled = {"f": "(array * 255).round() if it is in [0, 1]", "b": "array * 255"}.get(dtype.kind)
        fix = scaled or ("array // 257" if dtype == np.uint16 else "array scaled to 0–255")
        raise ImageError(f"{accepted}, not {dtype}; pass {fix}, with .astype('uint8')")
    if len(shape) == 4:
        raise ImageError(f"{accepted}; pass a batch as list(array)")
    if (
        len(shape) == 3
        and shape[2] not in channels
        and (shape[0] in channels or 2 * shape[0] <= min(shape[1:]))
    ):
        raise ImageError(f"{accepted}; {shape} looks like (C, H, W): pass array.transpose(1, 2, 0)")
    if len(shape) != 3 or shape[2] not in channels:
        other = "" if len(shape) != 3 else f"; an encoder of in_chans={shape[2]} takes such arrays"
        raise ImageError(f"{accepted}, not {shape}{other}")


def _check_pixels(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Raises ImageError for a picture without pixels or with more than `most`."""
    if width * height == 0:
        raise ImageError(f"{width}×{height} pixels (width × height): there is nothing to see")
    if width * height > most:
        raise ImageError(
            f"{width}×{height} pixels (width × height) are more than the {most:,} that are decoded; "
            "make the picture smaller, or cut it into tiles"
        )


def _upright(image: Image.Image, orientation: object) -> Image.Image:
    """`image` of any mode -> a new RGB image, turned, without the metadata that would turn it again."""
    rgb = _to_rgb(image)
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    if turn is not None:
        rgb = rgb.transpose(turn)
    rgb.info.clear()
    return rgb


def _orientation(image: Image.Image) -> object:
    """The EXIF (or XMP) orientation, 1 where there is none: a damaged EXIF block does not spoil the pixels."""
    try:
        with _quiet():
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB as a new image, transparency laid on white."""
    if image.mode == "F":
        raise ImageError("float pixels have no fixed range; scale them to 0–255 and save them as 8 bit")
    if image.mode.startswith("I"):
        image = _eight_bit(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # Pillow turns it into nothing else
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey (I;16 of any byte order, or I) -> L. Pillow's own conversion of I clips at 255."""
    grey = np.array(image, dtype=np.int32)
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > 65535:
        raise ImageError(f"grey values from {low} to {high} do not fit 16 bit; scale them to 0–65535")
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # PNG's tRNS: one grey value means "nothing here"
        grey[grey == transparent] = 65535
    return Image.fromarray(((grey + 128) // 257).astype(np.uint8))


def _reason(error: Exception) -> str:
    """Pillow's or the system's error in words, with what to do."""
    if isinstance(error, Image.DecompressionBombError):
        return f"too large to be decoded ({error}); make the picture smaller, or cut it into tiles"
    if isinstance(error, UnidentifiedImageError):
        return "the bytes are of no image format that Pillow knows; save it as JPEG, PNG or WebP"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"damaged or incomplete: {error or type(error).__name__}; fetch or save it again"


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow's remarks on odd but readable files stay unsaid, and are no errors where warnings are."""
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield
