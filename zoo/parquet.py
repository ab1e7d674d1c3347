"""Parquet files in Hugging Face `Image` format: image bytes by row group, and the labels beside them."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from zoo.errors import DataError, ImageError
from zoo.remote import HubFile


@dataclass(frozen=True)
class ImageTable:
    """One parquet file: everything but the image bytes."""

    path: Path | HubFile
    column: str
    group_sizes: list[int]
    paths: list[str | None]
    labels: list[Any] | None
    names: list[str] | None  # of the classes, where the schema's `ClassLabel` gives them


class RowGroups:
    """Image bytes of parquet files by row number. Decodes a row group at a time and keeps the latest two."""

    def __init__(self, tables: Sequence[ImageTable]) -> None:
        self._places = [
            (table.path, table.column, g) for table in tables for g in range(len(table.group_sizes))
        ]
        sizes = [size for table in tables for size in table.group_sizes]
        self._starts = list(accumulate(sizes, initial=0))[:-1]
        self._recent: tuple[tuple[int, Any], ...] = ()
        self._decoding = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_decoding"} | {"_recent": ()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _decoding=threading.Lock())

    @property
    def remote(self) -> bool:
        """Whether the files lie on the Hub."""
        return any(isinstance(path, HubFile) for path, _, _ in self._places)

    def stamps(self) -> list[str]:
        """SHA-256 of each file's size, beginning and end: its footer tells where every column chunk lies."""
        return [_stamp(path) for path in dict.fromkeys(path for path, _, _ in self._places)]

    def read(self, row: int) -> bytes:
        """Encoded bytes of the image in `row`. Raises ImageError (none there), DataError (damaged file)."""
        group = bisect_right(self._starts, row) - 1
        at = row - self._starts[group]
        data = self._decoded(group)[at].as_py()
        if data is None:
            path, column, index = self._places[group]
            raise ImageError(f"row {at} of row group {index} in {str(path)!r} holds no {column} bytes")
        return bytes(data)

    def _decoded(self, group: int) -> Any:
        """The group's column of bytes. Of several threads that want a new group, one decodes it and the others wait."""
        for number, column in self._recent:
            if number == group:
                return column
        with self._decoding:
            for number, column in self._recent:
                if number == group:
                    return column
            return self._decode(group)

    def _decode(self, group: int) -> Any:
        import pyarrow.compute as pc

        path, name, index = self._places[group]
        with _opened(path, f"row group {index} of ") as file:
            table = file.read_row_group(index, columns=[f"{name}.bytes"], use_threads=False)
        column = pc.struct_field(table.column(0), "bytes")
        # One assignment changes the cache, so that whoever reads it sees one or the other.
        self._recent = ((group, column), *self._recent[:1])
        return column


def _stamp(path: Path | HubFile, ends: int = 1 << 16) -> str:
    """SHA-256 of a file's size and the `ends` bytes at either end; on the Hub its commit. Raises DataError."""
    if isinstance(path, HubFile):
        return f"{path}@{path.commit}"
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest = hashlib.sha256(str(size).encode())
            for start in (0, max(0, size - ends)):
                file.seek(start)
                digest.update(file.read(ends))
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from error
    return digest.hexdigest()


def has_images(path: Path | HubFile) -> bool:
    """Whether a parquet file has a column of images. Raises DataError where it is no parquet file."""
    with _opened(path) as file:
        return _image_column(file.schema_arrow) is not None


def read_table(path: Path | HubFile) -> ImageTable:
    """Read paths and labels of one parquet file. Raises DataError where it has no column of images."""
    with _opened(path) as file:
        schema, meta = file.schema_arrow, file.metadata
        column = _image_column(schema)
        if column is None:
            has = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise DataError(
                f"no image column in {str(path)!r}: it has {has}; a column of images is a struct with a `bytes` "
                "field, as Hugging Face datasets' `Image` writes it"
            )
        label, names = _label_column(schema)
        paths: list[str | None] = [None] * meta.num_rows
        if schema.field(column).type.get_field_index("path") >= 0:
            structs = file.read(columns=[f"{column}.path"], use_threads=False).column(0).to_pylist()
            paths = [struct and struct["path"] for struct in structs]
        labels = file.read(columns=[label], use_threads=False).column(0).to_pylist() if label else None
        sizes = [meta.row_group(g).num_rows for g in range(meta.num_row_groups)]
    return ImageTable(path, column, sizes, paths, labels, names)


def labels_of(tables: Sequence[ImageTable]) -> tuple[list[int] | None, list[str] | None]:
    """Labels and class names over all tables; (None, None) where any is missing: null, or -1 as on the Hub.

    Labels that are words count into their sorted list. Raises DataError where tables disagree.
    """
    where = str(tables[0].path)
    named = {tuple(table.names) for table in tables if table.names}
    if len(named) > 1:
        raise DataError(
            f"the parquet files beside {where!r} name their classes differently; pass one of them"
        )
    values = [value for table in tables for value in table.labels or [None] * len(table.paths)]
    kinds = {type(value) for value in values}
    if type(None) in kinds:
        return None, None
    if len(kinds) > 1:
        raise DataError(
            f"the parquet files beside {where!r} hold labels of different kinds; pass one of them"
        )
    if kinds == {str}:
        words = sorted(set(values))
        place = {word: i for i, word in enumerate(words)}
        return [place[value] for value in values], words
    if min(values) < 0:
        return None, None
    names = list(named.pop()) if named else None
    if names and max(values) >= len(names):
        raise DataError(f"{where!r} has label {max(values)}, but names only {len(names)} classes")
    return values, names


@contextmanager
def _opened(path: Path | HubFile, part: str = "") -> Iterator[Any]:
    """A parquet file, opened anew each time: no handle is ever shared with a forked worker or another thread.

    Raises DataError where it is none, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with ExitStack() as stack:
            place = path if isinstance(path, Path) else stack.enter_context(path.open())
            yield stack.enter_context(pq.ParquetFile(place))
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"cannot read {part}{str(path)!r} as parquet ({error}): is the file whole?"
        ) from error


def _image_column(schema: Any) -> str | None:
    """Name of the column of images: a struct with a `bytes` field; "image" where there are several."""
    from pyarrow import types

    structs = [f.name for f in schema if types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    return "image" if "image" in structs else next(iter(structs), None)


def _label_column(schema: Any) -> tuple[str | None, list[str] | None]:
    """The column "label", else the first `ClassLabel`, if of integers or words; and its class names."""
    from pyarrow import types

    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = {k: v["names"] for k, v in features.items() if v.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        names = {}  # written by something other than Hugging Face datasets: labels then go by number
    for column in ("label", *names):
        if column in schema.names:
            kind = schema.field(column).type
            if types.is_dictionary(kind):  # pandas' categories
                kind = kind.value_type
            if types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind):
                return column, names.get(column)
    return None, None
