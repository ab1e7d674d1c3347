"""The evaluation transform against timm's, and the two fits at every size."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from timm.data import create_transform
from torch import Tensor

from zoo.errors import CardError, ImageError, SizeError
from zoo.images import read_image
from zoo.transforms import Transform, check_size, unit_pixels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    """Noise: every rounding of a size or an offset shows."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


def ramp(height: int, width: int) -> Image.Image:
    """Red grows to the right, green downwards: a crop or a squeeze shows in the corners."""
    across = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    down = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    return Image.fromarray(np.stack([across, down, np.zeros((height, width))], -1).round().astype(np.uint8))


def timms(
    size: int | tuple[int, int], crop_pct: float, interpolation: str
) -> Callable[[Image.Image], Tensor]:
    hw = (size, size) if isinstance(size, int) else size
    return create_transform(
        (3, *hw), is_training=False, crop_pct=crop_pct, interpolation=interpolation, mean=MEAN, std=STD
    )


PICTURES = [(100, 150), (150, 100), (97, 131), (131, 97), (64, 64), (33, 200), (51, 50), (375, 500)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.95, 0.9, 0.875])
@pytest.mark.parametrize("size", [64, 96, 97, 224])
def test_equals_timms_evaluation_transform(size: int, crop_pct: float, interpolation: str) -> None:
    transform = Transform(size, crop_pct, interpolation, MEAN, STD)
    expected = timms(size, crop_pct, interpolation)
    for height, width in PICTURES:
        image = photo(height, width)
        torch.testing.assert_close(transform(image), expected(image), rtol=0, atol=1e-6)
        torch.testing.assert_close(transform.pixels(image, 1), expected(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("crop_pct", [1.0, 0.9, 0.875])
@pytest.mark.parametrize("size", [(64, 96), (96, 64), (64, 64), (160, 96), (97, 131)])
def test_a_crop_of_any_shape_equals_timms(size: tuple[int, int], crop_pct: float) -> None:
    transform = Transform(224, crop_pct, "bicubic", MEAN, STD)
    expected = timms(size, crop_pct, "bicubic")
    for height, width in PICTURES:
        image = photo(height, width)
        found = transform.pixels(image, 1, size=size)
        torch.testing.assert_close(found, expected(image), rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 120), st.integers(20, 120), st.integers(8, 64), st.sampled_from([1.0, 0.96, 0.9, 0.8]))
def test_equals_timm_at_any_size(height: int, width: int, size: int, crop_pct: float) -> None:
    image = photo(height, width)
    found = Transform(224, crop_pct, "bilinear", MEAN, STD).pixels(image, 1, size=size)
    torch.testing.assert_close(found, timms(size, crop_pct, "bilinear")(image), rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 130),
    st.integers(1, 130),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([8, 14, 16, 32]),
)
def test_every_multiple_of_the_stride_is_given_exactly(
    height: int, width: int, rows: int, columns: int, stride: int
) -> None:
    image = photo(height, width)
    transform = Transform(64, 0.9, "bilinear", MEAN, STD)
    for fit in ("crop", "whole"):
        both = transform.pixels(image, stride, fit, (rows * stride, columns * stride))
        assert both.shape == (3, rows * stride, columns * stride)
        assert both.dtype == torch.float32
    assert transform.pixels(image, stride, size=rows * stride).shape == (3, rows * stride, rows * stride)


@settings(max_examples=100, deadline=None)
@given(st.integers(10, 130), st.integers(10, 130), st.integers(1, 6), st.sampled_from([8, 14, 16]))
def test_whole_keeps_the_aspect_within_half_a_stride(
    height: int, width: int, units: int, stride: int
) -> None:
    short = units * stride
    found = Transform(64, 0.5).pixels(photo(height, width), stride, "whole", short)
    sides = found.shape[1:]
    assert min(sides) == short
    assert all(side % stride == 0 for side in sides)
    assert (sides[0] - sides[1]) * (height - width) >= 0  # portrait stays portrait
    assert abs(max(sides) - short * max(height, width) / min(height, width)) <= stride / 2


