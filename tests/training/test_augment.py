"""Views: what each transform does, how often, and that nothing but the generator decides it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor
from torchvision.transforms import v2

from zoo.training import augment
from zoo.training.methods import recipe


def drawn(transforms: list[augment.Transform], image: Tensor, seeds: int) -> list[Tensor]:
    """The transform's result for seeds 0, 1, 2, …"""
    transform = v2.Compose(transforms)
    return [augment.seeded(transform, image, Generator().manual_seed(seed)) for seed in range(seeds)]


def share(results: list[Tensor], holds: Callable[[Tensor], bool]) -> float:
    return sum(map(holds, results)) / len(results)


def noise(size: int = 32, seed: int = 0) -> Tensor:
    """Black and white pixels at random, (3, size, size) uint8."""
    bits = torch.randint(2, (1, size, size), generator=Generator().manual_seed(seed))
    return (255 * bits).to(torch.uint8).expand(3, -1, -1).contiguous()


def photo() -> Tensor:
    return torch.randint(256, (3, 40, 56), generator=Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("size", "scale"), [(32, (0.2, 1.0)), (16, (0.05, 0.4)), (48, (0.4, 1.0))])
def test_normalised_crop_has_its_size_and_range(size: int, scale: tuple[float, float], seed: int) -> None:
    transform = augment.normalised(
        [
            *augment.crop_and_flip(size, scale),
            *augment.colour_distortion(0.4, 0.4, 0.2, 0.1),
            *augment.blur(size, 0.5),
            *augment.solarise(0.5),
        ]
    )
    view = augment.seeded(transform, photo(), Generator().manual_seed(seed))
    assert view.shape == (3, size, size)
    assert view.dtype == torch.float32
    for channel, mean, std in zip(view, augment.IMAGENET_MEAN, augment.IMAGENET_STD, strict=True):
        assert (0 - mean) / std - 1e-5 <= channel.min()
        assert channel.max() <= (1 - mean) / std + 1e-5


def test_normalised_by_hand() -> None:
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1)
    view = augment.normalised([])(image)
    expected = [(0.0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1.0 - 0.406) / 0.225]
    assert view.flatten().tolist() == pytest.approx(expected, abs=1e-6)


@given(seed=st.integers(0, 2**62), state=st.integers(0, 2**62))
def test_the_generator_alone_decides(seed: int, state: int) -> None:
    transform = v2.Compose(
        [*augment.crop_and_flip(16, (0.2, 1.0)), *augment.colour_distortion(0.4, 0.4, 0.2, 0.1)]
    )
    first = augment.seeded(transform, photo(), Generator().manual_seed(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        second = augment.seeded(transform, photo(), Generator().manual_seed(seed))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)


def test_one_generator_gives_a_new_view_each_time() -> None:
    transform, generator = v2.Compose(augment.crop_and_flip(16, (0.2, 1.0))), Generator().manual_seed(0)
    views = [augment.seeded(transform, photo(), generator) for _ in range(4)]
    assert all(not torch.equal(a, b) for i, a in enumerate(views) for b in views[:i])


def test_a_failing_transform_leaves_the_global_state() -> None:
    def fails(image: Tensor) -> Tensor:
        torch.rand(3)
        raise ValueError("no")

    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="no"):
        augment.seeded(fails, photo(), Generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_flips_half_the_time() -> None:
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    image[:, :, 8:] = 255
    # A crop of the whole square is the identity, so that only the flip is left.
    views = drawn(augment.crop_and_flip(16, (1.0, 1.0)), image, 400)
    assert all(torch.equal(view, image) or torch.equal(view, image.flip(-1)) for view in views)
    assert share(views, lambda view: bool(view[0, 0, 0] == 255)) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("scale", [(0.05, 0.4), (0.4, 1.0)])
def test_a_crop_covers_the_asked_share_of_the_image(scale: tuple[float, float]) -> None:
    side, size = 256, 32
    # Red grows with the column and green with the row: together they tell where a crop lies.
    ramp = torch.arange(side, dtype=torch.uint8)
    image = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), torch.zeros(side, side)])
    areas = []
    for view in drawn(augment.crop_and_flip(size, scale), image.to(torch.uint8), 60):
        # The first and the last pixel's centres are size - 1 apart, the borders size.
        width, height = (float(v.max()) - float(v.min()) for v in view[:2].float())
        areas.append(width * height * (size / (size - 1)) ** 2 / side**2)
    assert min(areas) > scale[0] - 0.02
    assert max(areas) < scale[1] + 0.04
    assert max(areas) - min(areas) > 0.6 * (scale[1] - scale[0])


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_solarises_with_its_probability_from_half_the_range(probability: float) -> None:
    image = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).expand(3, 1, 4).contiguous()
    results = drawn(augment.solarise(probability), image, 400)
    levels = {tuple((255 * result[0, 0]).round().int().tolist()) for result in results}
    assert levels <= {(0, 127, 128, 255), (0, 127, 127, 0)}
    measured = share(results, lambda result: bool(result[0, 0, 3] == 0))
    assert measured == pytest.approx(probability, abs=0.06 if 0 < probability < 1 else 0)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_blurs_with_its_probability(probability: float) -> None:
    image = augment.to_float(noise())
    results = drawn(augment.blur(224, probability), image, 300)
    measured = share(results, lambda result: bool((result - image).abs().max() > 0.5 / 255))
    # A sigma below 0.28 px moves no 8-bit value: that many of the draws from U(0.1, 2) are seen.
    seen = (2 - 0.28) / (2 - 0.1)
    assert measured == pytest.approx(probability * seen, abs=0.07)


