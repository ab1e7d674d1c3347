"""Scores of an encoder on sources: what is measured, said and refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from zoo.errors import DataError, Unsupported
from zoo.evaluate import evaluate_frozen, frozen_scores
from zoo.features import Features
from zoo.sources import open_source, train_and_test
from zoo.transforms import Transform


class MeanColour:
    """A real network with the face of `zoo.Encoder`: its features are an image's mean colour."""

    def __init__(self) -> None:
        self.module = nn.Conv2d(3, 3, 1, bias=False)
        self.module.weight.data = torch.eye(3)[:, :, None, None]
        self.card = SimpleNamespace(name="mean_colour")
        self.transform = Transform(size=8, crop_pct=0.875)
        self.device, self.dtype, self.stride = torch.device("cpu"), torch.float32, 8
        self.images = 0

    def forward_features(self, pixels: Tensor) -> Features:
        self.images += len(pixels)
        pooled = self.module(pixels).mean(dim=(2, 3))
        return Features(pooled, None, pooled[:, None], (1, 1))


@pytest.fixture
def paints(tmp_path: Path) -> Path:
    """Forty pictures each of red, green and blue noise, and one file that is no picture."""
    random = np.random.default_rng(0)
    for place, name in enumerate(("red", "green", "blue")):
        (tmp_path / "paints" / name).mkdir(parents=True)
        for i in range(40):
            pixels = random.integers(0, 160, (9, 9, 3), dtype=np.uint8)
            pixels[:, :, place] = 255
            Image.fromarray(pixels).save(tmp_path / "paints" / name / f"{i}.png")
    (tmp_path / "paints" / "red" / "bad.png").write_bytes(b"not an image")
    return tmp_path / "paints"


def test_both_protocols_from_one_extraction(paints: Path) -> None:
    encoder: Any = MeanColour()
    train, test, _ = train_and_test(paints)
    rows = frozen_scores(encoder, train, test)
    assert encoder.images == 120 + 2  # every picture once, and a black one for either source
    assert [row["protocol"] for row in rows] == ["knn", "linear"] and [row["top1"] for row in rows] == [
        100,
        100,
    ]
    assert json.loads(json.dumps(rows)) == rows
    for row in rows:
        assert row["n_train"] + row["n_test"] == 120 and row["skipped"] == 1 and row["classes"] == 3
        assert (row["model"], row["train"], row["test"]) == (
            "mean_colour",
            "paints",
            "paints, held-out 20%",
        )
    seen = {"size": 8, "crop_pct": 0.875, "interpolation": "bicubic"}
    assert rows[0]["settings"] == {"k": 20, "temperature": 0.07, **seen}
    assert rows[1]["settings"].keys() == {"l2", "seed", *seen}


def test_one_protocol_with_settings(paints: Path) -> None:
    encoder: Any = MeanColour()
    train, test, _ = train_and_test(paints)
    row = evaluate_frozen(encoder, train, test, "knn", k=500, temperature=1.0)
    assert row["settings"]["k"] == row["n_train"] and row["settings"]["temperature"] == 1.0
    with pytest.raises(Unsupported, match=r"no protocol 'kn'; did you mean 'knn'.*there are knn, linear"):
        evaluate_frozen(encoder, train, test, "kn")


def test_what_cannot_be_scored_is_refused_before_any_work(paints: Path) -> None:
    encoder: Any = MeanColour()
    labelled, bare, red = (
        open_source(paints),
        open_source(paints / "red"),
        open_source(paints).subset(range(90, 99)),
    )
    with pytest.raises(DataError, match="'red' is unlabelled"):
        evaluate_frozen(encoder, bare, labelled)
    with pytest.raises(DataError, match="'red' is unlabelled"):
        evaluate_frozen(encoder, labelled, bare)
    with pytest.raises(DataError, match=r"single class, 'red': there is nothing to tell apart"):
        evaluate_frozen(encoder, red, labelled)
    assert encoder.images == 0
