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
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from zoo.errors import ImageError, did_you_mean

ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | np.ndarray[Any, Any]
)

# Where Pillow itself refuses as a decompression bomb (twice its MAX_IMAGE_PIXELS): 0.7 GB once decoded. Held here
# too, as a program around us may have lifted Pillow's limit.
MAX_PIXELS = 178_956_970

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode

ARRAY_SUFFIX, _ARRAY_MAGIC = ".npy", b"\x93NUMPY"

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
        with _opened(_array_or(source)) as image:
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


def read_layers(source: object, channels: int) -> list[Image.Image]:
    """An (H, W, C) uint8 array, which may lie in a .npy file, as one 8-bit grey image a channel.

    For pictures of other than 1 or 3 channels. Raises ImageError for anything else.
    """
    name = _name(source)
    try:
        array = _array_or(source)
    except (ImageError, OSError, ValueError, EOFError) as error:
        raise ImageError(f"{name}: {error}") from error
    if channels in MODES or not isinstance(array, np.ndarray) or array.shape[2:] != (channels,):
        raise ImageError(
            f"{name}: an encoder of {channels} channels takes (H, W, {channels}) uint8 arrays, in memory or in .npy "
            f"files, or (B, {channels}, H, W) tensors"
        )
    return [_from_array(np.ascontiguousarray(array[:, :, channel])) for channel in range(channels)]


def _array_or(source: Any) -> Any:
    """The array in a .npy file or in its bytes; any other source as it is. No pickled object is ever loaded."""
    if isinstance(source, str | os.PathLike):
        if Path(source).suffix.lower() != ARRAY_SUFFIX:
            return source
        with _binary(source) as file:
            return np.load(file, allow_pickle=False)
    if isinstance(source, bytes | bytearray | memoryview) and bytes(source[:6]) == _ARRAY_MAGIC:
        return np.load(io.BytesIO(source), allow_pickle=False)
    return source


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
def _opened(source: ImageSource) -> Iterator[Image.Image]:
    """The image in `source` with its header read and, but for arrays, its pixels perhaps not yet."""
    if isinstance(source, Image.Image):
        yield source
    elif isinstance(source, np.ndarray):
        yield _from_array(source)
    else:
        file = _binary(source)
        try:
            with _quiet():
                image = Image.open(file)
            with image:
                if image.format == "EPS":
                    raise ImageError("EPS is a program that Ghostscript would run; save it as PNG first")
                yield image
        finally:
            if file is not source:
                file.close()


def _binary(source: str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]) -> IO[bytes]:
    """`source` as a binary file. Raises ImageError where there is none, naming the nearest."""
    if isinstance(source, bytes | bytearray | memoryview):
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
            raise ImageError("the file is empty (0 bytes); fetch or save it again")
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
    accepted = "an array must be uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if array.dtype != np.uint8:
        scaled = {"f": "(array * 255).round() if it is in [0, 1]", "b": "array * 255"}.get(array.dtype.kind)
        fix = scaled or ("array // 257" if array.dtype == np.uint16 else "array scaled to 0–255")
        raise ImageError(f"{accepted}, not {array.dtype}; pass {fix}, with .astype('uint8')")
    if array.ndim == 4:
        raise ImageError(f"{accepted}; pass a batch as list(array)")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 3 and array.shape[2] not in (3, 4) and array.shape[0] in (1, 3, 4):
        raise ImageError(f"{accepted}; this looks like (C, H, W): pass array.transpose(1, 2, 0)")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        other = "" if array.ndim != 3 else f"; zoo.load(name, in_chans={array.shape[2]}) takes such arrays"
        raise ImageError(accepted + other)
    _check_pixels(array.shape[1], array.shape[0])
    return Image.fromarray(array)


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
