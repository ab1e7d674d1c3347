"""Plain vision transformers, on timm's `VisionTransformer`.

Axes: B images, N patches on the grid (h, w), R prefix tokens (class and registers), D width, P patch side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from zoo.architectures import create
from zoo.errors import Unsupported
from zoo.features import Features
from zoo.patches import grid_of, row_major, take, with_token
from zoo.resizing import keep_rule, resize_positions, rule_of


def build(architecture: str, arguments: dict[str, Any], interpolation: str = "timm") -> VisionTransformer:
    """An untrained timm ViT without a classifier that accepts every image size that is a multiple of its patch.

    interpolation: whose rule resizes positions off the native size (zoo/resizing.py); at it, none is needed.
    CardError for what timm does not know or cannot build, Unsupported for what is no plain ViT.
    """
    module = create(architecture, {"dynamic_img_size": True, **arguments}, VisionTransformer, "a plain ViT")
    keep_rule(module, interpolation)
    return module


def stride(module: VisionTransformer) -> int:
    """Side of a patch in pixels."""
    return int(module.patch_embed.patch_size[0])


def features(module: VisionTransformer, pixels: Tensor) -> Features:
    """Tokens after the final norm; pooled as timm's own head pools them."""
    sides = grid(module, pixels)  # first, for its error says more than timm's
    return _split(module, module.norm(module.blocks(embed(module, pixels))), sides)


def grid(module: VisionTransformer, pixels: Tensor) -> tuple[int, int]:
    """The patch grid (h, w) of such pixels."""
    return grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))


def _split(module: VisionTransformer, normed: Tensor, grid: tuple[int, int]) -> Features:
    """(B, R + N, D), after the final norm -> Features."""
    cls = normed[:, 0] if module.cls_token is not None else None
    pooled = module.forward_head(normed, pre_logits=True)
    return Features(pooled, cls, normed[:, module.num_prefix_tokens :], grid)


def depth(module: VisionTransformer) -> int:
    """Number of blocks."""
    return len(module.blocks)


def intermediates(module: VisionTransformer, pixels: Tensor, layers: Sequence[int]) -> list[Features]:
    """Features after each of the asked blocks (non-negative indices), each through the final norm."""
    wanted, x = set(layers), embed(module, pixels)
    found = {}
    for index, block in enumerate(module.blocks):
        x = block(x)
        if index in wanted:
            found[index] = _split(module, module.norm(x), grid(module, pixels))
    return [found[index] for index in layers]


def pyramid(module: VisionTransformer, pixels: Tensor) -> list[Tensor]:
    """The patches as one feature map [(B, D, h, w)]."""
    return [features(module, pixels).as_map()]


def embed(module: VisionTransformer, pixels: Tensor) -> Tensor:
    """Input of the first block: (B, R + N, D)."""
    return _enter(module, module.patch_embed(pixels), pixels)


def _enter(module: VisionTransformer, x: Tensor, pixels: Tensor) -> Tensor:
    """Embedded patches of such pixels, with positions and prefix tokens: (B, R + N, D)."""
    if module.pos_embed is None:
        x = module._pos_embed(x)
    else:
        of_prefix, positions = positions_for(module, pixels.shape[-2:])
        x = module.pos_drop(_with_prefix(module, of_prefix, x.flatten(1, -2) + positions))
    normed: Tensor = module.norm_pre(module.patch_drop(x))
    return normed


def with_mask_token(module: VisionTransformer, pixels: Tensor, hidden: Tensor, token: Tensor) -> Features:
    """Features where `token` (1, 1, D) takes the place of hidden patches (B, h, w) once they are embedded: SimMIM's."""
    sides, embedded = grid(module, pixels), module.patch_embed(pixels)
    x = with_token(embedded.reshape(embedded.shape[0], *sides, -1), hidden, token)
    x = module.blocks(_enter(module, x.reshape(embedded.shape), pixels))
    return _split(module, module.norm(x), sides)


def _with_prefix(module: VisionTransformer, positions: Tensor, patches: Tensor) -> Tensor:
    """Class token and registers before the patches: (B, R + N, D). positions: theirs (1, R, D), or (1, 0, D)."""
    tokens: list[Tensor] = [token for token in (module.cls_token, module.reg_token) if token is not None]
    if not tokens:
        return patches
    prefix = torch.cat(tokens, dim=1)
    prefix = prefix + positions if positions.shape[1] else prefix
    return torch.cat([prefix.expand(patches.shape[0], -1, -1), patches], dim=1)


