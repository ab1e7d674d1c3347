"""Galleries: every tile is what the model gives for that photo, and nothing in them was chosen."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from masked_models import masked_model
from PIL import Image

from zoo.attention_maps import top_mass
from zoo.cli import main
from zoo.contact_sheet import APART, BETWEEN
from zoo.encoder import Encoder
from zoo.errors import DataError, ImageError, Unsupported
from zoo.folders import write_folder
from zoo.gallery import (
    Sample,
    Shown,
    attentions,
    colours,
    reconstructions,
    sample,
    with_class_token,
)
from zoo.masking import draw_mask
from zoo.one_mask import common_strategy
from zoo.pictures import BORROWED
from zoo.registry import MODEL_CARDS
from zoo.sheets import MARGIN
from zoo.sources import FolderSource, open_source

TILE = 56  # two pixels a patch


@pytest.fixture(scope="module")
def photos() -> Sample:
    return sample(open_source(MODEL_CARDS / "photos"), 5)


@pytest.fixture(scope="module")
def ummae(randomise: Callable[..., None]) -> Encoder:
    return masked_model("ummae swin", randomise, "tiny_ummae")


def left(column: int, group: int, tiles: int) -> int:
    """Where a column's tiles begin, by adding up what stands before it."""
    return MARGIN + (group * tiles + column) * (TILE + BETWEEN) + group * (APART + BETWEEN)


def rows_of(picture: Image.Image, like: Image.Image) -> list[int]:
    """The upper edges at which the first column shows `like`."""
    pixels, wanted = np.asarray(picture), np.asarray(like)
    column = pixels[:, MARGIN : MARGIN + TILE]
    return [top for top in range(len(column) - TILE + 1) if np.array_equal(column[top : top + TILE], wanted)]


def crop(encoder: Encoder, photo: Image.Image, size: int) -> Image.Image:
    """The evaluation crop by Pillow alone: the short side to size / crop_pct, then the middle."""
    short = int(size / encoder.transform.crop_pct)
    scale = short / min(photo.size)
    sides = [short if side == min(photo.size) else int(side * scale) for side in photo.size]
    resized = photo.resize((sides[0], sides[1]), Image.Resampling.BICUBIC)
    box = [round((side - size) / 2) for side in sides]
    return resized.crop((box[0], box[1], box[0] + size, box[1] + size))


def test_the_sample_is_the_first_by_hash(photos: Sample) -> None:
    names = [path.name for path in (MODEL_CARDS / "photos").glob("*.jpg")]
    assert list(photos.ids) == sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:5]
    assert "first 5 of 6 photos (photos" in photos.said and "none was chosen" in photos.said


def test_what_is_no_sample_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="shows nothing"):
        sample(open_source(MODEL_CARDS / "photos"), 0)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        sample(FolderSource("broken", None, ["broken.jpg"], None, None, tmp_path))


