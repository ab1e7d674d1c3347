"""Foreground IoU on real photos with object masks made here."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from zoo.attention_maps import top_mass
from zoo.encoder import Encoder
from zoo.errors import DataError
from zoo.evaluate.foreground import BOXES, foreground_scores
from zoo.registry import MODEL_CARDS

PHOTOS = sorted((MODEL_CARDS / "photos").glob("*.jpg"))


def trimap_of(photo: Path) -> np.ndarray:
    """A pet in the upper left quarter, with a border of 4 pixels."""
    with Image.open(photo) as image:
        width, height = image.size
    trimap = np.full((height, width), 2, np.uint8)
    trimap[: height // 2 + 4, : width // 2 + 4] = 3
    trimap[: height // 2, : width // 2] = 1
    return trimap


def encoded(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    rows = [
        {
            "image": {"bytes": photo.read_bytes(), "path": photo.name},
            "trimap": {"bytes": encoded(trimap_of(photo))},
        }
        for photo in PHOTOS
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pets.parquet")
    return tmp_path


def test_scores_equal_a_pixel_by_pixel_count(tiny: Encoder, pets: Path) -> None:
    scores = foreground_scores(tiny, pets, patches=8, choosing=2)
    assert scores["n_test"] == 4
    head, side, attended, boxes, whole = (
        scores["settings"]["head"],
        scores["settings"]["box_side"],
        [],
        [],
        [],
    )
    for photo in PHOTOS[2:]:
        trimap = trimap_of(photo)
        mask = top_mass(tiny.attention(photo, fit="whole", size=8 * 16)[0, head], 0.6).numpy()
        height, width = trimap.shape
        rows = [min(int((y + 0.5) * mask.shape[0] / height), mask.shape[0] - 1) for y in range(height)]
        columns = [min(int((x + 0.5) * mask.shape[1] / width), mask.shape[1] - 1) for x in range(width)]
        attended.append(iou_of(mask[np.ix_(rows, columns)], trimap))
        ys, xs = np.mgrid[:height, :width] + 0.5
        box = (abs(ys - height / 2) <= side * height / 2) & (abs(xs - width / 2) <= side * width / 2)
        boxes.append(iou_of(box, trimap))
        whole.append(iou_of(np.ones_like(box), trimap))
    # A pixel whose centre lies on a patch's edge may fall to either side.
    assert scores["iou"] == pytest.approx(np.mean(attended), abs=5e-4)
    assert scores["centre_box"] == pytest.approx(np.mean(boxes), abs=1e-5)
    assert scores["whole_image"] == pytest.approx(np.mean(whole), abs=1e-5)
    assert side in BOXES and torch.tensor(whole).mean() < 0.35


def iou_of(mask: np.ndarray, trimap: np.ndarray) -> float:
    counted = trimap != 3
    return float((mask & (trimap == 1)).sum() / ((mask | (trimap == 1)) & counted).sum())


def test_too_few_images_and_missing_columns_are_errors(tiny: Encoder, pets: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 6 images; the head is chosen on 6"):
        foreground_scores(tiny, pets, patches=4, choosing=6)
    pq.write_table(pa.table({"label": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="needs `image` and `trimap`"):
        foreground_scores(tiny, tmp_path / "other.parquet")
    with pytest.raises(DataError, match="no parquet file"):
        foreground_scores(tiny, tmp_path / "none.parquet")
