"""Parquet and the Hub's data sets, unpacked once and then read at random."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hub_server import Hub
from PIL import Image
from torch import Generator, Tensor

import zoo
from zoo.cli import main
from zoo.errors import DataError, ImageError
from zoo.parquet import RowGroups
from zoo.registry import home
from zoo.sources import Source, open_source
from zoo.training.data import Batch, CutViews, Order, cut_views, loader
from zoo.training.disk import DiskFull, told_when_full
from zoo.training.engine import run
from zoo.training.recipe import Recipe
from zoo.training.unpacked import UnpackedSource, unpacked

COUNT = 24


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(images: list[bytes | None]) -> bytes:
    """Rows as Hugging Face datasets write them, eight in a row group; labels 0 and 1 in turn."""
    rows = [{"bytes": image, "path": f"{i:03d}.png"} for i, image in enumerate(images)]
    sink = io.BytesIO()
    table = pa.table({"image": rows, "label": [i % 2 for i in range(len(rows))]})
    pq.write_table(table, sink, row_group_size=8)
    return sink.getvalue()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home" / "zoo"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "pets.parquet").write_bytes(parquet([png(i) for i in range(COUNT)]))
    return tmp_path / "pets.parquet"


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The row groups that are decoded from here on."""
    seen: list[int] = []
    decode: Callable[[RowGroups, int], Any] = RowGroups._decode
    monkeypatch.setattr(
        RowGroups, "_decode", lambda self, group: (seen.append(group), decode(self, group))[1]
    )
    yield seen


def whole(image: Tensor, generator: Generator) -> list[Tensor]:
    return [image + torch.randint(9, (), generator=generator)]


def batches(dataset: CutViews, workers: int = 0) -> list[Batch]:
    return list(loader(dataset, Order(len(dataset), 4, 0, 0, 12), workers))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) > 0 and all(
        torch.equal(x.views[0], y.views[0]) and torch.equal(x.noise, y.noise)
        for x, y in zip(a, b, strict=True)
    )


def test_images_are_those_of_the_parquet_at_random(file: Path, decodings: list[int]) -> None:
    source = unpacked(open_source(file))
    assert decodings == [0, 1, 2]  # each once
    for i in np.random.default_rng(0).permutation(COUNT).tolist():
        assert source.read(i) == png(i)
    part = source.subset([21, 2])
    assert (part.read(0), part.read(1), part.labels) == (png(21), png(2), [1, 0])
    assert part.stamp([0, 1]) == open_source(file).stamp([21, 2])
    assert decodings == [0, 1, 2]


def test_it_is_unpacked_once_and_anew_where_the_images_are_others(file: Path, decodings: list[int]) -> None:
    first, again = unpacked(open_source(file)), unpacked(open_source(file))
    assert isinstance(first, UnpackedSource) and isinstance(again, UnpackedSource) and len(decodings) == 3
    assert first.file == again.file and first.file.parent == home().parent / "unpacked"
    held_out = unpacked(open_source(file).subset(range(4)))
    assert isinstance(held_out, UnpackedSource) and held_out.file != first.file and len(held_out) == 4
    file.write_bytes(parquet([png(i + 1) for i in range(COUNT)]))
    other = unpacked(open_source(file))
    assert isinstance(other, UnpackedSource) and other.file != first.file and other.read(0) == png(1)
    assert not [path for path in first.file.parent.iterdir() if ".tmp" in path.name]


def test_a_full_disk_is_told_of_the_folder_that_is_on_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$ZOO_HOME may lie on another disk than the run."""

    def full(source: Source, file: Path) -> None:
        raise OSError(28, "no")

    monkeypatch.setattr("zoo.training.unpacked._write", full)
    with pytest.raises(DiskFull, match="unpacked cannot be written to"), told_when_full(tmp_path / "run"):
        unpacked(open_source(file))


def test_rows_without_an_image_stay_unreadable(tmp_path: Path) -> None:
    (tmp_path / "holes.parquet").write_bytes(parquet([png(0), None, png(2)]))
    source = unpacked(open_source(tmp_path / "holes.parquet"))
    assert (source.read(0), source.read(2)) == (png(0), png(2))
    with pytest.raises(ImageError, match=r"001\.png of holes could not be read"):
        source.read(1)


def test_an_unpacked_file_that_is_gone_is_told(file: Path) -> None:
    source = unpacked(open_source(file))
    assert isinstance(source, UnpackedSource)
    source.file.unlink()
    with pytest.raises(DataError, match="the same command again unpacks it anew"):
        source.read(0)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_without_a_cache_decodes_each_row_group_once(
    workers: int, file: Path, tiny: Callable[..., Recipe], decodings: list[int]
) -> None:
    chosen = tiny("mae/smoke")
    kept = cut_views(open_source(file), whole, chosen)
    assert not (home().parent / "unpacked").exists()  # in memory there is no need
    expected = batches(kept)
    decodings.clear()
    uncached = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, cache=False))
    assert same(batches(cut_views(open_source(file), whole, uncached), workers), expected)
    assert decodings == [0, 1, 2]


@pytest.mark.parametrize("cache", ["True", "False"])
def test_zoo_train_on_a_data_set_of_the_hub(
    cache: str, hub: Hub, tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a revision and of a split; the images are fetched once, by the first of two runs."""
    files = {"train.parquet": parquet([png(i) for i in range(8)]), "test.parquet": parquet([png(99)] * 4)}
    hub.put("users/pets", files, kind="datasets")
    revision = hub.repos["datasets/users/pets"].head
    hub.put("users/pets", {"train.parquet": parquet([png(7)])}, kind="datasets")
    spec = f"hf:users/pets@{revision}:train"
    model = run(tiny("mae/smoke"), _photos(tmp_path), tmp_path / "model", scores=False)
    small = ["--arch.size", "32", "--data.size", "32", "--optim.batch", "4", "--data.cache", cache]
    words = ["train", "mae/smoke", spec, "--init", str(model), *small]
    rows: list[int] = []
    read = RowGroups.read
    monkeypatch.setattr(RowGroups, "read", lambda self, row: (rows.append(row), read(self, row))[1])
    for name, count in {
        "first": 8,
        "second": 2,
    }.items():  # only the images held out are read from the Hub again
        rows.clear()
        assert main([*words, "--out", str(tmp_path / name)]) == 0
        card = zoo.card(str(tmp_path / name))
        assert card.training is not None and card.training.images == 6
        assert (card.training.data, card.datasets) == ("users/pets, train", ("users/pets",))
        assert [result.task for result in card.results][:1] == ["knn"]
        assert len(set(rows)) == count
    (file,) = (home().parent / "unpacked").glob("*.images")
    assert file.name.startswith("users--pets-")


def _photos(place: Path) -> Path:
    (place / "photos").mkdir()
    for i in range(4):
        (place / "photos" / f"{i}.png").write_bytes(png(i))
    return place / "photos"
