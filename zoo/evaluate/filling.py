"""What a masked-image model's prediction is worth beside fills that know nothing of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.blur import gaussian_blur
from zoo.errors import DataError, ImageError
from zoo.patches import hidden_error, hidden_pixels, patchify
from zoo.progress import track
from zoo.sources import Source

if TYPE_CHECKING:
    from zoo.encoder import Encoder
    from zoo.reconstruction import Reconstruction
    from zoo.transforms import Transform

BATCH = 64

# Standard deviation of the smooth fill in patches: the best of 0.25, 0.35, 0.5, 0.7, 1 and 1.5 on training photos of
# Imagenette.
SMOOTH_SIGMA = 0.7


def mean_fill(images: Tensor, hidden: Tensor) -> Tensor:
    """Hidden pixels get the mean colour of the visible ones. images: (B, C, H, W); hidden: (B, 1, H, W) bool."""
    shown = (~hidden).to(images.dtype)
    colour = (images * shown).sum((2, 3), keepdim=True) / shown.sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(hidden, colour, images)


def smooth_fill(images: Tensor, hidden: Tensor, sigma: float) -> Tensor:
    """Every hidden pixel a Gaussian-weighted mean of the visible ones around it; sigma in pixels.

    Where none is within reach, the mean colour.
    """
    shown = (~hidden).to(images.dtype)
    radius = min(round(3 * sigma), *(side - 1 for side in images.shape[-2:]))  # the border is mirrored once
    around, weight = (gaussian_blur(each, 2 * radius + 1, sigma) for each in (images * shown, shown))
    # So little of the mean colour decides only where nothing visible has any weight.
    little = 1e-6
    return torch.where(hidden, (around + little * mean_fill(images, hidden)) / (weight + little), images)


def filling_scores(encoder: Encoder, test: Source, *, seed: int = 0) -> dict[str, Any]:
    """Mean squared error on hidden pixels in [0, 1], of the model and of both fills, under the card's own masks.

    Image i of the source is masked by seed + i. Raises DataError where no image can be read, Unsupported where
    the model has no decoder.
    """
    totals, count = torch.zeros(3, dtype=torch.float64), 0
    for indices in track(list(_batches(len(test))), "reconstructing"):
        readable = dict(_readable(encoder.transform, test, indices))
        if readable:
            totals += _errors(encoder, readable, indices, seed).sum(0).cpu()
            count += len(readable)
    if not count:
        raise DataError(f"none of the {len(test)} images of {test.title} can be read")
    model, mean, smooth = (totals / count).tolist()
    return {
        "protocol": "reconstruction",
        "error": model,
        "mean_fill": mean,
        "smooth_fill": smooth,
        "ratio": model / mean,
        "smooth_ratio": smooth / mean,
        "model": encoder.card.name,
        "test": test.title,
        "n_test": count,
        "skipped": len(test) - count,
        "settings": {"seed": seed, "size": encoder.size, "smooth_sigma_patches": SMOOTH_SIGMA},
    }


def _errors(encoder: Encoder, readable: dict[int, Tensor], indices: range, seed: int) -> Tensor:
    """(B, 3): errors of the model, the mean fill and the smooth fill on the readable images among `indices`.

    A batch is masked by seeds that follow on each other, so black stands in for the others and is not counted.
    """
    black = torch.zeros_like(next(iter(readable.values())))
    images = torch.stack([readable.get(i, black) for i in indices])
    rec = encoder.reconstruct(images, seed=seed + indices.start)
    errors = torch.cat([rec.error[:, None], fill_errors(rec)], 1).double()
    return errors[[i - indices.start for i in readable]]


def fill_errors(rec: Reconstruction) -> Tensor:
    """(B, 2): what the mean and the smooth fill make of the pixels that were hidden for a reconstruction."""
    patch = rec.image.shape[-1] // rec.mask.shape[-1]
    holes = hidden_pixels(rec.mask, patch)
    target, flat = patchify(rec.image, patch), rec.mask.flatten(1)
    fills = (mean_fill(rec.image, holes), smooth_fill(rec.image, holes, SMOOTH_SIGMA * patch))
    return torch.stack([hidden_error(patchify(fill, patch), target, flat) for fill in fills], 1)


def _batches(count: int) -> Iterator[range]:
    for start in range(0, count, BATCH):
        yield range(start, min(start + BATCH, count))


def _readable(transform: Transform, source: Source, indices: range) -> Iterator[tuple[int, Tensor]]:
    """Index and (C, S, S) uint8 of each image that can be read, as `transform` crops it."""
    for i in indices:
        try:
            yield i, torch.from_numpy(transform.levels(source.read(i))).movedim(-1, 0)
        except ImageError:
            continue
