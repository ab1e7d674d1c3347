"""Pictures: their sizes, what they show where, and how they are written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.errors import ImageError
from zoo.pictures import (
    as_seen,
    attention_panel,
    attention_tiles,
    heat_colours,
    outlined,
    reconstruction_caption,
    reconstruction_panel,
)
from zoo.saving import save_picture
from zoo.transforms import Transform

TINY = Image.new("RGB", (8, 6), (200, 30, 30))


def reconstruction(count: int = 2, *, secondary: bool = False, borrows: bool = False) -> Any:
    """What `Encoder.reconstruct` returns, with four plainly different pictures: the first patch column is visible."""
    image, masked, predicted, composite = (
        torch.full((count, 3, 32, 64), level) for level in (0.2, 0.4, 0.6, 0.8)
    )
    mask = torch.ones(count, 2, 4, dtype=torch.bool)
    mask[:, :, 0] = False
    return SimpleNamespace(
        image=image, masked=masked, predicted=predicted, composite=composite, mask=mask,
        secondary=torch.eye(2, 4, dtype=torch.bool).expand(count, 2, 4) if secondary else None,
        loss=torch.ones(count), error=torch.full((count,), 0.01234), uses_target_statistics=borrows,
    )  # fmt: skip


def luminance(colours: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return colours.astype(float) @ np.array([0.2126, 0.7152, 0.0722])


def test_a_frame_around_a_patch_leaves_its_middle_and_the_rest() -> None:
    image = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    marked = outlined(image, (0, 3), (3, 4))  # in a corner, 16 px each
    changed = (marked != image).any(0)
    assert changed[:16, 48:].sum() == 16 * 16 - 10 * 10 and marked[:, 0, 50].tolist() == [1.0] * 3
    assert changed[:, :45].sum() == 0 and changed[19:].sum() == 0 and marked[:, 17, 50].tolist() == [0.0] * 3


def test_a_photo_is_shown_as_the_encoder_gets_it(tmp_path: Path) -> None:
    gradient = Image.linear_gradient("L").resize((90, 60)).convert("RGB")
    gradient.save(tmp_path / "photo.png")
    encoder: Any = SimpleNamespace(transform=Transform(size=128, crop_pct=0.875), stride=16)
    seen = as_seen(encoder, tmp_path / "photo.png", size=64)
    assert seen.shape == (3, 64, 96) and seen.min() >= 0 and seen.max() <= 1
    given = encoder.transform.pixels(gradient, 16, "whole", 64)
    assert torch.allclose(encoder.transform.normalise(seen), given, atol=1e-5)


@pytest.mark.parametrize(("stride", "height", "width"), [(16, 448, 672), (14, 392, 588)])
def test_a_photo_is_enlarged_to_28_patches(stride: int, height: int, width: int, tmp_path: Path) -> None:
    Image.new("RGB", (90, 60)).save(tmp_path / "photo.png")
    encoder: Any = SimpleNamespace(transform=Transform(size=224), stride=stride)
    assert as_seen(encoder, tmp_path / "photo.png").shape == (3, height, width)


def test_heat_goes_from_dark_to_bright_without_a_step_back() -> None:
    light = luminance(heat_colours(np.linspace(0, 1, 256)))
    assert (np.diff(light) >= -0.5).all()
    assert light[0] < 5 and light[-1] > 240


def test_heat_agrees_with_a_published_map_at_its_stops() -> None:
    assert heat_colours([0.0, 0.5, 1.0]).tolist() == [[0, 0, 4], [188, 55, 84], [252, 255, 164]]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96), (96, 64)])
def test_tiles_keep_the_photo_s_shape(height: int, width: int) -> None:
    tiles, labels = attention_tiles(torch.rand(3, height, width), torch.rand(3, height // 16, width // 16))
    longer = max(height, width)
    assert labels == ["photo", "head 0", "head 1", "head 2", "mean of heads", "top 60 % of the mean"]
    assert {tile.size for tile in tiles} == {(round(320 * width / longer), round(320 * height / longer))}
    assert {tile.mode for tile in tiles} == {"RGB"}


def test_heat_is_where_the_attention_is() -> None:
    head = torch.zeros(1, 4, 4)
    head[0, 1, 2] = 1
    tiles, _ = attention_tiles(torch.full((3, 64, 64), 0.5), head, tile=64)
    heat, top = (luminance(np.asarray(tiles[i])) for i in (1, 3))
    assert heat[16:32, 32:48].min() > heat[:16].max()
    # Only the patch that holds the mass keeps the photo's own grey; the rest fades towards white paper.
    assert np.allclose(top[16:32, 32:48], 128, atol=1) and top[:16].min() > 200


def test_one_outlier_does_not_darken_a_head() -> None:
    head = torch.linspace(0, 1, 1024).reshape(1, 32, 32).clone()
    head[0, 0, 0] = 1e4
    tiles, _ = attention_tiles(torch.zeros(3, 64, 64), head, tile=64)
    assert np.median(luminance(np.asarray(tiles[1]))) > 40


@pytest.mark.parametrize("head", [torch.zeros(1, 2, 2), torch.full((1, 2, 2), 0.25)])
def test_a_flat_head_is_drawn_without_a_warning(head: torch.Tensor) -> None:
    tiles, _ = attention_tiles(torch.rand(3, 32, 32), head, tile=32)
    assert len(tiles) == 4


@pytest.mark.parametrize(("heads", "columns"), [(3, 6), (6, 3), (8, 6), (12, 5)])
def test_panel_leaves_few_holes(heads: int, columns: int) -> None:
    panel = attention_panel(torch.rand(3, 32, 32), torch.rand(heads, 2, 2), tile=50, title="a model")
    assert panel.width == 2 * 24 + columns * 50 + (columns - 1) * 14
    assert panel.getpixel((0, 0)) == panel.getpixel((panel.width - 1, panel.height - 1)) == (255, 255, 255)


def test_reconstruction_shows_its_four_columns_in_order() -> None:
    panel = reconstruction_panel(reconstruction(1), tile=100)
    middle = panel.height // 2
    shown = [panel.getpixel((24 + 50 + column * (100 + 14), middle)) for column in range(4)]
    assert shown == [(level,) * 3 for level in (51, 102, 153, 204)]


def test_reconstruction_grows_a_row_per_image() -> None:
    one, three = (reconstruction_panel(reconstruction(count), tile=100) for count in (1, 3))
    assert one.width == three.width and three.height > 2 * one.height - 100


def test_caption_says_what_was_hidden_and_how_well_it_was_guessed() -> None:
    assert reconstruction_caption(reconstruction(), 0, "random") == "random, 75 % hidden · error 0.0123"
    assert reconstruction_caption(reconstruction(), 1) == "75 % hidden · error 0.0123"
    assert (
        reconstruction_caption(reconstruction(), 1, "grid", 4) == "grid, seed 5, 75 % hidden · error 0.0123"
    )


def test_caption_says_what_share_of_the_visible_a_secondary_mask_took() -> None:
    caption = reconstruction_caption(reconstruction(secondary=True), 0, "uniform")
    assert caption == "uniform, 75 % hidden · 50 % of the visible masked too · error 0.0123"


def test_borrowed_statistics_are_owned_up_to() -> None:
    plain, honest = (
        reconstruction_panel(reconstruction(1, borrows=borrows), tile=100) for borrows in (False, True)
    )
    assert honest.height > plain.height


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_saved_pictures_can_be_read_back(tmp_path: Path, suffix: str) -> None:
    path = save_picture(TINY, tmp_path / "new" / f"picture{suffix}")
    with Image.open(path) as read:
        assert read.size == TINY.size
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "hint"), [("heads.pgn", r"did you mean '\.png'"), ("heads", r"give it \.png")]
)
def test_an_unknown_suffix_names_the_nearest(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(ImageError, match=hint):
        save_picture(TINY, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ImageError, match=r"cannot write .*choose a folder"):
        save_picture(TINY, tmp_path / "file" / "heads.png")
