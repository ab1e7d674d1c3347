"""Data sets on a live Hub, read in place: their splits, labels and images, and what is fetched of them."""

from __future__ import annotations

import io
import json
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Hub
from PIL import Image

from zoo.encoder import Encoder
from zoo.errors import DataError, HubError, Unreachable
from zoo.extraction import extract
from zoo.remote import HubSpec, read_spec
from zoo.sources import ParquetSource, open_source, splits, train_and_test


def png(value: int, side: int = 48) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(values: range, group: int = 4) -> bytes:
    """Rows as Hugging Face datasets write them: image `value` has the label value % 2, cat or dog."""
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    images = [{"bytes": png(value), "path": f"{value:03d}.png"} for value in values]
    table = pa.table({"image": images, "label": [value % 2 for value in values]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=group)
    return sink.getvalue()


@pytest.fixture
def pets(hub: Hub) -> str:
    """A data set of 12 training images in two files and 6 validation images."""
    files = {
        ".gitattributes": b"*.parquet filter=lfs",
        "README.md": b"# Pets",
        "data/train-00000-of-00002.parquet": parquet(range(8)),
        "data/train-00001-of-00002.parquet": parquet(range(8, 12)),
        "data/validation-00000-of-00001.parquet": parquet(range(12, 18)),
    }
    hub.put("users/pets", files, kind="datasets")
    return "hf:users/pets"


def test_parquet_with_splits(pets: str) -> None:
    assert splits(pets) == ["train", "validation"]
    train, test, said = train_and_test(pets)
    assert (len(train), len(test)) == (12, 6) and "users/pets's own validation split" in said
    assert train.ids == [f"{i:03d}.png" for i in range(12)] and train.classes == ["cat", "dog"]
    assert train.labels == [i % 2 for i in range(12)]
    assert (train.title, test.title) == ("users/pets, train", "users/pets, validation")
    assert [train.read(i) for i in (0, 11, 5)] == [png(0), png(11), png(5)] and test.read(5) == png(17)
    assert len(open_source(pets)) == 18


def test_a_spec_names_split_folder_and_revision(hub: Hub, pets: str) -> None:
    source = open_source(f"{pets}:val")
    assert source.title == "users/pets, validation" and source.ids[0] == "012.png"
    assert len(open_source(f"{pets}/data:train")) == 12
    before = hub.repos["datasets/users/pets"].head
    hub.put("users/pets", {"data/train.parquet": parquet(range(2))}, kind="datasets")
    assert len(open_source(pets)) == 2 and len(open_source(f"{pets}@{before}:train")) == 12
    with pytest.raises(DataError, match=r"no split 'test' in .*its splits are train"):
        open_source(f"{pets}:test")


def test_image_files_in_class_folders(hub: Hub) -> None:
    files = {
        f"{split}/{name}/{i}.png": png(i) for split in ("train", "test") for name in "ab" for i in range(2)
    }
    hub.put("users/folders", {"README.md": b"", **files}, kind="datasets")
    train, test, _ = train_and_test("hf:users/folders")
    assert train.ids == ["train/a/0.png", "train/a/1.png", "train/b/0.png", "train/b/1.png"]
    assert train.labels == [0, 0, 1, 1] and test.labels == train.labels and train.classes == ["a", "b"]
    assert open_source("hf:users/folders:test").labels == [0, 0, 1, 1]
    assert train.read(3) == png(1)


def test_features_are_those_of_a_download(tiny: Encoder, pets: str, tmp_path: Any) -> None:
    (tmp_path / "pets.parquet").write_bytes(parquet(range(12, 18)))
    there = extract(tiny, f"{pets}:validation", batch_size=4)
    here = extract(tiny, tmp_path / "pets.parquet", batch_size=4)
    assert there[0] == here[0] and there[1] is not None and there[1].tolist() == [0, 1] * 3
    np.testing.assert_array_equal(there[2]["pooled"], here[2]["pooled"])


def test_only_what_is_read_is_fetched(hub: Hub) -> None:
    """A stream: labels and paths without the images, then one row group at a time."""
    rng = np.random.default_rng(0)
    blobs = [{"bytes": rng.bytes(1 << 20), "path": f"{i}.jpg"} for i in range(64)]
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": blobs}), sink, row_group_size=8)
    hub.put("users/large", {"train.parquet": sink.getvalue()}, kind="datasets")
    source = open_source("hf:users/large")
    assert len(source) == 64 and fetched(hub) < 4 << 20
    before = fetched(hub)
    assert source.read(17) == blobs[17]["bytes"] and source.read(18) == blobs[18]["bytes"]
    assert 8 << 20 <= fetched(hub) - before < 9 << 20


def fetched(hub: Hub) -> int:
    """Bytes of files the hub was asked for, by the ranges of the requests."""
    ranges = [each.range for each in hub.requests("/lfs/", "GET")]
    assert all(ranges), "a whole file was asked for"
    ends = [each.removeprefix("bytes=").split("-") for each in ranges if each]
    return sum(int(last) - int(first) + 1 for first, last in ends)


def test_a_stamp_is_the_commit(hub: Hub, pets: str) -> None:
    source = open_source(pets)
    again = pickle.loads(pickle.dumps(source))
    assert isinstance(source, ParquetSource) and again.stamp(range(3)) == source.stamp(range(3))
    hub.put("users/pets", {"data/train.parquet": parquet(range(18))}, kind="datasets")
    other = open_source(pets)
    assert other.ids == source.ids and other.stamp(range(3)) != source.stamp(range(3))


def test_what_is_not_there_is_said(hub: Hub, pets: str) -> None:
    with pytest.raises(DataError, match=r"names no data set; write hf:owner/name\[/folder\]"):
        open_source("hf:pets")
    with pytest.raises(HubError, match="datasets/users/cats does not exist"):
        open_source("hf:users/cats")
    hub.put("users/text", {"README.md": b"", "a.csv": b"1"}, kind="datasets")
    with pytest.raises(DataError, match=r"no images in 'hf:users/text': found .*1 \.csv"):
        open_source("hf:users/text")
    source = open_source(pets)
    hub.stop()
    with pytest.raises(Unreachable, match="cannot be reached"):
        open_source(pets)
    with pytest.raises((DataError, Unreachable)):
        source.read(0)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("hf:a/b", ("a/b", None, None, None)),
        ("hf:a-1/b.c:train", ("a-1/b.c", None, None, "train")),
        ("hf:a/b@refs/convert/parquet:test", ("a/b", None, "refs/convert/parquet", "test")),
        ("hf:a/b/c/d/@v1", ("a/b", "c/d", "v1", None)),
    ],
)
def test_the_parts_of_a_spec(spec: str, parts: tuple[str | None, ...]) -> None:
    assert read_spec(spec) == HubSpec(*parts)  # type: ignore[arg-type]
