"""Small masked-image models in folders of their own, and the bundled encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from masked_models import masked_model

import zoo
from zoo.encoder import Encoder
from zoo.folders import write_folder

# Name of the folder -> what tests/masked_models.py calls it.
SMALL = {"tiny_ummae": "ummae swin", "tiny_simmim": "simmim ummae swin", "tiny_simmim32": "simmim swin"}


@pytest.fixture(scope="session")
def dino() -> Encoder:
    return zoo.load("dino_vitt16_imagenette", device="cpu")


@pytest.fixture(scope="session")
def mae() -> Encoder:
    return zoo.load("mae_vitt16_imagenette", device="cpu")


@pytest.fixture(scope="session")
def small(randomise: Callable[..., None]) -> dict[str, Encoder]:
    """UM-MAE on a Swin, and SimMIM with masks of 16 and of 32 pixels, by name."""
    return {name: masked_model(kind, randomise, name) for name, kind in SMALL.items()}


@pytest.fixture(scope="session")
def small_zoo(small: dict[str, Encoder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A $ZOO_HOME that holds them."""
    home = tmp_path_factory.mktemp("app_zoo")
    for name, encoder in small.items():
        folder = home / "models" / name
        write_folder(folder, encoder.card, encoder.module, encoder.decoder, f"# {name}", torch.float32)
    return home
