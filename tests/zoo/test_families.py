"""What every family owes: the same tests on small modules of each, with every weight at random."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.cards import ModelCard
from zoo.errors import CardError, SizeError, Unsupported
from zoo.families import Family, family, names
from zoo.features import Features
from zoo.loading import build
from zoo.weights import load_into


@dataclass(frozen=True)
class Case:
    """A small module of a family: its card's fields, and what it should give."""

    said: dict[str, Any]
    stride: int
    depth: int
    levels: tuple[tuple[int, int], ...]  # (width, pixels between positions) of each map of the pyramid
    has_cls: bool = False
    attends: bool = True  # any position to others, in every block
    any_size: bool = True  # timm's own module takes other sizes than the one it was made for


SWIN: dict[str, Any] = {"img_size": 64, "depths": [2, 2, 2, 2], "embed_dim": 8, "num_heads": [1, 2, 2, 4]}
TINY_SWIN: dict[str, Any] = {
    "family": "swin",
    "architecture": "swin_tiny_patch4_window7_224",
    "pooling": "avg",
}
SMALL_VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3}
UMMAE_SWIN = {"embed_dim": 8, "num_heads": [1, 2, 2, 4], "window_size": 4}
SMALL_PVT: dict[str, Any] = {
    "family": "pvt",
    "architecture": "ssl_zoo_pvt_small",
    "arguments": {
        "img_size": 64,
        "embed_dims": [8, 16, 32, 64],
        "depths": [2, 1, 1, 2],
        "num_heads": [1, 2, 2, 4],
        "mlp_ratios": [2, 2, 2, 2],
    },
}
FOUR_STAGES = ((8, 4), (16, 8), (32, 16), (64, 32))
CASES = {
    "vit": Case({}, 16, 2, ((48, 16),), has_cls=True),
    "vit, registers and the mean": Case(
        {"arguments": {"reg_tokens": 2}, "pooling": "avg"}, 16, 2, ((48, 16),), has_cls=True
    ),
    "beit": Case(
        {
            "family": "beit",
            "architecture": "beit_base_patch16_224",
            "arguments": {**SMALL_VIT, "img_size": 64},
        },
        16,
        2,
        ((48, 16),),
        has_cls=True,
        any_size=False,
    ),
    "eva": Case(
        {"family": "eva", "architecture": "vit_small_patch16_dinov3_qkvb", "arguments": SMALL_VIT},
        16,
        2,
        ((48, 16),),
        has_cls=True,
    ),
    "xcit": Case(
        {"family": "xcit", "architecture": "xcit_nano_12_p16_224", "arguments": SMALL_VIT},
        16,
        4,
        ((48, 16),),
        has_cls=True,
        attends=False,
    ),
    "resnet": Case(
        {
            "family": "resnet",
            "architecture": "resnet50",
            "arguments": {"layers": [1, 2, 1, 1]},
            "pooling": "avg",
        },
        32,
        5,
        ((256, 4), (512, 8), (1024, 16), (2048, 32)),
        attends=False,
    ),
    "dvae": Case(
        {
            "family": "dvae",
            "architecture": "ssl_zoo_dvae_small",
            "arguments": {"vocabulary": 16, "hidden": 8},
            "pooling": "avg",
        },
        8,
        4,
        ((8, 1), (16, 2), (32, 4), (64, 8)),
        attends=False,
    ),
    "swin": Case({**TINY_SWIN, "arguments": {**SWIN, "window_size": 4}}, 32, 8, FOUR_STAGES),
    "swin, windows that divide no grid": Case(
        {**TINY_SWIN, "arguments": {**SWIN, "window_size": 3}}, 32, 8, FOUR_STAGES
    ),
    "swin, UM-MAE's": Case(
        {
            "family": "swin",
            "architecture": "ssl_zoo_ummae_swin_micro",
            "pooling": "avg",
            "arguments": UMMAE_SWIN,
        },
        32,
        8,
        FOUR_STAGES,
    ),
    "pvt": Case({**SMALL_PVT, "pooling": "token"}, 32, 6, FOUR_STAGES, has_cls=True),
    "pvt, the mean": Case({**SMALL_PVT, "pooling": "avg"}, 32, 6, FOUR_STAGES, has_cls=True),
    "pvt, UM-MAE's": Case(
        {**SMALL_PVT, "architecture": "ssl_zoo_ummae_pvt_micro", "pooling": "avg"}, 32, 6, FOUR_STAGES
    ),
}
# Square, and neither the size the module was made for nor square.
SIZES = ((64, 64), (96, 160))


