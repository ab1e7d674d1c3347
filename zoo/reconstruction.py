"""Masked images and what a decoder makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.decoders import Masks
from zoo.patches import hidden_error, hidden_pixels, normalise_patches, patch_statistics, patchify, unpatchify
from zoo.transforms import Transform

# What hidden patches are painted with in `masked`: a grey in the middle of [0, 1].
GREY = 0.5
# Visible patches whose place a mask token takes in the encoder.
PALE = 0.85


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A masked image and its prediction; pictures are (B, 3, H, W) in [0, 1].

    mask: (B, h, w) bool, True = hidden, as really used. secondary: (B, h, w) bool, the visible patches replaced by a
    mask token, or None; they are pale in `masked`, where hidden ones are grey. predicted: the decoder's output on every
    patch, clipped; composite: the same with the visible pixels kept. loss: (B,), the method's own. error: (B,), mean
    squared error on hidden pixels in [0, 1], comparable across models. uses_target_statistics: the model predicts
    normalised pixels, so the picture borrows each hidden patch's mean and variance.
    """

    image: Tensor
    masked: Tensor
    predicted: Tensor
    composite: Tensor
    mask: Tensor
    secondary: Tensor | None
    loss: Tensor
    error: Tensor
    uses_target_statistics: bool

    def __repr__(self) -> str:
        count, _, height, width = self.image.shape
        errors = ", ".join(f"{error:.4f}" for error in self.error[:4].tolist()) + (", …" if count > 4 else "")
        hidden = self.mask.float().mean().item()
        return f"Reconstruction({count} × {height}×{width} pixels, {hidden:.0%} hidden, error {errors})"


def reconstruction(
    pixels: Tensor,
    masks: Masks,
    predicted: Tensor,
    transform: Transform,
    patch: int,
    *,
    normalised_targets: bool,
    error: Callable[[Tensor, Tensor, Tensor], Tensor] = hidden_error,
) -> Reconstruction:
    """Pictures and errors of a prediction.

    pixels: (B, 3, H, W) normalised. predicted: (B, N, P*P*3) as the decoder gave it. error: the method's own loss, of
    predicted and target patches and the hidden ones (B, N).
    """
    hidden = masks.hidden
    target, flat = patchify(pixels, patch), hidden.flatten(1)  # (B, N, P*P*3), (B, N)
    if normalised_targets:
        loss = error(predicted, normalise_patches(target), flat)
        mean, std = patch_statistics(target)
        predicted = predicted * std + mean
    else:
        loss = error(predicted, target, flat)
    grid = (hidden.shape[-2], hidden.shape[-1])
    image = transform.denormalise(pixels).clamp(0, 1)
    picture = transform.denormalise(unpatchify(predicted, patch, grid)).clamp(0, 1)
    holes = hidden_pixels(hidden, patch)  # (B, 1, H, W)
    masked = torch.where(holes, GREY, image)
    if masks.secondary is not None:
        masked = torch.where(hidden_pixels(masks.secondary & ~hidden, patch), PALE, masked)
    return Reconstruction(
        image=image,
        masked=masked,
        predicted=picture,
        composite=torch.where(holes, picture, image),
        mask=hidden,
        secondary=masks.secondary,
        loss=loss,
        error=hidden_error(patchify(picture, patch), patchify(image, patch), flat),
        uses_target_statistics=normalised_targets,
    )


def by_visible_count(hidden: Tensor, predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Run `predict(rows, hidden[rows])` on groups of images that hide equally many patches; (B, …) in order."""
    counts = hidden.flatten(1).sum(dim=1)
    found: dict[int, Tensor] = {}
    for count in counts.unique().tolist():
        rows = (counts == count).nonzero()[:, 0]
        found |= dict(zip(rows.tolist(), predict(rows, hidden[rows]), strict=True))
    return torch.stack([found[i] for i in range(len(hidden))])
