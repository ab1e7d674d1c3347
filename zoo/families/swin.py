"""Swin transformers, timm's and UM-MAE's: attention inside windows that shift from block to block.

Axes: B images, (h, w) the grid of a block (or of the last stage, whose N positions are the patches), D its width,
W windows of S slots each. A grid that windows do not divide is padded with zeros, which timm's blocks attend to and
UM-MAE's do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from timm.models.swin_transformer import SwinTransformer, window_partition
from torch import Tensor

from zoo.architectures import create
from zoo.architectures.position_windows import PositionBlock, padded
from zoo.architectures.ummae_swin import UMMAESwin
from zoo.errors import Unsupported
from zoo.features import Features
from zoo.patches import grid_of, row_major, with_token

Swin = SwinTransformer | UMMAESwin


def build(architecture: str, arguments: dict[str, Any], interpolation: str = "timm") -> Swin:
    """An untrained Swin without a classifier that takes every image size that is a multiple of its stride.

    Its positions are relative, so that `interpolation` says nothing. CardError for what timm does not know or cannot
    build, Unsupported for what is no Swin.
    """
    return create(
        architecture, {"strict_img_size": False, **arguments}, (SwinTransformer, UMMAESwin), "a Swin"
    )  # type: ignore[return-value]


def stride(module: Swin) -> int:
    """Pixels between neighbouring positions of the last stage: 32."""
    return int(module.feature_info[-1]["reduction"])


def features(module: Swin, pixels: Tensor) -> Features:
    """Positions of the last stage after the final norm; pooled as timm's own head pools them: their mean."""
    grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))
    return _split(module, module.forward_features(pixels))


def with_mask_token(module: Swin, pixels: Tensor, hidden: Tensor, token: Tensor) -> Features:
    """Features where `token` (1, 1, C) takes the place of hidden patches (B, h, w) once they are embedded: SimMIM's."""
    grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))
    x = with_token(module.patch_embed(pixels), hidden, token)
    for stage in stages(module):
        x = stage(x)
    return _split(module, module.norm(x))


def _split(module: Swin, normed: Tensor) -> Features:
    """(B, h, w, D) of the last stage, after the final norm -> Features."""
    return Features(module.forward_head(normed, pre_logits=True), None, normed.flatten(1, 2), _sides(normed))


def _sides(positions: Tensor) -> tuple[int, int]:
    """The grid (h, w) of (B, h, w, D)."""
    return positions.shape[1], positions.shape[2]


def depth(module: Swin) -> int:
    """Number of blocks, of all stages."""
    return sum(len(stage.blocks) for stage in stages(module))


def stages(module: Swin) -> list[Any]:
    """The stages, each with its `blocks` and the `downsample` before them."""
    return list(module.layers)


def intermediates(module: Swin, pixels: Tensor, layers: Sequence[int]) -> list[Features]:
    """Features after each of the asked blocks on the block's own grid, those of the last stage through the final norm.

    Pooled is the mean of the positions.
    """
    after = _through(module, _after_each(module, pixels))
    wanted = {index: x for index, x in enumerate(after) if index in set(layers)}
    return [Features(x.mean((1, 2)), None, x.flatten(1, 2), _sides(x)) for x in (wanted[i] for i in layers)]


def pyramid(module: Swin, pixels: Tensor) -> list[Tensor]:
    """The outputs of the four stages [(B, C_i, h_i, w_i)], finest first, the last through the final norm."""
    last = list(itertools.accumulate(len(stage.blocks) for stage in stages(module)))
    after = enumerate(_through(module, _after_each(module, pixels)), start=1)
    return [x.permute(0, 3, 1, 2) for count, x in after if count in last]


def _after_each(module: Swin, pixels: Tensor) -> Iterator[Tensor]:
    """(B, h, w, D) after each block, from the first on."""
    grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))
    x = module.patch_embed(pixels)
    for stage in stages(module):
        x = stage.downsample(x)
        for block in stage.blocks:
            x = block(x)
            yield x


