"""Vision transformers with rotary positions, on timm's `Eva`: DINOv3.

Axes: B images, N patches on the grid (h, w), R prefix tokens (class and registers), D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat
from timm.models.eva import Eva
from torch import Tensor

from zoo.architectures import create
from zoo.errors import Unsupported
from zoo.features import Features
from zoo.patches import grid_of, row_major


def build(architecture: str, arguments: dict[str, Any], interpolation: str = "timm") -> Eva:
    """An untrained timm Eva without a classifier that accepts every image size that is a multiple of its patch.

    Rotary positions are computed for any grid, so that `interpolation` says nothing of DINOv3.
    CardError for what timm does not know or cannot build, Unsupported for other architectures and blocks.
    """
    module = create(architecture, {"dynamic_img_size": True, **arguments}, Eva, "a ViT with rotary positions")
    kinds = {f"{type(block).__name__} with {type(block.attn).__name__}" for block in module.blocks}
    if kinds != {"EvaBlock with EvaAttention"} or module.rope_mixed:
        raise Unsupported(
            f"{architecture} is made of {', '.join(sorted(kinds))}{', its rotations mixed' * module.rope_mixed}; "
            "the family eva reads EvaBlock with EvaAttention and one rotation, as DINOv3 has"
        )
    return module


def stride(module: Eva) -> int:
    """Side of a patch in pixels."""
    return int(module.patch_embed.patch_size[0])


def features(module: Eva, pixels: Tensor) -> Features:
    """Tokens after the final norm; pooled as timm's own head pools them."""
    grid = _grid(module, pixels)
    return _split(module, module.forward_features(pixels), grid)


def _grid(module: Eva, pixels: Tensor) -> tuple[int, int]:
    return grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))


def _split(module: Eva, normed: Tensor, grid: tuple[int, int]) -> Features:
    """(B, R + N, D), after the final norm -> Features."""
    cls = normed[:, 0] if module.cls_token is not None else None
    pooled = module.forward_head(normed, pre_logits=True)
    return Features(pooled, cls, normed[:, module.num_prefix_tokens :], grid)


def depth(module: Eva) -> int:
    """Number of blocks."""
    return len(module.blocks)


def intermediates(module: Eva, pixels: Tensor, layers: Sequence[int]) -> list[Features]:
    """Features after each of the asked blocks (non-negative indices), each through the final norm."""
    wanted, grid, found = set(layers), _grid(module, pixels), {}
    x, rope = _embed(module, pixels)
    for index, after in enumerate(_through_blocks(module, x, rope)):
        if index - 1 in wanted:
            found[index - 1] = _split(module, module.norm(after), grid)
    return [found[index] for index in layers]


def pyramid(module: Eva, pixels: Tensor) -> list[Tensor]:
    """The patches as one feature map [(B, D, h, w)]."""
    return [features(module, pixels).as_map()]


def _embed(module: Eva, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Input of the first block, (B, R + N, D), and the rotation of patches in every block."""
    x, rope = module._pos_embed(module.patch_embed(pixels))
    return module.norm_pre(x), rope


def _through_blocks(module: Eva, x: Tensor, rope: Tensor | None) -> Iterator[Tensor]:
    """The input of the first block, and the tokens after each: (B, R + N, D)."""
    yield x
    for block in module.blocks:
        x = block(x, rope=rope)
        yield x


def attention_rows(module: Eva, pixels: Tensor, block: int, query: tuple[int, int] | None) -> Tensor:
    """Softmax rows over the patches, (B, heads, h, w), of one query token in one block, its rotation included.

    query: a patch (row, column), or None for the class token. Only that row is computed, in float32; columns of prefix
    tokens are dropped and the rest is not renormalised.
    """
    if query is None and module.cls_token is None:
        raise Unsupported("this model has no class token; ask for a patch: query=(row, column)")
    prefix, grid = module.num_prefix_tokens, _grid(module, pixels)
    row = 0 if query is None else prefix + row_major(query, grid)
    x, rope = _embed(module, pixels)
    x = next(islice(_through_blocks(module, x, rope), block, None))
    asked: Any = module.blocks[block]
    attn, x = asked.attn, asked.norm1(x)
    q, k = attn.q_norm(_heads(attn, x[:, row : row + 1], 0)), attn.k_norm(_heads(attn, x, 1))
    if rope is not None:
        k = torch.cat([k[:, :, :prefix], _turned(attn, k[:, :, prefix:], rope)], dim=2)
        q = q if query is None else _turned(attn, q, rope[..., row - prefix : row - prefix + 1, :])
    scores = (q * attn.scale).float() @ k.float().transpose(-2, -1)  # (B, heads, 1, R + N)
    rows: Tensor = scores.softmax(dim=-1)[:, :, 0, prefix:].unflatten(2, grid)
    return rows


def _heads(attn: Any, x: Tensor, part: int) -> Tensor:
    """Queries (part 0) or keys (1) of the tokens x, (B, heads, length, D / heads)."""
    if attn.qkv is None:
        projected = (attn.q_proj, attn.k_proj)[part](x)
    else:
        bias = None if attn.q_bias is None else (attn.q_bias, attn.k_bias)[part]
        projected = F.linear(x, attn.qkv.weight.chunk(3)[part], bias)
    heads: Tensor = projected.unflatten(2, (attn.num_heads, -1)).transpose(1, 2)
    return heads


def _turned(attn: Any, x: Tensor, rope: Tensor) -> Tensor:
    """Patches' queries or keys turned by their positions."""
    turned: Tensor = apply_rot_embed_cat(x, rope, half=attn.rotate_half)
    return turned.type_as(x)
