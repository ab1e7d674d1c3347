"""Features on disk: a folder of part-00000.parquet … that pandas and pyarrow read as one table.

A part holds the columns `path`, `label` and one fixed-size list of float32 or float16 per output; its metadata
says what made it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.files import atomic_write

# (paths, labels, output -> (N, …) array)
Table: TypeAlias = tuple[list[str], NDArray[np.int64] | None, dict[str, NDArray[np.float32]]]

DTYPES = ("float32", "float16")  # of the lists in a part

_KEY = b"ssl-zoo"
_GROUP_BYTES = 16 << 20  # of features in a row group, so that readers need not hold more
# The leading underscore hides it from readers that take a folder for one table.
SKIPPED = "_skipped.jsonl"
# What must agree before a part is taken over from an earlier call, and how to call it in a message.
_COMPARED = {
    "model": "model",
    "weights": "weights by their hash",
    "transform": "transform",
    "shapes": "outputs",
    "dtype": "dtype",
    "of": "number of parts",
    "images": "images or labels by their hash",
}


@dataclass(frozen=True)
class Rows:
    """The features of some images, and which of them could not be read."""

    paths: list[str]
    labels: list[int] | None
    arrays: dict[str, NDArray[np.float32]]  # output -> (len(paths), …)
    skipped: list[dict[str, str]]  # {"path": …, "reason": …}


def part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def parts(folder: Path) -> list[Path]:
    """The parts that lie in `folder`, in order."""
    return sorted(folder.glob("part-[0-9][0-9][0-9][0-9][0-9].parquet"))


def write_part(path: Path, facts: Mapping[str, Any], batches: Iterable[Rows]) -> None:
    """Write one part as its batches arrive; it appears only when it is whole. Inverse: `read_features`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stored = pa.float16() if facts["dtype"] == "float16" else pa.float32()
    columns = {"path": pa.string(), "label": pa.int64()}
    lists = {name: pa.list_(stored, int(np.prod(shape))) for name, shape in facts["shapes"].items()}
    schema = pa.schema(columns | lists)
    skipped: list[dict[str, str]] = []
    waiting: list[Rows] = []
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, schema, use_dictionary=False) as writer:
        for rows in batches:
            skipped += rows.skipped
            waiting += [rows] if rows.paths else []
            if sum(array.nbytes for each in waiting for array in each.arrays.values()) >= _GROUP_BYTES:
                writer.write_table(_table(waiting, schema))
                waiting = []
        if waiting:
            writer.write_table(_table(waiting, schema))
        writer.add_key_value_metadata({_KEY: json.dumps({**facts, "skipped": skipped}).encode()})


def _table(batches: Sequence[Rows], schema: Any) -> Any:
    """Some batches as one Arrow table. Raises DataError where a feature is too large for the schema's dtype."""
    import pyarrow as pa

    # Names of files that are no UTF-8 are spelt caf\\udce9.jpg.
    paths = [path.encode(errors="backslashreplace").decode() for rows in batches for path in rows.paths]
    unlabelled: list[int | None] = [None]
    labels = [label for rows in batches for label in rows.labels or unlabelled * len(rows.paths)]
    columns = [pa.array(paths, pa.string()), pa.array(labels, pa.int64())]
    for field in list(schema)[len(columns) :]:
        values = np.concatenate([rows.arrays[field.name] for rows in batches]).reshape(-1)
        if field.type.value_type == pa.float16():
            largest = float(np.abs(values).max())
            if largest > float(np.finfo(np.float16).max):
                raise DataError(f"{field.name} reaches {largest:.3g}, too large for float16; keep float32")
            values = values.astype(np.float16)
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values), field.type.list_size))
    return pa.Table.from_arrays(columns, schema=schema)


def read_facts(path: Path) -> dict[str, Any]:
    """What made a part, and what it skipped. Raises DataError where `path` is no part of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found: dict[str, Any] = json.loads(pq.read_metadata(path).metadata[_KEY])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{str(path)!r} holds no features written by `zoo embed`; give the folder it wrote"
        ) from error
    return found


def is_finished(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether this part is there. Raises DataError where it was made from something else than `facts`."""
    if not path.exists():
        return False
    _check_alike(path, facts, tuple(_COMPARED))
    return True


def _check_alike(path: Path, facts: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raises DataError where a part and `facts` differ in one of `keys`."""
    found = read_facts(path)
    for key in keys:
        if found.get(key) != facts[key]:
            raise DataError(
                f"{str(path)!r} is from another extraction: other {_COMPARED[key]} ({found.get(key)}, now "
                f"{facts[key]}); give another folder, or resume=False to write this one anew"
            )


def clear(folder: Path) -> None:
    """Remove the parts of an earlier extraction and its list of skipped images."""
    for path in [*parts(folder), folder / SKIPPED]:
        path.unlink(missing_ok=True)


def write_skipped(folder: Path, skipped: Sequence[Mapping[str, str]]) -> None:
    """List unreadable images, one JSON object a line; no file where there are none."""
    if not skipped:
        (folder / SKIPPED).unlink(missing_ok=True)
        return
    with atomic_write(folder / SKIPPED) as temporary:
        temporary.write_text(
            "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in skipped),
            encoding="utf-8",
            errors="backslashreplace",  # JSON's own escape
        )


def read_skipped(folder: Path) -> list[dict[str, str]]:
    """What an extraction into `folder` could not read, each with its reason. Inverse: `write_skipped`."""
    if not (folder / SKIPPED).is_file():
        return []
    return [json.loads(line) for line in (folder / SKIPPED).read_text(encoding="utf-8").split("\n") if line]


def read_features(path: str | Path) -> Table:
    """Paths, labels (None where unlabelled) and arrays of a folder that `extract` wrote, or of one of its parts.

    pooled, cls: (N, D), patches: (N, h*w, D), float32 whatever the parts hold.
    Raises DataError where there are no features, or an extraction is unfinished.

    >>> paths, labels, arrays = zoo.read_features("features/")
    """
    import pyarrow.parquet as pq

    files = _files(Path(path).expanduser())
    shapes = read_facts(files[0])["shapes"]
    total = sum(pq.read_metadata(file).num_rows for file in files)
    paths: list[str] = []
    labels: list[int | None] = []
    arrays = {name: np.empty((total, *shape), np.float32) for name, shape in shapes.items()}
    for file in files:
        with pq.ParquetFile(file) as opened:
            for group in range(opened.metadata.num_row_groups):
                table = opened.read_row_group(group)
                for name, array in arrays.items():
                    values = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
                    array[len(paths) : len(paths) + len(table)] = values.reshape(-1, *array.shape[1:])
                paths += table.column("path").to_pylist()
                labels += table.column("label").to_pylist()
    return paths, None if None in labels else np.array(labels, np.int64), arrays


def _files(path: Path) -> list[Path]:
    """The parts to read: all of a folder's, or the one given. Raises DataError where they are no whole."""
    if not path.is_dir():
        return [path]
    files = parts(path)
    if not files:
        raise DataError(f"no part-00000.parquet in {str(path)!r}; give the folder `zoo embed --out` wrote")
    facts = read_facts(files[0])
    if len(files) != facts["of"]:
        raise DataError(
            f"{str(path)!r} holds {len(files)} of {facts['of']} parts; type the same `zoo embed` again to finish it"
        )
    for file in files[1:]:
        _check_alike(file, facts, [key for key in _COMPARED if key != "images"])
    return files
