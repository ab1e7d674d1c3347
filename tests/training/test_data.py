"""Batches: which images, in which order, how they are cut; and what happens where one cannot be read."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from zoo.errors import DataError
from zoo.sources import Source, open_source
from zoo.training import augment, memory
from zoo.training.data import Batch, CutViews, Key, Order, cut_views, decode, loader, sample_seed
from zoo.training.recipe import Recipe


def two_views(image: Tensor, generator: Generator) -> list[Tensor]:
    crop = augment.normalised(augment.crop_and_flip(16, (0.2, 1.0)))
    return [augment.seeded(crop, image, generator) for _ in range(2)]


def cut(source: Source, *, seed: int = 0, cache: bool = True) -> CutViews:
    return CutViews(source, two_views, seed, side=40, cache=cache)


def batches(dataset: CutViews, order: Order, workers: int = 0) -> list[Batch]:
    return list(loader(dataset, order, workers))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.noise, y.noise) and all(map(torch.equal, x.views, y.views))
        for x, y in zip(a, b, strict=True)
    )


# Order


@st.composite
def orders(draw: st.DrawFn) -> Order:
    images = draw(st.integers(1, 60))
    batch = draw(st.integers(1, images))
    total = draw(st.integers(1, 5)) * (images // batch)
    return Order(images, batch, draw(st.integers(0, 2**31)), 0, total)


@given(order=orders())
def test_an_epoch_shows_no_image_twice(order: Order) -> None:
    steps = list(order)
    assert len(steps) == len(order) == order.total
    assert all(len(step) == order.batch for step in steps)
    for epoch in range(order.total // order.per_epoch):
        keys = sum(steps[epoch * order.per_epoch : (epoch + 1) * order.per_epoch], start=list[Key]())
        assert {at for at, _ in keys} == {epoch}
        seen = [image for _, image in keys]
        assert len(set(seen)) == len(seen) == order.per_epoch * order.batch
        assert set(seen) <= set(range(order.images))


@given(order=orders(), data=st.data())
def test_a_resumed_run_sees_what_was_left(order: Order, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, order.total))
    resumed = Order(order.images, order.batch, order.seed, start, order.total)
    assert list(resumed) == list(order)[start:]
    assert len(resumed) == order.total - start


@given(order=orders(), world=st.integers(1, 4))
def test_processes_share_the_batch_of_one(order: Order, world: int) -> None:
    ranks = [
        Order(order.images, order.batch, order.seed, 0, order.total, rank, world) for rank in range(world)
    ]
    for whole, *parts in zip(order, *ranks, strict=True):
        assert sorted(sum(parts, start=list[Key]())) == sorted(whole)
        assert parts[0] == whole[::world]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first = list(Order(64, 64, 0, 0, 3))
    other = list(Order(64, 64, 1, 0, 1))
    permutations = [[image for _, image in batch] for batch in (*first, *other)]
    assert all(sorted(images) == list(range(64)) for images in permutations)
    assert len({tuple(images) for images in permutations}) == 4


def test_the_incomplete_batch_is_dropped_and_not_always_the_same_images() -> None:
    order = Order(10, 4, 0, 0, 40)
    assert order.per_epoch == 2
    steps = list(order)
    seen = [{image for _, image in [*steps[2 * e], *steps[2 * e + 1]]} for e in range(20)]
    assert all(len(images) == 8 for images in seen)
    assert set.union(*seen) == set(range(10))


# Seeds


@given(seeds=st.lists(st.tuples(*[st.integers(0, 2**20)] * 3), min_size=2, unique=True))
def test_every_image_of_every_epoch_has_a_seed_of_its_own(seeds: list[tuple[int, int, int]]) -> None:
    drawn = [sample_seed(*seed) for seed in seeds]
    assert all(0 <= seed < 2**63 for seed in drawn)
    assert len(set(drawn)) == len(drawn)
    assert drawn == [sample_seed(*seed) for seed in seeds]


# Decoding


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((200, 100), 50, (100, 50)),
        ((100, 200), 50, (50, 100)),
        ((101, 67), 40, (60, 40)),
        ((64, 48), 48, (64, 48)),
        ((30, 20), 160, (30, 20)),  # never enlarged
        ((4000, 3), 2, (2667, 2)),
    ],
)
def test_decode_reduces_the_short_side(size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.new("RGB", size, (250, 128, 3)).save(file, "PNG")
    tensor = decode(file.getvalue(), side)
    assert tensor.shape == (3, *expected[::-1])
    assert tensor.dtype == torch.uint8
    assert tensor[:, 0, 0].tolist() == [250, 128, 3]


# Views


def test_a_batch_is_pinned_with_its_views_and_labels() -> None:
    """The data loader asks what it does not know for `pin_memory`, and hands it on as it is where there is none."""

    class Pinned:
        def pin_memory(self) -> str:
            return "pinned"

    given: Any = Pinned()
    batch = pin_memory(Batch([given, given], torch.tensor([1]), ["a"], given))
    assert batch.views == ["pinned", "pinned"] and batch.labels == "pinned" and batch.skipped == ["a"]
    assert pin_memory(Batch([given], torch.tensor([1]), [])).labels is None


def test_batches_hold_views_and_seeds(photos: Path) -> None:
    source = open_source(photos, "train")
    order = Order(len(source), 4, 0, 0, 6)
    found = batches(cut(source), order)
    assert len(found) == 6
    for batch, keys in zip(found, order, strict=True):
        assert [view.shape for view in batch.views] == [(4, 3, 16, 16)] * 2
        assert batch.noise.tolist() == [sample_seed(0, epoch, image) for epoch, image in keys]
        assert batch.noise.dtype == torch.int64
        assert not torch.equal(*batch.views)


@pytest.mark.parametrize("cache", [True, False])
def test_views_are_the_same_for_any_number_of_workers(photos: Path, cache: bool) -> None:
    source = open_source(photos, "train")
    order = Order(len(source), 4, 0, 1, 5)
    expected = batches(cut(source), order)
    for workers in (0, 2):
        torch.manual_seed(workers)  # what else was drawn before changes nothing
        assert same(batches(cut(source, cache=cache), order, workers), expected)


@pytest.mark.parametrize("seed", range(4))
def test_views_are_the_same_for_any_number_of_threads(photos: Path, seed: int) -> None:
    """Sums over a large view in several threads round otherwise: a worker has one, a run without workers all."""
    transforms = augment.two_globals(224, (0.4, 1.0))

    def large(image: Tensor, generator: Generator) -> list[Tensor]:
        return [augment.seeded(each, image, generator) for each in transforms]

    dataset, before = (
        CutViews(open_source(photos, "train"), large, seed, side=240, cache=True),
        torch.get_num_threads(),
    )
    views = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            views.append([dataset[0, image].views for image in range(3)])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for other in views[1:]:
        assert all(
            torch.equal(a, b) for x, y in zip(views[0], other, strict=True) for a, b in zip(x, y, strict=True)
        )


def test_a_resumed_run_gets_the_same_views(photos: Path) -> None:
    source = open_source(photos, "train")
    whole = batches(cut(source), Order(len(source), 4, 0, 0, 6))
    assert same(batches(cut(source), Order(len(source), 4, 0, 4, 6)), whole[4:])


def test_views_differ_between_epochs_seeds_and_images(photos: Path) -> None:
    source = open_source(photos, "train")
    keys = [(0, 0), (1, 0), (0, 1)]
    views = [cut(source)[key][0][0] for key in keys] + [cut(source, seed=1)[0, 0][0][0]]
    assert all(not torch.equal(a, b) for i, a in enumerate(views) for b in views[:i])


# Images that cannot be read


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Eight photos, the third cut short and the sixth no image at all."""
    for i in range(8):
        Image.fromarray(np.full((24, 24, 3), 30 * i, dtype=np.uint8)).save(tmp_path / f"{i}.jpg")
    whole = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "5.jpg").write_bytes(b"not an image")
    return tmp_path


