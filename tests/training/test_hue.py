"""Hue: pixel by pixel as Python's colorsys has it, and as torchvision's."""

from __future__ import annotations

import colorsys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from zoo.training.hue import shift_hue


@given(st.tuples(*[st.integers(0, 255)] * 3), st.floats(-0.5, 0.5))
def test_hue_of_a_pixel_is_colorsys(colour: tuple[int, int, int], by: float) -> None:
    pixel = torch.tensor(colour, dtype=torch.float32).view(3, 1, 1) / 255
    hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in colour))
    expected = colorsys.hsv_to_rgb((hue + by) % 1, saturation, value)
    assert shift_hue(pixel, by).flatten().tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("by", [-0.5, -0.1, 0.0, 0.2, 0.5])
@pytest.mark.parametrize("shape", [(3, 7, 9), (2, 3, 5, 5)])
def test_hue_is_torchvisions(shape: tuple[int, ...], by: float) -> None:
    image = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    before = image.clone()
    torch.testing.assert_close(shift_hue(image, by), tv.adjust_hue(image, by), atol=1e-5, rtol=0)
    assert torch.equal(image, before)
