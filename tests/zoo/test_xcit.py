"""XCiT: class attention against a slow transcription of its formula, and every output against timm's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.xcit import Xcit
from torch import Tensor

from zoo.errors import SizeError, Unsupported
from zoo.families import xcit

Draw = Callable[..., None]
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
