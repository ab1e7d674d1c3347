"""Extraction: arrays and folders of parquet, resumed, with bad images among good ones, by one process or several."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import zoo.extraction as room
from zoo.errors import DataError, Unsupported
from zoo.extraction import extract, read_features
from zoo.features import Features
from zoo.sources import open_source
from zoo.transforms import Transform


class TinyEncoder:
    """A real network with the face of `zoo.Encoder`, small enough for a test: 8-pixel images, 2×2 patches, D = 5."""

    def __init__(self, name: str = "tiny", seed: int = 0, cls: bool = True, size: int = 8) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module = nn.Conv2d(3, 5, 4, 4)
        self.card = SimpleNamespace(name=name)
        self.transform = Transform(size=size)
        self.device, self.dtype, self.stride = torch.device("cpu"), torch.float32, 4
        self.has_cls = cls
        self.images = 0

    def forward_features(self, pixels: Tensor) -> Features:
        self.images += len(pixels)
        maps = self.module(pixels)
        patches = maps.flatten(2).transpose(1, 2)
        pooled = patches.mean(dim=1)
        return Features(pooled, pooled * 2 if self.has_cls else None, patches, (maps.shape[2], maps.shape[3]))


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eleven photos in two classes; a/03.png and b/08.png are no images."""
    for i in range(11):
        path = tmp_path / "photos" / ("a" if i < 5 else "b") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not an image" if i in (3, 8) else png(i))
    return tmp_path / "photos"


GOOD = [0, 1, 2, 4, 5, 6, 7, 9, 10]


def expected(encoder: Any, output: str) -> np.ndarray[Any, Any]:
    """One image at a time, without any of the machinery."""
    rows = [encoder.forward_features(encoder.transform(Image.open(io.BytesIO(png(i))))[None]) for i in GOOD]
    return torch.cat([getattr(features, output) for features in rows]).detach().numpy()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "rows_per_part", lambda images, shapes: 4)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize("out", [None, "features"])
def test_features_are_those_of_each_image_alone(
    photos: Path, tmp_path: Path, small_parts: None, batch_size: int, out: str | None
) -> None:
    encoder: Any = TinyEncoder()
    outputs = ("pooled", "cls", "patches")
    if out is None:
        paths, labels, arrays = extract(encoder, photos, outputs=outputs, batch_size=batch_size)
    else:
        folder = extract(encoder, photos, tmp_path / out, outputs=outputs, batch_size=batch_size)
        assert folder == tmp_path / out
        assert [path.name for path in sorted(folder.glob("part-*"))] == [
            f"part-{i:05d}.parquet" for i in range(3)
        ]
        paths, labels, arrays = read_features(folder)
    assert paths == [f"{'a' if i < 5 else 'b'}/{i:02d}.png" for i in GOOD]
    assert labels is not None and labels.dtype == np.int64 and labels.tolist() == [0] * 4 + [1] * 5
    assert list(arrays) == list(outputs) and arrays["patches"].shape == (9, 4, 5)
    for output in outputs:
        assert arrays[output].dtype == np.float32
        np.testing.assert_allclose(arrays[output], expected(encoder, output), atol=1e-6)


def test_bad_images_are_counted_once_and_listed(
    photos: Path, tmp_path: Path, small_parts: None, caplog: pytest.LogCaptureFixture
) -> None:
    encoder: Any = TinyEncoder()
    with caplog.at_level(logging.WARNING):
        folder = extract(encoder, photos, tmp_path / "features")
    (note,) = [record.getMessage() for record in caplog.records]
    assert note.startswith("2 of 11 images could not be read and were skipped; the first: a/03.png (")
    listed = [json.loads(line) for line in (folder / "_skipped.jsonl").read_text().splitlines()]
    assert [one["path"] for one in listed] == ["a/03.png", "b/08.png"] and all(
        one["reason"] for one in listed
    )


def test_none_readable_is_an_error(tmp_path: Path) -> None:
    encoder: Any = TinyEncoder()
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes(b"not an image")
    for out in (None, tmp_path / "features"):
        with pytest.raises(DataError, match=r"none of the 2 images of .* can be read; the first: 0\.png"):
            extract(encoder, tmp_path, out)


