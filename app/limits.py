"""What a visitor may ask of the machine: the bytes and pixels of a photo, the number of photos, and seconds of work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch.overrides import TorchFunctionMode

from zoo.errors import DataError, ImageError, ZooError
from zoo.images import read_image

UPLOAD = "20mb"  # of one file
PIXELS = 40_000_000  # of one photo: 120 MB once decoded
PHOTOS = 24  # on one page
PATCHES = 4096  # of one photo: attention costs their square
ASPECT = 16  # longer side over shorter: a crop of a thread would be resized to millions of pixels
SECONDS = 60.0  # of one forward pass; an answer may take two
SHOWN = 2048  # pixels of the longer side that are kept of a photo


class TooLong(ZooError):
    """Work that was given up."""


class Deadline(TorchFunctionMode):
    """Within `with Deadline(60):`, torch raises TooLong in this thread once the seconds are over.

    The clock is looked at before every function of torch, so that even a forward pass stops between its layers.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        super().__init__()
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if time.monotonic() > self._end:
            raise TooLong(
                f"given up after {self.seconds:g} s; choose a smaller model, fewer photos or coarser patches"
            )
        return func(*args, **(kwargs or {}))


def read_photo(path: str | Path | None) -> Image.Image:
    """A visitor's photo, upright, in RGB, its longer side at most SHOWN pixels. Raises ImageError."""
    if path is None:
        raise ImageError("there is no photo; upload one, or choose an example")
    try:
        photo = read_image(path, max_pixels=PIXELS)
    except ImageError as error:
        # The message begins with the file's place on the server, which is nobody's business.
        raise ImageError(str(error).replace(str(path), Path(path).name)) from error
    if max(photo.size) > ASPECT * min(photo.size):
        sides = f"{photo.width}×{photo.height}"
        raise ImageError(
            f"a photo of {sides} pixels is too narrow; the longer side may be {ASPECT} times the shorter"
        )
    if max(photo.size) > SHOWN:
        photo.thumbnail((SHOWN, SHOWN), Image.Resampling.LANCZOS)
    return photo


def read_photos(paths: Sequence[str | Path] | None, least: int = 1) -> list[Image.Image]:
    """Several photos. Raises DataError for fewer than `least` or more than PHOTOS of them."""
    count = len(paths or ())
    if not least <= count <= PHOTOS:
        raise DataError(f"{count} photos; this page takes {least} to {PHOTOS} of them")
    return [read_photo(path) for path in paths or ()]
