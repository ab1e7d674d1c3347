"""Everything a caller may call images, in one list or alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from zoo.batches import Batch, is_single, to_batches
from zoo.errors import ImageError, SizeError
from zoo.transforms import Transform, unit_pixels

TRANSFORM = Transform(size=32, crop_pct=0.875, interpolation="bicubic")


def photo(height: int = 40, width: int = 60, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def only(batches: list[Batch]) -> Tensor:
    """The pixels of the one batch, numbered in order."""
    (batch,) = batches
    assert batch.indices == list(range(len(batch.pixels)))
    assert batch.pixels.dtype == torch.float32
    return batch.pixels


def test_one_picture_of_each_kind(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photo().save(path)
    expected = TRANSFORM(photo())[None]
    for source in (path, str(path), path.read_bytes(), photo(), np.asarray(photo())):
        assert is_single(source)
        assert torch.equal(only(to_batches(source, TRANSFORM, 16)), expected)
        assert torch.equal(only(to_batches([source, source], TRANSFORM, 16)), torch.cat([expected] * 2))
    with path.open("rb") as file:
        assert is_single(file)
        assert torch.equal(only(to_batches(file, TRANSFORM, 16)), expected)


def test_tensors_are_only_normalised() -> None:
    stored = torch.randint(
        0, 256, (2, 3, 32, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    expected = TRANSFORM.normalise(stored.float() / 255)
    assert torch.equal(only(to_batches(stored, TRANSFORM, 16)), expected)
    assert torch.equal(only(to_batches(stored.float() / 255, TRANSFORM, 16)), expected)
    torch.testing.assert_close(only(to_batches(stored.double() / 255, TRANSFORM, 16)), expected)
    half = (stored.float() / 255).half()
    torch.testing.assert_close(only(to_batches(half, TRANSFORM, 16)), expected, atol=5e-3, rtol=0)
    assert torch.equal(only(to_batches(stored, TRANSFORM, 16, fit="whole", size=48)), expected)
    assert torch.equal(only(to_batches(stored[0], TRANSFORM, 16)), expected[:1])


def test_a_tensor_equals_the_picture_it_was_made_of() -> None:
    image = photo(32, 48)
    by_picture = only(to_batches(image, TRANSFORM, 16, fit="whole"))
    by_tensor = only(to_batches(unit_pixels(image)[None], TRANSFORM, 16))
    torch.testing.assert_close(by_tensor, by_picture)


def test_what_is_single() -> None:
    assert is_single(torch.zeros(3, 32, 32))
    assert not is_single(torch.zeros(1, 3, 32, 32))
    assert not is_single([photo()])
    assert not is_single((photo(),))


def test_gradients_reach_a_tensor_of_images() -> None:
    pixels = torch.rand(1, 3, 16, 16, requires_grad=True)
    only(to_batches(pixels, TRANSFORM, 16)).sum().backward()
    assert pixels.grad is not None and bool((pixels.grad > 0).all())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(20, 90), st.integers(20, 90)), min_size=1, max_size=6))
def test_a_list_is_grouped_by_size_and_numbered(shapes: list[tuple[int, int]]) -> None:
    images = [photo(h, w, seed) for seed, (h, w) in enumerate(shapes)]
    batches = to_batches(images, TRANSFORM, 16, fit="whole")
    sizes = [tuple(batch.pixels.shape[2:]) for batch in batches]
    assert len(set(sizes)) == len(sizes)
    assert sorted(i for batch in batches for i in batch.indices) == list(range(len(images)))
    assert [batch.indices[0] for batch in batches] == sorted(batch.indices[0] for batch in batches)
    for batch in batches:
        assert batch.indices == sorted(batch.indices)
        for i, pixels in zip(batch.indices, batch.pixels, strict=True):
            assert torch.equal(pixels, TRANSFORM.pixels(images[i], 16, "whole"))
    (cropped,) = to_batches(images, TRANSFORM, 16)
    assert cropped.indices == list(range(len(images)))


def test_a_list_of_all_kinds(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photo().save(path)
    small, large = torch.rand(3, 32, 32), torch.rand(2, 3, 64, 32)
    first, second = to_batches([path, small, large, np.asarray(photo()), small[None]], TRANSFORM, 16)
    assert (first.indices, second.indices) == ([0, 1, 4, 5], [2, 3])
    assert torch.equal(first.pixels[1], TRANSFORM.normalise(small))
    assert torch.equal(first.pixels[0], first.pixels[2])
    assert torch.equal(second.pixels, TRANSFORM.normalise(large))


def test_size_and_fit_reach_the_pictures() -> None:
    assert only(to_batches(photo(), TRANSFORM, 16, size=48)).shape == (1, 3, 48, 48)
    assert only(to_batches(photo(), TRANSFORM, 16, size=(48, 16))).shape == (1, 3, 48, 16)
    assert only(to_batches(photo(), TRANSFORM, 16, fit="whole", size=64)).shape == (1, 3, 64, 96)


def test_another_number_of_channels() -> None:
    transform = Transform(32, mean=(0.5,) * 4, std=(0.5,) * 4)
    assert only(to_batches(torch.rand(2, 4, 32, 32), transform, 16)).shape == (2, 4, 32, 32)
    with pytest.raises(ImageError, match=r"takes \(H, W, 4\) uint8 arrays, .* or \(B, 4, H, W\) tensors"):
        to_batches(photo(), transform, 16)
    grey = Transform(32, mean=(0.5,), std=(0.5,))
    assert only(to_batches([photo(), torch.rand(1, 32, 32)], grey, 16)).shape == (2, 1, 32, 32)


ONES = torch.ones(2, 3, 32, 32)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (ONES * 255, r"from 255 to 255: it looks like 0–255; pass images / 255"),
        (ONES * 1.1, r"pass images\.clamp\(0, 1\)"),
        (ONES * -1.5, r"already normalised; use encoder\.forward_features\(pixels\)"),
        (torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), "already normalised"),
        (ONES * float("nan"), "NaN or infinite"),
        (ONES * float("inf"), "NaN or infinite"),
        (ONES.long(), r"not torch\.int64; pass images\.to\(torch\.uint8\)"),
        (ONES.bool(), "not torch.bool"),
        (torch.ones(2, 32, 32, 3), r"channels are last: pass images\.permute\(0, 3, 1, 2\)"),
        (torch.ones(32, 32, 3), r"channels are last: pass images\.permute\(2, 0, 1\)"),
        (torch.ones(2, 1, 32, 32), r"images\.expand\(-1, 3, -1, -1\)"),
        (torch.ones(1, 32, 32), r"images\.expand\(3, -1, -1\)"),
        (torch.ones(2, 4, 32, 32), r"images\[\.\.\., :3, :, :\]"),
        (torch.ones(2, 2, 32, 32), r"in_chans=2"),
        (torch.ones(32, 32), r"\(B, 3, H, W\) or \(3, H, W\)"),
        (torch.ones(1, 1, 3, 32, 32), r"\(1, 1, 3, 32, 32\)"),
        (torch.ones(0, 3, 32, 32), "holds no pixels"),
        ([], "an empty list"),
        ((), "an empty list"),
        ([[photo()]], "image 1 of 1: list: is no image"),
        (iter([photo()]), "is no image"),
        (None, "NoneType: is no image"),
        (np.zeros((2, 32, 32, 3), np.uint8), r"list\(array\)"),
    ],
)
def test_refused_with_the_fix(images: object, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        to_batches(images, TRANSFORM, 16)  # type: ignore[arg-type]


def test_the_fixes_named_work() -> None:
    to = TRANSFORM
    assert only(to_batches(torch.ones(2, 32, 32, 3).permute(0, 3, 1, 2), to, 16)).shape == (2, 3, 32, 32)
    assert only(to_batches(torch.ones(2, 1, 32, 32).expand(-1, 3, -1, -1), to, 16)).shape == (2, 3, 32, 32)
    assert only(to_batches(torch.ones(1, 32, 32).expand(3, -1, -1), to, 16)).shape == (1, 3, 32, 32)
    assert only(to_batches(torch.ones(2, 4, 32, 32)[..., :3, :, :], to, 16)).shape == (2, 3, 32, 32)


def test_rounding_beyond_one_is_no_other_range() -> None:
    assert only(to_batches(ONES + 5e-4, TRANSFORM, 16)).shape == ONES.shape


def test_a_tensor_off_the_stride_names_the_nearest_size() -> None:
    with pytest.raises(SizeError, match=r"97×131 pixels .* stride, 16; the nearest is 96×128\. Tensors keep"):
        to_batches(torch.rand(1, 3, 97, 131), TRANSFORM, 16)
    with pytest.raises(SizeError, match=r"image 2 of 2: 97×131"):
        to_batches([photo(), torch.rand(3, 97, 131)], TRANSFORM, 16)


def test_a_wrong_size_is_nobodys_fault_in_the_list() -> None:
    with pytest.raises(SizeError, match=r"^97 pixels is no multiple"):
        to_batches([photo(), photo()], TRANSFORM, 16, size=97)
    with pytest.raises(SizeError, match=r"^fit='squash'"):
        to_batches([photo(), photo()], TRANSFORM, 16, fit="squash")


def test_the_failing_element_of_a_list_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff nonsense")
    images = [photo(seed=i) for i in range(9)]
    with pytest.raises(ImageError, match=r"^image 3 of 10: .*broken\.jpg: "):
        to_batches([*images[:2], broken, *images[2:]], TRANSFORM, 16)
    with pytest.raises(ImageError, match=r"^image 2 of 2: .*images / 255"):
        to_batches([photo(), ONES[0] * 255], TRANSFORM, 16)
