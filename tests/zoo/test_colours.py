"""Patch tokens as colours, beside a slow twin in numpy."""

from __future__ import annotations

import numpy as np
import torch

from zoo.colours import pca_colours
from zoo.features import Features


def features(h: int = 5, w: int = 7, width: int = 12, seed: int = 0) -> Features:
    patches = torch.randn(1, h * w, width, generator=torch.Generator().manual_seed(seed))
    patches[..., :3] *= torch.tensor([5.0, 3.0, 2.0])  # directions that are told apart
    return Features(patches.mean(dim=1), None, patches, (h, w))


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
