"""Features and attention: the same in every company, exact, and without a trace left behind."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import zoo.encoder as room
from zoo.cards import ModelCard
from zoo.encoder import Encoder
from zoo.errors import SizeError, Unsupported
from zoo.features import Features, join
from zoo.loading import build


def photo(height: int = 80, width: int = 120, seed: int = 0) -> Image.Image:
    """A smooth picture: noise of 8×8 pixels enlarged."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def pixels(height: int = 64, width: int = 64, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(3))


def features(encoder: Encoder, images: Any, **settings: Any) -> Features:
    """Features of images of one size."""
    found = encoder(images, **settings)
    assert isinstance(found, Features)
    return found


def assert_same(one: Features, other: Features, tolerance: float = 1e-5) -> None:
    assert one.grid == other.grid
    for name in ("pooled", "cls", "patches"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=tolerance, rtol=tolerance)


# The same features in every company


def test_an_image_alone_in_a_batch_and_again(tiny: Encoder) -> None:
    photos = [photo(seed=seed) for seed in range(5)]
    together = features(tiny, photos)
    assert len(together) == 5
    assert together.pooled[0].sub(together.pooled[1]).abs().max() > 0.1
    for i, image in enumerate(photos):
        assert_same(features(tiny, image), together[i])
        assert_same(features(tiny, [image]), together[i])
    again = features(tiny, photos)
    assert torch.equal(again.patches, together.patches) and torch.equal(again.pooled, together.pooled)


def test_two_sizes_agree_alone_in_a_batch_and_in_a_mixed_list(tiny: Encoder) -> None:
    """224×224 and 480×320 (h×w), as tensors and as pictures of that size."""
    squares, talls = (
        torch.randint(
            0, 256, (2, 3, *sides), dtype=torch.uint8, generator=torch.Generator().manual_seed(sides[0])
        )
        for sides in ((224, 224), (480, 320))
    )
    batches = {(14, 14): features(tiny, squares), (30, 20): features(tiny, talls)}
    as_picture = [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in (*squares, *talls)]
    for images in (
        [squares[0], talls[0], squares[1], talls[1]],
        [as_picture[0], talls[0], squares[1], as_picture[3]],
    ):
        mixed = tiny(images, fit="whole", size=224)
        assert isinstance(mixed, list) and [each.grid for each in mixed[:3]] == [(14, 14), (30, 20), (14, 14)]
        for image, each in zip(images[:3], mixed, strict=False):
            assert_same(each, features(tiny, image, fit="whole", size=224))
    for grid, together in batches.items():
        alone = squares if grid == (14, 14) else talls
        assert together.grid == grid and len(together) == 2
        for i in range(2):
            assert_same(features(tiny, alone[i]), together[i])
            found = tiny([squares[i], talls[i]])
            assert isinstance(found, list)
            assert_same(found[0 if grid == (14, 14) else 1], together[i])
    pictured = tiny([as_picture[0], as_picture[2]], fit="whole", size=(480, 320))
    assert isinstance(pictured, Features) and pictured.grid == (30, 20)
    assert_same(pictured[1], batches[30, 20][0])
    assert_same(features(tiny, as_picture[1], size=224, fit="whole"), batches[14, 14][1])