def test_errors_are_those_of_every_photo_under_its_own_mask(
    tiny: Encoder, ummae: Encoder, photos: Sample
) -> None:
    models = [Shown("mae", tiny), Shown("ummae", ummae)]
    assert common_strategy([tiny]) == "random" and common_strategy([tiny, ummae]) == "uniform"
    picture, errors = reconstructions(models, photos, seed=4, tile=TILE)
    assert picture.width >= 2 * MARGIN + 3 * (4 * TILE)  # three photos in a row
    for i, photo in enumerate(photos.photos):
        seen = np.asarray(crop(tiny, photo, 64), dtype=np.float64) / 255  # (H, W, 3)
        hidden = draw_mask("uniform", (4, 4), [4 + i])[0]
        pixels = torch.from_numpy(seen).permute(2, 0, 1)[None].float()
        for name, encoder in (("mae", tiny), ("ummae", ummae)):
            predicted = encoder.reconstruct(pixels, hidden).predicted[0].permute(1, 2, 0).numpy()
            squares = [
                (predicted[y, x] - seen[y, x]) ** 2
                for y in range(64) for x in range(64) if hidden[y // 16, x // 16]
            ]  # fmt: skip
            assert float(errors[name][i]) == pytest.approx(float(np.mean(squares)), abs=2e-4), (i, name)


def test_all_models_see_the_same_holes_and_say_where_they_do_not(
    tiny: Encoder, ummae: Encoder, photos: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        "zoo.contact_sheet.sheet", lambda rows, footer, **_: said.append(footer) or rows[0].tiles[0]
    )
    reconstructions([Shown("mae", tiny), Shown("ummae", ummae)], photos, seed=4)
    reconstructions([Shown("mae", tiny), Shown("ummae", ummae)], photos, strategy="random", ratio=0.5)
    assert "Masks: uniform, 75 % hidden, seed 4 + i" in said[0] and "were hidden from it" not in said[0]
    assert "Masks: random, 50 % hidden, seed 0 + i" in said[1]
    assert "ummae sees one patch of every 2×2" in said[1]  # a pyramid keeps one of several visible ones
    assert f"ummae: {BORROWED}" in said[0] and "none was chosen" in said[0]
    with pytest.raises(Unsupported, match="has no decoder"):
        bare = Encoder(dataclasses.replace(tiny.card, decoder=None), tiny.module)
        reconstructions([Shown("bare", bare)], photos)


def test_attention_is_the_mean_of_the_last_block_s_heads(tiny: Encoder, photos: Sample) -> None:
    picture = attentions(
        [Shown("a", tiny), Shown("b", tiny)], photos, tile=TILE
    )  # five tiles: two photos a row
    pixels = np.asarray(picture).astype(int)
    shown = [
        crop(tiny, photo, 28 * 16).resize((TILE, TILE), Image.Resampling.BICUBIC) for photo in photos.photos
    ]
    tops = [rows_of(picture, shown[i]) for i in (0, 2, 4)]
    assert [len(each) for each in tops] == [1, 1, 1] and tops == sorted(tops)
    for i, photo in enumerate(photos.photos):
        mean = tiny.attention(photo, fit="crop", size=28 * 16)[0].mean(dim=0)
        kept = top_mass(mean, 0.6).repeat_interleave(2, 0).repeat_interleave(2, 1).numpy()
        (top,), group = tops[i // 2], i % 2
        for model in range(2):
            edge = left(2 + 2 * model, group, 5)
            spot = pixels[top : top + TILE, edge : edge + TILE]
            assert (spot == np.asarray(shown[i]))[kept].all()  # the photo where the mass is
            assert (spot[~kept].max(axis=1) - spot[~kept].min(axis=1)).max() <= 1  # a grey ghost elsewhere
            heat = pixels[top : top + TILE, left(1 + 2 * model, group, 5) :][:, :TILE].sum(axis=2)
            assert heat[kept].mean() > heat[~kept].mean()


def test_colours_are_of_each_model(tiny: Encoder, ummae: Encoder, photos: Sample) -> None:
    picture = colours([Shown("mae", tiny), Shown("ummae", ummae)], photos, tile=TILE)
    shown = crop(tiny, photos.photos[0], 28 * 16).resize((TILE, TILE), Image.Resampling.BICUBIC)
    (top,) = rows_of(picture, shown)
    for column, side in ((1, 2), (2, 4)):  # 28 patches of 16 px, and 14 positions of 32 px
        edge = left(column, 0, 3)
        tile = np.asarray(picture)[top : top + TILE, edge : edge + TILE]
        coarse = tile[::side, ::side]
        assert np.array_equal(tile, coarse.repeat(side, 0).repeat(side, 1))
        assert len(np.unique(coarse.reshape(-1, 3), axis=0)) > 20


def test_models_without_a_class_token_are_left_out(tiny: Encoder, ummae: Encoder) -> None:
    both = [Shown("mae", tiny), Shown("ummae", ummae)]
    assert [each.name for each in with_class_token(both)] == ["mae"]


def test_one_command_draws_all(
    tiny: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder("mine", tiny.card, tiny.module, tiny.decoder, "# mine")
    words = ["gallery", str(MODEL_CARDS / "photos"), "--models", "mine", "--device", "cpu"]
    assert main([*words, "--untrained", "mine", "--count", "2", "--out", "out", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    names = ["attention.jpg", "colours.jpg", "reconstruction.jpg"]
    assert sorted(path.name for path in Path("out").iterdir()) == names
    for name in names:
        with Image.open(Path("out") / name) as picture:
            assert f"({picture.width}×{picture.height}, " in out and picture.format == "JPEG"
        assert (Path("out") / name).stat().st_size < 400_000
    assert "mine, untrained, mine" in out and "none was chosen" in out
    words[words.index("mine") :] = ["mine", "mine"]
    assert main(words) == 2 and "named twice" in capsys.readouterr().err
