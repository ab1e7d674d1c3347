"""The picture of a pyramid's hierarchy: windows and their parts against counting, and what is drawn of them."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.cards import ModelCard, TransformSpec
from zoo.cli import main
from zoo.encoder import Encoder
from zoo.errors import Unsupported
from zoo.families import swin
from zoo.folders import write_folder
from zoo.hierarchy import hierarchy_panel, regions
from zoo.loading import build

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "timm's": ("swin_tiny_patch4_window7_224", {"img_size": 64, "strict_img_size": False, "window_size": 4}),
    "UM-MAE's": ("ssl_zoo_ummae_swin_micro", {"window_size": 4}),
}
SMALL = {"depths": [2, 2], "embed_dim": 8, "num_heads": [1, 2]}


def card_for(family: str, architecture: str, arguments: dict[str, Any]) -> ModelCard:
    card = ModelCard(
        name="tiny",
        licence="apache-2.0",
        method="test",
        kind="discriminative",
        family=family,
        architecture=architecture,
        parameters=1,
        pooling="avg",
        transform=TransformSpec(size=64),
        arguments=arguments,
    )
    with torch.device("meta"):
        module, _ = build(card)
    return dataclasses.replace(card, parameters=sum(each.numel() for each in module.parameters()))


@pytest.fixture(params=ARCHITECTURES)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    architecture, arguments = ARCHITECTURES[request.param]
    card = card_for("swin", architecture, {**SMALL, **arguments})
    return Encoder(card, *build(card))


def photo(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("turn", [0, 1])
def test_regions_are_windows_cut_by_the_shift(encoder: Encoder, turn: int) -> None:
    """A grid of 16×16 in windows of 4×4; shifted by 2, those at the end are made of parts from both ends."""
    module: Any = encoder.module
    found = regions(swin.stages(module)[0].blocks[turn], (16, 16))
    shift = 2 * turn
    seen: dict[tuple[int, ...], set[tuple[int, int]]] = {}
    for row, column in itertools.product(range(16), range(16)):
        window = ((row - shift) % 16 // 4, (column - shift) % 16 // 4)
        key = (*window, int(row < shift), int(column < shift))
        seen.setdefault(key, set()).add((int(found.window[row, column]), int(found.part[row, column])))
    assert all(len(marks) == 1 for marks in seen.values())  # one mark for each part
    assert len(set.union(*seen.values())) == len(seen) == (25 if turn else 16)
    assert int(found.window.max()) == 15
    for key, marks in seen.items():
        assert next(iter(marks))[0] == 4 * key[0] + key[1]


def test_who_may_look_at_whom_is_what_attention_gives(encoder: Encoder) -> None:
    module: Any = encoder.module
    x = photo()[None]
    for block, stage in ((0, 0), (1, 0), (2, 1), (3, 1)):
        grid = (16, 16) if stage == 0 else (8, 8)
        found = regions(swin.stages(module)[stage].blocks[block % 2], grid)
        for query in ((0, 0), (3, 5), grid):
            query = (min(query[0], grid[0] - 1), min(query[1], grid[1] - 1))
            with torch.no_grad():
                seen = swin.attention_rows(module, x, block, query)[0, 0] > 0
            same = (found.window == found.window[query]) & (found.part == found.part[query])
            assert torch.equal(seen, same)


def test_windows_that_do_not_divide_the_grid_are_cut_off(encoder: Encoder) -> None:
    module: Any = encoder.module
    found = regions(swin.stages(module)[0].blocks[0], (6, 10))
    assert found.window.tolist() == [[3 * (r // 4) + c // 4 for c in range(10)] for r in range(6)]


def test_the_picture_has_a_column_a_stage_and_rows_of_windows(encoder: Encoder) -> None:
    picture = hierarchy_panel(encoder, photo(64, 96), title="title", tile=120)
    assert picture.width >= 2 * 120 and picture.height >= 3 * 80
    once = hierarchy_panel(encoder, photo(64, 96), title="title", tile=120)
    assert np.array_equal(np.asarray(picture), np.asarray(once))


def test_the_first_row_shows_one_colour_a_position(encoder: Encoder) -> None:
    """8 × 8 positions of 8 pixels in the second stage: the mean colour of each, but for the lines between."""
    image = photo()
    picture = np.asarray(hierarchy_panel(encoder, image, tile=64)).astype(int)
    means = image.unfold(1, 8, 8).unfold(2, 8, 8).mean(dim=(3, 4)).permute(1, 2, 0) * 255
    corners = itertools.product(range(20, 80), range(60, picture.shape[1] - 64))
    centres = (picture[top + 4 : top + 64 : 8, left + 4 : left + 64 : 8] for top, left in corners)
    assert any(np.abs(found - means.numpy()).max() < 3 for found in centres)


def test_other_pyramids_have_grids_and_no_windows() -> None:
    card = card_for("pvt", "ssl_zoo_ummae_pvt_micro", {})
    grids = hierarchy_panel(Encoder(card, *build(card)), photo(), tile=64)
    swins = card_for("swin", "ssl_zoo_ummae_swin_micro", {})
    assert grids.height < hierarchy_panel(Encoder(swins, *build(swins)), photo(), tile=64).height / 2


def test_a_plain_vit_has_none(tiny: Encoder) -> None:
    with pytest.raises(Unsupported, match="no hierarchy to draw"):
        hierarchy_panel(tiny, photo())


def test_on_the_command_line(encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "tiny", encoder.card, encoder.module, None, "# Tiny", torch.float32)
    Image.fromarray(np.zeros((70, 90, 3), np.uint8)).save(tmp_path / "photo.png")

    def run(words: list[str]) -> int:
        return main(["attend", str(tmp_path / "tiny"), *words])

    out = str(tmp_path / "out.png")
    assert run([str(tmp_path / "photo.png"), "--hierarchy", "--out", out]) == 0
    assert "the hierarchy of tiny" in capsys.readouterr().out
    with Image.open(out) as picture:
        assert picture.width > 600
    assert run([str(tmp_path / "photo.png"), "--query", "1", "2", "--size", "64", "--out", out]) == 0
    assert "patch (1, 2) in the last block" in capsys.readouterr().out
    assert run([str(tmp_path / "photo.png"), "--size", "64", "--out", out]) != 0
    assert "--query ROW COLUMN" in capsys.readouterr().err
