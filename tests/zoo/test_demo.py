"""The demo's arithmetic and text on known numbers, and the whole of it on the bundled models."""

from __future__ import annotations

import json
import time
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from PIL import Image

from zoo import demo

NAMES = ("cat", "dog", "rocket")
COSINES = torch.tensor([[1.0, 0.9, -0.1], [0.9, 1.0, 0.25], [-0.1, 0.25, 1.0]])


def test_most_alike_pairs_come_largest_first_and_never_twice() -> None:
    pairs = demo.most_alike(NAMES, COSINES, count=5)
    assert [(a, b) for a, b, _ in pairs] == [("cat", "dog"), ("dog", "rocket"), ("cat", "rocket")]
    assert [c for _, _, c in pairs] == pytest.approx([0.9, 0.25, -0.1])


def test_similarity_is_a_triangle_that_lines_up() -> None:
    assert demo.similarity_table(NAMES, COSINES).splitlines() == [
        "cosine    cat   dog  rocket",
        "cat         ·",
        "dog      0.90     ·",
        "rocket  -0.10  0.25       ·",
    ]


@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_cosines_agree_with_the_formula(rows: list[list[float]]) -> None:
    pooled = torch.tensor(rows).float() + torch.tensor([0.0, 0.0, 6.0])  # never the zero vector
    cosines = demo.cosine_similarity(pooled)
    for i, a in enumerate(pooled):
        for j, b in enumerate(pooled):
            assert float(cosines[i, j]) == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-5)


def test_every_bundled_photo_is_attributed() -> None:
    photos = demo.bundled_photos()
    credits = json.loads((photos[0].parent / "ATTRIBUTION.json").read_text(encoding="utf-8"))
    assert {photo.name for photo in photos} == {credit["file"] for credit in credits}
    assert all(credit["license"] and credit["credit"] for credit in credits)
    assert set(demo.ATTENDED) <= {photo.stem for photo in photos}


def test_the_demo_tells_and_draws_what_it_promises(tmp_path: Path) -> None:
    said: list[str] = []
    attention, reconstruction = demo.run(tmp_path / "demo", said.append, began=time.perf_counter() - 1000)
    told = "\n".join(said)
    assert 1000 < float(told.partition(" s in all")[0].rpartition("\n")[2]) < 1060  # what came before counts
    assert "Features(pooled 6×192, patches 6×64×192, grid 8×8)" in told
    assert str(attention) in told and str(reconstruction) in told and "next: zoo attend" in told
    for picture in (attention, reconstruction):
        with Image.open(picture) as image:
            assert image.width > 1000 and image.height > 600
            assert len(image.convert("P").getcolors() or []) > 50
