"""Features of many images: a source in, arrays or a folder of parquet out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import torch

from zoo.embedding import Job, cut, embedded
from zoo.errors import DataError, Unsupported, did_you_mean
from zoo.files import sweep
from zoo.progress import track
from zoo.shards import (
    DTYPES,
    Rows,
    Table,
    clear,
    is_finished,
    part,
    parts,
    read_facts,
    write_part,
    write_skipped,
)
from zoo.shards import read_features as read_features
from zoo.sources import Source, open_source

if TYPE_CHECKING:
    from zoo.encoder import Encoder
    from zoo.features import Features

_log = logging.getLogger(__name__)

OUTPUTS = ("pooled", "cls", "patches")

# Images that go through the network at once. More gains a processor nothing and leaves its caches.
CPU_BATCH, GPU_BATCH = 16, 128

# What a kill may cost is one part: about a sixteenth of the work, in files neither tiny nor huge.
PARTS, SMALLEST_PART, LARGEST_PART, PART_BYTES = 16, 64, 4096, 256 << 20

# Computes the numbered parts, in any order, from the indices of their images.
_Engine: TypeAlias = Callable[[Job, Mapping[int, range]], Iterator[tuple[int, Iterable[Rows]]]]


@overload
def extract(
    encoder: Encoder,
    source: Source | str | Path,
    out: None = None,
    *,
    outputs: Sequence[str] = ...,
    batch_size: int | None = None,
    workers: int | None = None,
    resume: bool = True,
    engine: str = "local",
    dtype: str = "float32",
) -> Table: ...
@overload
def extract(
    encoder: Encoder,
    source: Source | str | Path,
    out: str | Path,
    *,
    outputs: Sequence[str] = ...,
    batch_size: int | None = None,
    workers: int | None = None,
    resume: bool = True,
    engine: str = "local",
    dtype: str = "float32",
) -> Path: ...
def extract(
    encoder: Encoder,
    source: Source | str | Path,
    out: str | Path | None = None,
    *,
    outputs: Sequence[str] = ("pooled",),
    batch_size: int | None = None,
    workers: int | None = None,
    resume: bool = True,
    engine: str = "local",
    dtype: str = "float32",
) -> Table | Path:
    """Run `encoder` over every image of `source`, in its order; unreadable images are skipped, counted and logged.

    out=None -> (paths, labels or None, {output: float32 array}); pooled, cls: (N, D), patches: (N, h*w, D).
    out=folder -> that folder, with part-00000.parquet … of `dtype` (or "float16") and, where images were skipped,
    _skipped.jsonl; parts that an earlier call finished are kept unless resume=False.
    workers: threads that decode; None chooses. engine: "local", or "ray" for a cluster that sees the same files.
    Raises DataError (no images, none readable, parts of another extraction), Unsupported (outputs, engine, dtype).

    >>> paths, labels, arrays = zoo.extract(encoder, "photos/", outputs=("pooled", "patches"))
    >>> zoo.extract(encoder, "photos/", "features/")
    PosixPath('features')
    """
    run = _engine(engine)
    if dtype not in DTYPES or (out is None and dtype != "float32"):
        fits = "parts hold float32 or float16" if out else "arrays in memory are float32"
        raise Unsupported(f"dtype={dtype!r}: {fits}{did_you_mean(dtype, DTYPES)}")
    source = source if isinstance(source, Source) else open_source(source)
    outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    if batch_size is None:
        batch_size = default_batch(encoder)
    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value is not None and value < least:
            raise DataError(f"{name} must be at least {least}, not {value}")
    example = _example(encoder, outputs)
    shapes = {output: tuple(getattr(example, output).shape[1:]) for output in outputs}
    job = Job(encoder, source, shapes, batch_size, workers)
    if out is None:
        return _in_memory(job, run)
    folder = Path(out).expanduser()
    _to_folder(job, run, folder, {"grid": list(example.grid), "dtype": dtype}, resume)
    return folder


def default_batch(encoder: Encoder) -> int:
    """Images that go through the network at once where nobody says how many."""
    return CPU_BATCH if encoder.device.type == "cpu" else GPU_BATCH


def _engine(name: str) -> _Engine:
    """What computes the parts. Raises Unsupported for an engine that does not exist or is not installed."""
    if name == "local":
        return _local
    if name == "ray":
        from zoo.cluster import ray_parts

        return ray_parts
    raise Unsupported(f"no engine {name!r}{did_you_mean(name, ('local', 'ray'))}; there are local and ray")


def _local(job: Job, ranges: Mapping[int, range]) -> Iterator[tuple[int, Iterable[Rows]]]:
    """The parts in order, each as its batches arrive; decoding runs ahead from one part into the next."""
    batches = [(number, batch) for number in ranges for batch in cut(ranges[number], job.batch_size)]
    stream = track(embedded(job, [batch for _, batch in batches]), "embedding", len(batches))
    numbered = zip(stream, (number for number, _ in batches), strict=True)
    for number, group in groupby(numbered, key=itemgetter(1)):
        yield number, (rows for rows, _ in group)


def _example(encoder: Encoder, outputs: Sequence[str]) -> Features:
    """The features of one black image, whose shapes all others have. Raises Unsupported for outputs it has not."""
    if not outputs:
        raise Unsupported(f"no outputs are asked for; there are {', '.join(OUTPUTS)}")
    for output in outputs:
        if output not in OUTPUTS:
            raise Unsupported(
                f"no output {output!r}{did_you_mean(output, OUTPUTS)}; there are {', '.join(OUTPUTS)}"
            )
    pixels = encoder.transform(np.zeros((64, 64, encoder.transform.channels), np.uint8))[None]
    with torch.inference_mode():
        features = encoder.forward_features(pixels.to(encoder.device, encoder.dtype))
    if "cls" in outputs and features.cls is None:
        raise Unsupported(
            f"{encoder.card.name!r} has no class token, so no output 'cls'; pooled and patches work"
        )
    return features


def _in_memory(job: Job, run: _Engine) -> Table:
    """Collect all features. Raises DataError where no image is readable."""
    total = len(job.source)
    ranges = dict(enumerate(cut(range(total), rows_per_part(total, job.shapes))))
    arrays = {name: np.empty((total, *shape), np.float32) for name, shape in job.shapes.items()}
    readable = np.zeros(total, bool)
    found: dict[int, list[Rows]] = {}
    for number, group in run(job, ranges):
        found[number], at = [], ranges[number].start
        for rows in group:
            for name, array in rows.arrays.items():
                arrays[name][at : at + len(array)] = array
            readable[at : at + len(rows.paths)] = True
            at += len(rows.paths)
            found[number].append(Rows(rows.paths, rows.labels, {}, rows.skipped))
    each = [rows for number in ranges for rows in found[number]]
    skipped = [one for rows in each for one in rows.skipped]
    _report(job.source, skipped)
    labels = [label for rows in each for label in rows.labels or ()]
    return (
        [path for rows in each for path in rows.paths],
        None if job.source.labels is None else np.array(labels, np.int64),
        {name: array[readable] if skipped else array for name, array in arrays.items()},
    )


def _to_folder(job: Job, run: _Engine, folder: Path, format: dict[str, Any], resume: bool) -> None:
    """Write the parts that are missing. Raises DataError where those that are there are of something else."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{str(folder)!r} is a file; features go into a folder of their own")
    total = len(job.source)
    ranges = dict(enumerate(cut(range(total), rows_per_part(total, job.shapes))))
    facts = _facts(job, ranges, format)
    sweep(folder)
    if not resume:
        clear(folder)
    if len(parts(folder)) > len(ranges):
        raise DataError(
            f"{str(folder)!r} holds features of more images; give another folder, or resume=False "
            "to write this one anew"
        )
    missing = {
        number: each
        for number, each in ranges.items()
        if not is_finished(part(folder, number), facts[number])
    }
    if len(missing) < len(ranges):
        _log.info("%s: %d of %d parts are there already", folder, len(ranges) - len(missing), len(ranges))
    for number, rows in run(job, missing):
        write_part(part(folder, number), facts[number], rows)
    skipped = [one for number in ranges for one in read_facts(part(folder, number))["skipped"]]
    write_skipped(folder, skipped)
    _report(job.source, skipped)


