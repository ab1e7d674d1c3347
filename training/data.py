"""Images to batches of views: decoded once, cut by workers, the same for any number of workers and processes.

Which images a step sees, in what order and how they are cut depends on (seed, epoch, image) alone, so a run that
resumes at step t continues exactly where it stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional as tv

from zoo.channels import RGB
from zoo.errors import DataError, ImageError
from zoo.images import read_layers
from zoo.masking import splitmix64
from zoo.progress import track
from zoo.sources import Source
from zoo.training import memory
from zoo.training.allocator import give_back
from zoo.training.methods import Views
from zoo.training.recipe import Recipe
from zoo.training.unpacked import is_remote, unpacked
from zoo.words import counted

log = logging.getLogger(__name__)

Key = tuple[int, int]  # (epoch, image)


class Sample(NamedTuple):
    """An image, cut. label: None where the source has none. skipped: ids first found unreadable."""

    views: list[Tensor]
    seed: int
    label: int | None
    skipped: list[str]


@dataclass(frozen=True)
class Batch:
    """views: one (B, C, h, w) per view. noise: (B,) int64, one seed per image. labels: (B,) int64, where there are any.

    skipped: ids of the images that were found unreadable while this batch was cut.
    """

    views: list[Tensor]
    noise: Tensor
    skipped: list[str]
    labels: Tensor | None = None

    def pin_memory(self) -> Batch:
        """Where a GPU copies from without the processor; the data loader asks for it."""
        labels = None if self.labels is None else self.labels.pin_memory()
        return Batch([view.pin_memory() for view in self.views], self.noise, self.skipped, labels)

    def to(self, device: torch.device) -> Batch:
        views = [view.to(device, non_blocking=True) for view in self.views]
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return Batch(views, self.noise, self.skipped, labels)


def sample_seed(seed: int, epoch: int, image: int) -> int:
    """A 63-bit seed of one image in one epoch of one run."""
    by_epoch = splitmix64([seed], epoch)[:, 0]
    return int(splitmix64(by_epoch, image)[0, 0] >> np.uint64(1))


def decode(encoded: bytes, side: int, channels: int = RGB) -> Tensor:
    """Encoded bytes -> uint8 (C, H, W), the short side reduced to `side` pixels where it is longer."""
    layers = read_layers(encoded, channels)
    return torch.cat([tv.pil_to_tensor(_reduced(layer, side)) for layer in layers])


def _reduced(image: Image.Image, side: int) -> Image.Image:
    if min(image.size) <= side:
        return image
    scale = side / min(image.size)
    sides = (max(side, round(image.width * scale)), max(side, round(image.height * scale)))
    return image.resize(sides, Image.Resampling.BICUBIC)


def cut_views(source: Source, views: Views, recipe: Recipe) -> CutViews:
    """The images of a run. Views are the same wherever they are kept: decoded in memory where `data.cache` asks for it
    and they fit, else as they were encoded. What cannot be read at random, or lies on the Hub, is unpacked first.
    """
    cache, side, channels = recipe.data.cache, recipe.data.side, recipe.arch.in_chans
    if (
        cache
        and (need := memory.cache_bytes(len(source), side, channels)) > memory.SHARE * memory.free_bytes()
    ):
        log.warning(
            "the decoded images of %s would take %.1f GB of memory, and %.1f GB are free: they are decoded anew for "
            "each epoch (--data.side %d makes them smaller)",
            *(source.title, need / 1e9, memory.free_bytes() / 1e9, side),
        )
        cache = False
    if not cache or is_remote(source):
        source = unpacked(source)
    return CutViews(source, views, recipe.run.seed, side, cache, channels)


class CutViews(Dataset[Sample]):
    """Views of the images of a source; a key is (epoch, image). Where one cannot be read, the next stands in for it."""

    def __init__(
        self, source: Source, views: Views, seed: int, side: int, cache: bool, channels: int = RGB
    ) -> None:
        self.source, self.cut, self.seed, self.side, self.channels = source, views, seed, side, channels
        self.skipped: dict[str, str] = {}
        self.images: list[Tensor | None] | None = None
        if cache:
            self.images = [self._decoded(i) for i in track(range(len(source)), "decoding")]
            self._tell_skipped()

    def _tell_skipped(self) -> None:
        if len(self.skipped) == len(self.source):
            raise self._nothing()
        if self.skipped:
            first, why = next(iter(self.skipped.items()))
            log.warning(
                "skipped %s, the first %s: %s", counted(len(self.skipped), "unreadable image"), first, why
            )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> Sample:
        epoch, image = key
        seed = sample_seed(self.seed, epoch, image)
        known = len(self.skipped)
        pixels, place = self._image(image)
        with _alone():  # sums in several threads round otherwise, and a worker has one
            views = self.cut(pixels, Generator().manual_seed(seed))
        label = None if self.source.labels is None else self.source.labels[place]
        # A worker's own `skipped` never reaches the run, so that what it adds travels with the views.
        return Sample(views, seed, label, list(self.skipped)[known:])

    def _image(self, index: int) -> tuple[Tensor, int]:
        """A decoded image and its place in the source; where it cannot be read, the next that can stands in for it."""
        for step in range(len(self.source)):
            i = (index + step) % len(self.source)
            if self.images is not None:
                pixels = self.images[i]
            else:
                known = len(self.skipped)
                pixels = self._decoded(i)
                if len(self.skipped) > known:
                    name = self.source.ids[i]
                    log.warning("skipped an unreadable image, %s: %s", name, self.skipped[name])
            if pixels is not None:
                return pixels, i
        raise self._nothing()

    def _decoded(self, i: int) -> Tensor | None:
        """Image i of the source, or None, and why in `skipped`, where it cannot be read."""
        try:
            return decode(self.source.read(i), self.side, self.channels)
        except ImageError as error:
            self.skipped.setdefault(self.source.ids[i], str(error))
            return None

    def _nothing(self) -> DataError:
        why = f"; the first: {next(iter(self.skipped.values()))}" if self.skipped else ""
        return DataError(f"none of the {len(self.source)} images of {self.source.title} can be read{why}")


@dataclass(frozen=True)
class Order(Sampler[list[Key]]):
    """Batches of keys from step `start` to step `total`: a new permutation each epoch, the incomplete batch dropped.

    Of every global batch a process takes each `world`-th image, so that N processes together see what one would.
    """

    images: int
    batch: int
    seed: int
    start: int
    total: int
    rank: int = 0
    world: int = 1

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.images // self.batch

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in range(self.start, self.total):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                order = np.random.default_rng([self.seed, epoch]).permutation(self.images)
            first = step % self.per_epoch * self.batch
            yield [(epoch, int(i)) for i in order[first + self.rank : first + self.batch : self.world]]


def collate(samples: list[Sample]) -> Batch:
    """Views of each image -> batches of each view."""
    views, seeds, labels, skipped = zip(*samples, strict=True)
    return Batch(
        [torch.stack(column) for column in zip(*views, strict=True)],
        torch.tensor(seeds, dtype=torch.int64),
        [name for names in skipped for name in names],
        None if None in labels else torch.tensor(labels, dtype=torch.int64),
    )


def loader(dataset: CutViews, order: Order, workers: int) -> DataLoader[Batch]:
    """Batches in the order of `order`, cut by `workers` processes (0: in this one)."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # yields what collate makes of the samples
        batch_sampler=order,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
        worker_init_fn=_begin_worker if workers else None,
        multiprocessing_context="fork" if workers else None,
    )


@contextmanager
def _alone() -> Iterator[None]:
    """One thread for tensors, as in a worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _begin_worker(worker: int) -> None:
    """A worker that starts a thread pool of its own, or keeps memory, only takes them from the model."""
    torch.set_num_threads(1)
    give_back()
