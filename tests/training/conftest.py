"""Real photographs in folders, and recipes small enough to train in a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoo.training.methods import recipe
from zoo.training.recipe import Recipe


def write_photo(path: Path, seed: int, size: tuple[int, int] = (64, 48)) -> None:
    """A JPEG of coloured noise, coarse enough to survive compression. size: (width, height) pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path, quality=95)


def write_photos(root: Path, per_class: int, seed: int = 0) -> Path:
    """Photos of two classes, `cat` and `dog`, in a folder each."""
    for c, name in enumerate(("cat", "dog")):
        for i in range(per_class):
            write_photo(root / name / f"{i:02d}.jpg", seed + 100 * c + i)
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 photos in train/ and 8 in val/, 64×48 pixels each. Not to be written to."""
    root = tmp_path_factory.mktemp("photos")
    write_photos(root / "train", 6)
    write_photos(root / "val", 4, seed=1000)
    return root


SMALL: dict[str, dict[str, Any]] = {
    "arch": {"name": "test_vit", "size": 32},  # timm's own: 6 blocks of width 64, 16-px patches
    "data": {"size": 32, "side": 40, "workers": 0},
    "optim": {"batch": 4},
    "run": {"log_every": 1, "threads": 1},
}
SMALL_METHOD: dict[str, dict[str, Any]] = {
    "mae": {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
    "simclr": {"hidden": 32, "out": 16},
    "byol": {"hidden": 32, "out": 16, "momentum": 0.9},
    "dino": {"prototypes": 24, "hidden": 32, "bottleneck": 16, "local_size": 16},
}


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Recipe]:
    """`tiny("dino/smoke", optim={"batch": 8})`: the recipe on a 64-wide ViT at 32 px, with these knobs turned."""

    def shrink(name: str, **knobs: dict[str, Any]) -> Recipe:
        small, method = recipe(name), name.split("/")[0]
        for section in {*SMALL, *knobs, "method"}:
            turned = SMALL.get(section, {}) | knobs.get(section, {})
            if section == "method":
                turned = SMALL_METHOD.get(method, {}) | knobs.get(section, {})
            config: Any = getattr(small, section)
            small = dataclasses.replace(small, **{section: dataclasses.replace(config, **turned)})
        return small

    return shrink
