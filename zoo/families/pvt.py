"""Pyramid vision transformers, PVT's and UM-MAE's, on the zoo's own `PVT`: queries look at a reduced grid of keys.

Axes: B images, (h, w) the grid of a block (or of the last stage, whose N positions are the patches), T tokens (N, and
one more with the class token, which only PVT's last stage has), D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from zoo.architectures import create
from zoo.architectures.pvt import PVT
from zoo.errors import Unsupported
from zoo.features import Features
from zoo.patches import grid_of, row_major, with_token


def build(architecture: str, arguments: dict[str, Any], interpolation: str = "timm") -> PVT:
    """An untrained PVT without a classifier.

    Learned positions are always resized bilinearly, as its authors resize them, so that `interpolation` says nothing.
    CardError for what timm does not know or cannot build, Unsupported for what is no PVT.
    """
    return create(architecture, arguments, PVT, "a PVT")


def stride(module: PVT) -> int:
    """Pixels between neighbouring positions of the last stage: 32."""
    return int(module.feature_info[-1]["reduction"])


def features(module: PVT, pixels: Tensor) -> Features:
    """Positions of the last stage after the final norm; pooled as timm's heads pool."""
    sides = grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))
    return _split(module, module.forward_features(pixels), sides)


def _split(module: PVT, tokens: Tensor, sides: tuple[int, int]) -> Features:
    """(B, T, D) of the last stage -> Features."""
    prefix = tokens.shape[1] - sides[0] * sides[1]
    cls = tokens[:, 0] if prefix else None
    return Features(module.forward_head(tokens, pre_logits=True), cls, tokens[:, prefix:], sides)


def with_mask_token(module: PVT, pixels: Tensor, hidden: Tensor, token: Tensor) -> Features:
    """Features where `token` (1, 1, C) takes the place of hidden patches (B, h, w) once they are embedded: SimMIM's."""
    sides = grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))
    x = with_token(module.patch_embed(pixels), hidden, token)
    return _split(module, module.through_stages(module.before_stages(x)), sides)


def depth(module: PVT) -> int:
    """Number of blocks, of all stages."""
    return sum(len(stage.blocks) for stage in _stages(module))


def _stages(module: PVT) -> list[Any]:
    return list(module.stages)


def intermediates(module: PVT, pixels: Tensor, layers: Sequence[int]) -> list[Features]:
    """Features after each of the asked blocks on the block's own grid, those of the last stage through the final norm.

    Before the last stage there is no class token, and pooled is the mean of the positions.
    """
    wanted, found = set(layers), {}
    for index, (stage, tokens, sides) in enumerate(_after_each(module, pixels)):
        if index not in wanted:
            continue
        if stage == len(module.stages) - 1:
            found[index] = _split(module, module.norm(tokens), sides)
        else:
            found[index] = Features(tokens.mean(dim=1), None, tokens, sides)
    return [found[index] for index in layers]


def pyramid(module: PVT, pixels: Tensor) -> list[Tensor]:
    """The outputs of the four stages [(B, C_i, h_i, w_i)], finest first, the last through the final norm."""
    last = {stage: (tokens, sides) for stage, tokens, sides in _after_each(module, pixels)}
    tokens, sides = last.pop(len(module.stages) - 1)
    maps = [each.transpose(1, 2).unflatten(2, grid) for each, grid in last.values()]
    return [*maps, _split(module, module.norm(tokens), sides).as_map()]


def _after_each(module: PVT, pixels: Tensor) -> Iterator[tuple[int, Tensor, tuple[int, int]]]:
    """(stage, tokens (B, T, C), grid) after each block, from the first on."""
    grid_of(pixels.shape[-2], pixels.shape[-1], stride(module))
    x = module.before_stages(module.patch_embed(pixels))
    for index, stage in enumerate(_stages(module)):
        tokens, sides = module.enter(index, x)
        for block in stage.blocks:
            tokens = block(tokens, sides)
            yield index, tokens, sides
        if index < len(module.stages) - 1:
            x = tokens.unflatten(1, sides)


def _before(module: PVT, pixels: Tensor, block: int) -> tuple[Any, Tensor, tuple[int, int]]:
    """A block, numbered through all stages, its input (B, T, C) and grid."""
    x, number = module.before_stages(module.patch_embed(pixels)), 0
    for index, stage in enumerate(_stages(module)):
        tokens, sides = module.enter(index, x)
        for each in stage.blocks:
            if number == block:
                return each, tokens, sides
            tokens, number = each(tokens, sides), number + 1
        if index < len(module.stages) - 1:
            x = tokens.unflatten(1, sides)
    raise Unsupported(f"there are blocks 0 to {number - 1}, no block {block}")


def attention_rows(module: PVT, pixels: Tensor, block: int, query: tuple[int, int] | None) -> Tensor:
    """Softmax rows (B, heads, h, w) of one query in one block, over the grid that its keys are reduced to.

    query: a position (row, column) of the block's own grid, or None for the class token, which PVT's last stage has.
    Only that row is computed, in float32; a class token's column is dropped and the rest is not renormalised.
    """
    asked, tokens, sides = _before(module, pixels, block)
    prefix = tokens.shape[1] - sides[0] * sides[1]
    if query is None and not prefix:
        first = depth(module) - len(_stages(module)[-1].blocks)
        where = (
            "this PVT has no class token"
            if module.cls_token is None
            else f"the class token enters at block {first}"
        )
        raise Unsupported(f"{where}; ask for a position of the block's grid: query=(row, column)")
    row = 0 if query is None else prefix + row_major(query, sides)
    attn, normed = asked.attn, asked.norm1(tokens)
    q = attn.split(attn.q(normed[:, row : row + 1]))  # (B, heads, 1, C / heads)
    k = attn.split(attn.kv(attn.keys(normed, sides)).chunk(2, dim=-1)[0])
    scores = (q * attn.scale).float() @ k.float().transpose(-2, -1)
    reduced = sides if prefix else tuple(side // attn.reduction for side in sides)
    rows: Tensor = scores.softmax(dim=-1)[:, :, 0, prefix:].unflatten(2, reduced)
    return rows
