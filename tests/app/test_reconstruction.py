"""Several models under one mask: each hides the same places, or says what it hid instead."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops

from zoo.app.masks import PAINTED, Asked, read_mask
from zoo.app.pages.reconstruction import pictures, told
from zoo.app.photos import examples
from zoo.app.reconstruction import imagine
from zoo.cli import main
from zoo.encoder import Encoder
from zoo.errors import MaskError, Unsupported
from zoo.images import read_image
from zoo.masking import draw_mask
from zoo.one_mask import common_grid, common_size
from zoo.pictures import BORROWED, RECONSTRUCTED, reconstruction_caption
from zoo.sheets import Row, sheet

STROKE = "/".join(["01111110", "01111110", "00000000", "00010000"] * 2)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return read_image(examples()["coffee"])


def test_side_by_side_under_the_same_mask(
    mae: Encoder, small: dict[str, Encoder], photo: Image.Image
) -> None:
    models = [mae, small["tiny_ummae"], small["tiny_simmim"]]
    scene = imagine(models, photo, Asked("uniform", seed=3))
    assert torch.equal(scene.mask, draw_mask("uniform", (8, 8), [3])[0])
    for each, model in zip(scene.imagined, models, strict=True):
        assert each.name == model.card.name and not each.projected
        assert torch.equal(each.rec.mask[0], scene.mask)
        torch.testing.assert_close(each.rec.image, scene.photo / 255, atol=1e-6, rtol=0)
        assert float(each.rec.error) > 0
    text = told(scene)
    assert all(f"{float(each.rec.error):.4f}" in text for each in scene.imagined)
    assert len(pictures(scene)) == 12


@pytest.mark.parametrize("strategy", ["random", "blockwise"])
def test_one_model_is_what_the_library_gives(mae: Encoder, photo: Image.Image, strategy: str) -> None:
    (found,) = imagine([mae], photo, Asked(strategy, 0.6, seed=5)).imagined
    expected = mae.reconstruct(photo, strategy=strategy, ratio=0.6, seed=5)
    for name in ("image", "masked", "predicted", "composite", "mask", "error"):
        assert torch.equal(getattr(found.rec, name), getattr(expected, name)), name


def test_the_pictures_are_those_of_zoo_reconstruct(
    mae: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = examples()["rocket"], tmp_path / "out.png"
    words = ["--ratio", "0.5", "--seed", "11", "--strategy", "random", "--out", str(out)]
    assert main(["reconstruct", mae.card.name, str(path), "--device", "cpu", *words]) == 0
    capsys.readouterr()
    scene = imagine([mae], read_image(path), Asked("random", 0.5, seed=11))
    caption = reconstruction_caption(scene.imagined[0].rec, 0, "random", 11)
    row = Row([tile for tile, _ in pictures(scene)], RECONSTRUCTED, caption)
    drawn, written = sheet([row], title=f"{mae.card.name} · {path.name}"), Image.open(out)
    assert drawn.size == written.size
    assert ImageChops.difference(drawn, written).getbbox() is None


def test_a_painted_mask_hides_exactly_that(mae: Encoder, photo: Image.Image) -> None:
    (found,) = imagine([mae], photo, Asked(PAINTED, rows=STROKE)).imagined
    assert torch.equal(found.rec.mask[0], read_mask(STROKE)) and not found.projected
    shown = found.rec.masked[0].unfold(1, 16, 16).unfold(2, 16, 16)  # (3, 8, 8, 16, 16)
    grey = (shown == 0.5).flatten(3).all(dim=3).all(dim=0)
    assert torch.equal(grey, read_mask(STROKE))


def test_a_pyramid_shows_what_it_made_of_the_mask(small: dict[str, Encoder], photo: Image.Image) -> None:
    (found,) = imagine([small["tiny_ummae"]], photo, Asked(PAINTED, rows=STROKE, seed=2)).imagined
    used, asked = found.rec.mask[0], read_mask(STROKE)
    assert found.projected and torch.equal(found.asked, asked)
    cells = used.reshape(4, 2, 4, 2).permute(0, 2, 1, 3).flatten(2)
    assert (cells.sum(dim=2) >= 3).all()  # one visible, or none where none was
    assert (used | ~asked).all()  # what was hidden stays hidden
    more, blind = int((used & ~asked).sum()), int((cells.sum(dim=2) == 4).sum())
    assert found.rec.secondary is not None and int((found.rec.secondary & used).sum()) == blind
    assert f"{more} of 64" in found.notes[0]
    assert blind == 4 and f"In {blind} of its 2×2 cells" in found.notes[1]
    assert BORROWED in found.notes  # it predicts normalised pixels


def test_the_coarsest_grid_is_everybodys(mae: Encoder, small: dict[str, Encoder], photo: Image.Image) -> None:
    models = [mae, small["tiny_simmim32"]]
    assert common_size(models) == 128 and common_grid(models, 128) == (4, 4)
    scene = imagine(models, photo, Asked("random", 0.5, seed=1))
    fine, coarse = (each.rec.mask[0] for each in scene.imagined)
    assert torch.equal(coarse, scene.mask)
    assert torch.equal(fine, scene.mask.repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_a_secondary_mask_is_for_those_that_know_it(
    mae: Encoder, small: dict[str, Encoder], photo: Image.Image
) -> None:
    models = [mae, small["tiny_ummae"]]
    plain, second = imagine(models, photo, Asked("uniform", secondary=0.5)).imagined
    assert plain.rec.secondary is None and "no token for a secondary mask" in plain.notes[0]
    assert second.rec.secondary is not None and int(second.rec.secondary.sum()) == 8
    assert "Pale patches" in second.notes[0]


def test_what_cannot_be_is_told(mae: Encoder, dino: Encoder, photo: Image.Image) -> None:
    with pytest.raises(Unsupported, match="choose one or more"):
        imagine([], photo, Asked())
    with pytest.raises(Unsupported, match="has no decoder"):
        imagine([mae, dino], photo, Asked())
    with pytest.raises(MaskError, match="from 0 to below 1"):
        imagine([mae], photo, Asked(ratio=1.5))
