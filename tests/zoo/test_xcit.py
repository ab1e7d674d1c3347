"""XCiT: class attention against a slow transcription of its formula, and every output against timm's own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.xcit import Xcit
from torch import Tensor

from zoo.cards import ModelCard
from zoo.errors import SizeError, Unsupported
from zoo.families import family, xcit
from zoo.loading import build
from zoo.published import read_published
from zoo.weights import load_into

Draw = Callable[..., None]
Note = Callable[[str, str, float], None]
SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}
ARCHITECTURES = {"xcit_nano_12_p16_224": 16, "xcit_nano_12_p8_224": 8}


def pixels(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def small(architecture: str, randomise: Draw) -> Xcit:
    module = xcit.build(architecture, dict(SMALL)).eval()
    randomise(module)
    return module


def softmax_of_class_token(attn: Any, tokens: Tensor) -> Tensor:
    """exp(q·k / √d) over its sum, for the class token's query and each token's key, one by one: (B, heads, L)."""
    heads, width = attn.num_heads, tokens.shape[2] // attn.num_heads
    rows = torch.zeros(len(tokens), heads, tokens.shape[1])
    for image in range(len(tokens)):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            q = attn.q.weight[part] @ tokens[image, 0] + attn.q.bias[part]
            scores = torch.stack(
                [
                    q @ (attn.k.weight[part] @ token + attn.k.bias[part]) / width**0.5
                    for token in tokens[image]
                ]
            )
            rows[image, head] = scores.exp() / scores.exp().sum()
    return rows


@torch.no_grad()
@pytest.mark.parametrize(("h", "w"), [(4, 4), (3, 5)])
@pytest.mark.parametrize(("architecture", "patch"), ARCHITECTURES.items())
def test_class_attention_equals_its_formula(
    architecture: str, patch: int, h: int, w: int, randomise: Draw
) -> None:
    module, x = small(architecture, randomise), pixels(h * patch, w * patch)
    inputs: list[Tensor] = []
    for block in module.cls_attn_blocks:
        block.attn.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    module.forward_features(x)
    for index, tokens in enumerate(list(inputs)):
        expected = softmax_of_class_token(module.cls_attn_blocks[index].attn, tokens)
        assert expected.std() > 0.02
        rows = xcit.attention_rows(module, x, 2 + index, None)
        assert rows.shape == (2, 3, h, w)
        torch.testing.assert_close(rows.flatten(2), expected[:, :, 1:], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("architecture", "patch"), ARCHITECTURES.items())
def test_outputs_equal_timms(architecture: str, patch: int, randomise: Draw) -> None:
    module, x = small(architecture, randomise), pixels(3 * patch, 5 * patch)
    tokens, found = module.forward_features(x), xcit.features(module, x)
    assert (xcit.stride(module), xcit.depth(module)) == (patch, 4) and found.grid == (3, 5)
    assert found.cls is not None
    assert torch.equal(found.cls, tokens[:, 0]) and torch.equal(found.patches, tokens[:, 1:])
    assert torch.equal(found.pooled, module(x))
    last, first, second, third = xcit.intermediates(module, x, [3, 0, 1, 2])
    torch.testing.assert_close(last.patches, found.patches)
    torch.testing.assert_close(last.pooled, found.pooled)
    after = module.forward_intermediates(x, norm=True, output_fmt="NLC", intermediates_only=True)
    for each, expected in zip((first, second), after, strict=True):
        assert each.cls is None
        torch.testing.assert_close(each.patches, expected)
        torch.testing.assert_close(each.pooled, expected.mean(dim=1))
    assert third.cls is not None and not torch.allclose(third.cls, last.cls, atol=1e-2)
    assert torch.equal(xcit.pyramid(module, x)[0], found.as_map())


def fourier(h: int, w: int) -> Tensor:
    """Sines and cosines of 2π·row/h and 2π·column/w at 32 frequencies each: (64, h, w)."""
    out = torch.zeros(64, h, w)
    for half, (count, axis) in enumerate(((h, 0), (w, 1))):
        for channel in range(32):
            for place in range(count):
                angle = 2 * math.pi * (place + 1) / (count + 1e-6) / 10000 ** (2 * (channel // 2) / 32)
                at = (half * 32 + channel, place) if axis == 0 else (half * 32 + channel, slice(None), place)
                out[at] = math.cos(angle) if channel % 2 else math.sin(angle)
    return out


def original(tensors: dict[str, Tensor], x: Tensor, depth: int, heads: int) -> Tensor:
    """The network of the paper (2106.09681), from tensors with the names in its authors' files: (B, 1 + N, D)."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-6)

    def batch_norm(x: Tensor, name: str) -> Tensor:
        parts = (tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    def mlp(x: Tensor, name: str) -> Tensor:
        return linear(F.gelu(linear(x, f"{name}.fc1")), f"{name}.fc2")

    for step in (0, 2, 4, 6):  # strided convolutions with GELUs between
        x = F.conv2d(
            F.gelu(x) if step else x, tensors[f"patch_embed.proj.{step}.0.weight"], stride=2, padding=1
        )
        x = batch_norm(x, f"patch_embed.proj.{step}.1")
    (batch, width, h, w), tokens = x.shape, x.flatten(2).transpose(1, 2)
    where = linear(fourier(h, w).permute(1, 2, 0), "pos_embeder.token_projection")
    x = tokens + where.flatten(0, 1)
    for i in range(depth):
        at = f"blocks.{i}"
        q, k, v = linear(norm(x, f"{at}.norm1"), f"{at}.attn.qkv").unflatten(2, (3, heads, -1)).unbind(2)
        q, k = q / q.norm(dim=1, keepdim=True), k / k.norm(dim=1, keepdim=True)  # over the patches
        scores = torch.einsum("bnhc,bnhd->bhcd", q, k) * tensors[f"{at}.attn.temperature"]
        mixed = torch.einsum("bhcd,bnhd->bnhc", scores.softmax(dim=-1), v).flatten(2)
        x = x + tensors[f"{at}.gamma1"] * linear(mixed, f"{at}.attn.proj")
        grid = norm(x, f"{at}.norm3").transpose(1, 2).unflatten(2, (h, w))
        for conv in ("conv1", "conv2"):
            weight, bias = tensors[f"{at}.local_mp.{conv}.weight"], tensors[f"{at}.local_mp.{conv}.bias"]
            grid = F.conv2d(grid, weight, bias, padding=1, groups=width)
            grid = batch_norm(F.gelu(grid), f"{at}.local_mp.bn") if conv == "conv1" else grid
        x = x + tensors[f"{at}.gamma3"] * grid.flatten(2).transpose(1, 2)
        x = x + tensors[f"{at}.gamma2"] * mlp(norm(x, f"{at}.norm2"), f"{at}.mlp")
    x = torch.cat([tensors["cls_token"].expand(batch, -1, -1), x], dim=1)
    for i in range(2):
        at = f"cls_attn_blocks.{i}"
        normed = norm(x, f"{at}.norm1")
        q, k, v = linear(normed, f"{at}.attn.qkv").unflatten(2, (3, heads, -1)).unbind(2)
        scores = torch.einsum("bhc,bnhc->bhn", q[:, 0], k) / (width // heads) ** 0.5
        seen = torch.einsum("bhn,bnhc->bhc", scores.softmax(dim=-1), v).flatten(1)
        attended = torch.cat([linear(seen, f"{at}.attn.proj")[:, None], normed[:, 1:]], dim=1)
        x = norm(x + tensors[f"{at}.gamma1"] * attended, f"{at}.norm2")
        cls = tensors[f"{at}.gamma2"] * mlp(x[:, :1], f"{at}.mlp")
        x = x + torch.cat([cls, x[:, 1:]], dim=1)
    return norm(x, "norm")


@torch.no_grad()
@pytest.mark.parametrize(("h", "w"), [(4, 4), (3, 5)])
def test_its_authors_files_give_what_the_paper_says(
    h: int, w: int, tmp_path: Path, card_of: Callable[..., ModelCard], randomise: Draw, parity: Note
) -> None:
    module = small("xcit_small_12_p16_224", randomise)
    tensors = {name.replace("pos_embed.", "pos_embeder."): t for name, t in module.state_dict().items()}
    projection = "pos_embeder.token_projection.weight"
    for i, part in itertools.product(range(2), ("weight", "bias")):
        halves = [tensors.pop(f"cls_attn_blocks.{i}.attn.{letter}.{part}") for letter in "qkv"]
        tensors[f"cls_attn_blocks.{i}.attn.qkv.{part}"] = torch.cat(halves)
    torch.save({"model": tensors}, tmp_path / "xcit.pth")
    card = card_of("xcit", "xcit_small_12_p16_224", arguments=SMALL)
    published = read_published(tmp_path / "xcit.pth", card)
    again, _ = build(card)
    load_into(again.eval(), published.encoder, where="file")
    found = family("xcit").features(again, pixels(16 * h, 16 * w))

    expected = original({**tensors, projection: tensors[projection].flatten(1)}, pixels(16 * h, 16 * w), 2, 3)
    assert found.cls is not None and 0.1 < expected.abs().mean() < 10
    both = torch.cat([found.cls[:, None], found.patches], dim=1)
    parity(published.layout, f"the paper's formulas, {16 * h}×{16 * w}", float((both - expected).abs().max()))
    torch.testing.assert_close(both, expected, atol=1e-5, rtol=1e-5)


def test_what_is_not_there_says_what_is() -> None:
    with torch.device("meta"):
        module, x = xcit.build("xcit_small_12_p16_224", {}), torch.empty(1, 3, 64, 64)
        with pytest.raises(Unsupported, match=r"blocks are 12 to 13 \(or -2 to -1\), with query='cls'"):
            xcit.attention_rows(module, x, 11, None)
        with pytest.raises(Unsupported, match="ask for the class token: query='cls'"):
            xcit.attention_rows(module, x, 13, (0, 0))
        with pytest.raises(SizeError, match="nearest size that is: 64×96"):
            xcit.features(module, torch.empty(1, 3, 64, 100))
        with pytest.raises(Unsupported, match="Cait, not an XCiT"):
            xcit.build("cait_xxs24_224", {})