def class_token(module: VisionTransformer, pixels: Tensor) -> Tensor:
    """The class token after all blocks and the final norm, (B, D), without the last block's work on the patches.

    Of that block's twelve D² multiplications for each patch, the keys and values it needs are two. A last block that
    is compiled is not called, and computes as if it were not.
    """
    if module.cls_token is None:
        raise Unsupported("this model has no class token; its pooled features are the mean of its patches")
    x = embed(module, pixels)
    for earlier in module.blocks[:-1]:
        x = earlier(x)
    last: Any = module.blocks[-1]
    known = type(last) is Block and type(last.attn) is Attention and getattr(last.attn, "gate", None) is None
    if not known:
        x = last(x)[:, :1]
    else:
        attended = _attended(last.attn, last.norm1(x))
        x = x[:, :1] + last.drop_path1(last.ls1(attended))
        x = x + last.drop_path2(last.ls2(last.mlp(last.norm2(x))))
    token: Tensor = module.norm(x)[:, 0]
    return token


def _attended(attn: Any, x: Tensor) -> Tensor:
    """What timm's attention (of no gate) gives for the first token alone: (B, R + N, D) -> (B, 1, D)."""
    width, heads = attn.attn_dim, (attn.num_heads, attn.head_dim)
    weight, bias = attn.qkv.weight, attn.qkv.bias
    of_query, of_both = (None, None) if bias is None else (bias[:width], bias[width:])
    q = linear(x[:, :1], weight[:width], of_query).unflatten(-1, heads).transpose(1, 2)
    k, v = linear(x, weight[width:], of_both).unflatten(-1, (2, *heads)).transpose(1, 3).unbind(2)
    dropped = attn.attn_drop.p if attn.training else 0.0
    mixed = scaled_dot_product_attention(attn.q_norm(q), attn.k_norm(k), v, dropout_p=dropped)
    attended: Tensor = attn.proj_drop(attn.proj(attn.norm(mixed.transpose(1, 2).flatten(2))))
    return attended


def attention_rows(
    module: VisionTransformer, pixels: Tensor, block: int, query: tuple[int, int] | None
) -> Tensor:
    """Softmax rows over the patches, (B, heads, h, w), of one query token in one block.

    query: a patch (row, column), or None for the class token. Only that row is computed, in float32, whatever fused
    kernel the blocks use; columns of prefix tokens are dropped and the rest is not renormalised.
    """
    if query is None and module.cls_token is None:
        raise Unsupported("this model has no class token; ask for a patch: query=(row, column)")
    x = embed(module, pixels)
    for earlier in module.blocks[:block]:
        x = earlier(x)
    asked: Any = module.blocks[block]
    attn, prefix, sides = asked.attn, module.num_prefix_tokens, grid(module, pixels)
    row = 0 if query is None else prefix + row_major(query, sides)
    batch, length, _ = x.shape
    qkv = attn.qkv(asked.norm1(x)).reshape(batch, length, 3, attn.num_heads, attn.head_dim)
    q = attn.q_norm(qkv[:, row : row + 1, 0].transpose(1, 2))  # (B, heads, 1, D/heads)
    k = attn.k_norm(qkv[:, :, 1].transpose(1, 2))  # (B, heads, R + N, D/heads)
    scores = (q * attn.scale).float() @ k.float().transpose(-2, -1)
    rows: Tensor = scores.softmax(dim=-1)[:, :, 0, prefix:].unflatten(2, sides)
    return rows


def visible_tokens(
    module: VisionTransformer,
    pixels: Tensor,
    visible: Tensor,
    blind: Tensor | None = None,
    token: Tensor | None = None,
) -> Tensor:
    """Class token and visible patches through all blocks and the final norm: (B, 1 + V, D), MAE's encoder.

    visible: (B, V) row-major indices. Positions are added before the hidden patches are dropped. blind: (B, V) bool,
    those in whose place UM-MAE puts `token` (1, 1, D), with their positions.
    """
    if module.num_prefix_tokens != 1 or module.cls_token is None:
        raise Unsupported("masked encoding needs a ViT with one class token and no registers")
    of_class_token, positions = positions_for(module, pixels.shape[-2:])
    x = take(module.patch_embed(pixels).flatten(1, -2), visible)  # (B, V, D)
    if blind is not None and token is not None:
        x = torch.where(blind[..., None], token.to(x.dtype), x)
    x = x + take(positions.expand(x.shape[0], -1, -1), visible)
    x = module.norm_pre(_with_prefix(module, of_class_token, x))
    for block in module.blocks:
        x = block(x)
    normed: Tensor = module.norm(x)
    return normed


def positions_for(module: VisionTransformer, size: torch.Size | tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Positions of the prefix tokens (1, R, D) and of the patches (1, N, D) at `size` pixels, by the module's rule.

    R = 0 where the prefix tokens have no positions.
    """
    new = grid_of(size[0], size[1], stride(module))
    stored: Any = module.pos_embed
    both = resize_positions(stored, module.patch_embed.grid_size, new, rule_of(module))
    return both[:, : -new[0] * new[1]], both[:, -new[0] * new[1] :]
