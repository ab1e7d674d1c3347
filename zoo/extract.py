"""Features of many images: a source in, arrays or a folder of parquet out."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from zoo.errors import DataError, ImageError, Unsupported, ZooError, did_you_mean
from zoo.images import read_image
from zoo.progress import track
from zoo.shards import Rows, Table, clear, is_finished, part, parts, read_facts, write_part, write_skipped
from zoo.shards import read_features as read_features
from zoo.sources import Source, open_source

if TYPE_CHECKING:
    from zoo.encoder import Encoder
    from zoo.features import Features

_log = logging.getLogger(__name__)

OUTPUTS = ("pooled", "cls", "patches")
ROWS_PER_PART = 4096
_FEW_IMAGES = 256  # starting workers takes longer than decoding these

_Item: TypeAlias = tuple[int, NDArray[np.float32] | ZooError]  # index, and the pixels or why there are none


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
) -> Table | Path:
    """Run `encoder` over every image of `source`, in its order; unreadable images are skipped, counted and logged.

    out=None -> (paths, labels or None, {output: float32 array}); pooled, cls: (N, D), patches: (N, h*w, D).
    out=folder -> that folder, with part-00000.parquet … and, where images were skipped, _skipped.jsonl; parts that an
    earlier call finished are kept unless resume=False. workers: processes that decode; None chooses.
    Raises DataError (no images, none readable, parts of another extraction), Unsupported (outputs, engine).

    >>> paths, labels, arrays = zoo.extract(encoder, "photos/", outputs=("pooled", "patches"))
    >>> zoo.extract(encoder, "photos/", "features/")
    PosixPath('features')
    """
    if engine != "local":
        raise Unsupported(f"engine {engine!r} is not built yet; engine='local' works")
    source = source if isinstance(source, Source) else open_source(source)
    outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    if batch_size is None:
        batch_size = 32 if encoder.device.type == "cpu" else 128
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, not {batch_size}")
    example = _example(encoder, outputs)
    shapes = {output: tuple(getattr(example, output).shape[1:]) for output in outputs}
    job = _Job(encoder, source, shapes, example.grid, batch_size, workers)
    if out is None:
        return _in_memory(job)
    folder = Path(out).expanduser()
    _to_folder(job, folder, resume)
    return folder


@dataclass(frozen=True)
class _Job:
    """What to extract from what, and how."""

    encoder: Encoder
    source: Source
    shapes: dict[str, tuple[int, ...]]  # of each output, for one image
    grid: tuple[int, int]
    batch_size: int
    workers: int | None


def _example(encoder: Encoder, outputs: Sequence[str]) -> Features:
    """The features of one black image, whose shapes all others have. Raises Unsupported for outputs it has not."""
    for output in outputs:
        if output not in OUTPUTS:
            raise Unsupported(
                f"no output {output!r}{did_you_mean(output, OUTPUTS)}; there are {', '.join(OUTPUTS)}"
            )
    pixels = encoder.transform(Image.new("RGB", (64, 64)))[None]
    with torch.inference_mode():
        features = encoder.forward_features(pixels.to(encoder.device, encoder.dtype))
    if "cls" in outputs and features.cls is None:
        raise Unsupported(
            f"{encoder.card.name!r} has no class token, so no output 'cls'; pooled and patches work"
        )
    return features


def _in_memory(job: _Job) -> Table:
    """Collect all features. Raises DataError where no image is readable."""
    paths: list[str] = []
    labels: list[int] = []
    skipped: list[dict[str, str]] = []
    total = len(job.source)
    arrays = {name: np.empty((total, *shape), np.float32) for name, shape in job.shapes.items()}
    batches = _cut(range(total), job.batch_size)
    for rows in track(_embedded(job, batches), "embedding", len(batches)):
        for name, array in rows.arrays.items():
            arrays[name][len(paths) : len(paths) + len(array)] = array
        paths += rows.paths
        labels += rows.labels or []
        skipped += rows.skipped
    _report(job.source, skipped)
    found = np.array(labels, np.int64) if job.source.labels is not None else None
    return paths, found, {name: array[: len(paths)] for name, array in arrays.items()}


def _to_folder(job: _Job, folder: Path, resume: bool) -> None:
    """Write the parts that are missing. Raises DataError where those that are there are of something else."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{str(folder)!r} is a file; features go into a folder of their own")
    ranges = _cut(range(len(job.source)), ROWS_PER_PART)
    facts = _facts(job, ranges)
    if not resume:
        clear(folder)
    if len(parts(folder)) > len(ranges):
        raise DataError(
            f"{str(folder)!r} holds features of more images; give another folder, or resume=False"
        )
    missing = [i for i in range(len(ranges)) if not is_finished(part(folder, i), facts[i])]
    if len(missing) < len(ranges):
        _log.info("%s: %d of %d parts are there already", folder, len(ranges) - len(missing), len(ranges))
    batches = [(i, batch) for i in missing for batch in _cut(ranges[i], job.batch_size)]
    stream = track(_embedded(job, [batch for _, batch in batches]), "embedding", len(batches))
    numbered = zip(stream, (i for i, _ in batches), strict=True)
    for i, group in groupby(numbered, key=itemgetter(1)):
        write_part(part(folder, i), facts[i], (rows for rows, _ in group))
    skipped = [one for i in range(len(ranges)) for one in read_facts(part(folder, i))["skipped"]]
    write_skipped(folder, skipped)
    _report(job.source, skipped)