def rows_per_part(images: int, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """A power of two: some sixteenth of the images, in parts of 64 to 4,096 rows and at most 256 MiB."""
    row = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    wanted = 1 << (max(0, images - 1) // PARTS).bit_length()
    held = 1 << max(0, (PART_BYTES // row).bit_length() - 1)
    return min(max(wanted, SMALLEST_PART), LARGEST_PART, held)


def _facts(job: Job, ranges: Mapping[int, range], format: dict[str, Any]) -> list[dict[str, Any]]:
    """What makes each part, as its metadata will say."""
    common = {
        "model": job.encoder.card.name,
        "weights": weights_hash(job.encoder),
        "transform": repr(job.encoder.transform),
        "shapes": {name: list(shape) for name, shape in job.shapes.items()},
        **format,
        "source": job.source.title,
        "classes": job.source.classes,
        "of": len(ranges),
    }
    return [{**common, "images": images_hash(job.source, indices)} for indices in ranges.values()]


def weights_hash(encoder: Encoder) -> str | None:
    """SHA-256 of all weights as they are now, whatever file they came from; None for an encoder without a module."""
    module = getattr(encoder, "module", None)
    if module is None:
        return None
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def images_hash(source: Source, indices: range) -> str:
    """SHA-256 of what tells some images from others: their files may move, but not change places or contents."""
    labels = source.labels and [source.labels[i] for i in indices]
    told = ([source.ids[i] for i in indices], labels, source.stamp(indices))
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _report(source: Source, skipped: list[dict[str, str]]) -> None:
    """Say once how many images were unreadable. Raises DataError where all of them were."""
    if not skipped:
        return
    first = f"{skipped[0]['path']} ({skipped[0]['reason']})".encode(errors="backslashreplace").decode()
    if len(skipped) == len(source):
        raise DataError(
            f"none of the {len(source)} images of {source.title!r} can be read; the first: {first}"
        )
    _log.warning(
        "%d of %d images could not be read and were skipped; the first: %s", len(skipped), len(source), first
    )
