"""Cells of 2×2 patches: projection of any mask, the compact image, and places of its tokens, against loops."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zoo.cells import check_halves, compact_image, kept_patches, one_per_cell, over_tokens, token_places
from zoo.errors import MaskError
from zoo.masking import PROJECTION, STREAM, draw_mask, splitmix64

grids = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(lambda half: (2 * half[0], 2 * half[1]))


def in_cells(grid: tuple[int, int]) -> list[list[tuple[int, int]]]:
    """(row, column) of the four patches of every cell, cells in row-major order."""
    return [
        [(r + i, c + j) for i, j in itertools.product((0, 1), (0, 1))]
        for r, c in itertools.product(range(0, grid[0], 2), range(0, grid[1], 2))
    ]


@given(grid=grids, seed=st.integers(0, 2**63), data=st.data())
def test_every_cell_keeps_the_patch_of_the_smallest_draw(grid: tuple[int, int], seed: int, data: Any) -> None:
    patches = grid[0] * grid[1]
    flags = data.draw(st.lists(st.booleans(), min_size=patches, max_size=patches))
    asked = torch.tensor(flags).reshape(1, *grid)
    hidden, blind = one_per_cell(asked, [seed])
    for cell in in_cells(grid):
        draws = {
            (r, c): int(splitmix64([seed], PROJECTION * STREAM + r * grid[1] + c)[0, 0]) for r, c in cell
        }
        visible = [place for place in cell if not asked[0][place]]
        chosen = min(visible or cell, key=lambda place: draws[place])
        assert [place for place in cell if not hidden[0][place]] == ([chosen] if visible else [])
        assert [place for place in cell if blind[0][place]] == ([] if visible else [chosen])


@given(grid=grids, seed=st.integers(0, 1000))
def test_a_mask_that_fits_stays_as_it_is(grid: tuple[int, int], seed: int) -> None:
    for strategy in ("uniform", "grid"):
        asked = draw_mask(strategy, grid, [seed, seed + 1])
        hidden, blind = one_per_cell(asked, [seed, seed + 1])
        assert torch.equal(hidden, asked) and not blind.any()


def test_an_image_alone_is_projected_as_in_a_batch() -> None:
    asked = torch.rand(4, 6, 8, generator=torch.Generator().manual_seed(0)) < 0.6
    together = one_per_cell(asked, [7, 8, 9, 10])
    for i in range(4):
        alone = one_per_cell(asked[i : i + 1], [7 + i])
        assert all(torch.equal(one[0], all_[i]) for one, all_ in zip(alone, together, strict=True))


@pytest.mark.parametrize("grid", [(4, 4), (2, 6), (6, 4)])
def test_a_compact_image_is_the_kept_patches_side_by_side(grid: tuple[int, int]) -> None:
    hidden = draw_mask("uniform", grid, [1, 2])
    pixels = torch.randn(2, 3, 16 * grid[0], 16 * grid[1], generator=torch.Generator().manual_seed(0))
    kept = kept_patches(hidden)
    image, places = compact_image(pixels, kept, 16), token_places(kept, grid, 4)
    assert image.shape == (2, 3, 8 * grid[0], 8 * grid[1])
    flags = over_tokens(torch.arange(kept.shape[1]).expand(2, -1), grid, 4)
    for i in range(2):
        for number, cell in enumerate(in_cells(grid)):
            (r, c), (y, x) = next(place for place in cell if not hidden[i][place]), cell[0]
            y, x = 8 * y, 8 * x  # where the cell's patch lies in the compact image
            patch = pixels[i, :, 16 * r : 16 * r + 16, 16 * c : 16 * c + 16]
            assert torch.equal(image[i, :, y : y + 16, x : x + 16], patch)
            tokens = places[i, y // 4 : y // 4 + 4, x // 4 : x // 4 + 4]
            expected = [[[4 * r + down, 4 * c + across] for across in range(4)] for down in range(4)]
            assert tokens.tolist() == expected
            assert (flags[i, y // 4 : y // 4 + 4, x // 4 : x // 4 + 4] == number).all()


def test_a_cell_with_none_gives_the_patch_that_is_replaced() -> None:
    hidden = torch.tensor([[[1, 1, 0, 1], [1, 1, 1, 1]]]).bool()
    secondary = torch.tensor([[[0, 0, 0, 0], [0, 1, 0, 0]]]).bool()
    assert kept_patches(hidden, secondary).tolist() == [[5, 2]]
    visible: Tensor = torch.tensor([[[0, 1, 0, 1], [1, 1, 1, 1]]]).bool()
    drawn_on_top = torch.tensor([[[0, 0, 1, 0], [0, 0, 0, 0]]]).bool()
    assert kept_patches(visible, drawn_on_top).tolist() == [[0, 2]]
    for wrong in (hidden, torch.zeros(1, 2, 4, dtype=torch.bool)):
        with pytest.raises(MaskError, match="exactly one patch of every 2×2 cell"):
            kept_patches(wrong)


def test_images_that_do_not_halve_are_refused_in_words() -> None:
    check_halves(128, 192, 32)
    with pytest.raises(MaskError, match=r"224×96 does not halve so; the nearest size that does is 256×128"):
        check_halves(224, 96, 32)