@pytest.mark.parametrize("size", [16, 32, 96, 224, 512])
def test_blur_grows_with_the_view(size: int) -> None:
    """The strongest of many blurs spreads a point by about 2 px of 224."""
    image = torch.zeros(3, 65, 65, dtype=torch.uint8)
    image[:, 32, 32] = 255
    peak = 255 * min(float(result[0, 32, 32]) for result in drawn(augment.blur(size, 1.0), image, 40))
    sigma = 2 * size / 224
    spread = torch.arange(-32, 33) ** 2
    kernel = torch.exp(-spread / (2 * sigma**2))  # of all sides, not cut
    expected = 255 * float((kernel / kernel.sum()).max() ** 2)
    assert expected - 1 <= peak <= expected * 1.5 + 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_jitter_is_torchvisions(seed: int, channels: int) -> None:
    """The same draws, and the same colours."""
    image = photo()[:channels]
    jitter, _ = augment.colour_distortion(0.8, 0.8, 0.8, 0.2, probability=1.0)
    theirs = v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=1.0)
    ours, expected = (
        augment.seeded(each, augment.to_float(image), Generator().manual_seed(seed))
        for each in (jitter, theirs)
    )
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(6))
def test_blur_and_solarisation_draw_as_torchvisions(seed: int) -> None:
    """The same draws, and the same pixels, of images half of which are left as they are."""
    image = augment.to_float(photo())
    kernel, most = 2 * (224 // 20) + 1, 2.0
    theirs = [
        v2.RandomApply([v2.GaussianBlur(kernel, sigma=(0.1, most))], p=0.5),
        v2.RandomSolarize(threshold=128 / 255, p=0.5),
    ]
    for ours, their in zip([*augment.blur(224, 0.5), *augment.solarise(0.5)], theirs, strict=True):
        views = [augment.seeded(each, image, Generator().manual_seed(seed)) for each in (ours, their)]
        torch.testing.assert_close(*views, atol=1e-5, rtol=0)


def test_grey_and_colour_come_with_their_probabilities() -> None:
    image = torch.tensor([200, 120, 40], dtype=torch.uint8).reshape(3, 1, 1).expand(3, 4, 4).contiguous()
    results = drawn(augment.colour_distortion(0.4, 0.4, 0.2, 0.1, probability=0.8, grey=0.2), image, 500)
    grey = share(results, lambda r: bool((r[0] == r[1]).all() and (r[1] == r[2]).all()))
    assert grey == pytest.approx(0.2, abs=0.06)
    same = share(results, lambda r: r.dtype == torch.uint8 and torch.equal(r, image))
    assert same == pytest.approx(0.2 * 0.8, abs=0.05)  # neither jittered nor grey


@pytest.mark.parametrize("part", ["flip", "colour", "grey", "blur", "solarise"])
def test_a_removed_part_is_gone_and_the_others_stay(part: augment.Part) -> None:
    def step(digit: int) -> augment.Transform:
        return lambda image: 10 * image + digit

    crop, flip, colour, grey, blur, solarise = (step(digit) for digit in range(1, 7))
    kept = augment.without([part], [crop, flip], [colour, grey], [blur], [solarise])
    seen = torch.zeros((), dtype=torch.int64)
    for each in kept:
        seen = each(seen)
    digit = 2 + ["flip", "colour", "grey", "blur", "solarise"].index(part)
    assert str(seen.item()) == "123456".replace(str(digit), "")


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_crops_alone_keep_the_colours(name: str) -> None:
    """Views of one colour stay of that colour where all but crops is removed, and seldom do otherwise."""
    image = torch.tensor([200, 120, 40], dtype=torch.uint8).reshape(3, 1, 1).expand(3, 70, 70).contiguous()
    plain = augment.normalised([])(image)[:, 0, 0]
    for removed, alike in (((), False), (("flip", "colour", "grey", "blur", "solarise"), True)):
        chosen = recipe(f"{name}/smoke")
        config: Any = chosen.method
        method = dataclasses.replace(config, removed=removed)
        cut = method.build(chosen).views()
        views = [view for seed in range(4) for view in cut(image, Generator().manual_seed(seed))]
        assert all(torch.allclose(view[:, 0, 0], plain, atol=0.02) for view in views) == alike