def test_pandas_and_pyarrow_read_the_folder_as_one_table(
    photos: Path, tmp_path: Path, small_parts: None
) -> None:
    encoder: Any = TinyEncoder()
    folder = extract(encoder, photos, tmp_path / "features", outputs=("pooled", "patches"))
    paths, labels, arrays = read_features(folder)
    frame, table = pd.read_parquet(folder), pq.read_table(folder)
    assert table.column_names == list(frame.columns) == ["path", "label", "pooled", "patches"]
    assert frame["path"].tolist() == table["path"].to_pylist() == paths
    assert labels is not None and frame["label"].tolist() == labels.tolist()
    np.testing.assert_array_equal(np.stack(frame["pooled"].to_list()), arrays["pooled"])
    np.testing.assert_array_equal(np.stack(frame["patches"].to_list()), arrays["patches"].reshape(9, -1))


def test_unlabelled_parquet_source(tmp_path: Path) -> None:
    encoder: Any = TinyEncoder()
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in GOOD]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet", row_group_size=2)
    folder = extract(encoder, tmp_path / "x.parquet", tmp_path / "features")
    for paths, labels, arrays in (extract(encoder, tmp_path / "x.parquet"), read_features(folder)):
        assert paths == [f"{i}.png" for i in GOOD] and labels is None
        np.testing.assert_allclose(arrays["pooled"], expected(encoder, "pooled"), atol=1e-6)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(photos: Path, workers: int) -> None:
    encoder: Any = TinyEncoder()
    alone = extract(encoder, photos, workers=0, batch_size=2)
    together = extract(encoder, photos, workers=workers, batch_size=2)
    assert alone[0] == together[0]
    np.testing.assert_array_equal(alone[2]["pooled"], together[2]["pooled"])


def test_a_damaged_parquet_is_one_message_from_workers_too(tmp_path: Path) -> None:
    encoder: Any = TinyEncoder()
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [{"bytes": png(0), "path": "0"}]}), path)
    source = open_source(path)
    path.write_bytes(b"gone wrong")
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"^cannot read row group 0 of"):
            extract(encoder, source, workers=workers)


def test_finished_parts_are_kept_and_missing_ones_written(
    photos: Path, tmp_path: Path, small_parts: None
) -> None:
    encoder: Any = TinyEncoder()
    folder = extract(encoder, photos, tmp_path / "features")
    before = read_features(folder)
    kept = (folder / "part-00000.parquet").stat().st_mtime_ns
    (folder / "part-00001.parquet").unlink()
    with pytest.raises(DataError, match="2 of 3 parts; type the same `zoo embed` again"):
        read_features(folder)
    again: Any = TinyEncoder()
    extract(again, photos, folder)
    assert again.images == 1 + 4  # the black one and those of the missing part
    assert (folder / "part-00000.parquet").stat().st_mtime_ns == kept
    after = read_features(folder)
    assert after[0] == before[0]
    np.testing.assert_array_equal(after[2]["pooled"], before[2]["pooled"])
    assert (
        len((folder / "_skipped.jsonl").read_text().splitlines()) == 2
    )  # the kept part's bad image is still listed


def test_a_crash_leaves_whole_parts_only(photos: Path, tmp_path: Path, small_parts: None) -> None:
    class Failing(TinyEncoder):
        def forward_features(self, pixels: Tensor) -> Features:
            if self.images > 6:
                raise RuntimeError("out of memory")
            return super().forward_features(pixels)

    failing: Any = Failing()
    with pytest.raises(RuntimeError, match="out of memory"):
        extract(failing, photos, tmp_path / "features", batch_size=2)
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["part-00000.parquet"]
    encoder: Any = TinyEncoder()
    paths, _, arrays = read_features(extract(encoder, photos, tmp_path / "features"))
    assert len(paths) == 9
    np.testing.assert_allclose(arrays["pooled"], expected(encoder, "pooled"), atol=1e-6)


def add_a_photo(photos: Path) -> None:
    (photos / "a" / "00b.png").write_bytes(png(99))


