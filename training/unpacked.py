"""Images of a parquet file or of the Hub, unpacked once into one local file that is read at random.

Training reads images in a new order each epoch, and a parquet gives whole row groups: without this every image would
decode hundreds, or fetch them. The file holds the images' bytes as they are encoded, one after the other, then where
each begins and ends (int64), then how many there are (int64).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError, ImageError
from zoo.extraction import images_hash
from zoo.files import atomic_write, locked, sweep
from zoo.progress import track
from zoo.registry import home
from zoo.remote import HubRepo
from zoo.sources import FolderSource, ParquetSource, Source
from zoo.training.disk import told_when_full

log = logging.getLogger(__name__)

# Files of the Hub that are fetched side by side.
_AT_ONCE = 8


@dataclass(frozen=True, eq=False, repr=False)
class UnpackedSource(Source):
    """The images of `origin`, read from `file`, where image i lies from places[i] to places[i + 1]."""

    origin: Source
    file: Path
    places: NDArray[np.int64]  # (N, 2)

    def read(self, i: int) -> bytes:
        start, end = self.places[i].tolist()
        if start == end:
            raise ImageError(f"{self.ids[i]} of {self.title} could not be read when it was unpacked")
        try:
            with self.file.open("rb") as file:  # anew each time: workers are forks and must share no position
                file.seek(start)
                return file.read(end - start)
        except OSError as error:
            raise DataError(
                f"cannot read {self.file}, where {self.title} was unpacked ({error.strerror}); "
                "the same command again unpacks it anew"
            ) from error

    def stamp(self, indices: Sequence[int]) -> object:
        return self.origin.stamp(indices)

    def subset(self, indices: Sequence[int]) -> Self:
        chosen = super().subset(indices)
        places = self.places[np.asarray(indices, dtype=np.int64)]
        return dataclasses.replace(chosen, origin=self.origin.subset(indices), places=places)


def is_remote(source: Source) -> bool:
    """Whether its images lie on the Hub."""
    if isinstance(source, FolderSource):
        return isinstance(source.root, HubRepo)
    return isinstance(source, ParquetSource) and source.groups.remote


def unpacked(source: Source) -> Source:
    """The images of a parquet file or of the Hub in one local file, made once; any other source as it is.

    The file lies in $ZOO_HOME and is named by what tells these images from others, so that every run on them, and each
    of its processes, reads the same one. It may be removed when no run needs it.
    """
    if not isinstance(source, ParquetSource) and not is_remote(source):
        return source
    digest = images_hash(source, range(len(source)))[:16]
    file = home().parent / "unpacked" / f"{source.name.replace('/', '--')}-{digest}.images"
    with told_when_full(file.parent), locked(file):
        if not file.is_file():
            sweep(file.parent)  # what a killed process was writing
            _write(source, file)
            size = file.stat().st_size / 1e6
            log.warning(
                "unpacked %s into %s (%.1f MB); remove it when you train on it no more",
                source.title,
                file,
                size,
            )
    return UnpackedSource(
        source.name, source.split, source.ids, source.labels, source.classes, source, file, _places(file)
    )


def _write(source: Source, file: Path) -> None:
    """All images, in their order: a row group is decoded once."""
    ends = [0]
    with atomic_write(file) as temporary, temporary.open("wb") as out:
        for encoded in track(_encoded(source), f"unpacking {source.name}", total=len(source)):
            out.write(encoded)
            ends.append(ends[-1] + len(encoded))
        places = np.stack([ends[:-1], ends[1:]], axis=1).astype("<i8")
        out.write(places.tobytes())
        out.write(np.array(len(places), dtype="<i8").tobytes())


def _encoded(source: Source) -> Iterator[bytes]:
    """The bytes of each image, none where it cannot be read; files of the Hub are fetched some at a time."""

    def read(i: int) -> bytes:
        try:
            return source.read(i)
        except ImageError:
            return b""

    order = iter(range(len(source)))
    with ThreadPoolExecutor(_AT_ONCE if isinstance(source, FolderSource) else 1) as pool:
        while some := list(islice(order, 8 * _AT_ONCE)):
            yield from pool.map(read, some)


def _places(file: Path) -> NDArray[np.int64]:
    """(N, 2): where each image begins and ends."""
    with file.open("rb") as opened:
        opened.seek(-8, 2)
        count = int(np.frombuffer(opened.read(8), dtype="<i8")[0])
        opened.seek(-8 - 16 * count, 2)
        places: NDArray[Any] = np.frombuffer(opened.read(16 * count), dtype="<i8").reshape(count, 2)
    return places.astype(np.int64)