@pytest.mark.parametrize("size", [64, (64, 96), (96, 64)])
def test_whole_cuts_and_pads_nothing(size: int | tuple[int, int]) -> None:
    transform = Transform(224, 0.5, "bilinear")
    found = transform.denormalise(transform.pixels(ramp(200, 300), 16, "whole", size))
    assert found.shape[1:] == ((64, 96) if isinstance(size, int) else size)
    red, green = found[0], found[1]
    assert red[:, 0].max() < 0.02 and red[:, -1].min() > 0.98
    assert green[0].max() < 0.02 and green[-1].min() > 0.98
    cropped = transform.denormalise(transform.pixels(ramp(200, 300), 16, "crop", size))
    assert cropped[0].min() > 0.2 and cropped[0].max() < 0.8


def test_whole_at_the_native_size_is_plain_pillow() -> None:
    image = photo(90, 130)
    found = Transform(64, 0.875, "lanczos", MEAN, STD).pixels(image, 16, "whole")
    resized = np.asarray(image.resize((96, 64), Image.Resampling.LANCZOS)).astype(np.float32) / 255
    expected = (resized - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**32), st.booleans())
def test_normalise_and_denormalise_are_a_pair(batch: int, side: int, seed: int, three: bool) -> None:
    pixels = torch.rand(batch, 3, side, side + 1, generator=torch.Generator().manual_seed(seed))
    pixels = pixels[0] if three else pixels
    transform = Transform(224, 1.0, "bicubic", MEAN, STD)
    torch.testing.assert_close(transform.denormalise(transform.normalise(pixels)), pixels)
    torch.testing.assert_close(transform.normalise(transform.denormalise(pixels)), pixels)
    expected = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(transform.normalise(pixels), expected)
    assert transform.denormalise(transform.normalise(pixels) + 10).min() > 1  # not clipped


