"""Masks as text and on grids."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo.app.masks import PAINTED, Asked, fitted, read_mask, write_mask
from zoo.errors import MaskError
from zoo.masking import draw_mask


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10_000))
def test_text_and_back(h: int, w: int, seed: int) -> None:
    mask = torch.rand(h, w, generator=torch.Generator().manual_seed(seed)) < 0.5
    text = write_mask(mask)
    assert torch.equal(read_mask(text), mask)
    assert text.count("/") == h - 1 and text.count("1") == int(mask.sum())


@pytest.mark.parametrize("text", ["", "1/", "12/00", "10/1", "1,0", "0" * 30_000, "10\n"])
def test_other_text_is_told(text: str) -> None:
    with pytest.raises(MaskError, match="write rows of 0 and 1"):
        read_mask(text)


def test_a_patch_is_hidden_where_half_of_it_was() -> None:
    assert write_mask(fitted(read_mask("1100/0000/1110/0000"), (2, 2))) == "10/10"
    assert write_mask(fitted(read_mask("10/01"), (4, 4))) == "1100/1100/0011/0011"


@pytest.mark.parametrize("strategy", ["random", "uniform", "grid", "blockwise"])
def test_what_is_drawn_is_the_zoos_mask(strategy: str) -> None:
    asked = Asked(strategy, ratio=0.75, seed=7)
    assert torch.equal(asked.on((8, 6)), draw_mask(strategy, (8, 6), [7], 0.75)[0])


def test_uniform_masks_know_one_ratio_alone() -> None:
    assert float(Asked("uniform", ratio=0.3).on((8, 8)).float().mean()) == 0.75


def test_what_is_painted_is_what_is_hidden() -> None:
    rows = "0110/1001/0000/1111"
    assert write_mask(Asked(PAINTED, rows=rows).on((4, 4))) == rows
    with pytest.raises(MaskError, match="show at least one patch"):
        Asked(PAINTED, rows="11/11").on((4, 4))
