"""The fills a reconstruction is judged by, beside obvious twins, and the scores on real pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from zoo.encoder import Encoder
from zoo.errors import DataError
from zoo.evaluate import measure
from zoo.evaluate.baselines import raw_pixels
from zoo.evaluate.filling import filling_scores, mean_fill, smooth_fill
from zoo.protocols import PIXELS, TRAINED, UNTRAINED
from zoo.registry import MODEL_CARDS
from zoo.sources import open_source, train_and_test
from zoo.transforms import Transform

PHOTOS = MODEL_CARDS / "photos"


@pytest.fixture
def picture() -> tuple[Tensor, Tensor]:
    """Two random pictures (2, 3, 24, 20) and what is hidden of them (2, 1, 24, 20)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 24, 20, generator=generator)
    return images, torch.rand(2, 1, 24, 20, generator=generator) < 0.6


def test_mean_fill_is_the_mean_of_the_visible_pixels(picture: tuple[Tensor, Tensor]) -> None:
    images, hidden = picture
    filled = mean_fill(images, hidden)
    for b in range(2):
        for c in range(3):
            seen = [
                float(v) for v, h in zip(images[b, c].flatten(), hidden[b, 0].flatten(), strict=True) if not h
            ]
            expected = images[b, c].clone()
            expected[hidden[b, 0]] = sum(seen) / len(seen)
            torch.testing.assert_close(filled[b, c], expected)


def test_smooth_fill_weighs_visible_pixels_by_a_gaussian(picture: tuple[Tensor, Tensor]) -> None:
    images, hidden = picture
    sigma, radius = 1.5, 4  # three sigmas, rounded to the even
    filled = smooth_fill(images, hidden, sigma)
    row, column = 11, 9  # far enough from every border
    hidden = hidden.clone()
    hidden[0, 0, row, column] = True
    filled = smooth_fill(images, hidden, sigma)
    total, weights = torch.zeros(3), 0.0
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if not hidden[0, 0, row + dy, column + dx]:
                weight = float(np.exp(-(dy * dy + dx * dx) / (2 * sigma * sigma)))
                total += weight * images[0, :, row + dy, column + dx]
                weights += weight
    torch.testing.assert_close(filled[0, :, row, column], total / weights, atol=1e-4, rtol=0)
    assert torch.equal(filled[~hidden.expand_as(filled)], images[~hidden.expand_as(images)])


def test_a_hole_out_of_reach_gets_the_mean_colour() -> None:
    images = torch.full((1, 3, 64, 64), 0.25)
    hidden = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    hidden[..., :4, :4] = False
    assert torch.isfinite(smooth_fill(images, hidden, 1.0)).all()
    torch.testing.assert_close(smooth_fill(images, hidden, 1.0), images)


@pytest.mark.parametrize("place", range(4))
def test_scores_are_means_over_the_readable_pictures(tiny: Encoder, tmp_path: Path, place: int) -> None:
    """Those after a broken one keep the seeds of their own places."""
    photos = sorted(PHOTOS.glob("*.jpg"))[:3]
    contents = [photo.read_bytes() for photo in photos]
    contents.insert(place, b"no picture")
    for i, content in enumerate(contents):
        (tmp_path / f"{i}.jpg").write_bytes(content)
    scores = filling_scores(tiny, open_source(tmp_path), seed=5)
    seeds = [5 + i for i in range(4) if i != place]
    expected = [
        float(tiny.reconstruct(photo, seed=seed).error) for photo, seed in zip(photos, seeds, strict=True)
    ]
    assert scores["n_test"] == 3 and scores["skipped"] == 1
    assert scores["error"] == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert scores["ratio"] == pytest.approx(scores["error"] / scores["mean_fill"])
    assert scores["smooth_fill"] < scores["mean_fill"]


def test_no_readable_picture_is_an_error(tiny: Encoder, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of the 1 images"):
        filling_scores(tiny, open_source(tmp_path))


def test_baselines_stand_beside_the_model(tiny: Encoder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for label, tint in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(-30, 30, (70, 90, 3))
                Image.fromarray((np.array(tint) + noise).clip(0, 255).astype(np.uint8)).save(
                    folder / f"{i}.png"
                )
    train, test, _ = train_and_test(tmp_path)
    rows = measure(tiny, train, test, ["knn", "reconstruction"], baselines=True, workers=0)
    assert [(row["protocol"], row.get("features")) for row in rows] == [
        ("knn", TRAINED),
        ("knn", UNTRAINED),
        ("knn", PIXELS),
        ("reconstruction", None),
    ]
    assert rows[2]["top1"] == 100.0  # red and blue
    rows = measure(tiny, train, test, baselines=True, workers=0, k=1, temperature=0.5)
    asked = [(row["settings"]["k"], row["settings"]["temperature"]) for row in rows]
    assert asked == [(1, 0.5)] * 3  # the model, the untrained one and the pixels vote alike


def test_raw_pixels_are_the_crop_at_sixteen_pixels(tmp_path: Path) -> None:
    photo = PHOTOS / "coffee.jpg"
    folder = tmp_path / "cups"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(photo.read_bytes())
    pixels, labels = raw_pixels(open_source(tmp_path), Transform(128, crop_pct=1.0))
    assert pixels.shape == (1, 768) and labels.tolist() == [0]
    image = Image.open(io.BytesIO(photo.read_bytes()))
    height = 16
    width = int(16 * image.width / image.height)
    small = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    left = round((width - 16) / 2)
    expected = torch.from_numpy(small[:, left : left + 16] / 255).permute(2, 0, 1).float()
    torch.testing.assert_close(pixels[0].reshape(3, 16, 16), expected)
