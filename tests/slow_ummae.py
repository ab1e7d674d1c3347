"""A slow transcription of UM-MAE's pyramids, which does as its authors do, under their names of tensors.

It embeds the whole image, zeroes hidden tokens, sums the four patches of every cell, and scores all pairs of tokens of
a grid. Written from the paper and its authors' description, for tests alone.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.decoders import Masks

Tensors = dict[str, Tensor]
DECODER: dict[str, Any] = {
    "kind": "ummae",
    "width": 32,
    "depth": 2,
    "heads": 4,
    "patch": 16,
    "mask_patch": 16,
    "normalised_targets": True,
    "ratio": 0.75,
    "strategy": "uniform",
    "secondary": 0.25,
}
SWIN: dict[str, Any] = {
    "family": "swin",
    "architecture": "ssl_zoo_ummae_swin_micro",
    "arguments": {"embed_dim": 8, "num_heads": [1, 2, 2, 4], "window_size": 8, "posmlp_dim": 5},
    "pooling": "avg",
}
PVT: dict[str, Any] = {
    "family": "pvt",
    "architecture": "ssl_zoo_ummae_pvt_micro",
    "arguments": {
        "embed_dims": [8, 16, 32, 64],
        "num_heads": [1, 2, 2, 4],
        "mlp_ratios": [2, 2, 2, 2],
        "sr_ratios": [8, 4, 2, 1],
    },
    "pooling": "avg",
}
PYRAMIDS = {"swin": SWIN, "pvt": PVT}


def cells(h: int, w: int) -> list[list[int]]:
    return [
        [(r + i) * w + c + j for i in (0, 1) for j in (0, 1)] for r in range(0, h, 2) for c in range(0, w, 2)
    ]


# Their names


def theirs(module: nn.Module, decoder: nn.Module | None, grid: tuple[int, int] | None = None) -> Tensors:
    """Our tensors under the authors' names: one list of blocks, 1×1 convolutions for the position MLP."""
    stages = "layers" if hasattr(module, "layers") else "stages"
    places = [
        (f"{stages}.{i}.blocks.{j}.", j)
        for i, stage in enumerate(getattr(module, stages))
        for j in range(len(stage.blocks))
    ]
    out: Tensors = {}
    for name, tensor in module.state_dict().items():
        for number, (start, first) in enumerate(places):
            if name.startswith(start):
                name = f"blocks.{number}.{name.removeprefix(start)}"
            merge = start.partition("blocks")[0] + "downsample."
            if first == 0 and name.startswith(merge):
                name = f"blocks.{number}.downsample.{name.removeprefix(merge)}"
        out[name] = tensor[:, :, None, None] if "posmlp" in name and tensor.ndim == 2 else tensor
    for name, tensor in decoder.state_dict().items() if decoder is not None else ():
        part, _, rest = name.partition(".")
        named = {"secondary_token": "vis_mask_token", "mask_token": "mask_token", "head": "decoder_pred"}
        out[".".join(filter(None, [named.get(part, f"decoder_{part}"), rest]))] = tensor
    if decoder is not None and grid is not None:
        out["decoder_pos_embed"] = positions(grid, 32)[None]
    return out


