"""Patch tokens as colours: the three main directions in which those of one image differ."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from zoo.features import Features
from zoo.pictures import resized, tile_size, to_picture


def pca_colours(features: Features) -> Tensor:
    """The three main directions of one image's patches as red, green and blue: (3, h, w) in [0, 1].

    Each runs from its 2nd to its 98th percentile. A direction has no sign of its own: the patch farthest from the mean
    is bright. Directions along which nothing differs are a middle grey.
    """
    patches = features.patches[0].detach().double().cpu()  # (N, D)
    centred = patches - patches.mean(dim=0)
    left, strength, _ = torch.linalg.svd(centred, full_matrices=False)
    scores = (left * strength)[:, :3]  # (N, 3)
    scores = torch.nn.functional.pad(scores, (0, 3 - scores.shape[1]))
    farthest = scores.gather(0, scores.abs().argmax(dim=0, keepdim=True))
    scores = scores * torch.where(farthest < 0, -1.0, 1.0)
    low, high = scores.quantile(0.02, dim=0), scores.quantile(0.98, dim=0)
    flat = high - low < 1e-9
    stretched = ((scores - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    colours: Tensor = torch.where(flat, torch.full_like(stretched, 0.5), stretched)
    return colours.float().T.reshape(3, *features.grid)


def colour_picture(photo: Tensor, features: Features, tile: int = 640) -> Image.Image:
    """`pca_colours` at the size of the photo (3, H, W)."""
    return resized(to_picture(pca_colours(features)), tile_size(photo, tile), Image.Resampling.NEAREST)
