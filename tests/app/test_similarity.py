"""Similarity, beside a slow twin in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.app.similarity import patch_at, patch_similarity, similarity_picture
from zoo.colours import colour_picture
from zoo.errors import SizeError
from zoo.features import Features


def features(h: int = 5, w: int = 7, width: int = 12, seed: int = 0) -> Features:
    patches = torch.randn(1, h * w, width, generator=torch.Generator().manual_seed(seed))
    patches[..., :3] *= torch.tensor([5.0, 3.0, 2.0])  # directions that are told apart
    return Features(patches.mean(dim=1), None, patches, (h, w))


def test_similarity_is_the_cosine() -> None:
    given = features()
    found, vectors = patch_similarity(given, (2, 3)), given.patches[0].numpy().astype(np.float64)
    assert found.shape == (5, 7)
    for row in range(5):
        for column in range(7):
            one, other = vectors[2 * 7 + 3], vectors[row * 7 + column]
            cosine = one @ other / np.sqrt((one @ one) * (other @ other))
            assert float(found[row, column]) == pytest.approx(cosine, abs=1e-5)
    with pytest.raises(SizeError, match="outside the grid"):
        patch_similarity(given, (5, 0))


@pytest.mark.parametrize(
    ("point", "patch"),
    [((0, 0), (0, 0)), ((639, 479), (2, 3)), ((640, 480), (2, 3)), ((160, 159), (0, 1)), ((-1, 200), (1, 0))],
)
def test_the_patch_under_a_point(point: tuple[int, int], patch: tuple[int, int]) -> None:
    assert patch_at(*point, (640, 480), (3, 4)) == patch


def test_pictures_have_the_photos_shape() -> None:
    given, photo = features(), torch.rand(3, 80, 112, generator=torch.Generator().manual_seed(1))
    similar = similarity_picture(photo, given, (2, 3), tile=224)
    assert similar.size == colour_picture(photo, given, tile=224).size == (224, 160)
    other = np.asarray(similarity_picture(photo, given, (0, 0), tile=224), dtype=int)
    assert np.abs(np.asarray(similar, dtype=int) - other).max() > 50
    assert isinstance(similar, Image.Image)