def test_cached_images_count_the_damaged_ones(damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = cut(open_source(damaged))
    assert len(dataset) == 8
    assert sorted(dataset.skipped) == ["2.jpg", "5.jpg"]
    assert "skipped 2 unreadable images, the first 2.jpg" in caplog.text
    # The views are those of a run without a cache: it may be continued on a machine with less memory.
    order = Order(len(dataset), 4, 0, 0, 4)
    assert same(batches(dataset, order), batches(cut(open_source(damaged), cache=False), order))


@pytest.mark.parametrize("workers", [0, 2])
def test_uncached_damaged_images_are_replaced_and_counted(
    damaged: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = cut(open_source(damaged), cache=False)
    assert len(dataset) == 8
    with caplog.at_level(logging.WARNING):
        found = batches(dataset, Order(8, 4, 0, 0, 6), workers)
    assert all(len(batch.views[0]) == 4 for batch in found)
    # Workers are processes of their own: what they skipped arrives with the batches.
    assert sorted({name for batch in found for name in batch.skipped}) == ["2.jpg", "5.jpg"]
    if not workers:
        assert [record.message.split(":")[0] for record in caplog.records].count(
            "skipped an unreadable image, 2.jpg"
        ) == 1  # said once, though every epoch meets it again


@pytest.mark.parametrize("cache", [True, False])
def test_the_next_readable_image_stands_in(damaged: Path, cache: bool) -> None:
    dataset = cut(open_source(damaged), cache=cache)
    for index, expected in ((2, 3), (5, 6), (7, 7)):
        seed = sample_seed(0, 0, index)
        image = decode((damaged / f"{expected}.jpg").read_bytes(), 40)
        views = dataset[0, index][0]
        assert all(map(torch.equal, views, two_views(image, Generator().manual_seed(seed))))


@pytest.mark.parametrize("cache", [True, False])
def test_a_file_that_vanished_is_skipped(damaged: Path, cache: bool) -> None:
    source = open_source(damaged)
    (damaged / "0.jpg").unlink()
    dataset = cut(source, cache=cache)
    dataset[0, 0]
    assert "0.jpg" in dataset.skipped


@pytest.mark.parametrize("cache", [True, False])
def test_nothing_readable_is_an_error(tmp_path: Path, cache: bool) -> None:
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"no")
    with pytest.raises(DataError, match=f"none of the 2 images of {tmp_path.name} can be read"):
        cut(open_source(tmp_path), cache=cache)[0, 0]


# Memory


def test_a_cache_that_does_not_fit_is_left_out(
    photos: Path,
    tiny: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, chosen = open_source(photos, "train"), tiny("mae/smoke")
    order = Order(len(source), 4, 0, 0, 6)
    roomy = cut_views(source, two_views, chosen)
    need = memory.cache_bytes(len(source), chosen.data.side)
    monkeypatch.setattr(memory, "free_bytes", lambda: round(1.01 * need / memory.SHARE))
    assert cut_views(source, two_views, chosen).images is not None and not caplog.records
    monkeypatch.setattr(memory, "free_bytes", lambda: round(0.99 * need / memory.SHARE))
    with caplog.at_level(logging.WARNING):
        tight = cut_views(source, two_views, chosen)
    assert roomy.images is not None and tight.images is None
    assert len(caplog.records) == 1 and "decoded anew for each epoch" in caplog.text
    assert same(batches(tight, order), batches(roomy, order))


def test_what_a_cache_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos of 3:2 reduced to the side are no larger than the estimate, of each process of this machine."""
    alone = memory.cache_bytes(1000, 160)
    assert 1000 * 3 * 160 * 160 < alone < 1000 * 3 * 160 * 240
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert memory.cache_bytes(1000, 160) == 8 * alone


def test_free_memory_is_a_containers_where_it_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    whole = memory.free_bytes()
    assert whole > 10_000
    for name, text in {"max": "9000", "current": "4000", "stat": "anon 10\ninactive_file 500\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.free_bytes() == 9000 - 4000 + 500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes() > 10_000