def test_odd_sides_are_rounded_in_a_picture_and_refused_in_a_tensor(tiny: Encoder) -> None:
    """97×131: the short side becomes the asked size, the long side the nearest multiple of the stride."""
    odd = photo(97, 131)
    for size, (h, w) in {64: (64, 80), 96: (96, 128), 224: (224, 304)}.items():
        # 131 / 97 of the size is 86.4, 129.6 and 302.5.
        found = features(tiny, odd, fit="whole", size=size)
        assert found.grid == (h // 16, w // 16)
        exact = torch.from_numpy(np.array(odd.resize((w, h), Image.Resampling.BICUBIC))).permute(2, 0, 1)
        assert_same(found, features(tiny, exact))
    with pytest.raises(SizeError, match=r"97×131 pixels .* stride, 16; the nearest is 96×128"):
        tiny(torch.rand(1, 3, 97, 131))


def test_large_batches_go_through_in_parts(tiny: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, rows = features(tiny, pixels(count=5)), tiny.attention(pixels(count=5))
    layers = tiny.intermediates(pixels(count=5), layers=(0, 1))
    monkeypatch.setattr(room, "CHUNK", 2)
    assert_same(features(tiny, pixels(count=5)), whole)
    torch.testing.assert_close(tiny.attention(pixels(count=5)), rows, atol=1e-5, rtol=0)
    for parts, at_once in zip(tiny.intermediates(pixels(count=5), layers=(0, 1)), layers, strict=True):
        assert_same(parts, at_once)


def test_images_of_several_sizes_come_back_in_order(tiny: Encoder) -> None:
    photos = [photo(64, 96, 0), photo(96, 64, 1), photo(64, 64, 2), photo(64, 96, 3)]
    found = tiny(photos, fit="whole")
    assert isinstance(found, list)
    assert [each.grid for each in found] == [(4, 6), (6, 4), (4, 4), (4, 6)]
    for image, each in zip(photos, found, strict=True):
        assert len(each) == 1
        assert_same(each, features(tiny, image, fit="whole"))
    assert isinstance(tiny(photos), Features)  # cropped, they all end on one grid


def test_eight_threads_share_an_encoder(tiny: Encoder) -> None:
    jobs = [pixels(64, 64), pixels(32, 96), pixels(64, 128), pixels(48, 32)] * 4

    def look(images: Tensor) -> tuple[Features, Tensor, Tensor]:
        return features(tiny, images), tiny.attention(images), tiny.reconstruct(images, seed=5).predicted

    alone = [look(images) for images in jobs[:4]]
    with ThreadPoolExecutor(8) as pool:
        for i, (found, rows, predicted) in enumerate(pool.map(look, jobs)):
            assert_same(found, alone[i % 4][0])
            torch.testing.assert_close(rows, alone[i % 4][1], atol=1e-5, rtol=0)
            torch.testing.assert_close(predicted, alone[i % 4][2], atol=1e-5, rtol=0)


def test_another_dtype_is_asked_in_the_same_way(tiny: Encoder) -> None:
    through = SimpleNamespace(**{name: getattr(tiny.family, name) for name in ("features", "stride")})
    encoder = Encoder(tiny.card, tiny.module, tiny.decoder, through)  # type: ignore[arg-type]
    assert encoder.to(dtype=torch.float64).family is through


def test_looking_leaves_no_trace(tiny: Encoder) -> None:
    before = copy.deepcopy(tiny.module.state_dict())
    random, attributes = torch.get_rng_state(), set(vars(tiny))
    tiny(pixels())
    tiny.attention(pixels(), query=(1, 2))
    tiny.intermediates(pixels(), layers=[0])
    tiny.reconstruct(pixels())
    assert torch.equal(torch.get_rng_state(), random)
    assert set(vars(tiny)) == attributes and not tiny.module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in tiny.module.modules())


def test_features_of_a_masked_autoencoder_see_every_patch(tiny: Encoder) -> None:
    """transformers masks three quarters even here, so that features change with every call."""
    before = features(tiny, pixels())
    tiny.reconstruct(pixels(), ratio=0.5, seed=9)
    assert_same(features(tiny, pixels()), before, tolerance=0)
    for patch in range(16):
        row, column = 16 * (patch // 4), 16 * (patch % 4)
        changed = pixels()
        changed[:, :, row : row + 16, column : column + 16] = 0
        assert (features(tiny, changed).pooled - before.pooled).abs().max() > 1e-4


# What features are


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_pooled_is_timms_own_output(tiny_card: ModelCard, pooling: Any) -> None:
    module, _ = build(dataclasses.replace(tiny_card, pooling=pooling))
    encoder = Encoder(tiny_card, module)
    found = features(encoder, pixels(48, 80))
    torch.testing.assert_close(found.pooled, module(encoder.transform.normalise(pixels(48, 80))))
    assert found.cls is not None
    expected = found.patches.mean(dim=1) if pooling == "avg" else found.cls
    torch.testing.assert_close(found.pooled, expected)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96), (160, 16)])
def test_the_grid_is_rows_by_columns(tiny: Encoder, height: int, width: int) -> None:
    h, w = height // 16, width // 16
    found = features(tiny, pixels(height, width))
    assert found.grid == (h, w)
    assert found.patches.shape == (2, h * w, 48) and found.pooled.shape == (2, 48)
    as_map = found.as_map()
    assert as_map.shape == (2, 48, h, w)
    for row, column in itertools.product(range(h), range(w)):
        assert torch.equal(as_map[:, :, row, column], found.patches[:, row * w + column])
    (level,) = tiny.pyramid(pixels(height, width))
    assert torch.equal(level, as_map)
    assert repr(found) == f"Features(pooled 2×48, patches 2×{h * w}×48, grid {h}×{w})"