def change_a_photo(photos: Path) -> None:
    (photos / "a" / "00.png").write_bytes(png(0)[:-1])


def exchange_a_photo(photos: Path) -> None:
    """Another picture of as many bytes, as every bitmap of one size is."""
    file = photos / "a" / "00.png"
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("changed", "outputs", "before", "message"),
    [
        (TinyEncoder(name="other"), ("pooled",), None, r"model \(tiny, now other\)"),
        (TinyEncoder(seed=1), ("pooled",), None, "weights by their hash"),
        (TinyEncoder(size=12), ("pooled",), None, r"transform \(Transform\(size=8"),
        (TinyEncoder(), ("pooled", "cls"), None, "outputs"),
        (TinyEncoder(), ("pooled",), add_a_photo, "images or labels by their hash"),
        (TinyEncoder(), ("pooled",), change_a_photo, "images or labels by their hash"),
        (TinyEncoder(), ("pooled",), exchange_a_photo, "images or labels by their hash"),
    ],
)
def test_parts_of_another_extraction_are_refused(
    photos: Path,
    tmp_path: Path,
    small_parts: None,
    changed: Any,
    outputs: tuple[str, ...],
    before: Callable[[Path], None] | None,
    message: str,
) -> None:
    encoder: Any = TinyEncoder()
    folder = extract(encoder, photos, tmp_path / "features")
    if before is not None:
        before(photos)
    with pytest.raises(DataError, match=f"from another extraction: other {message}"):
        extract(changed, photos, folder, outputs=outputs)
    extract(changed, photos, folder, outputs=outputs, resume=False)
    assert list(read_features(folder)[2]) == list(outputs)


def test_a_folder_that_moves_keeps_its_features(photos: Path, tmp_path: Path) -> None:
    encoder: Any = TinyEncoder()
    folder = extract(encoder, photos, tmp_path / "features")
    again: Any = TinyEncoder()
    extract(again, photos.rename(tmp_path / "elsewhere"), folder)
    assert again.images == 1  # the black one


def test_names_that_are_no_utf8(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i, name in enumerate((b"caf\xe9.png", b"na\xefve.png", b"plain.png")):
        (tmp_path / "photos" / os.fsdecode(name)).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / os.fsdecode(name)).write_bytes(png(i) if i != 1 else b"none")
    encoder: Any = TinyEncoder()
    folder = extract(encoder, tmp_path / "photos", tmp_path / "features")
    paths, _, arrays = read_features(folder)
    assert paths == [r"caf\udce9.png", "plain.png"] and arrays["pooled"].shape[0] == 2
    skipped = json.loads((folder / "_skipped.jsonl").read_text(encoding="utf-8"))
    assert os.fsencode(skipped["path"]) == b"na\xefve.png"
    assert r"the first: na\udcefve.png" in caplog.text


def test_parquets_alike_in_everything_but_their_images_are_told_apart(tmp_path: Path) -> None:
    encoder: Any = TinyEncoder()
    for seed in (0, 100):
        images = [{"bytes": png(seed + i), "path": f"{i}.png"} for i in range(6)]
        (tmp_path / str(seed)).mkdir()
        pq.write_table(pa.table({"image": images, "label": [0] * 6}), tmp_path / str(seed) / "x.parquet")
    folder = extract(encoder, tmp_path / "0" / "x.parquet", tmp_path / "features")
    (tmp_path / "0").rename(tmp_path / "moved")  # where they lie makes no difference
    extract(encoder, tmp_path / "moved" / "x.parquet", folder)
    with pytest.raises(DataError, match=r"other images or labels .*resume=False to write this one anew"):
        extract(encoder, tmp_path / "100" / "x.parquet", folder)


