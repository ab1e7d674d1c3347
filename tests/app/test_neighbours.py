"""Nearest neighbours among a visitor's photos, beside a slow twin."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from zoo.app.comparison import look
from zoo.app.neighbours import Neighbours, agreement, neighbours
from zoo.app.pages.compare import found, shown
from zoo.app.photos import examples
from zoo.encoder import Encoder
from zoo.errors import DataError
from zoo.images import read_image


def test_the_nearest_are_the_most_alike_of_the_others() -> None:
    pooled = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)) + 100  # what all of them share
    near = neighbours(pooled, 3)
    assert near.cosine.min() < 0.9
    mean = sum(pooled) / len(pooled)
    for i, row in enumerate(pooled):
        cosines = [
            (float((row - mean) @ (other - mean) / ((row - mean).norm() * (other - mean).norm())), -j)
            for j, other in enumerate(pooled)
            if j != i
        ]
        expected = sorted(cosines, reverse=True)[:3]
        assert near.index[i].tolist() == [-j for _, j in expected]
        assert near.cosine[i].tolist() == pytest.approx([cosine for cosine, _ in expected], abs=1e-4)


def test_few_photos_have_few_neighbours() -> None:
    assert neighbours(torch.eye(2), 3).index.tolist() == [[1], [0]]
    assert neighbours(torch.tensor([[1.0, 0.0], [1.0, 1.0]])).cosine[0].item() == pytest.approx(2**-0.5)
    with pytest.raises(DataError, match="two or more"):
        neighbours(torch.eye(1))


def test_agreement_counts_what_is_common() -> None:
    cosine = torch.zeros(2, 2)
    one, other = (Neighbours(torch.tensor(index), cosine) for index in ([[1, 2], [3, 0]], [[2, 3], [0, 3]]))
    assert agreement(one, other) == pytest.approx(0.75)


def test_a_photos_twin_is_its_nearest(dino: Encoder, mae: Encoder) -> None:
    photos = [read_image(path) for path in list(examples().values())[:3]]
    twin = photos[1].copy()
    twin.putpixel((0, 0), (0, 0, 0))
    images = [*photos, twin]
    names = ["a", "b", "c", "<twin>"]
    looked = [look(encoder, images, patches=6, count=2) for encoder in (dino, mae)]
    facts = found(names, looked)
    assert facts[dino.card.name]["b"][0][0] == "<twin>" and facts[mae.card.name]["<twin>"][0][0] == "b"
    page = shown(images, names, looked)
    assert page.count("<section") == 4 and page.count("<figure>") == 4 * (1 + 2 * (2 + 2))
    assert "<twin>" not in page and "&lt;twin&gt;" in page
    assert page.count("alt=") == page.count("<img")
    assert all(isinstance(picture, Image.Image) for each in looked for picture in each.attention)