def test_features_are_sliced_and_joined(tiny: Encoder) -> None:
    found = features(tiny, pixels(count=3))
    assert_same(join([found[i] for i in range(3)]), found, tolerance=0)
    assert_same(found[-1], found[2], tolerance=0)
    assert len(found[1:]) == 2
    with pytest.raises(IndexError, match="image 3 of 3"):
        found[3]
    no_cls = Features(found.pooled, None, found.patches, found.grid)
    assert no_cls[0].cls is None and join([no_cls, no_cls]).cls is None


def test_the_last_intermediate_layer_is_the_features(tiny: Encoder) -> None:
    first, last = tiny.intermediates(pixels(48, 80), layers=(0, -1))
    assert_same(last, features(tiny, pixels(48, 80)))
    assert (first.patches - last.patches).abs().max() > 0.1
    again, negative = tiny.intermediates(pixels(48, 80), layers=(1, -2))
    assert_same(again, last, tolerance=0)
    assert_same(negative, first, tolerance=0)


def test_size_and_fit_choose_the_grid(tiny: Encoder) -> None:
    assert features(tiny, photo()).grid == (4, 4)
    assert features(tiny, photo(), size=96).grid == (6, 6)
    assert features(tiny, photo(), size=(32, 80)).grid == (2, 5)
    assert features(tiny, photo(80, 120), fit="whole").grid == (4, 6)
    assert tiny.attention(photo(), size=96).shape == (1, 3, 6, 6)
    assert tiny.pyramid(photo(), fit="whole", size=32)[0].shape == (1, 48, 2, 3)
    assert tiny.intermediates(photo(), [0], size=32)[0].grid == (2, 2)
    with pytest.raises(SizeError, match="nearest is 96"):
        tiny(photo(), size=100)


@pytest.mark.parametrize("look", ["attention", "intermediates", "pyramid", "reconstruct"])
def test_one_tensor_asks_for_one_size(tiny: Encoder, look: str) -> None:
    with pytest.raises(SizeError, match=r"several sizes \(64×96, 96×64\).*use fit='crop'"):
        getattr(tiny, look)([photo(64, 96), photo(96, 64)], fit="whole")


# Gradients and dtypes


def test_forward_features_is_differentiable_and_nothing_else(tiny: Encoder) -> None:
    given = tiny.transform.normalise(pixels()).requires_grad_()
    found = tiny.forward_features(given)
    assert_same(found, features(tiny, pixels()))
    found.pooled.square().sum().backward()
    assert given.grad is not None and bool((given.grad != 0).all())
    looked = features(tiny, pixels().requires_grad_())
    assert not looked.pooled.requires_grad and not tiny.attention(pixels()).requires_grad
    assert not tiny.reconstruct(pixels()).predicted.requires_grad
    tiny.module.zero_grad()


def test_to_another_dtype_leaves_the_original(tiny: Encoder) -> None:
    before = features(tiny, pixels())
    half = tiny.to(dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and tiny.dtype == torch.float32
    assert next(half.decoder.parameters()).dtype == torch.bfloat16 if half.decoder else False
    assert_same(features(tiny, pixels()), before, tolerance=0)
    rough = features(half, pixels())
    assert rough.pooled.dtype == torch.bfloat16
    torch.testing.assert_close(rough.pooled.float(), before.pooled, atol=0.15, rtol=0.1)
    rows = half.attention(pixels())
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, tiny.attention(pixels()), atol=0.03, rtol=0)


def test_to_the_same_is_the_same(tiny: Encoder) -> None:
    assert tiny.to("cpu") is tiny and tiny.to(dtype=torch.float32) is tiny and tiny.to() is tiny
    assert tiny.to(dtype=torch.float64) is not tiny


