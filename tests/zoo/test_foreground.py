"""Foreground IoU on real photos with object masks made here."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from zoo.attention_maps import top_mass
from zoo.cards import read_card
from zoo.cli import main
from zoo.encoder import Encoder
from zoo.errors import DataError
from zoo.evaluate.foreground import BOXES, beside_untrained, foreground_scores
from zoo.evaluate.results import foreground_results
from zoo.folders import write_folder
from zoo.loading import untrained
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


def write_pets(file: Path, photos: Sequence[Path]) -> None:
    rows = [
        {
            "image": {"bytes": photo.read_bytes(), "path": photo.name},
            "trimap": {"bytes": encoded(trimap_of(photo))},
        }
        for photo in photos
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    write_pets(tmp_path / "pets.parquet", PHOTOS)
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


def test_all_files_of_a_folder_are_read_by_name(tiny: Encoder, pets: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards" / "pets"
    shards.mkdir(parents=True)
    for number, photos in ((1, PHOTOS[4:]), (0, PHOTOS[:4])):  # the first is written last
        write_pets(shards / f"{number}.parquet", photos)
    whole = foreground_scores(tiny, pets / "pets.parquet", patches=4, choosing=2)
    assert foreground_scores(tiny, shards, patches=4, choosing=2) == whole
    pq.write_table(pa.table({"label": [1]}), shards / "2.parquet")
    with pytest.raises(DataError, match=r"2\.parquet has the columns label"):
        foreground_scores(tiny, shards, patches=4, choosing=2)


def test_the_untrained_architecture_stands_beside(tiny: Encoder, pets: Path) -> None:
    pets = pets / "pets.parquet"
    trained, bare = beside_untrained(tiny, pets, patches=4, choosing=2)
    assert trained == foreground_scores(tiny, pets, patches=4, choosing=2)
    again = foreground_scores(untrained(tiny), pets, patches=4, choosing=2)
    assert bare == {**again, "features": "untrained"} and bare["iou"] != trained["iou"]
    assert bare["centre_box"] == trained["centre_box"]  # it is the same for both
    results = [each for row in (trained, bare) for each in foreground_results(row, "zoo evaluate …")]
    told = {each.task: each.value for each in results}
    assert told == {
        "foreground": round(trained["iou"], 3),
        "foreground, centred box": round(trained["centre_box"], 3),
        "foreground, whole image": round(trained["whole_image"], 3),
        "foreground, untrained": round(bare["iou"], 3),
    }
    assert {each.metric for each in results} == {"IoU"} and {each.dataset for each in results} == {"pets"}
    assert results[0].settings["head"] == trained["settings"]["head"] and "head" not in results[1].settings


def test_the_scores_go_onto_the_card(
    tiny: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, trimap = np.full((16, 16, 3), 90, np.uint8), np.full((16, 16), 2, np.uint8)
    trimap[:8, :8] = 1
    row = {"image": {"bytes": encoded(photo), "path": None}, "trimap": {"bytes": encoded(trimap)}}
    pq.write_table(pa.Table.from_pylist([row] * 102), tmp_path / "pets.parquet")
    model = tmp_path / "mine"
    write_folder(model, tiny.card, tiny.module, tiny.decoder, "# mine")
    words = ["evaluate", str(model), str(tmp_path / "pets.parquet"), "--protocol", "foreground"]
    assert main([*words, "--limit", "3"]) == 2 and "stands on its own" in capsys.readouterr().err
    assert main([*words, "--baselines", "--write-card", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert ", trained" in out and ", untrained" in out and "a centred box" in out and "2 images" in out
    found = {each.task: each for each in read_card(model).results}
    assert len(found) == 4 and found["foreground"].command.endswith("--protocol foreground --baselines")
    assert found["foreground, whole image"].value == 0.25
    assert main([*words, "--baselines", "--weights", "random", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert ", untrained" in out and ", trained" not in out


def iou_of(mask: np.ndarray, trimap: np.ndarray) -> float:
    counted = trimap != 3
    return float((mask & (trimap == 1)).sum() / ((mask | (trimap == 1)) & counted).sum())


def test_too_few_images_and_missing_columns_are_errors(tiny: Encoder, pets: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 6 images; the head is chosen on 6"):
        foreground_scores(tiny, pets, patches=4, choosing=6)
    pq.write_table(pa.table({"label": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="needs `image` and `trimap`"):
        foreground_scores(tiny, tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"no parquet file .*needs one, or a folder of some"):
        foreground_scores(tiny, tmp_path / "none.parquet")
