"""Every bundled model is what its card says, and others read its folder without us."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

import zoo
from zoo.cards import read_card
from zoo.folders import config_matches
from zoo.loading import build
from zoo.registry import MODEL_CARDS
from zoo.weights import verify

FOLDERS = sorted(path.parent for path in MODEL_CARDS.glob("*/README.md"))
PHOTOS = sorted((MODEL_CARDS / "photos").glob("*.jpg"))

each_model = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def test_there_are_bundled_models_and_photos_with_credits() -> None:
    assert {"dino_vitt16_imagenette", "mae_vitt16_imagenette"} <= set(zoo.list_models())
    credits = json.loads((MODEL_CARDS / "photos" / "ATTRIBUTION.json").read_text())
    assert [photo.name for photo in PHOTOS] == sorted(credit["file"] for credit in credits)


@each_model
def test_the_card_states_the_parameter_count(folder: Path) -> None:
    card = read_card(folder)
    with torch.device("meta"):
        module, decoder = build(card)
    assert sum(parameter.numel() for parameter in module.parameters()) == card.parameters
    assert (decoder is None) == (card.decoder is None)


@each_model
def test_files_are_those_of_the_card(folder: Path) -> None:
    card = read_card(folder)
    assert config_matches(folder)
    assert "model.safetensors" in card.sha256
    for file, digest in card.sha256.items():
        verify(folder / file, digest)
        assert (folder / file).stat().st_size < 24e6


@each_model
def test_timm_alone_gives_the_same_features(folder: Path) -> None:
    encoder = zoo.load(folder, device="cpu")
    pixels = torch.stack([encoder.transform(photo) for photo in PHOTOS[:2]])
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        expected = theirs(pixels)
    torch.testing.assert_close(encoder(PHOTOS[:2]).pooled, expected, atol=1e-5, rtol=0)


@each_model
def test_transformers_alone_gives_the_same_features(folder: Path) -> None:
    from transformers import AutoModel

    encoder = zoo.load(folder, device="cpu")
    pixels = torch.stack([encoder.transform(photo) for photo in PHOTOS[:2]])
    theirs = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = theirs(pixels).pooler_output
    torch.testing.assert_close(encoder(PHOTOS[:2]).pooled, expected, atol=1e-5, rtol=0)


@each_model
def test_every_number_has_its_command(folder: Path) -> None:
    card = read_card(folder)
    assert card.training is not None and card.training.command.startswith("zoo train ")
    assert {"knn", "knn, untrained", "knn, raw 16×16 pixels"} <= {result.task for result in card.results}
    for result in card.results:
        by = "bench" if result.task == "speed" else "evaluate"
        assert result.command.startswith(f"zoo {by} {card.name} "), result