def test_normalise_keeps_precision_and_gradients_and_refuses_bytes() -> None:
    pixels = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    normalised = Transform(224).normalise(pixels)
    normalised.sum().backward()
    assert normalised.dtype == torch.float64
    assert pixels.grad is not None
    torch.testing.assert_close(pixels.grad[0, :, 0, 0], 1 / torch.tensor(STD, dtype=torch.float64))
    with pytest.raises(ImageError, match="pixels / 255"):
        Transform(224).normalise(torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_one_channel() -> None:
    transform = Transform(32, mean=(0.5,), std=(0.25,))
    assert transform.channels == 1
    assert transform(photo(40, 50)).shape == (1, 32, 32)
    white = transform(np.full((40, 50, 3), 255, np.uint8))
    torch.testing.assert_close(white, torch.full((1, 32, 32), 2.0))


def test_a_turned_photo_is_upright_before_it_is_cropped() -> None:
    upright = photo(90, 60)
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.getexif()[ExifTags.Base.Orientation] = 6
    transform = Transform(32)
    assert read_image(stored).size == upright.size
    assert torch.equal(transform(stored), transform(upright))
    assert transform.pixels(stored, 16, "whole").shape == (3, 48, 32)


def test_unit_pixels_are_the_bytes_over_255() -> None:
    image = photo(5, 7)
    assert torch.equal(
        (unit_pixels(image) * 255).round().permute(1, 2, 0).byte(), torch.tensor(np.array(image))
    )
    assert unit_pixels(image.convert("L")).shape == (1, 5, 7)


@pytest.mark.parametrize(
    ("size", "stride", "nearest"),
    [
        (97, 16, "96"),
        (103, 16, "96"),
        (105, 16, "112"),
        (7, 16, "16"),
        (0, 14, "14"),
        (-3, 16, "16"),
        (224, 32, None),
        ((97, 131), 16, "96×128"),
        ((96, 100), 32, "96×96"),
        ((64, 96), 32, None),
    ],
)
@pytest.mark.parametrize("fit", ["crop", "whole"])
def test_a_size_off_the_stride_names_the_nearest(
    size: int | tuple[int, int], stride: int, nearest: str | None, fit: str
) -> None:
    transform = Transform(64)
    if nearest is None:
        assert transform.pixels(photo(64, 64), stride, fit, size).ndim == 3
    else:
        with pytest.raises(SizeError, match=f"stride, {stride}; the nearest is {nearest}$"):
            transform.pixels(photo(64, 64), stride, fit, size)


@given(st.integers(1, 2000), st.integers(1, 64))
def test_the_nearest_size_named_is_a_nearest_one(side: int, stride: int) -> None:
    if side % stride == 0:
        assert check_size((side, side), stride) is None
        return
    with pytest.raises(SizeError) as caught:
        check_size((side,), stride)
    named = int(str(caught.value).rpartition(" ")[2])
    candidates = range(stride, side + 2 * stride, stride)
    assert named in candidates
    assert abs(named - side) == min(abs(other - side) for other in candidates)


def test_a_native_size_off_the_stride_is_said_too() -> None:
    with pytest.raises(SizeError, match=r"100 pixels .* nearest is 96"):
        Transform(100).pixels(photo(64, 64), 16)
    assert Transform(100)(photo(64, 64)).shape == (3, 100, 100)


@pytest.mark.parametrize("size", ["224", 224.0, (224,) * 3, True, (224, 1.5), []])
def test_a_size_that_is_none(size: object) -> None:
    with pytest.raises(SizeError, match=r"neither pixels of the short side, such as 224, nor \(h, w\)"):
        Transform(64).pixels(photo(64, 64), 16, "crop", size)  # type: ignore[arg-type]


def test_sizes_may_be_any_kind_of_integer() -> None:
    transform, image = Transform(64), photo(64, 64)
    for size in (np.int64(32), torch.Size([32, 32]), [32, 32]):
        assert transform.pixels(image, 16, "crop", size).shape == (3, 32, 32)  # type: ignore[arg-type]


def test_a_strip_too_narrow_to_be_seen_whole_is_refused() -> None:
    """Of 5×400 pixels 28 patches along the short side would be 62,720 in all."""
    transform = Transform(64)
    assert transform.pixels(Image.new("RGB", (10, 320)), 16, "whole").shape == (3, 32 * 64, 64)
    with pytest.raises(SizeError, match=r"a strip of 400×5 pixels .* too narrow .* fit='crop'"):
        transform.pixels(Image.new("RGB", (5, 400)), 16, "whole")
    assert transform.pixels(Image.new("RGB", (5, 400)), 16, "crop").shape == (3, 64, 64)


def test_a_fit_that_does_not_exist() -> None:
    with pytest.raises(SizeError, match=r"fit='hole' is neither 'crop' nor 'whole'; did you mean 'whole'\?"):
        Transform(64).pixels(photo(64, 64), 16, "hole")


def test_a_sliver_is_refused_before_it_fills_the_memory() -> None:
    sliver = np.zeros((1, 20_000), np.uint8)
    with pytest.raises(SizeError, match=r"1×20000 pixels \(h×w\) would be resized to 224×"):
        Transform(224).pixels(sliver, 16, "crop")
    with pytest.raises(SizeError, match=r"a strip of 1×20000 pixels \(h×w\) is too narrow"):
        Transform(224).pixels(sliver, 16, "whole")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"size": 0}, "size 0"),
        ({"crop_pct": 1.2}, r"crop_pct 1.2 is not in \(0, 1\]"),
        ({"crop_pct": 0.0}, "crop_pct"),
        ({"interpolation": "bicubi"}, "did you mean 'bicubic'"),
        ({"mean": (0.5,)}, "one number per channel"),
        ({"std": (0.5, 0.5, 0.0)}, "std above 0"),
    ],
)
def test_an_impossible_transform(fields: dict[str, object], says: str) -> None:
    with pytest.raises(CardError, match=says):
        Transform(**{"size": 224, **fields})  # type: ignore[arg-type]


def test_nothing_is_random() -> None:
    state, torch_state = random.getstate(), torch.get_rng_state()
    image, transform = photo(50, 70), Transform(32, 0.9)
    assert torch.equal(transform(image), transform(image))
    assert random.getstate() == state and torch.equal(torch.get_rng_state(), torch_state)
