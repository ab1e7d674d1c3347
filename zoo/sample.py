"""A sample of a data set that nobody chose: what pictures are drawn of, so that none is better than the model."""

from __future__ import annotations

import hashlib
import os
from typing import TypeVar

from zoo.sources import Source

S = TypeVar("S", bound=Source)

COUNT = 24


def uncurated(source: S, count: int = COUNT) -> S:
    """The first `count` images by the SHA-256 of their id (UTF-8), smallest first; all, where there are fewer.

    What `printf %s ID | sha256sum` prints of each id, sorted: it depends on nothing but the names of the images.

    >>> uncurated(open_source("../shared/data/imagenette160", "val")).ids[:2]
    ['n01440764_10290.jpg', 'n03425413_5732.jpg']
    """
    ranked = sorted(range(len(source)), key=lambda i: hashlib.sha256(os.fsencode(source.ids[i])).digest())
    return source.subset(ranked[:count])
