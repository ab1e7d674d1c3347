"""The models as the app shows them."""

from __future__ import annotations

import zoo
from zoo.app.catalogue import COLUMNS, found, here, row, told


def test_a_search_finds_every_word() -> None:
    names = [each.name for each in found("dino vits16")]
    assert "dino_vits16" in names and all("dino" in name and "vits16" in name for name in names)
    assert [each.name for each in found("DINO ViTS16")] == names
    assert found("no such model") == []
    assert len(found()) == len(zoo.list_models())
    allowed = found(commercial=True)
    assert allowed and all(each.commercial for each in allowed)
    assert {each.name for each in found(local=True)} == set(here()) >= {"dino_vitt16_imagenette"}


def test_a_row_says_licence_and_numbers_first() -> None:
    cells = dict(zip(COLUMNS, row(zoo.card("dino_vits16")), strict=True))
    assert list(cells)[1:4] == ["licence", "commercial use", "k-NN"]
    assert cells["licence"] == "apache-2.0" and cells["k-NN"] == "74.5" and cells["weights"] == "hub"


def test_a_card_tells_its_licence_before_its_numbers() -> None:
    text = told(zoo.card("mae_vitt16_imagenette"))
    assert text.startswith("## mae_vitt16_imagenette")
    assert text.index("| licence |") < text.index("| k-NN |") < text.index("| load |")
    assert "(/?model=mae_vitt16_imagenette)" in text
    assert "(/reconstruction?models=mae_vitt16_imagenette)" in text
    assert "zoo pull dino_vits16" in told(zoo.card("dino_vits16"))
    assert "zoo pull" not in told(zoo.card("byol_resnet50"))  # its facts say why there is nothing to fetch


def test_only_masked_models_imagine() -> None:
    assert "mae_vitt16_imagenette" in here(masked=True)
    assert "dino_vitt16_imagenette" not in here(masked=True)
