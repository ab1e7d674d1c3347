"""Thresholded attention and IoU against slow twins written from their definitions."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from zoo.attention_maps import iou, top_mass
from zoo.errors import SizeError

# Whole numbers and eighths: all sums and products are exact, so that no comparison hangs on rounding.
maps = st.lists(st.integers(0, 20), min_size=6, max_size=6).map(
    lambda v: torch.tensor(v).double().reshape(2, 3)
)
eighths = st.integers(0, 8)


def smallest_set(head: Tensor, eighths_wanted: int) -> int:
    """How many patches the smallest set with that share has, by trying all sets in order of size."""
    values = [int(value) for value in head.flatten()]
    for count in range(len(values) + 1):
        for chosen in itertools.combinations(values, count):
            if 8 * sum(chosen) >= eighths_wanted * sum(values):
                return count
    raise AssertionError("the whole map always holds the whole mass")


@given(maps, eighths)
@settings(max_examples=60, deadline=None)
def test_top_mass_is_the_smallest_set_that_holds_the_share(head: Tensor, wanted: int) -> None:
    kept = top_mass(head, wanted / 8)
    assert int(kept.sum()) == smallest_set(head, wanted)
    assert 8 * float(head[kept].sum()) >= wanted * float(head.sum())
    if kept.any() and not kept.all():
        assert head[kept].min() >= head[~kept].max()


def test_top_mass_takes_each_head_on_its_own() -> None:
    heads = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    together = top_mass(heads)
    assert together.shape == heads.shape and together.dtype == torch.bool
    for b, head in itertools.product(range(2), range(3)):
        assert torch.equal(together[b, head], top_mass(heads[b, head]))


def test_top_mass_of_dino_figure_4() -> None:
    assert top_mass(torch.tensor([[0.5, 0.3], [0.2, 0.0]]), 0.6).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_equal_patches_are_taken_in_row_major_order(share: float, count: int) -> None:
    assert top_mass(torch.ones(2, 2), share).flatten().tolist() == [i < count for i in range(4)]


def test_a_map_of_zeros_keeps_nothing() -> None:
    assert not top_mass(torch.zeros(3, 3)).any()


@pytest.mark.parametrize("share", [-0.1, 1.1, 60])
def test_a_share_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(SizeError, match="fraction from 0 to 1"):
        top_mass(torch.ones(2, 2), share)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=6, max_size=6))
def test_iou_counts_patches(pairs: list[tuple[bool, bool]]) -> None:
    mask, truth = (torch.tensor(side).reshape(2, 3) for side in zip(*pairs, strict=True))
    both = sum(a and b for a, b in pairs)
    either = sum(a or b for a, b in pairs)
    assert float(iou(mask, truth)) == pytest.approx(both / either if either else 1.0)


def test_iou_compares_every_head_with_one_truth() -> None:
    heads = torch.tensor([[[True, False]], [[True, True]], [[False, False]]])
    assert iou(heads, torch.tensor([[True, False]])).tolist() == [1.0, 0.5, 0.0]


def test_iou_of_two_grids_says_which() -> None:
    with pytest.raises(SizeError, match=r"\(2, 3\).*\(4, 6\)"):
        iou(torch.ones(2, 3, dtype=torch.bool), torch.ones(4, 6, dtype=torch.bool))