@pytest.mark.gpu
def test_features_on_a_gpu_are_those_of_the_cpu(tiny: Encoder) -> None:
    moved = tiny.to("cuda")
    assert moved.device.type == "cuda" and tiny.device.type == "cpu"
    there, here = features(moved, pixels()), features(tiny, pixels())
    torch.testing.assert_close(there.pooled.cpu(), here.pooled, atol=1e-3, rtol=1e-3)
    there_rows = moved.attention(pixels(), query=(1, 1)).cpu()
    torch.testing.assert_close(there_rows, tiny.attention(pixels(), query=(1, 1)), atol=1e-3, rtol=0)
    mine, theirs = (each.reconstruct(pixels(), seed=3) for each in (tiny, moved))
    assert torch.equal(mine.mask, theirs.mask.cpu())
    torch.testing.assert_close(theirs.composite.cpu(), mine.composite, atol=1e-3, rtol=0)


# Attention


def full_attention(encoder: Encoder, images: Tensor) -> list[Tensor]:
    """(B, heads, 1 + N, 1 + N) of every block: what unfused blocks hand to their dropout."""
    module: Any = copy.deepcopy(encoder.module)
    seen: list[Tensor] = []
    for block in module.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        module(encoder.transform.normalise(images))
    return seen


@pytest.mark.parametrize(("height", "width"), [(128, 128), (160, 96)])
@pytest.mark.parametrize("block", [0, 1, -1, -2])
def test_attention_equals_an_unfused_block(tiny: Encoder, height: int, width: int, block: int) -> None:
    blocks: Any = tiny.module.blocks
    assert all(each.attn.fused_attn for each in blocks)
    images, (h, w) = pixels(height, width), (height // 16, width // 16)
    expected = full_attention(tiny, images)[block][..., 1:]  # the class token's column is dropped
    assert expected[:, :, 0].std() > 0.2 / (h * w)  # far from uniform, or this would show little
    queries: list[tuple[Any, int]] = [
        ("cls", 0),
        ((0, 0), 1),
        ((2, 4), 1 + 2 * w + 4),
        ((h - 1, w - 1), h * w),
    ]
    for query, row in queries:
        rows = tiny.attention(images, block=block, query=query)
        assert rows.shape == (2, 3, h, w)
        torch.testing.assert_close(rows.flatten(2), expected[:, :, row], atol=1e-5, rtol=0)


def test_rows_are_not_renormalised(tiny: Encoder) -> None:
    for block in range(2):
        sums = tiny.attention(pixels(), block=block).sum(dim=(2, 3))
        own = full_attention(tiny, pixels())[block][:, :, 0, 0]
        assert bool((sums < 1).all())
        torch.testing.assert_close(sums, 1 - own, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"block": 2}, Unsupported, r"blocks 0 to 1 \(or -2 to -1\), no block 2"),
        ({"block": -3}, Unsupported, "no block -3"),
        ({"query": (4, 0)}, SizeError, r"patch \(4, 0\) is outside the grid of 4×4"),
        ({"query": (0, -1)}, SizeError, "outside the grid"),
        ({"query": "class"}, Unsupported, r"'cls' or a patch \(row, column\), not 'class'"),
        ({"query": "ab"}, Unsupported, "not 'ab'"),
        ({"query": (1, 2, 3)}, Unsupported, r"not \(1, 2, 3\)"),
        ({"query": 5}, Unsupported, "not 5"),
    ],
)
def test_attention_that_does_not_exist(tiny: Encoder, settings: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        tiny.attention(pixels(), **settings)


def test_layers_that_do_not_exist(tiny: Encoder) -> None:
    with pytest.raises(Unsupported, match="no block -4"):
        tiny.intermediates(pixels())


# The encoder itself


def test_an_encoder_says_what_it_is(tiny: Encoder) -> None:
    assert repr(tiny) == "Encoder(tiny_mae, vit_tiny_patch16_224, 64 px, D=48, cpu)"
    assert (tiny.dim, tiny.stride, tiny.size) == (48, 16, 64)
    assert tiny.transform(photo()).shape == (3, 64, 64)
    assert tiny.mask_grid(64, 96) == (4, 6)
    with pytest.raises(SizeError, match="64×96"):
        tiny.mask_grid(64, 90)


def test_a_module_in_training_mode_is_put_to_rest(tiny_card: ModelCard) -> None:
    module, decoder = build(tiny_card)
    encoder = Encoder(tiny_card, module.train(), decoder.train() if decoder else None)
    assert not encoder.module.training and encoder.decoder is not None and not encoder.decoder.training
