"""Pictures into files: what a suffix stands for, and a file that is written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import ImageError, did_you_mean
from zoo.files import atomic_write

if TYPE_CHECKING:
    from PIL import Image

QUALITIES = (92, 84, 76, 68, 60, 52, 44)
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def picture_format(path: str | Path) -> str:
    """PIL's name of the format a path's suffix stands for. Raises ImageError, naming the nearest suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        hint = did_you_mean(suffix, FORMATS) or "; give it .png, .jpg or .webp"
        raise ImageError(f"cannot tell from {str(path)!r} what kind of picture to write{hint}")
    return FORMATS[suffix]


def save_picture(image: Image.Image, path: str | Path, *, most: int | None = None) -> Path:
    """Write a png, jpg or webp, whole or not at all.

    most: bytes; of jpg and webp the best quality that takes no more is written, or else the lowest.
    Raises ImageError for another suffix or a folder that refuses.
    """
    kind = picture_format(path)
    try:
        with atomic_write(path) as temporary:
            for quality in QUALITIES:
                image.save(temporary, format=kind, quality=quality)
                if most is None or temporary.stat().st_size <= most:
                    break
    except OSError as error:
        reason = error.strerror or error
        raise ImageError(f"cannot write {str(path)!r}: {reason}; choose a folder you may write to") from error
    return Path(path)
