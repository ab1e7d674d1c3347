"""`zoo demo`: the main job on six bundled photos, offline: features, what is alike, attention, reconstruction."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from zoo.encoder import Encoder
from zoo.errors import DataError
from zoo.features import Features
from zoo.loading import load
from zoo.pictures import as_seen, attention_tiles, reconstruction_panel
from zoo.registry import MODEL_CARDS
from zoo.saving import save_picture
from zoo.sheets import Row, sheet
from zoo.tables import table

DINO, MAE = "dino_vitt16_imagenette", "mae_vitt16_imagenette"
# Photos with one plain subject, so that anybody can judge whether a head has found it.
ATTENDED = ("cat_chelsea", "flower", "rocket", "astronaut")

NEXT = f"""\
next: zoo attend {DINO} YOUR.jpg --out heads.png
      zoo reconstruct {MAE} YOUR.jpg --ratio 0.5 --out imagined.png
      zoo list"""


def run(out: Path, say: Callable[[str], None] = print, *, began: float | None = None) -> tuple[Path, Path]:
    """Do all of it, tell it line by line, and return the attention and the reconstruction picture.

    began: the `time.perf_counter()` from which its seconds count, such as before torch was imported; None: now.
    """
    began = time.perf_counter() if began is None else began
    photos = bundled_photos()
    names = [photo.stem for photo in photos]
    dino = load(DINO)
    features = dino(photos)
    assert isinstance(features, Features)  # cropped to one size, they lie on one grid
    say(f"{DINO} on {len(photos)} photos:\n  {features!r}\n")
    cosines = centred_cosines(features.pooled)
    say("how alike their features are, after taking out what all six share:")
    say(similarity_table(names, cosines))
    say(
        "\nmost alike: "
        + ", ".join(f"{a} and {b} ({c:.2f})" for a, b, c in most_alike(names, cosines))
        + "\n"
    )
    attention = save_picture(draw_attention(dino, photos), out / "attention.png")
    say(f"what each head of its last block attends to: {attention}")
    reconstruction = save_picture(draw_reconstruction(load(MAE), photos), out / "reconstruction.png")
    say(f"what {MAE} imagines behind 75 % hidden patches: {reconstruction}")
    say(f"\n{time.perf_counter() - began:.1f} s in all\n{NEXT}")
    return attention, reconstruction


def bundled_photos() -> list[Path]:
    """The photos that ship with the project, in name order. Raises DataError where they are missing."""
    folder = MODEL_CARDS / "photos"
    photos = sorted(folder.glob("*.jpg"))
    if not photos:
        raise DataError(
            f"no photos in {str(folder)!r}; install ssl-zoo again, or `zoo attend` a photo of your own"
        )
    return photos


def cosine_similarity(pooled: Tensor) -> Tensor:
    """Cosines between all pairs of rows: (B, D) -> (B, B)."""
    unit = torch.nn.functional.normalize(pooled.detach().float().cpu(), dim=-1)
    return unit @ unit.T


def centred_cosines(pooled: Tensor) -> Tensor:
    """Cosines between all pairs of rows less their mean: (B, D) -> (B, B).

    What all features share says nothing about which are alike, and brings every plain cosine near 1. Two rows less
    their mean are opposites whatever they were, so theirs is plain.
    """
    pooled = pooled.detach().float().cpu()
    return cosine_similarity(pooled - pooled.mean(dim=0) if len(pooled) > 2 else pooled)


def most_alike(names: Sequence[str], cosines: Tensor, count: int = 3) -> list[tuple[str, str, float]]:
    """The `count` pairs of different images with the largest cosines (B, B), largest first."""
    pairs = [(names[i], names[j], float(cosines[i, j])) for j in range(len(names)) for i in range(j)]
    return sorted(pairs, key=lambda pair: -pair[2])[:count]


def similarity_table(names: Sequence[str], cosines: Tensor) -> str:
    """Cosines (B, B) as a lower triangle of text."""
    rows = [
        [
            name,
            *(f"{float(cosines[i, j]):.2f}" if j < i else "·" if j == i else "" for j in range(len(names))),
        ]
        for i, name in enumerate(names)
    ]
    return table(["cosine", *names], rows, right=names)


def draw_attention(encoder: Encoder, photos: Sequence[Path]) -> Image.Image:
    """One row per photo with a plain subject: the photo, a panel per head, their mean and its top 60 %."""
    rows: list[Row] = []
    for photo in (photo for name in ATTENDED for photo in photos if photo.stem == name):
        seen = as_seen(encoder, photo, fit="whole")
        tiles, labels = attention_tiles(seen, encoder.attention(seen[None])[0].cpu())
        rows.append(Row(tiles, labels if not rows else ()))
    return sheet(rows, title=f"{encoder.card.name}: where the class token of the last block looks")


def draw_reconstruction(encoder: Encoder, photos: Sequence[Path]) -> Image.Image:
    """One row per photo: original, masked, predicted and composite, with 75 % of the patches hidden at random."""
    rec = encoder.reconstruct(list(photos), strategy="random", ratio=0.75, seed=0)
    title = f"{encoder.card.name}: photos from a quarter of their patches"
    return reconstruction_panel(rec, strategy="random", seed=0, title=title)