@dataclass(frozen=True)
class Subject:
    """A case with its family and a module."""

    case: Case
    card: ModelCard
    of: Family
    module: nn.Module

    def features(self, pixels: Tensor) -> Features:
        with torch.no_grad():
            return self.of.features(self.module, pixels)


@pytest.fixture(scope="module")
def subjects(card_of: Callable[..., ModelCard], randomise: Callable[..., None]) -> Callable[[str], Subject]:
    @functools.cache
    def make(name: str) -> Subject:
        card = card_of(**CASES[name].said)
        module, _ = build(card)
        randomise(module.eval())
        return Subject(CASES[name], card, family(card.family), module)

    return make


@pytest.fixture(params=CASES)
def subject(request: pytest.FixtureRequest, subjects: Callable[[str], Subject]) -> Subject:
    return subjects(request.param)


def photos(size: tuple[int, int], count: int = 2) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(7))


def same(found: Features, expected: Features, tolerance: float = 1e-5) -> None:
    assert found.grid == expected.grid and (found.cls is None) == (expected.cls is None)
    for name in ("pooled", "cls", "patches"):
        if getattr(found, name) is not None:
            torch.testing.assert_close(
                getattr(found, name), getattr(expected, name), atol=tolerance, rtol=tolerance
            )


def test_every_family_is_here() -> None:
    assert {case.said.get("family", "vit") for case in CASES.values()} == set(names())


