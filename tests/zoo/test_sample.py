"""The sample that nobody chose: the first by the hash of their id."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from zoo.sample import COUNT, uncurated
from zoo.sources import held_or_all, open_source


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for split, many in (("train", 5), ("val", 40)):
        for i in range(many):
            path = tmp_path / "photos" / split / f"class {i % 3}" / f"é{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), i).save(path)
    return tmp_path / "photos"


def test_it_is_what_sha256sum_puts_first(photos: Path) -> None:
    source = open_source(photos, "val")
    hashed = {}
    for name in source.ids:  # by a program that shares no line with ours
        told = subprocess.run(["sha256sum"], input=name.encode(), capture_output=True, check=True).stdout
        hashed[name] = told.decode().split()[0]
    found = uncurated(source)
    assert found.ids == sorted(source.ids, key=hashed.__getitem__)[:24] and COUNT == 24
    assert found.labels is not None and source.labels is not None
    for i, name in enumerate(found.ids):
        assert found.labels[i] == source.labels[source.ids.index(name)]
        assert found.read(i) == (photos / name).read_bytes()


def test_neither_order_nor_kind_of_source_matters(photos: Path, tmp_path: Path) -> None:
    names = [f"n{i:04}.jpg" for i in range(50)]
    wanted: list[list[str]] = []
    for seed in range(2):
        random.Random(seed).shuffle(names)
        rows = [{"image": {"bytes": (photos / "val/class 0/é0.png").read_bytes(), "path": n}} for n in names]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{seed}.parquet")
        wanted.append(uncurated(open_source(tmp_path / f"{seed}.parquet"), 10).ids)
    assert wanted[0] == wanted[1] and len(wanted[0]) == 10


def test_known_ids_come_in_a_known_order(tmp_path: Path) -> None:
    names = ["n01440764_10290.jpg", "n02102040_2890.jpg", "n03425413_5732.jpg"]
    for name in names:
        Image.new("L", (4, 4)).save(tmp_path / name)
    assert uncurated(open_source(tmp_path)).ids == [names[0], names[2], names[1]]  # 000d…, 0015…, 0099…


def test_of_what_is_held_back_or_of_everything(photos: Path) -> None:
    assert len(held_or_all(photos)) == 40 and held_or_all(photos).split == "validation"
    assert len(held_or_all(photos / "val")) == 40 and len(uncurated(held_or_all(photos / "train"))) == 5
