"""Decoding ahead of the network: order, errors, and how far ahead it runs."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.decoding import AHEAD, decoded
from zoo.errors import DataError, ImageError
from zoo.sources import FolderSource, open_source
from zoo.transforms import Transform

TRANSFORM = Transform(size=8, crop_pct=0.875)


@pytest.fixture
def source(tmp_path: Path) -> FolderSource:
    """Twenty photos of noise, 03.png no image."""
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 256, (9, 11, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02d}.png")
    (tmp_path / "03.png").write_bytes(b"not an image")
    found = open_source(tmp_path)
    assert isinstance(found, FolderSource)
    return found


@pytest.mark.parametrize("workers", [0, 1, 3, None])
def test_batches_come_in_order_with_what_could_not_be_read(source: FolderSource, workers: int | None) -> None:
    found = list(decoded(source, TRANSFORM, [range(5), [9, 7], [3], range(10, 20)], workers))
    assert [batch.indices for batch in found] == [[0, 1, 2, 4], [9, 7], [], [*range(10, 20)]]
    assert [list(batch.errors) for batch in found] == [[3], [], [3], []]
    assert all(isinstance(error, ImageError) for batch in found for error in batch.errors.values())
    for batch in found:
        for i, levels in zip(batch.indices, batch.levels, strict=True):
            assert levels.dtype == np.uint8 and levels.shape == (8, 8, 3)
            assert torch.equal(TRANSFORM.of_levels(levels), TRANSFORM(source.root / source.ids[i]))


def test_a_batch_of_levels_is_each_of_them(source: FolderSource) -> None:
    (batch,) = decoded(source, TRANSFORM, [range(4, 9)])
    together = TRANSFORM.of_levels(batch.levels)
    assert together.shape == (5, 3, 8, 8) and together.is_contiguous()
    assert torch.equal(together, torch.stack([TRANSFORM(source.root / source.ids[i]) for i in range(4, 9)]))


def test_no_more_is_decoded_than_is_soon_needed(source: FolderSource) -> None:
    """Memory is that of a few batches, however slow the network and however many images."""
    reads: list[int] = []

    class Counted(FolderSource):
        def read(self, i: int) -> bytes:
            reads.append(i)
            return super().read(i)

    counted = Counted(source.name, None, source.ids, None, None, source.root)
    batches = decoded(counted, TRANSFORM, [[i, i + 1] for i in range(4, 20, 2)], workers=2)
    next(batches)
    while threading.active_count() > 1 and len(reads) < 2 * (AHEAD + 1):
        threading.Event().wait(0.01)
    threading.Event().wait(0.05)
    assert len(reads) <= 2 * (AHEAD + 1)
    batches.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("decode") for thread in threading.enumerate())


def test_an_error_of_the_source_ends_it(source: FolderSource) -> None:
    class Broken(FolderSource):
        def read(self, i: int) -> bytes:
            raise DataError("gone")

    broken = Broken(source.name, None, source.ids, None, None, source.root)
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"^gone$"):
            list(decoded(broken, TRANSFORM, [range(4)], workers))
