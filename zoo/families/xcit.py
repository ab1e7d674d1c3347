"""Cross-covariance image transformers, on timm's `Xcit`: blocks over channels, then class-attention blocks.

Axes: B images, N patches on the grid (h, w), D width. Blocks are numbered through both kinds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from timm.models.xcit import Xcit
from torch import Tensor

from zoo.architectures import create
from zoo.errors import Unsupported
from zoo.features import Features
from zoo.patches import grid_of


def build(architecture: str, arguments: dict[str, Any], interpolation: str = "timm") -> Xcit:
    """An untrained timm XCiT without a classifier, for every image size that is a multiple of its patch.

    Its positions are Fourier features of any grid, so that `interpolation` says nothing.
    CardError for what timm does not know or cannot build, Unsupported for what is no XCiT.
    """
    return create(architecture, arguments, Xcit, "an XCiT")


def stride(module: Xcit) -> int:
    """Side of a patch in pixels: 16 or 8."""
    return int(module.patch_embed.patch_size)


def features(module: Xcit, pixels: Tensor) -> Features:
    """Tokens after the final norm; pooled as timm's own head pools them."""
    grid = _grid(module, pixels)
    return _split(module, module.forward_features(pixels), grid)


def _grid(module: Xcit, pixels: Tensor) -> tuple[int, int]:
    return grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))


def _split(module: Xcit, normed: Tensor, grid: tuple[int, int]) -> Features:
    """(B, N, D) or, with the class token, (B, 1 + N, D), after the final norm -> Features."""
    if normed.shape[1] == grid[0] * grid[1]:
        return Features(normed.mean(dim=1), None, normed, grid)
    return Features(module.forward_head(normed, pre_logits=True), normed[:, 0], normed[:, 1:], grid)


def depth(module: Xcit) -> int:
    """Number of blocks, class-attention blocks included."""
    return len(module.blocks) + len(module.cls_attn_blocks)


def intermediates(module: Xcit, pixels: Tensor, layers: Sequence[int]) -> list[Features]:
    """Features after each of the asked blocks (non-negative indices), each through the final norm.

    Before the class-attention blocks there is no class token: `cls` is None, and pooled is the mean of patches.
    """
    wanted, grid = set(layers), _grid(module, pixels)
    found = {
        index: _split(module, module.norm(x), grid)
        for index, x in enumerate(_after_each(module, pixels))
        if index in wanted
    }
    return [found[index] for index in layers]


def pyramid(module: Xcit, pixels: Tensor) -> list[Tensor]:
    """The patches as one feature map [(B, D, h, w)]."""
    return [features(module, pixels).as_map()]


def _after_each(module: Xcit, pixels: Tensor) -> Iterator[Tensor]:
    """The tokens after each block: (B, N, D), and from the first class-attention block on (B, 1 + N, D)."""
    for x in _patches_after_each(module, pixels):
        yield x
    x = _with_class_token(module, x)
    for block in module.cls_attn_blocks:
        x = block(x)
        yield x


def _patches_after_each(module: Xcit, pixels: Tensor) -> Iterator[Tensor]:
    """The patches (B, N, D) after each block over channels."""
    x, (h, w) = module.patch_embed(pixels)
    if module.pos_embed is not None:
        x = x + module.pos_embed(x.shape[0], h, w).flatten(2).transpose(1, 2)
    x = module.pos_drop(x)
    for block in module.blocks:
        x = block(x, h, w)
        yield x


def _with_class_token(module: Xcit, patches: Tensor) -> Tensor:
    return torch.cat([module.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)


def attention_rows(module: Xcit, pixels: Tensor, block: int, query: tuple[int, int] | None) -> Tensor:
    """Softmax rows over the patches, (B, heads, h, w), of the class token in one class-attention block.

    In float32; the class token's own column is dropped and the rest is not renormalised. Raises Unsupported for other
    blocks, which attend from channel to channel, and for patches, which ask nothing of each other.
    """
    first, last = len(module.blocks), depth(module) - 1
    if block < first:
        raise Unsupported(
            f"block {block} of this XCiT attends from channel to channel and has no map of patches; the class token's "
            f"blocks are {first} to {last} (or {first - last - 1} to -1), with query='cls'"
        )
    if query is not None:
        raise Unsupported(
            "an XCiT's patches do not attend to each other; ask for the class token: query='cls'"
        )
    x = _with_class_token(module, next(islice(_patches_after_each(module, pixels), first - 1, None)))
    for earlier in module.cls_attn_blocks[: block - first]:
        x = earlier(x)
    asked: Any = module.cls_attn_blocks[block - first]
    attn, normed = asked.attn, asked.norm1(x)
    q, k = (
        project(tokens).unflatten(2, (attn.num_heads, -1)).transpose(1, 2)  # (B, heads, length, D / heads)
        for project, tokens in ((attn.q, normed[:, :1]), (attn.k, normed))
    )
    scores = (q * attn.scale).float() @ k.float().transpose(-2, -1)
    rows: Tensor = scores.softmax(dim=-1)[:, :, 0, 1:].unflatten(2, _grid(module, pixels))
    return rows