def _cut(indices: range, size: int) -> list[range]:
    """Consecutive ranges of at most `size` indices."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _facts(job: _Job, ranges: list[range]) -> list[dict[str, Any]]:
    """What makes each part, as its metadata will say."""
    common = {
        "model": job.encoder.card.name,
        "weights": _weights_hash(job.encoder),
        "transform": repr(job.encoder.transform),
        "shapes": {name: list(shape) for name, shape in job.shapes.items()},
        "grid": list(job.grid),
        "source": job.source.title,
        "classes": job.source.classes,
        "of": len(ranges),
    }
    return [{**common, "images": _images_hash(job.source, indices)} for indices in ranges]


def _weights_hash(encoder: Encoder) -> str | None:
    """SHA-256 of all weights as they are now, whatever file they came from; None for an encoder without a module."""
    module = getattr(encoder, "module", None)
    if module is None:
        return None
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _images_hash(source: Source, indices: range) -> str:
    """SHA-256 of the ids and labels of some images: their files may move, but not change places."""
    labels = source.labels and [source.labels[i] for i in indices]
    return hashlib.sha256(repr(([source.ids[i] for i in indices], labels)).encode()).hexdigest()


class _Decoded(Dataset[_Item]):
    """Image i as normalised pixels, or as the reason why it has none."""

    def __init__(self, source: Source, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.source = source
        self.transform = transform

    def __getitem__(self, i: int) -> _Item:
        try:
            return i, self.transform(read_image(self.source.read(i))).numpy()
        except ZooError as error:
            return i, error  # raised in a worker it would arrive as a traceback in words


def _list(items: list[_Item]) -> list[_Item]:
    """Collate nothing: arrays, unlike tensors, come through a pipe and not through scarce shared memory."""
    return items


def _embedded(job: _Job, batches: Sequence[range]) -> Iterator[Rows]:
    """The features of each batch of indices, in order."""
    source, workers = job.source, job.workers
    if workers is None:
        many = sum(map(len, batches)) >= _FEW_IMAGES
        workers = max(0, _cpus() - 1) if many else 0
    loader = DataLoader(
        _Decoded(source, job.encoder.transform),
        batch_sampler=[list(batch) for batch in batches],
        num_workers=workers,
        collate_fn=_list,
    )
    for items in loader:
        errors = {i: value for i, value in items if isinstance(value, ZooError)}
        for error in errors.values():
            if not isinstance(error, ImageError):
                raise error
        pixels = {i: value for i, value in items if not isinstance(value, ZooError)}
        yield Rows(
            [source.ids[i] for i in pixels],
            None if source.labels is None else [source.labels[i] for i in pixels],
            _forward(job.encoder, tuple(job.shapes), list(pixels.values())) if pixels else {},
            [{"path": source.ids[i], "reason": str(error)} for i, error in errors.items()],
        )


def _forward(
    encoder: Encoder, outputs: tuple[str, ...], pixels: list[NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """One forward pass; B arrays (C, H, W) -> float32 arrays (B, …)."""
    batch = torch.from_numpy(np.stack(pixels)).to(encoder.device, encoder.dtype)
    with torch.inference_mode():
        features = encoder.forward_features(batch)
        return {output: getattr(features, output).float().cpu().numpy() for output in outputs}


def _cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _report(source: Source, skipped: list[dict[str, str]]) -> None:
    """Say once how many images were unreadable. Raises DataError where all of them were."""
    if not skipped:
        return
    first = f"{skipped[0]['path']} ({skipped[0]['reason']})"
    if len(skipped) == len(source):
        raise DataError(
            f"none of the {len(source)} images of {source.title!r} can be read; the first: {first}"
        )
    _log.warning(
        "%d of %d images could not be read and were skipped; the first: %s", len(skipped), len(source), first
    )