def positions(grid: tuple[int, int], width: int) -> Tensor:
    """Sine-cosine positions, (N, D), from their formula: column first, frequencies 10000^(-i / (D/4))."""
    frequencies = [10000 ** (-i / (width // 4)) for i in range(width // 4)]
    rows = [
        [turn(at * f) for at in (column, row) for turn in (math.sin, math.cos) for f in frequencies]
        for row, column in itertools.product(range(grid[0]), range(grid[1]))
    ]
    return torch.tensor(rows)


# The slow twin


def norm(t: Tensors, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], eps)


def linear(t: Tensors, name: str, x: Tensor) -> Tensor:
    return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]


def convolved(t: Tensors, name: str, x: Tensor, stride: int) -> Tensor:
    """(B, h, w, C) through a convolution as wide as its stride."""
    return F.conv2d(x.permute(0, 3, 1, 2), t[f"{name}.weight"], t[f"{name}.bias"], stride=stride).permute(
        0, 2, 3, 1
    )


def feed_forward(t: Tensors, block: str, x: Tensor, eps: float) -> Tensor:
    hidden = F.gelu(linear(t, f"{block}.mlp.fc1", norm(t, f"{block}.norm2", x, eps)))
    return x + linear(t, f"{block}.mlp.fc2", hidden)


def summed_cells(x: Tensor, side: int = 4) -> Tensor:
    """(B, H, W, C), zero but for one patch of every 2×2 -> (B, H/2, W/2, C): the four added up."""
    batch, height, width, channels = x.shape
    cut = x.reshape(batch, height // (2 * side), 2, side, width // (2 * side), 2, side, channels)
    return cut.sum(dim=(2, 5)).reshape(batch, height // 2, width // 2, channels)


def compacted(t: Tensors, x: Tensor, masked: Masks) -> Tensor:
    """Embedded tokens of the whole image: hidden ones zeroed, the secondary mask's replaced, the rest summed."""
    hidden, secondary = (
        each.repeat_interleave(4, 1).repeat_interleave(4, 2)[..., None]
        for each in (
            masked.hidden,
            torch.zeros_like(masked.hidden) if masked.secondary is None else masked.secondary,
        )
    )
    token = t["vis_mask_token"].view(1, 1, 1, -1) if "vis_mask_token" in t else torch.zeros(1)
    return summed_cells((x * ~secondary + token * secondary) * ~hidden)


def may_meet(h: int, w: int, window: int, shifted: bool) -> Tensor:
    """(N, N) bool: in one window of the shifted grid, and both or neither carried round each edge."""
    sides = [(min(side, window), window // 2 if shifted and side > window else 0) for side in (h, w)]

    def where(place: tuple[int, int]) -> tuple[Any, ...]:
        moved = [(at - shift) % side for at, (_, shift), side in zip(place, sides, (h, w), strict=True)]
        carried = [at < shift for at, (_, shift) in zip(place, sides, strict=True)]
        return (*(at // wide for at, (wide, _) in zip(moved, sides, strict=True)), *carried)

    tokens = [where(place) for place in itertools.product(range(h), range(w))]
    return torch.tensor([[one == other for other in tokens] for one in tokens])


def slow_swin(t: Tensors, arguments: dict[str, Any], image: Tensor, masked: Masks | None = None) -> Tensor:
    """(B, 3, H, W) -> (B, h, w, D) of the last stage."""
    x = norm(t, "patch_embed.norm", convolved(t, "patch_embed.proj", image.permute(0, 2, 3, 1), 4), 1e-6)
    rows, columns = torch.meshgrid(*(torch.arange(side).float() for side in x.shape[1:3]), indexing="ij")
    at = torch.stack([rows, columns], dim=-1).expand(len(x), -1, -1, -1)
    window = arguments["window_size"]
    if masked is not None:
        x, window = compacted(t, x, masked), window // 2
        at = summed_cells(at * ~masked.hidden.repeat_interleave(4, 1).repeat_interleave(4, 2)[..., None])
    for number in range(8):
        block, heads = f"blocks.{number}", arguments["num_heads"][number // 2]
        if f"{block}.downsample.proj.weight" in t:
            x = convolved(t, f"{block}.downsample.proj", norm(t, f"{block}.downsample.norm", x, 1e-6), 2)
            at = at[:, ::2, ::2] / 2
        batch, h, w, width = x.shape
        x, place = x.flatten(1, 2), at.flatten(1, 2)
        qkv = linear(t, f"{block}.attn.qkv", norm(t, f"{block}.norm1", x, 1e-5))
        q, k, v = qkv.reshape(batch, h * w, 3, heads, -1).permute(2, 0, 3, 1, 4)
        apart = place[:, None] - place[:, :, None]  # key less query
        apart = apart.sign() * (1 + apart.abs()).log()
        t2 = {
            name: each[:, :, 0, 0] if each.ndim == 4 else each for name, each in t.items() if "posmlp" in name
        }
        bias = linear(t2, f"{block}.attn.posmlp.2", linear(t2, f"{block}.attn.posmlp.0", apart).relu())
        scores = q @ k.transpose(2, 3) * (width // heads) ** -0.5 + bias.permute(0, 3, 1, 2)
        scores = scores.masked_fill(~may_meet(h, w, window, bool(number % 2)), -torch.inf)
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        x = feed_forward(t, block, x + linear(t, f"{block}.attn.proj", mixed), 1e-5).unflatten(1, (h, w))
    return norm(t, "norm", x, 1e-6)


def slow_pvt(t: Tensors, arguments: dict[str, Any], image: Tensor, masked: Masks | None = None) -> Tensor:
    """(B, 3, H, W) -> (B, h, w, D) of the last stage. The mean and the 1×1 convolution are one strided convolution."""
    x = convolved(t, "patch_embed.proj", image.permute(0, 2, 3, 1), 4)
    at = positions((x.shape[1], x.shape[2]), x.shape[3]).unflatten(0, x.shape[1:3]).expand_as(x)
    ratios = arguments["sr_ratios"]
    if masked is not None:
        x, ratios = compacted(t, x, masked), [max(1, ratio // 2) for ratio in ratios]
        at = summed_cells(at * ~masked.hidden.repeat_interleave(4, 1).repeat_interleave(4, 2)[..., None])
    x = x + at
    for number in range(8):
        block, heads, ratio = f"blocks.{number}", arguments["num_heads"][number // 2], ratios[number // 2]
        if f"{block}.downsample.proj.weight" in t:
            x = convolved(t, f"{block}.downsample.proj", x, 2)
        _, h, w, width = x.shape
        normed = norm(t, f"{block}.norm1", x, 1e-5)
        kernel = t[f"{block}.attn.sr.weight"].expand(-1, -1, ratio, ratio) / ratio**2
        reduced = F.conv2d(normed.permute(0, 3, 1, 2), kernel, t[f"{block}.attn.sr.bias"], stride=ratio)
        keys = norm(t, f"{block}.attn.norm", reduced.permute(0, 2, 3, 1).flatten(1, 2), 1e-5)
        q = linear(t, f"{block}.attn.q", normed.flatten(1, 2)).unflatten(2, (heads, -1)).transpose(1, 2)
        k, v = linear(t, f"{block}.attn.kv", keys).unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = (
            ((q @ k.transpose(2, 3) * (width // heads) ** -0.5).softmax(dim=-1) @ v)
            .transpose(1, 2)
            .flatten(2)
        )
        x = x.flatten(1, 2) + linear(t, f"{block}.attn.proj", mixed)
        x = feed_forward(t, block, x, 1e-5).unflatten(1, (h, w))
    return norm(t, "norm", x, 1e-6)


def slow_decoder(t: Tensors, tokens: Tensor, hidden: Tensor, visible_pos: str) -> list[Tensor]:
    """For every image the pixels of its hidden patches, in row-major order."""
    out = linear(t, "decoder_embed", tokens)  # (B, h/4, w/4, 4 * 32)
    (_, h, w), table = hidden.shape, positions((hidden.shape[1], hidden.shape[2]), 32)
    found = []
    for image, covered in zip(out, hidden, strict=True):
        visible = [(r, c) for r, c in itertools.product(range(h), range(w)) if not covered[r, c]]
        by_cell = {(r // 2, c // 2): r * w + c for r, c in visible}
        x = []
        for rank, (i, j) in enumerate(itertools.product(range(h // 2), range(w // 2))):
            token = torch.stack([image[i // 2, j // 2, 4 * c + 2 * (i % 2) + j % 2] for c in range(32)])
            row = visible[rank][0] * w + visible[rank][1] if visible_pos == "official" else by_cell[i, j]
            x.append(token + table[row])
        x += [t["mask_token"][0, 0] + table[i] for i in range(h * w) if covered.flatten()[i]]
        found.append(slow_blocks(t, torch.stack(x)[None])[0, len(visible) :])
    return found


def slow_blocks(t: Tensors, x: Tensor, heads: int = 4) -> Tensor:
    for block in ("decoder_blocks.0", "decoder_blocks.1"):
        qkv = linear(t, f"{block}.attn.qkv", norm(t, f"{block}.norm1", x, 1e-6))
        q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        x = feed_forward(t, block, x + linear(t, f"{block}.attn.proj", mixed), 1e-6)
    return linear(t, "decoder_pred", norm(t, "decoder_norm", x, 1e-6))


SLOW = {"swin": slow_swin, "pvt": slow_pvt}