@pytest.mark.parametrize("size", SIZES)
def test_features_have_the_shapes_they_promise(subject: Subject, size: tuple[int, int]) -> None:
    found, (width, step) = subject.features(photos(size)), subject.case.levels[-1]
    assert subject.of.stride(subject.module) == subject.case.stride == step
    assert found.grid == (size[0] // step, size[1] // step)
    assert found.patches.shape == (2, found.grid[0] * found.grid[1], width)
    assert found.pooled.shape == (2, width) and (found.cls is not None) == subject.case.has_cls
    assert found.pooled.std() > 0.05 and found.patches.std(dim=1).mean() > 0.01  # no two alike


@pytest.mark.parametrize("size", SIZES)
def test_an_image_alone_in_a_batch_and_twice_is_the_same(subject: Subject, size: tuple[int, int]) -> None:
    together = subject.features(photos(size, 3))
    for i in range(3):
        same(subject.features(photos(size, 3)[i : i + 1]), together[i])
    same(subject.features(photos(size, 3)), together, tolerance=0)


@pytest.mark.parametrize("size", SIZES)
def test_pooled_is_what_timm_gives(subject: Subject, size: tuple[int, int]) -> None:
    if not subject.case.any_size and size != SIZES[0]:
        with pytest.raises(AssertionError, match="Input"):
            subject.module(photos(size))
        return  # that family's own tests compare with timm's module set to the size
    with torch.no_grad():
        theirs = subject.module(photos(size))
    torch.testing.assert_close(subject.features(photos(size)).pooled, theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_a_pyramid_goes_from_fine_to_coarse_and_ends_in_the_patches(
    subject: Subject, size: tuple[int, int]
) -> None:
    with torch.no_grad():
        maps = subject.of.pyramid(subject.module, photos(size))
    shapes = [tuple(each.shape) for each in maps]
    assert shapes == [(2, width, size[0] // step, size[1] // step) for width, step in subject.case.levels]
    torch.testing.assert_close(maps[-1], subject.features(photos(size)).as_map(), atol=1e-5, rtol=1e-5)


def test_intermediates_are_numbered_through_all_blocks(subject: Subject) -> None:
    """In any order and as often as asked; the last is what the encoder gives."""
    depth, size = subject.of.depth(subject.module), SIZES[1]
    assert depth == subject.case.depth
    with torch.no_grad():
        every = subject.of.intermediates(subject.module, photos(size), range(depth))
        some = subject.of.intermediates(subject.module, photos(size), [depth - 1, 0, depth - 1])
    for found, index in zip(some, (depth - 1, 0, depth - 1), strict=True):
        same(found, every[index], tolerance=0)
    torch.testing.assert_close(
        every[-1].patches, subject.features(photos(size)).patches, atol=1e-5, rtol=1e-5
    )
    grids = {(size[0] // step, size[1] // step): width for width, step in subject.case.levels}
    assert all(grids[found.grid] == found.patches.shape[-1] for found in every)
    assert [found.grid for found in every] == sorted((found.grid for found in every), reverse=True)


def test_attention_rows_lie_on_the_blocks_own_grid(subject: Subject) -> None:
    depth, size = subject.of.depth(subject.module), SIZES[1]
    if not subject.case.attends:
        with pytest.raises(Unsupported, match=r"no attention|attend"):
            subject.of.attention_rows(subject.module, photos(size), depth - 1, (0, 1))
        return
    with torch.no_grad():
        grids = [each.grid for each in subject.of.intermediates(subject.module, photos(size), range(depth))]
        for block, (h, w) in enumerate(grids):
            rows = subject.of.attention_rows(subject.module, photos(size), block, (h - 1, w // 2))
            assert rows.shape[0] == 2 and rows.dtype == torch.float32
            sums = rows.flatten(2).sum(dim=2)
            assert rows.min() >= 0 and sums.min() > 0.05 and sums.max() < 1 + 1e-5
            with pytest.raises(SizeError, match=rf"outside the grid of {h}×{w}"):
                subject.of.attention_rows(subject.module, photos(size), block, (h, 0))


def test_a_class_token_attends_or_the_message_names_what_does(subject: Subject) -> None:
    last = subject.case.depth - 1
    if subject.case.has_cls:
        with torch.no_grad():
            rows = subject.of.attention_rows(subject.module, photos(SIZES[1]), last, None)
        assert rows.shape[-2:] == subject.features(photos(SIZES[1])).grid
    else:
        with pytest.raises(Unsupported, match=r"query=\(row, column\)|no attention"):
            subject.of.attention_rows(subject.module, photos(SIZES[1]), last, None)


def test_sides_are_multiples_of_the_stride(subject: Subject) -> None:
    with pytest.raises(SizeError, match="nearest size"):
        subject.of.features(subject.module, photos((subject.case.stride * 2, subject.case.stride * 3 - 4)))


def test_features_are_differentiable(subject: Subject) -> None:
    pixels = photos(SIZES[0]).requires_grad_()
    found = subject.of.features(subject.module, pixels)
    (found.pooled.square().sum() + found.patches.square().sum()).backward()
    assert pixels.grad is not None and bool((pixels.grad != 0).any(dim=(1, 2, 3)).all())


def test_threads_may_share_a_module(subject: Subject) -> None:
    """Each with another size, at the same time, as often as it takes to meet."""
    expected = {size: subject.features(photos(size)) for size in SIZES}
    wrong: list[BaseException] = []

    def look(size: tuple[int, int]) -> None:
        try:
            for _ in range(3):
                same(subject.features(photos(size)), expected[size], tolerance=1e-6)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=look, args=(size,)) for size in SIZES * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_module_without_storage_is_filled(subject: Subject) -> None:
    """As the zoo loads: buffers that no file holds are computed."""
    with torch.device("meta"):
        module, _ = build(subject.card)
    load_into(module.eval(), subject.module.state_dict(), where="test")
    with torch.no_grad():
        same(subject.of.features(module, photos(SIZES[1])), subject.features(photos(SIZES[1])), tolerance=0)


def test_wrong_architectures_and_arguments(subject: Subject) -> None:
    architecture = subject.card.architecture
    with pytest.raises(CardError, match="did you mean"):
        subject.of.build(architecture[:-1] + "#", {})
    with pytest.raises(CardError, match="cannot build"):
        subject.of.build(architecture, {"no_such_argument": 1})
    with pytest.raises((Unsupported, CardError), match=r"choose another family|cannot build"):
        subject.of.build("mobilenetv3_small_050", {})
