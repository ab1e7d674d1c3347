"""DINOv3's ViT: rotary positions, registers and attention, against timm's unfused blocks and transformers' DINOv3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from timm.models.eva import Eva
from torch import Tensor

from zoo.errors import Unsupported
from zoo.families import eva

Draw = Callable[..., None]
SMALL = {"depth": 3, "embed_dim": 48, "num_heads": 3, "global_pool": "token"}
SIZES = [(64, 64), (48, 96)]


def pixels(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def small(randomise: Draw, architecture: str = "vit_small_patch16_dinov3_qkvb", **arguments: Any) -> Eva:
    module = eva.build(architecture, {**SMALL, **arguments}).eval()
    rope = {name: tensor.clone() for name, tensor in module.named_buffers()}
    randomise(module)
    for name, tensor in module.named_buffers():
        tensor.copy_(rope[name])  # the rotation's periods and the keys' bias of zero
    return module


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_tokens_and_attention_equal_those_of_transformers(size: tuple[int, int], randomise: Draw) -> None:
    """Through transformers' own names, without the layouts."""
    module, x = small(randomise), pixels(*size)
    config = transformers.DINOv3ViTConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=192,
        num_register_tokens=4,
        attn_implementation="eager",
    )
    theirs = transformers.DINOv3ViTModel(config).eval()
    tensors = {
        "embeddings.cls_token": module.cls_token,
        "embeddings.register_tokens": module.reg_token,
        "embeddings.mask_token": torch.zeros(1, 1, 48),
        "embeddings.patch_embeddings.weight": module.patch_embed.proj.weight,
        "embeddings.patch_embeddings.bias": module.patch_embed.proj.bias,
        "norm.weight": module.norm.weight,
        "norm.bias": module.norm.bias,
    }
    for i, block in enumerate(module.blocks):
        at = f"model.layer.{i}" if any("model.layer" in key for key in theirs.state_dict()) else f"layer.{i}"
        q, k, v = block.attn.qkv.weight.chunk(3)
        tensors |= {
            f"{at}.norm1.weight": block.norm1.weight,
            f"{at}.norm1.bias": block.norm1.bias,
            f"{at}.norm2.weight": block.norm2.weight,
            f"{at}.norm2.bias": block.norm2.bias,
            f"{at}.attention.q_proj.weight": q,
            f"{at}.attention.q_proj.bias": block.attn.q_bias,
            f"{at}.attention.k_proj.weight": k,
            f"{at}.attention.v_proj.weight": v,
            f"{at}.attention.v_proj.bias": block.attn.v_bias,
            f"{at}.attention.o_proj.weight": block.attn.proj.weight,
            f"{at}.attention.o_proj.bias": block.attn.proj.bias,
            f"{at}.layer_scale1.lambda1": block.gamma_1,
            f"{at}.layer_scale2.lambda1": block.gamma_2,
            f"{at}.mlp.up_proj.weight": block.mlp.fc1.weight,
            f"{at}.mlp.up_proj.bias": block.mlp.fc1.bias,
            f"{at}.mlp.down_proj.weight": block.mlp.fc2.weight,
            f"{at}.mlp.down_proj.bias": block.mlp.fc2.bias,
        }
    theirs.load_state_dict(tensors)
    expected = theirs(x, output_attentions=True)
    found = eva.features(module, x)
    assert found.grid == (size[0] // 16, size[1] // 16) and found.cls is not None
    torch.testing.assert_close(found.cls, expected.last_hidden_state[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.patches, expected.last_hidden_state[:, 5:], atol=1e-5, rtol=1e-5)
    assert torch.equal(found.pooled, found.cls) and torch.equal(found.pooled, module(x))
    for block, rows in enumerate(expected.attentions):
        cls = eva.attention_rows(module, x, block, None).flatten(2)
        torch.testing.assert_close(cls, rows[:, :, 0, 5:], atol=1e-5, rtol=0)
        patch = eva.attention_rows(module, x, block, (1, 2)).flatten(2)
        torch.testing.assert_close(patch, rows[:, :, 5 + found.grid[1] + 2, 5:], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("vit_small_patch16_dinov3", {"init_values": 0.7}),
        (
            "eva02_base_patch14_224",
            {"img_size": 56},
        ),  # queries, keys and values apart; absolute positions too
    ],
)
def test_rows_and_intermediates_of_other_evas(
    architecture: str, arguments: dict[str, Any], randomise: Draw
) -> None:
    """Against the softmax that an unfused block hands to its dropout."""
    module = small(randomise, architecture, **arguments)
    patch, seen = eva.stride(module), list[Tensor]()
    x = pixels(3 * patch, 5 * patch)
    after = module.forward_intermediates(x, norm=True, output_fmt="NLC", intermediates_only=True)
    for layer, each in zip([2, 0], eva.intermediates(module, x, [2, 0]), strict=True):
        torch.testing.assert_close(each.patches, after[layer], atol=1e-5, rtol=1e-5)
    for block in module.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module.forward_features(x)
    prefix = module.num_prefix_tokens
    assert len(seen) == 3
    for index, expected in enumerate(list(seen)):
        cls = eva.attention_rows(module, x, index, None).flatten(2)
        torch.testing.assert_close(cls, expected[:, :, 0, prefix:], atol=1e-5, rtol=0)
        row = eva.attention_rows(module, x, index, (2, 4)).flatten(2)
        torch.testing.assert_close(row, expected[:, :, prefix + 14, prefix:], atol=1e-5, rtol=0)


def test_other_blocks_are_refused() -> None:
    with torch.device("meta"):
        with pytest.raises(Unsupported, match="EvaBlock with AttentionRope; the family eva reads"):
            eva.build("vit_pe_core_base_patch16_224", {"depth": 1})
        with pytest.raises(Unsupported, match="VisionTransformer, not a ViT with rotary positions"):
            eva.build("vit_tiny_patch16_224", {})
        module = eva.build(
            "vit_base_patch16_dinov3_qkvb", {"depth": 2, "class_token": False, "global_pool": "avg"}
        )
        assert eva.depth(module) == 2
        with pytest.raises(Unsupported, match="no class token; ask for a patch"):
            eva.attention_rows(module, torch.empty(1, 3, 64, 64), 0, None)
