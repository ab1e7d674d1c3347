"""Masks against slow twins in plain Python integers and loops, written from the docstrings' formulas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo.errors import MaskError
from zoo.masking import (
    DEFAULT_RATIO,
    STRATEGIES,
    as_mask,
    batch_seeds,
    draw_mask,
    draw_secondary,
    hidden_count,
    splitmix64,
    visible_indices,
)

Patches = set[tuple[int, int]]

seeds = st.integers(-(2**70), 2**70)
sides = st.integers(1, 9)
even_sides = st.integers(1, 5).map(lambda half: 2 * half)
EVERY_GRID = list(itertools.product(range(1, 10), repeat=2))

BLOCK_STREAM, SECONDARY_STREAM = 2**32, 2 * 2**32  # where the docstrings' second and third streams begin


def draw(seed: int, index: int) -> int:
    """One value of a SplitMix64 sequence, in Python's unbounded integers."""
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


# The five lines

VECTOR = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_splitmix64_gives_the_published_vector() -> None:
    assert splitmix64([1234567], np.arange(5, dtype=np.uint64)).tolist() == [VECTOR]
    assert [draw(1234567, index) for index in range(5)] == VECTOR


@given(st.lists(seeds, min_size=1, max_size=4), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
def test_splitmix64_equals_python_integers(many: list[int], indices: list[int]) -> None:
    drawn = splitmix64(many, np.array(indices, dtype=np.uint64))
    assert drawn.dtype == np.uint64
    assert drawn.tolist() == [[draw(seed, index) for index in indices] for seed in many]


@given(seeds)
def test_seeds_count_modulo_two_to_the_64(seed: int) -> None:
    assert splitmix64([seed], 0).tolist() == splitmix64([seed % 2**64], 0).tolist()
    assert torch.equal(draw_mask("random", (4, 4), [seed]), draw_mask("random", (4, 4), [seed + 2**64]))


@pytest.mark.parametrize("start", [0, -1, 2**63 - 1, 2**64 - 2, -(2**63)])
def test_image_i_of_a_batch_uses_seed_plus_i(start: int) -> None:
    assert batch_seeds(start, 3).tolist() == [(start + i) % 2**64 for i in range(3)]
    for strategy in STRATEGIES:
        together = draw_mask(strategy, (6, 8), batch_seeds(start, 3))
        alone = [draw_mask(strategy, (6, 8), [start + i]) for i in range(3)]
        assert torch.equal(together, torch.cat(alone))


# Twins of each strategy


def random_twin(grid: tuple[int, int], seed: int, hidden: int) -> Patches:
    h, w = grid
    by_draw = sorted(
        itertools.product(range(h), range(w)), key=lambda patch: draw(seed, patch[0] * w + patch[1])
    )
    return set(by_draw[h * w - hidden :])


def uniform_twin(grid: tuple[int, int], seed: int, hidden: int) -> Patches:
    h, w = grid
    gone: Patches = set()
    for top, left in itertools.product(range(0, h, 2), range(0, w, 2)):
        cell = [(top + down, left + across) for down in (0, 1) for across in (0, 1)]
        kept = min(cell, key=lambda patch: draw(seed, patch[0] * w + patch[1]))
        gone |= set(cell) - {kept}
    return gone


def grid_twin(grid: tuple[int, int], seed: int, hidden: int) -> Patches:
    corner = divmod(draw(seed, 0) % 4, 2)
    return {patch for patch in np.ndindex(grid) if (patch[0] % 2, patch[1] % 2) != corner}


def first_block(grid: tuple[int, int], seed: int, hidden: int) -> tuple[float, Patches]:
    """The aspect ratio asked of the first rectangle, and its patches where it fits (none where it does not)."""
    uniform = [(draw(seed, BLOCK_STREAM + i) >> 11) / 2**53 for i in range(4)]
    least = min(16, hidden)
    area, aspect = least + (hidden - least) * uniform[0], math.exp((2 * uniform[1] - 1) * math.log(1 / 0.3))
    height, width = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
    if not (0 < height < grid[0] and 0 < width < grid[1] and height * width <= hidden):
        return aspect, set()
    top, left = int(uniform[2] * (grid[0] - height + 1)), int(uniform[3] * (grid[1] - width + 1))
    return aspect, {(top + down, left + across) for down in range(height) for across in range(width)}


def hidden_patches(mask: torch.Tensor) -> Patches:
    return {(row, column) for row, column in mask.nonzero().tolist()}


TWINS: list[tuple[str, Callable[[tuple[int, int], int, int], Patches]]] = [
    ("random", random_twin),
    ("uniform", uniform_twin),
    ("grid", grid_twin),
]


@pytest.mark.parametrize(("strategy", "twin"), TWINS)
@given(st.tuples(even_sides, even_sides), seeds)
def test_a_strategy_equals_its_twin(
    strategy: str, twin: Callable[[tuple[int, int], int, int], Patches], grid: tuple[int, int], seed: int
) -> None:
    (mask,) = draw_mask(strategy, grid, [seed])
    assert mask.dtype == torch.bool and mask.shape == grid
    assert hidden_patches(mask) == twin(grid, seed, hidden_count(strategy, grid))


@given(st.tuples(sides, sides), st.integers(0, 99), seeds)
def test_random_equals_its_twin_at_any_ratio(grid: tuple[int, int], percent: int, seed: int) -> None:
    visible = grid[0] * grid[1] * (100 - percent) // 100
    if visible == 0:
        with pytest.raises(MaskError, match="leaves no visible patch"):
            draw_mask("random", grid, [seed], percent / 100)
        return
    (mask,) = draw_mask("random", grid, [seed], percent / 100)
    assert hidden_patches(mask) == random_twin(grid, seed, grid[0] * grid[1] - visible)


@given(st.tuples(st.integers(5, 16), st.integers(5, 16)), seeds)
def test_blockwise_begins_with_the_block_its_seed_says(grid: tuple[int, int], seed: int) -> None:
    count = hidden_count("blockwise", grid)
    (mask,) = draw_mask("blockwise", grid, [seed])
    aspect, block = first_block(grid, seed, count)
    assert 0.3 <= aspect <= 1 / 0.3
    assert block <= hidden_patches(mask)


def test_first_blocks_spread_over_areas_and_aspects() -> None:
    found = [first_block((14, 14), seed, 75) for seed in range(300)]
    areas = [len(block) for _, block in found if block]
    assert len(areas) > 200  # most fit at once
    assert min(areas) < 20 and max(areas) > 60
    tall = sum(aspect > 1 for aspect, _ in found)
    assert 100 < tall < 200  # log-uniform: as often tall as wide


# What every mask keeps


@pytest.mark.parametrize("ratio", [0.75, 0.7, 0.5, 0.0])
def test_random_hides_its_exact_count_on_every_grid(ratio: float) -> None:
    for h, w in EVERY_GRID:
        visible = h * w * round(100 - 100 * ratio) // 100
        if visible:
            masks = draw_mask("random", (h, w), range(3), ratio)
            assert masks.flatten(1).sum(dim=1).tolist() == [h * w - visible] * 3


@pytest.mark.parametrize("ratio", [75 / 196, 0.7, 0.0])
def test_blockwise_hides_its_exact_count_on_every_grid(ratio: float) -> None:
    for h, w in EVERY_GRID:
        if h * w > 1:
            count = hidden_count("blockwise", (h, w), ratio)
            assert abs(count - h * w * ratio) <= 0.5
            masks = draw_mask("blockwise", (h, w), range(2), ratio)
            assert masks.flatten(1).sum(dim=1).tolist() == [count] * 2


def test_papers_counts() -> None:
    assert hidden_count("random", (14, 14)) == 147  # MAE: 49 of 196 stay
    assert hidden_count("uniform", (16, 16)) == 192  # UM-MAE: 64 of 256 stay
    assert hidden_count("blockwise", (14, 14)) == 75  # BEiT


@pytest.mark.parametrize(
    ("grid", "ratio", "hidden"), [((2, 5), 0.9, 9), ((2, 5), 0.7, 7), ((10, 10), 0.99, 99), ((1, 1), 0, 0)]
)
def test_binary_fractions_cost_no_patch(grid: tuple[int, int], ratio: float, hidden: int) -> None:
    assert hidden_count("random", grid, ratio) == hidden
    assert int(draw_mask("random", grid, [0], ratio).sum()) == hidden


@pytest.mark.parametrize("strategy", ["uniform", "grid"])
def test_one_patch_of_every_cell_stays(strategy: str) -> None:
    for h, w in itertools.product(range(2, 10, 2), repeat=2):
        visible = ~draw_mask(strategy, (h, w), range(5))
        cells = visible.unfold(1, 2, 2).unfold(2, 2, 2)  # (B, h/2, w/2, 2, 2)
        assert (cells.sum(dim=(3, 4)) == 1).all()
        if strategy == "grid":
            assert (cells == cells[:, :1, :1]).all()


def test_grid_uses_all_four_corners_and_uniform_mixes_them() -> None:
    corners = {tuple(mask[:2, :2].flatten().tolist()) for mask in draw_mask("grid", (4, 4), range(60))}
    assert len(corners) == 4
    cells = draw_mask("uniform", (8, 8), [0])[0].unfold(0, 2, 2).unfold(1, 2, 2).reshape(-1, 4)
    assert len(cells.unique(dim=0)) > 1


def neighbours(mask: torch.Tensor) -> float:
    """Share of hidden patches with a hidden one beside, above or below."""
    hidden = hidden_patches(mask)
    beside = [{(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)} for r, c in hidden]
    return sum(bool(around & hidden) for around in beside) / len(hidden)


def test_blockwise_hides_whole_regions() -> None:
    blocks, singles = (
        [neighbours(mask) for mask in draw_mask(strategy, (14, 14), range(20), 75 / 196)]
        for strategy in ("blockwise", "random")
    )
    assert sum(blocks) / 20 > 0.98
    assert sum(singles) / 20 < 0.9


@pytest.mark.parametrize("grid", [(1, 9), (9, 1), (2, 2), (3, 2)])
def test_blockwise_fills_grids_too_small_for_blocks(grid: tuple[int, int]) -> None:
    masks = draw_mask("blockwise", grid, range(4), 0.5)
    assert set(masks.flatten(1).sum(dim=1).tolist()) == {round(grid[0] * grid[1] / 2)}


@pytest.mark.parametrize("strategy", ["random", "uniform", "grid"])
def test_every_patch_is_hidden_as_often(strategy: str) -> None:
    share = draw_mask(strategy, (4, 6), range(2000)).float().mean(dim=0)
    assert (share - 0.75).abs().max() < 0.05  # five standard deviations


def test_blockwise_reaches_every_patch() -> None:
    share = draw_mask("blockwise", (6, 6), range(300)).float().mean(dim=0)
    assert share.min() > 0.1 and share.max() < 0.8


# What is refused, in words


@pytest.mark.parametrize(
    ("strategy", "grid", "ratio", "says"),
    [
        ("uniform", (7, 8), None, r"needs an even grid.*7×8.*nearest even one is 6×8"),
        ("grid", (8, 1), None, r"needs an even grid.*8×1.*nearest even one is 8×2"),
        ("uniform", (8, 8), 0.5, r"a ratio of 0\.75; for 0\.5 use strategy 'random'"),
        ("grid", (8, 8), 0.9, "use strategy 'random'"),
        ("random", (8, 8), 1.0, "from 0 to below 1"),
        ("random", (8, 8), -0.1, "from 0 to below 1"),
        ("blockwise", (8, 8), 1.5, "from 0 to below 1"),
        ("random", (8, 8), float("nan"), "from 0 to below 1"),
        ("random", (1, 3), 0.75, "leaves no visible patch on a 1×3 grid"),
        ("blockwise", (3, 3), 0.99, "leaves no visible patch on a 3×3 grid"),
        ("unifrom", (8, 8), None, r"no mask strategy 'unifrom'; did you mean 'uniform'\?.*random, grid"),
        ("xyz", (8, 8), None, "no mask strategy 'xyz'; there are random, grid, uniform, blockwise"),
    ],
)
def test_refused_with_the_way_out(
    strategy: str, grid: tuple[int, int], ratio: float | None, says: str
) -> None:
    with pytest.raises(MaskError, match=says):
        draw_mask(strategy, grid, [0], ratio)


def test_every_strategy_has_a_ratio_of_its_own() -> None:
    assert set(DEFAULT_RATIO) == set(STRATEGIES)


# Secondary masking


def secondary_twin(hidden: torch.Tensor, seed: int, share: float) -> Patches:
    w = hidden.shape[1]
    visible = [patch for patch in itertools.product(*map(range, hidden.shape)) if not hidden[patch]]
    visible.sort(key=lambda patch: draw(seed, SECONDARY_STREAM + patch[0] * w + patch[1]))
    return set(visible[math.floor(len(visible) * (1 - share)) :])


@given(st.tuples(even_sides, even_sides), st.sampled_from([0, 0.25, 0.5, 0.75]), seeds)
def test_secondary_equals_its_twin(grid: tuple[int, int], share: float, seed: int) -> None:
    hidden = draw_mask("uniform", grid, [seed])
    chosen = draw_secondary(hidden, [seed], share)
    assert chosen.dtype == torch.bool and chosen.shape == hidden.shape
    assert not (chosen & hidden).any()
    assert hidden_patches(chosen[0]) == secondary_twin(hidden[0], seed, share)


@pytest.mark.parametrize(("side", "visible", "kept"), [(14, 49, 36), (16, 64, 48)])
def test_secondary_keeps_the_papers_counts(side: int, visible: int, kept: int) -> None:
    hidden = draw_mask("uniform", (side, side), range(3))
    chosen = draw_secondary(hidden, range(3), 0.25)
    assert (~hidden).flatten(1).sum(dim=1).tolist() == [visible] * 3
    assert (~hidden & ~chosen).flatten(1).sum(dim=1).tolist() == [kept] * 3


def test_secondary_takes_images_that_hide_different_counts() -> None:
    hidden = torch.cat([draw_mask("random", (5, 5), [1], ratio) for ratio in (0.2, 0.6)])
    chosen = draw_secondary(hidden, [1, 2], 0.5)
    assert chosen.flatten(1).sum(dim=1).tolist() == [10, 5]
    assert torch.equal(chosen[1:], draw_secondary(hidden[1:], [2], 0.5))


def test_secondary_is_drawn_apart_from_the_mask_and_evenly() -> None:
    hidden = torch.zeros(2000, 4, 4, dtype=torch.bool)
    share = draw_secondary(hidden, range(2000), 0.25).float().mean(dim=0)
    assert (share - 0.25).abs().max() < 0.05
    same = draw_secondary(hidden, range(2000), 0.25) == draw_mask("random", (4, 4), range(2000), 0.25)
    assert same.float().mean() < 0.7  # 0.625 where the two are independent, 1 where they share their draws


@pytest.mark.parametrize("share", [-0.1, 1, 25])
def test_an_impossible_secondary_share(share: float) -> None:
    with pytest.raises(MaskError, match=r"from 0 to below 1, such as 0\.25"):
        draw_secondary(torch.zeros(1, 2, 2, dtype=torch.bool), [0], share)


# Visible patches in order


@given(st.tuples(sides, st.integers(2, 9)), seeds)
def test_visible_indices_are_row_major(grid: tuple[int, int], seed: int) -> None:
    hidden = draw_mask("random", grid, [seed, seed + 1, seed + 2], 0.4)
    expected = [[i for i, gone in enumerate(mask.flatten().tolist()) if not gone] for mask in hidden]
    assert visible_indices(hidden).tolist() == expected
    assert visible_indices(hidden.flatten(1)).tolist() == expected


# Masks made by hand


@given(
    st.tuples(sides, st.integers(2, 9)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 3),
    seeds,
)
def test_a_coarser_mask_is_enlarged(
    coarse: tuple[int, int], factor: tuple[int, int], count: int, seed: int
) -> None:
    grid = (coarse[0] * factor[0], coarse[1] * factor[1])
    masks = draw_mask("random", coarse, batch_seeds(seed, count), 0.4)
    enlarged = as_mask(masks, grid, count)
    assert enlarged.shape == (count, *grid) and enlarged.dtype == torch.bool
    coarse_rows = masks.tolist()
    for image, row, column in np.ndindex(count, *grid):
        assert bool(enlarged[image, row, column]) == coarse_rows[image][row // factor[0]][column // factor[1]]


PLAIN = [[0, 1, 1], [1, 0, 1]]


@pytest.mark.parametrize(
    "mask",
    [
        PLAIN,
        tuple(map(tuple, PLAIN)),
        np.array(PLAIN),
        np.array(PLAIN, dtype=bool),
        np.array(PLAIN, dtype=np.uint8),
        torch.tensor(PLAIN),
        torch.tensor(PLAIN).bool(),
        torch.tensor(PLAIN).float(),
        [[False, True, True], [True, False, True]],
    ],
)
def test_any_kind_of_mask_is_taken_for_all_images_or_one_each(mask: Any) -> None:
    expected = torch.tensor(PLAIN).bool()
    assert torch.equal(as_mask(mask, (2, 3), 4), expected.expand(4, -1, -1))
    assert torch.equal(as_mask([mask], (2, 3), 1), expected[None])
    each = np.stack([np.asarray(mask), 1 - np.asarray(mask, dtype=int)])
    assert torch.equal(as_mask(each, (2, 3), 2), torch.stack([expected, ~expected]))


def test_a_mask_may_hide_nothing_and_is_not_kept_by_reference() -> None:
    mine = torch.zeros(2, 2, dtype=torch.bool)
    taken = as_mask(mine, (2, 2), 2)
    mine[0, 0] = True
    assert not taken.any()


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.zeros((3, 3)), r"3×3 patches does not divide.*4×6"),
        (np.zeros((8, 12)), r"8×12 patches does not divide.*4×6"),
        (np.zeros((0, 0)), "does not divide"),
        (np.zeros((3, 4, 6)), r"shape \(3, 4, 6\) does not fit 2 images; give \(4, 6\).*\(2, 4, 6\)"),
        (np.zeros(24), r"shape \(24,\) does not fit"),
        (0, r"shape \(\) does not fit"),
        (np.full((4, 6), 0.5), "other values"),
        (np.full((4, 6), 255), "other values"),
        (np.full((4, 6), np.nan), "other values"),
        ([[0, 1], [1]], "rows of equal length"),
        ("random", r"strategy='random'"),
        ([["a", "b"]], "True/False or 0/1"),
        (np.ones((4, 6)), "hides every patch"),
        (np.stack([np.zeros((4, 6)), np.ones((4, 6))]), "hides every patch"),
    ],
)
def test_a_mask_that_cannot_be(mask: Any, says: str) -> None:
    with pytest.raises(MaskError, match=says):
        as_mask(mask, (4, 6), 2)
