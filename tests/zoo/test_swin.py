"""Swin's attention rows against the blocks themselves and against windows counted token by token."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from zoo.errors import CardError, Unsupported
from zoo.families import swin

SMALL: dict[str, Any] = {"img_size": 64, "depths": [2, 2], "embed_dim": 8, "num_heads": [1, 2]}


@pytest.fixture(params=[4, 3, 5], ids="window {}".format)
def module(request: pytest.FixtureRequest, randomise: Callable[..., None]) -> SwinTransformer:
    """Windows that divide the grids of 16 and 8 positions at 64 pixels, and windows that do not."""
    made = swin.build("swin_tiny_patch4_window7_224", {**SMALL, "window_size": request.param})
    randomise(made.eval())
    return made


def photos(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(7))


def every_row(module: SwinTransformer, pixels: Tensor, block: int, sides: tuple[int, int]) -> Tensor:
    """(B, heads, N, N): the rows of all queries."""
    queries = itertools.product(range(sides[0]), range(sides[1]))
    rows = [swin.attention_rows(module, pixels, block, query).flatten(2) for query in queries]
    return torch.stack(rows, dim=2)


@pytest.mark.parametrize("size", [(64, 64), (32, 72)])
@torch.no_grad()
def test_the_rows_are_the_ones_the_block_uses(module: SwinTransformer, size: tuple[int, int]) -> None:
    """Every query's row times the values, through the projection, is what timm's own block adds to its input."""
    for block in range(4):
        asked, x = swin._before(module, photos(*size), block)
        rows = every_row(module, photos(*size), block, (x.shape[1], x.shape[2]))
        attn, normed = asked.attn, asked.norm1(x).flatten(1, 2)
        values = attn.qkv(normed).unflatten(2, (3, attn.num_heads, -1))[:, :, 2].transpose(1, 2)
        padding = attn.qkv.bias.unflatten(0, (3, attn.num_heads, -1))[2][None, :, None]  # a value of zeros
        mixed = rows @ values + (1 - rows.sum(dim=3, keepdim=True)) * padding
        added = attn.proj(mixed.transpose(1, 2).flatten(2)).unflatten(1, x.shape[1:3])
        torch.testing.assert_close(added, asked._attn(asked.norm1(x)), atol=1e-5, rtol=1e-5)


def row_by_the_book(block: Any, x: Tensor, query: tuple[int, int]) -> Tensor:
    """One image's row of one query, (heads, h, w), from §3.2 of 2103.14030, one key at a time. No padding."""
    (_, h, w, _), (wh, ww), (down, across) = x.shape, block.window_size, block.shift_size
    attn, normed = block.attn, block.norm1(x)[0]
    heads, width = attn.num_heads, x.shape[-1]
    q, k, _ = (normed @ attn.qkv.weight.T + attn.qkv.bias).split(width, dim=-1)
    table = attn.relative_position_bias_table.reshape(2 * wh - 1, 2 * ww - 1, heads)

    def place(row: int, column: int) -> tuple[tuple[int, int], tuple[int, int], tuple[bool, bool]]:
        """Window, slot in it, and whether the cyclic shift carried it round the edge."""
        r, c = (row - down) % h, (column - across) % w
        return (r // wh, c // ww), (r % wh, c % ww), (row < down, column < across)

    window, slot, carried = place(*query)
    scores = torch.full((heads, h, w), -math.inf)
    for row, column in itertools.product(range(h), range(w)):
        other, there, round_ = place(row, column)
        if other != window or round_ != carried:
            continue
        bias = table[slot[0] - there[0] + wh - 1, slot[1] - there[1] + ww - 1]
        products = (q[query] * k[row, column]).reshape(heads, -1).sum(dim=1)
        scores[:, row, column] = products * (width // heads) ** -0.5 + bias
    return scores.flatten(1).softmax(dim=1).reshape(heads, h, w)


@pytest.mark.parametrize("module", [4], indirect=True)
@pytest.mark.parametrize("query", [(0, 0), (3, 5), (7, 7), (2, 6)])
@torch.no_grad()
def test_rows_are_those_of_the_paper(module: SwinTransformer, query: tuple[int, int]) -> None:
    for block in range(4):
        asked, x = swin._before(module, photos(64, 64)[:1], block)
        expected = row_by_the_book(asked, x, query)
        found = swin.attention_rows(module, photos(64, 64)[:1], block, query)[0]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
        assert torch.equal(found == 0, expected == 0)  # nothing outside the true window


@pytest.mark.parametrize("module", [4], indirect=True)
def test_a_shifted_window_never_joins_two_edges(module: SwinTransformer) -> None:
    """At the corner the shift of 2 leaves 2 × 2 positions to themselves; one block before, the window has 4 × 4."""
    for block, side in ((0, 4), (1, 2)):
        seen = swin.attention_rows(module, photos(64, 64), block, (0, 0))[0, 0] > 0
        expected = torch.zeros(16, 16, dtype=torch.bool)
        expected[:side, :side] = True
        assert torch.equal(seen, expected)


@torch.no_grad()
def test_low_precision_rows_are_still_softmax_rows_in_float32(module: SwinTransformer) -> None:
    exact = swin.attention_rows(module, photos(64, 64), 1, (5, 5))
    module = module.bfloat16()
    rows = swin.attention_rows(module, photos(64, 64).bfloat16(), 1, (5, 5))
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, exact, atol=0.05, rtol=0)


def test_what_a_swin_cannot_do(module: SwinTransformer) -> None:
    with pytest.raises(Unsupported, match=r"no class token; .*query=\(row, column\)"):
        swin.attention_rows(module, photos(64, 64), 0, None)
    with pytest.raises(CardError, match="token"):
        swin.build("swin_tiny_patch4_window7_224", {"global_pool": "token"})


@pytest.mark.parametrize(
    ("architecture", "arguments", "parameters"),
    [
        ("swin_tiny_patch4_window7_224", {}, 27_519_354),  # Microsoft's and iBOT's
        ("swin_base_patch4_window7_224", {"img_size": 192, "window_size": 6}, 86_725_176),  # SimMIM's
    ],
)
def test_published_sizes(architecture: str, arguments: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        module = swin.build(architecture, arguments)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters
    assert swin.stride(module) == 32
