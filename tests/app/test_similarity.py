"""Similarity and colours, beside slow twins in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.app.similarity import colour_picture, patch_at, patch_similarity, pca_colours, similarity_picture
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


def test_colours_are_the_main_directions() -> None:
    given = features()
    vectors = given.patches[0].double().numpy()
    centred = vectors - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)  # ascending
    found = pca_colours(given).flatten(1).numpy()
    for channel in range(3):
        scores = centred @ directions[:, -1 - channel]
        scores *= np.sign(scores[np.abs(scores).argmax()])
        low, high = np.quantile(scores, (0.02, 0.98))
        np.testing.assert_allclose(found[channel], np.clip((scores - low) / (high - low), 0, 1), atol=1e-5)


def test_where_nothing_differs_all_is_grey() -> None:
    patches = torch.ones(1, 6, 8)
    assert pca_colours(Features(patches[:, 0], None, patches, (2, 3))).eq(0.5).all()
    one = torch.ones(1, 1, 2)
    assert pca_colours(Features(one[:, 0], None, one, (1, 1))).shape == (3, 1, 1)


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
