"""The pictures of the gate: fixed cuts of the shipped photos, so that a report can be repeated anywhere."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from zoo.demo import bundled_photos
from zoo.encoder import Encoder
from zoo.errors import Unsupported
from zoo.images import MODES, read_image
from zoo.masking import splitmix64

CROPS = 8  # of each photo
SEED = 0
LEAST = 0.35  # of a photo's sides that a crop keeps


def pictures_for(encoder: Encoder) -> list[Image.Image]:
    """The gate's pictures as an encoder takes them, grey for one channel. Raises Unsupported for other than 1 or 3."""
    if (channels := encoder.transform.channels) not in MODES:
        raise Unsupported(
            f"an export is judged on photos, which have 1 or 3 channels, and {encoder.card.name} takes {channels}"
        )
    return [picture.convert(MODES[channels]) for picture in gate_pictures()]


@lru_cache(maxsize=1)
def gate_pictures() -> tuple[Image.Image, ...]:
    """6 photos × 8 crops, each of its own size and aspect."""
    pictures = []
    for number, photo in enumerate(bundled_photos()):
        picture = read_image(photo)
        draws = splitmix64([SEED + number], np.arange(4 * CROPS, dtype=np.uint64))[0] >> np.uint64(11)
        for height, width, top, left in (draws / 2.0**53).reshape(CROPS, 4):
            sides = [
                round(side * (LEAST + (1 - LEAST) * share))
                for side, share in ((picture.height, height), (picture.width, width))
            ]
            at = [
                round(room * share)
                for room, share in ((picture.height - sides[0], top), (picture.width - sides[1], left))
            ]
            pictures.append(picture.crop((at[1], at[0], at[1] + sides[1], at[0] + sides[0])))
    return tuple(pictures)
