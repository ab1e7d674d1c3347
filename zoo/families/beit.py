"""Vision transformers with a bias by relative position, on timm's `Beit`: BEiT, BEiT v2, SimMIM's ViT, data2vec's.

The bias is one table that all blocks share, or one a block. Off the native grid it is resized at every call, so that a
module never changes. Axes: B images, N patches on the grid (h, w), L = 1 + N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.beit import Beit, gen_relative_position_index
from torch import Tensor

from zoo.architectures import create
from zoo.features import Features
from zoo.patches import grid_of, row_major, with_token
from zoo.resizing import keep_rule, resize_distances, resize_positions, rule_of

Grid = tuple[int, int]


def build(architecture: str, arguments: dict[str, Any], interpolation: str = "timm") -> Beit:
    """An untrained timm Beit without a classifier.

    interpolation: whose rule resizes positions off the native size (zoo/resizing.py).
    CardError for what timm does not know or cannot build, Unsupported for what is no Beit.
    """
    module = create(architecture, arguments, Beit, "a BEiT")
    keep_rule(module, interpolation)
    return module


def stride(module: Beit) -> int:
    """Side of a patch in pixels."""
    return int(module.patch_embed.patch_size[0])


def features(module: Beit, pixels: Tensor) -> Features:
    """Tokens after the final norm; pooled as timm's own head pools them.

    Where the mean of patches goes through a norm of its own (timm's `use_fc_norm`), there is no final norm: class token
    and patches are as the last block leaves them. So data2vec's are, whose authors have none.
    """
    grid = _grid(module, pixels)
    return _split(module, encode(module, embed(module, pixels), grid), grid)


def _grid(module: Beit, pixels: Tensor) -> Grid:
    return grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))


def _split(module: Beit, normed: Tensor, grid: Grid) -> Features:
    """(B, 1 + N, D), after the final norm -> Features."""
    return Features(module.forward_head(normed, pre_logits=True), normed[:, 0], normed[:, 1:], grid)


def depth(module: Beit) -> int:
    """Number of blocks."""
    return len(module.blocks)


def intermediates(module: Beit, pixels: Tensor, layers: Sequence[int]) -> list[Features]:
    """Features after each of the asked blocks (non-negative indices), each through the final norm."""
    wanted, grid, found = set(layers), _grid(module, pixels), {}
    for index, x in enumerate(_through_blocks(module, embed(module, pixels), grid)):
        if index - 1 in wanted:
            found[index - 1] = _split(module, module.norm(x), grid)
    return [found[index] for index in layers]


def pyramid(module: Beit, pixels: Tensor) -> list[Tensor]:
    """The patches as one feature map [(B, D, h, w)]."""
    return [features(module, pixels).as_map()]


def embed(module: Beit, pixels: Tensor) -> Tensor:
    """Embedded patches, before positions and blocks: (B, N, D)."""
    embedded: Tensor = module.patch_embed.norm(module.patch_embed.proj(pixels).flatten(2).transpose(1, 2))
    return embedded


def encode(module: Beit, embedded: Tensor, grid: Grid) -> Tensor:
    """Class token and patches (B, 1 + N, D) through positions, all blocks and the final norm.

    embedded: (B, N, D) on the grid (h, w), from `embed`, with mask tokens in the holes for masked-image models.
    """
    normed: Tensor = module.norm(_after(module, embedded, grid, depth(module)))
    return normed


def with_mask_token(module: Beit, pixels: Tensor, hidden: Tensor, token: Tensor) -> Features:
    """Features where `token` (1, 1, D) takes the place of hidden patches (B, h, w) once they are embedded: SimMIM's."""
    grid = _grid(module, pixels)
    embedded = with_token(embed(module, pixels).unflatten(1, grid), hidden, token).flatten(1, 2)
    return _split(module, encode(module, embedded, grid), grid)


def attention_rows(module: Beit, pixels: Tensor, block: int, query: tuple[int, int] | None) -> Tensor:
    """Softmax rows over the patches, (B, heads, h, w), of one query token in one block, its bias included.

    query: a patch (row, column), or None for the class token. Only that row is computed, in float32; the class token's
    column is dropped and the rest is not renormalised.
    """
    grid = _grid(module, pixels)
    row = 0 if query is None else 1 + row_major(query, grid)
    x = _after(module, embed(module, pixels), grid, block)
    asked: Any = module.blocks[block]
    attn, x = asked.attn, asked.norm1(x)
    q, k = _heads(attn, x[:, row : row + 1], 0), _heads(attn, x, 1)
    scores = (q * attn.scale).float() @ k.float().transpose(-2, -1)  # (B, heads, 1, L)
    bias = _bias(module, asked, grid)
    if bias is not None:
        scores = scores + bias[:, row : row + 1].float()
    rows: Tensor = scores.softmax(dim=-1)[:, :, 0, 1:].unflatten(2, grid)
    return rows


def _after(module: Beit, embedded: Tensor, grid: Grid, count: int) -> Tensor:
    """The tokens after the first `count` blocks, (B, L, D)."""
    return next(islice(_through_blocks(module, embedded, grid), count, None))


def _through_blocks(module: Beit, embedded: Tensor, grid: Grid) -> Iterator[Tensor]:
    """The input of the first block, and the tokens after each: (B, L, D)."""
    x = torch.cat([module.cls_token.expand(embedded.shape[0], -1, -1), embedded], dim=1)
    if module.pos_embed is not None:
        x = x + resize_positions(module.pos_embed, module.patch_embed.grid_size, grid, rule_of(module))
    x = module.pos_drop(x)
    yield x
    shared = _bias_of(module, module.rel_pos_bias, grid)
    for block in module.blocks:
        own = block.get_submodule("attn").relative_position_bias_table is not None
        if grid == module.patch_embed.grid_size or not own:
            x = block(x, shared_rel_pos_bias=shared)
        else:
            x = _block_elsewhere(block, x, _bias(module, block, grid))
        yield x


def _bias(module: Beit, block: Any, grid: Grid) -> Tensor | None:
    """What a block adds to its scores, (heads, L, L): the shared bias and its own."""
    both = (_bias_of(module, module.rel_pos_bias, grid), _bias_of(module, block.attn, grid))
    there = [bias for bias in both if bias is not None]
    return sum(there[1:], there[0]) if there else None


def _bias_of(module: Beit, holder: Any, grid: Grid) -> Tensor | None:
    """The bias (heads, L, L) of the table that `holder` has, on any grid; None without one."""
    table = getattr(holder, "relative_position_bias_table", None)
    if table is None:
        return None
    index = holder.relative_position_index
    if grid != tuple(holder.window_size):
        table = resize_distances(table, tuple(holder.window_size), grid, rule_of(module))
        index = gen_relative_position_index(grid, device=table.device)
    bias: Tensor = table[index].permute(2, 0, 1).contiguous()
    return bias


def _block_elsewhere(block: Any, x: Tensor, bias: Tensor | None) -> Tensor:
    """timm's block, with another bias than that of the window it was built for."""
    attn, normed = block.attn, block.norm1(x)
    q, k, v = (_heads(attn, normed, part) for part in range(3))
    seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    seen = attn.proj(seen.transpose(1, 2).flatten(2))
    x = x + block.drop_path1(seen if block.gamma_1 is None else block.gamma_1 * seen)
    mixed = block.mlp(block.norm2(x))
    after: Tensor = x + block.drop_path2(mixed if block.gamma_2 is None else block.gamma_2 * mixed)
    return after


def _heads(attn: Any, x: Tensor, part: int) -> Tensor:
    """Queries (part 0), keys (1) or values (2) of the tokens x, (B, heads, length, D / heads)."""
    bias = None if attn.q_bias is None else (attn.q_bias, attn.k_bias, attn.v_bias)[part]
    projected = F.linear(x, attn.qkv.weight.chunk(3)[part], bias)
    heads: Tensor = projected.unflatten(2, (attn.num_heads, -1)).transpose(1, 2)
    return heads