def _through(module: Swin, states: Iterator[Tensor]) -> Iterator[Tensor]:
    """The states, those as wide as the final norm through it."""
    return (module.norm(x) if x.shape[-1] == module.num_features else x for x in states)


def attention_rows(module: Swin, pixels: Tensor, block: int, query: tuple[int, int] | None) -> Tensor:
    """Softmax rows (B, heads, h, w) of one query in one block, on that block's grid: 0 outside the query's window.

    Only that row is computed, in float32, with the block's relative positions and its shift mask. What the query gives
    to padding, where windows do not divide the grid, is dropped and the rest is not renormalised.
    """
    if query is None:
        raise Unsupported(
            "a Swin has no class token; ask for a position of the block's grid: query=(row, column)"
        )
    asked, x = _before(module, pixels, block)
    batch, sides = x.shape[0], _sides(x)
    slots, apart, bias = windows(asked, sides)
    window, slot = (slots == row_major(query, sides)).nonzero()[0].tolist()
    held, real = slots[window].clamp(min=0), slots[window] >= 0  # (S,)
    inside = asked.norm1(x).flatten(1, 2)[:, held] * real[:, None]  # (B, S, D)
    attn = asked.attn
    qkv = attn.qkv(inside).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = qkv[0, :, :, slot : slot + 1], qkv[1]  # (B, heads, 1 or S, D/heads)
    scores = (q * attn.scale).float() @ k.float().transpose(-2, -1) + bias[:, slot : slot + 1].float()
    barred = apart[window, slot]  # (S,)
    row = scores[:, :, 0].masked_fill(barred, -torch.inf).softmax(dim=-1)[..., real]
    rows: Tensor = torch.zeros(batch, attn.num_heads, sides[0] * sides[1], device=row.device)
    rows[..., held[real]] = row
    return rows.reshape(batch, -1, *sides)


def _before(module: Swin, pixels: Tensor, block: int) -> tuple[Any, Tensor]:
    """A block, numbered through all stages, and its input (B, h, w, D)."""
    x, index = module.patch_embed(pixels), 0
    for stage in stages(module):
        x = stage.downsample(x)
        for each in stage.blocks:
            if index == block:
                return each, x
            x, index = each(x), index + 1
    raise Unsupported(f"there are blocks 0 to {index - 1}, no block {block}")


class Windows(NamedTuple):
    """Who may look at whom in one block."""

    slots: Tensor  # (W, S): row-major indices of the positions in each window, -1 where it is padding
    apart: (
        Tensor  # (W, S, S) bool: True where the shift brought far regions into one window, which stay apart
    )
    bias: Tensor  # (heads, S, S), of relative positions


def window_and_shift(block: Any, sides: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of a block's windows on a grid (h, w), and how far they are shifted."""
    if isinstance(block, PositionBlock):
        return block.window_and_shift(sides)
    return block.window_size, block.shift_size


def windows(block: Any, sides: tuple[int, int]) -> Windows:
    """The windows of a block on a grid (h, w), as the block itself shifts, pads and cuts it."""
    (height, width), (window, shift) = sides, window_and_shift(block, sides)
    index = torch.arange(height * width, device=block.norm1.weight.device).reshape(1, height, width, 1)
    shifted = padded(index.roll([-each for each in shift], dims=(1, 2)), window, -1)
    slots = window_partition(shifted, window).flatten(1)
    if isinstance(block, PositionBlock):
        return Windows(slots, block.apart(sides, device=slots.device), block.relative_bias(window))
    mask = block.get_attn_mask(shifted.float())
    apart = torch.zeros(*slots.shape, slots.shape[1], dtype=torch.bool, device=slots.device)
    return Windows(slots, apart if mask is None else mask != 0, block.attn._get_rel_pos_bias()[0])