def test_parts_of_half_precision(photos: Path, tmp_path: Path) -> None:
    encoder: Any = TinyEncoder()
    folder = extract(encoder, photos, tmp_path / "features", outputs=("pooled", "patches"), dtype="float16")
    schema = pq.read_schema(folder / "part-00000.parquet")
    assert schema.field("pooled").type == pa.list_(pa.float16(), 5)
    assert schema.field("patches").type == pa.list_(pa.float16(), 20)
    _, _, arrays = read_features(folder)
    assert arrays["pooled"].dtype == np.float32
    np.testing.assert_array_equal(
        arrays["pooled"], expected(encoder, "pooled").astype(np.float16).astype(np.float32)
    )
    with pytest.raises(DataError, match=r"other dtype \(float16, now float32\)"):
        extract(encoder, photos, folder, outputs=("pooled", "patches"))
    encoder.module.weight.data *= 1e9
    with pytest.raises(DataError, match=r"pooled reaches .*, too large for float16; keep float32"):
        extract(encoder, photos, tmp_path / "large", dtype="float16")


@pytest.mark.parametrize(
    ("images", "width", "rows"),
    [
        (1, 384, 64),
        (400, 384, 64),
        (4000, 384, 256),
        (10**7, 384, 4096),
        (10**7, 256 * 768, 256),
        (100, 10**9, 1),
    ],
)
def test_a_part_is_a_sixteenth_of_the_work_and_fits_in_memory(images: int, width: int, rows: int) -> None:
    assert room.rows_per_part(images, {"pooled": (width,)}) == rows
    assert rows * width * 4 <= room.PART_BYTES or rows == 1


def test_fewer_images_than_before(photos: Path, tmp_path: Path, small_parts: None) -> None:
    encoder: Any = TinyEncoder()
    folder = extract(encoder, photos, tmp_path / "features")
    fewer = open_source(photos).subset(range(4))
    with pytest.raises(DataError, match="features of more images"):
        extract(encoder, fewer, folder)
    assert len(read_features(extract(encoder, fewer, folder, resume=False))[0]) == 3


def test_mixed_parts_are_not_read_as_one(photos: Path, tmp_path: Path, small_parts: None) -> None:
    one: Any = TinyEncoder()
    two: Any = TinyEncoder(seed=1)
    first, second = extract(one, photos, tmp_path / "1"), extract(two, photos, tmp_path / "2")
    (second / "part-00001.parquet").rename(first / "part-00001.parquet")
    with pytest.raises(DataError, match=r"part-00001\.parquet.*other weights"):
        read_features(first)
    paths, _, arrays = read_features(first / "part-00001.parquet")  # one part may be read by itself
    assert len(paths) == len(arrays["pooled"]) == 4


def test_what_cannot_be_done_is_said(photos: Path, tmp_path: Path) -> None:
    encoder: Any = TinyEncoder(cls=False)
    with pytest.raises(Unsupported, match="no engine 'rey'; did you mean 'ray'"):
        extract(encoder, photos, engine="rey")
    with pytest.raises(Unsupported, match=r"dtype='float61'.*float32 or float16; did you mean 'float16'"):
        extract(encoder, photos, tmp_path / "features", dtype="float61")
    with pytest.raises(Unsupported, match="arrays in memory are float32"):
        extract(encoder, photos, dtype="float16")
    with pytest.raises(DataError, match="workers must be at least 0, not -1"):
        extract(encoder, photos, workers=-1)
    with pytest.raises(Unsupported, match="no output 'pool'; did you mean 'pooled'"):
        extract(encoder, photos, outputs=("pool",))
    with pytest.raises(Unsupported, match="no outputs are asked for; there are pooled, cls, patches"):
        extract(encoder, photos, outputs=())
    with pytest.raises(Unsupported, match=r"'tiny' has no class token.* pooled and patches work"):
        extract(encoder, photos, outputs=("cls",))
    with pytest.raises(DataError, match="batch_size must be at least 1, not 0"):
        extract(encoder, photos, batch_size=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file; features go into a folder"):
        extract(encoder, photos, tmp_path / "file")
    with pytest.raises(DataError, match=r"no part-00000\.parquet in"):
        read_features(photos)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    for stranger in ("x.parquet", "file", "missing.parquet"):
        with pytest.raises(DataError, match="holds no features written by `zoo embed`"):
            read_features(tmp_path / stranger)


def test_one_output_may_be_named_without_a_tuple(photos: Path) -> None:
    encoder: Any = TinyEncoder()
    assert list(extract(encoder, photos, outputs="patches")[2]) == ["patches"]
