"""PVT's attention rows against transformers' and against the blocks themselves; its positions off the native size."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from zoo.architectures.position_windows import PositionBlock
from zoo.architectures.pvt import PVT
from zoo.cards import ModelCard
from zoo.errors import CardError, Unsupported
from zoo.families import pvt, swin
from zoo.published import read_published
from zoo.weights import load_into

V1: dict[str, Any] = {
    "img_size": 64,
    "depths": [2, 1, 1, 2],
    "embed_dims": [8, 16, 32, 64],
    "num_heads": [1, 2, 2, 4],
    "mlp_ratios": [2, 2, 2, 2],
}
UMMAE: dict[str, Any] = {"embed_dims": [8, 16, 32, 64], "num_heads": [1, 2, 2, 4], "mlp_ratios": [2, 2, 2, 2]}
Draw = Callable[..., None]


def photos(height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(7))


def small(randomise: Draw, architecture: str, arguments: dict[str, Any]) -> PVT:
    module = pvt.build(architecture, arguments).eval()
    randomise(module)
    return module


@torch.no_grad()
def test_rows_are_those_of_transformers(
    tmp_path: Path, randomise: Draw, card_of: Callable[..., ModelCard]
) -> None:
    """Every block, a query at a corner and one inside, and the class token in the last stage."""
    shape = {
        "hidden_sizes": V1["embed_dims"],
        "num_attention_heads": V1["num_heads"],
        "mlp_ratios": [2, 2, 2, 2],
    }
    config = transformers.PvtConfig(image_size=64, depths=V1["depths"], attn_implementation="eager", **shape)
    theirs = transformers.PvtModel(config).eval()
    randomise(theirs)
    for name, module in theirs.named_modules():
        if name.endswith("layer_norm") and ("patch_embeddings" in name or "attention" in name):
            module.eps = 1e-5  # type: ignore[assignment]
    theirs.save_pretrained(tmp_path)
    card = card_of("pvt", "ssl_zoo_pvt_small", arguments=V1)
    ours = pvt.build(card.architecture, V1).eval()
    load_into(ours, read_published(tmp_path / "model.safetensors", card).encoder, where="file")
    maps = theirs(photos(), output_attentions=True).attentions
    assert len(maps) == pvt.depth(ours) == 6
    sides = [16, 16, 8, 4, 2, 2]
    for block, (side, expected) in enumerate(zip(sides, maps, strict=True)):
        prefix = 1 if block >= 4 else 0
        keys = int((expected.shape[-1] - prefix) ** 0.5)
        for row, column in ((0, 0), (side - 1, side // 2)):
            found = pvt.attention_rows(ours, photos(), block, (row, column))
            assert found.shape == (2, expected.shape[1], keys, keys)
            one = expected[:, :, prefix + row * side + column, prefix:]
            torch.testing.assert_close(found.flatten(2), one, atol=1e-5, rtol=1e-4)
        if prefix:
            found = pvt.attention_rows(ours, photos(), block, None)
            torch.testing.assert_close(found.flatten(2), expected[:, :, 0, 1:], atol=1e-5, rtol=1e-4)
    with pytest.raises(Unsupported, match="the class token enters at block 4"):
        pvt.attention_rows(ours, photos(), 1, None)


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
@torch.no_grad()
def test_um_maes_rows_are_the_ones_the_blocks_use(size: tuple[int, int], randomise: Draw) -> None:
    """Every query's row times the values, through the projection, is what the block adds to its input."""
    module = small(randomise, "ssl_zoo_ummae_pvt_micro", UMMAE)
    for block in (0, 3, 7):
        asked, tokens, sides = pvt._before(module, photos(*size), block)
        rows = torch.stack(
            [
                pvt.attention_rows(module, photos(*size), block, query).flatten(2)
                for query in itertools.product(range(sides[0]), range(sides[1]))
            ],
            dim=2,
        )
        attn, normed = asked.attn, asked.norm1(tokens)
        values = attn.split(attn.kv(attn.keys(normed, sides)).chunk(2, dim=-1)[1])
        added = attn.proj((rows @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(added, attn(normed, sides), atol=1e-5, rtol=1e-5)
    with pytest.raises(Unsupported, match="this PVT has no class token"):
        pvt.attention_rows(module, photos(), 7, None)


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
@torch.no_grad()
def test_um_maes_swin_too(size: tuple[int, int], randomise: Draw) -> None:
    """On grids that its windows of 8 divide and on others; nobody looks at padding."""
    module = swin.build("ssl_zoo_ummae_swin_micro", {"embed_dim": 8, "num_heads": [1, 2, 2, 4]}).eval()
    randomise(module)
    for block in (3, 5):
        asked, x = swin._before(module, photos(*size), block)
        assert isinstance(asked, PositionBlock)
        sides, attn, normed = (x.shape[1], x.shape[2]), asked.attn, asked.norm1(x)
        rows = torch.stack(
            [
                swin.attention_rows(module, photos(*size), block, query).flatten(2)
                for query in itertools.product(range(sides[0]), range(sides[1]))
            ],
            dim=2,
        )
        torch.testing.assert_close(rows.sum(dim=3), torch.ones(rows.shape[:3]), atol=1e-5, rtol=0)
        values = attn.qkv(normed.flatten(1, 2)).unflatten(2, (3, attn.num_heads, -1))[:, :, 2].transpose(1, 2)
        added = attn.proj((rows @ values).transpose(1, 2).flatten(2)).unflatten(1, sides)
        torch.testing.assert_close(added, asked._attend(normed, None), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_learned_positions_off_the_native_size(randomise: Draw) -> None:
    """Bilinear, by hand: the same features as a module whose stored positions are already those of the new grid."""
    module = small(randomise, "ssl_zoo_pvt_small", V1)
    wide = pvt.build("ssl_zoo_pvt_small", {**V1, "img_size": 128}).eval()
    tensors = dict(module.state_dict())
    for stage in range(4):
        name = f"stages.{stage}.pos_embed"
        tensors[name] = doubled(tensors[name])
    load_into(wide, tensors, where="test")
    expected, found = (pvt.features(each, photos(128, 128)) for each in (wide, module))
    torch.testing.assert_close(found.patches, expected.patches, atol=1e-5, rtol=1e-5)
    assert found.cls is not None and expected.cls is not None
    torch.testing.assert_close(found.cls, expected.cls, atol=1e-5, rtol=1e-5)


def doubled(positions: Tensor) -> Tensor:
    """(1, h, w, C) -> (1, 2h, 2w, C): new centres lie a quarter of a cell off the old, so weights are 3/4 and 1/4."""
    for axis in (1, 2):
        length = positions.shape[axis]
        before = positions.index_select(axis, torch.arange(length).sub(1).clamp(min=0))
        after = positions.index_select(axis, torch.arange(length).add(1).clamp(max=length - 1))
        pair = torch.stack([0.75 * positions + 0.25 * before, 0.75 * positions + 0.25 * after], dim=axis + 1)
        positions = pair.flatten(axis, axis + 1)
    return positions


@pytest.mark.parametrize(
    ("architecture", "arguments", "parameters"),
    [
        ("ssl_zoo_ummae_swin_tiny", {}, 27_499_050),
        (
            "ssl_zoo_ummae_pvt_small",
            {"stored_positions": True},
            21_033_728,
        ),  # as its authors' files have them
        ("ssl_zoo_ummae_pvt_small", {}, 21_033_728 - 64 * 64 * 64),
        ("ssl_zoo_pvt_small", {}, 24_485_864 - 513_000),  # the paper's 24.5 million, without the classifier
    ],
)
def test_published_sizes(architecture: str, arguments: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        module = (swin if "swin" in architecture else pvt).build(architecture, arguments)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters


@pytest.mark.parametrize("architecture", ["ssl_zoo_ummae_swin_micro", "ssl_zoo_ummae_pvt_micro"])
def test_small_ones_for_a_cpu_have_a_few_million_parameters(architecture: str) -> None:
    with torch.device("meta"):
        module = (swin if "swin" in architecture else pvt).build(architecture, {})
    assert 2e6 < sum(parameter.numel() for parameter in module.parameters()) < 6e6


def test_pooling_that_a_pvt_lacks() -> None:
    with pytest.raises(CardError, match="write avg"):
        pvt.build("ssl_zoo_ummae_pvt_micro", {"global_pool": "token"})
    with pytest.raises(CardError, match="write avg or token"):
        pvt.build("ssl_zoo_pvt_small", {"global_pool": "max"})
