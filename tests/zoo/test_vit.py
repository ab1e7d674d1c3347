"""The ViT family against transformers' ViT and MAE with the same weights, and against timm's own paths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import ViTConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTModel

from zoo.decoders.mae import MAEDecoder
from zoo.errors import CardError, Unsupported
from zoo.families import vit
from zoo.features import Features
from zoo.masking import draw_mask, visible_indices
from zoo.patches import hidden_error, normalise_patches, patchify
from zoo.positions import sincos_positions

SMALL = {"img_size": 64, "depth": 4, "embed_dim": 48, "num_heads": 3}
KINDS: list[dict[str, Any]] = [
    {"qk_norm": True},
    {"reg_tokens": 3},
    {"pre_norm": True, "init_values": 0.1},
    {"qkv_bias": False},
]
SHAPE = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 192}


@torch.no_grad()
def lively(module: nn.Module, seed: int = 0) -> Any:
    """Every weight at random, biases and norms too: a fresh ViT looks nearly everywhere alike and forgives much."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        scale = parameter.flatten(1).shape[1] ** -0.5 if parameter.ndim > 1 else 0.2
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.copy_(centre + 1.5 * scale * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def small(**arguments: Any) -> VisionTransformer:
    module: VisionTransformer = lively(vit.build("vit_tiny_patch16_224", {**SMALL, **arguments}))
    return module


def photos(height: int = 64, width: int = 64, count: int = 2) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(7))


# The same weights in transformers' layout


def blocks_of(blocks: nn.ModuleList, prefix: str) -> dict[str, Tensor]:
    """timm's blocks under transformers' names."""
    renamed = {}
    names = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.o_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    for i, block in enumerate(blocks):
        for part in ("weight", "bias"):
            for ours, theirs in names.items():
                renamed[f"{prefix}.{i}.{theirs}.{part}"] = block.get_parameter(f"{ours}.{part}")
            for letter, rows in zip("qkv", block.get_parameter(f"attn.qkv.{part}").chunk(3), strict=True):
                renamed[f"{prefix}.{i}.attention.{letter}_proj.{part}"] = rows
    return renamed


def encoder_in_transformers(module: VisionTransformer) -> dict[str, Any]:
    return {
        "embeddings.cls_token": module.cls_token,
        "embeddings.position_embeddings": module.pos_embed,
        "embeddings.patch_embeddings.projection.weight": module.patch_embed.proj.weight,
        "embeddings.patch_embeddings.projection.bias": module.patch_embed.proj.bias,
        **blocks_of(module.blocks, "layers"),
        "layernorm.weight": module.norm.weight,
        "layernorm.bias": module.norm.bias,
    }


def decoder_in_transformers(decoder: MAEDecoder, grid: tuple[int, int]) -> dict[str, Any]:
    width = decoder.embed.out_features
    return {
        "mask_token": decoder.mask_token,
        "decoder_pos_embed": torch.cat([torch.zeros(1, width), sincos_positions(grid, width)])[None],
        **{
            f"{theirs}.{part}": decoder.get_parameter(f"{ours}.{part}")
            for ours, theirs in {
                "embed": "decoder_embed",
                "norm": "decoder_norm",
                "head": "decoder_pred",
            }.items()
            for part in ("weight", "bias")
        },
        **blocks_of(decoder.blocks, "decoder_layers"),
    }


@pytest.fixture(scope="module")
def pair() -> tuple[VisionTransformer, ViTModel]:
    module = small()
    config = ViTConfig(
        **SHAPE, image_size=64, patch_size=16, layer_norm_eps=1e-6, attn_implementation="eager"
    )
    theirs = ViTModel(config, add_pooling_layer=False).eval()
    theirs.load_state_dict(encoder_in_transformers(module))
    return module, theirs


def all_tokens(features: Features) -> Tensor:
    """Class token and patches as one sequence (B, 1 + N, D)."""
    assert features.cls is not None
    return torch.cat([features.cls[:, None], features.patches], dim=1)


@torch.no_grad()
def test_tokens_equal_those_of_transformers(pair: tuple[VisionTransformer, ViTModel]) -> None:
    module, theirs = pair
    expected = theirs(photos(), output_hidden_states=True)
    torch.testing.assert_close(
        all_tokens(vit.features(module, photos())), expected.last_hidden_state, atol=1e-5, rtol=1e-5
    )
    after_each = [theirs.layernorm(state) for state in expected.hidden_states[1:-1]]
    for ours, their in zip(vit.intermediates(module, photos(), range(3)), after_each, strict=True):
        torch.testing.assert_close(all_tokens(ours), their, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_attention_equals_that_of_transformers(pair: tuple[VisionTransformer, ViTModel]) -> None:
    module, theirs = pair
    everywhere = theirs(photos(), output_attentions=True).attentions  # each (B, heads, 1 + N, 1 + N)
    assert everywhere[0].std() > 0.02  # far from uniform, or this would show little
    for block, expected in enumerate(everywhere):
        cls = vit.attention_rows(module, photos(), block, None)
        torch.testing.assert_close(cls, expected[:, :, 0, 1:].unflatten(-1, (4, 4)), atol=1e-5, rtol=0)
        for patch in (0, 6, 15):
            rows = vit.attention_rows(module, photos(), block, divmod(patch, 4)).flatten(2)
            torch.testing.assert_close(rows, expected[:, :, 1 + patch, 1:], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("normalised", [False, True])
def test_masked_prediction_and_loss_equal_those_of_transformers(normalised: bool) -> None:
    module = small()
    decoder: MAEDecoder = lively(MAEDecoder(encoder_width=48, width=32, depth=2, heads=4, patch=16), seed=1)
    config = ViTMAEConfig(
        **SHAPE,
        image_size=64,
        patch_size=16,
        layer_norm_eps=1e-6,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=128,
        mask_ratio=0.75,
        norm_pix_loss=normalised,
    )
    theirs = ViTMAEForPreTraining(config).eval()
    theirs.load_state_dict(
        {f"vit.{name}": tensor for name, tensor in encoder_in_transformers(module).items()}
        | {f"decoder.{name}": tensor for name, tensor in decoder_in_transformers(decoder, (4, 4)).items()}
    )
    hidden = draw_mask("random", (4, 4), [3, 4]).flatten(1)
    # Theirs keeps the patches of the smallest noise: here the visible ones, last first, as order must not matter.
    expected = theirs(photos(), noise=hidden.float() - torch.arange(16) / 100)
    assert torch.equal(expected.mask.bool(), hidden)

    visible = visible_indices(hidden)
    predicted = decoder(vit.visible_tokens(module, photos(), visible), visible, (4, 4))
    torch.testing.assert_close(predicted, expected.logits, atol=1e-4, rtol=0)
    target = patchify(photos(), 16)
    loss = hidden_error(predicted, normalise_patches(target) if normalised else target, hidden).mean()
    torch.testing.assert_close(loss, expected.loss, atol=1e-5, rtol=1e-5)


# Visible patches alone


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80), (16, 32)])
@pytest.mark.parametrize("arguments", [{}, {"pre_norm": True}, {"qk_norm": True}])
def test_with_every_patch_visible_nothing_changes(height: int, width: int, arguments: dict[str, Any]) -> None:
    module, pixels = small(**arguments), photos(height, width)
    everything = torch.arange(height * width // 256).expand(2, -1)
    torch.testing.assert_close(
        vit.visible_tokens(module, pixels, everything), module.forward_features(pixels), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_hidden_pixels_are_never_seen() -> None:
    module, hidden = small(), draw_mask("random", (3, 5), [0, 1])
    visible = visible_indices(hidden)
    holes = hidden.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    once = vit.visible_tokens(module, photos(48, 80), visible)
    again = vit.visible_tokens(module, torch.where(holes, 9.0, photos(48, 80)), visible)
    assert once.shape == (2, 1 + visible.shape[1], 48)
    assert torch.equal(once, again)


@torch.no_grad()
def test_visible_tokens_equal_a_run_over_chosen_inputs() -> None:
    """Twin: every input of the first block, the hidden ones dropped image by image."""
    module, hidden = small(), draw_mask("random", (4, 4), [0, 1], 0.5)
    inputs = vit.embed(module, photos())
    found = vit.visible_tokens(module, photos(), visible_indices(hidden))
    for image in range(2):
        keep = [0] + [1 + patch for patch in range(16) if not hidden[image].flatten()[patch]]
        expected = module.norm(module.blocks(inputs[image : image + 1, keep]))
        torch.testing.assert_close(found[image], expected[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arguments", [{"reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}])
def test_masked_encoding_asks_for_one_class_token(arguments: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match="one class token and no registers"):
        vit.visible_tokens(small(**arguments), photos(), torch.zeros(2, 1, dtype=torch.long))


def test_positions_at_the_native_size_are_those_stored() -> None:
    module = small()
    cls, patches = vit.positions_for(module, (64, 64))
    assert module.pos_embed is not None
    assert torch.equal(torch.cat([cls, patches], dim=1), module.pos_embed)


# The parts of the tokens


@torch.no_grad()
@pytest.mark.parametrize(
    ("arguments", "prefix"),
    [
        ({}, 1),
        ({"global_pool": "avg", "fc_norm": False}, 1),
        ({"reg_tokens": 4}, 5),
        ({"reg_tokens": 4, "no_embed_class": True}, 5),
        ({"class_token": False, "global_pool": "avg", "fc_norm": False}, 0),
    ],
)
def test_split_leaves_out_the_prefix_and_pools_as_timm_does(arguments: dict[str, Any], prefix: int) -> None:
    module, pixels = small(**arguments), photos(48, 80)
    tokens, found = module.forward_features(pixels), vit.features(module, pixels)
    pooled, cls, patches = found.pooled, found.cls, found.patches
    assert found.grid == (3, 5)
    assert torch.equal(patches, tokens[:, prefix:]) and patches.shape == (2, 15, 48)
    assert torch.equal(pooled, module(pixels))
    if prefix:
        assert cls is not None and torch.equal(cls, tokens[:, 0])
    else:
        assert cls is None
    expected = patches.mean(dim=1) if "global_pool" in arguments else tokens[:, 0]
    torch.testing.assert_close(pooled, expected)


@torch.no_grad()
@pytest.mark.parametrize("arguments", [{}, {"reg_tokens": 2}, {"pre_norm": True}, {"qk_norm": True}])
def test_intermediates_equal_timms_own(arguments: dict[str, Any]) -> None:
    module, pixels = small(**arguments), photos(48, 80)
    layers = [3, 0, 2, 0]
    theirs = module.forward_intermediates(
        pixels,
        indices=[0, 2, 3],
        norm=True,
        output_fmt="NLC",
        return_prefix_tokens=True,
        intermediates_only=True,
    )
    by_layer = {
        layer: torch.cat([prefix[:, :1], patches], dim=1)
        for layer, (patches, prefix) in zip([0, 2, 3], theirs, strict=True)
    }
    for layer, ours in zip(layers, vit.intermediates(module, pixels, layers), strict=True):
        torch.testing.assert_close(all_tokens(ours), by_layer[layer], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arguments", KINDS, ids=str)
@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_the_class_token_alone_is_that_of_timms_own_pass(arguments: dict[str, Any], drop_path: float) -> None:
    """Value and every gradient, in training and with the same draws of drop path."""
    module = small(**arguments, drop_path_rate=drop_path).train()
    found = []
    for way in (module, lambda pixels: vit.class_token(module, pixels)):
        torch.manual_seed(0)
        token = way(photos(48, 80))
        gradients = torch.autograd.grad(token.square().sum(), [*module.parameters()], allow_unused=True)
        found.append((token, gradients))
    (theirs, expected), (ours, gradients) = found
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    assert sum(each is not None for each in gradients) > 40
    torch.testing.assert_close(gradients, expected, atol=1e-3, rtol=1e-3)


def test_without_a_class_token_there_is_none() -> None:
    module = small(class_token=False, global_pool="avg")
    with pytest.raises(Unsupported, match="no class token"):
        vit.class_token(module, photos())


# Attention where a block is not the plain one


@torch.no_grad()
@pytest.mark.parametrize("arguments", KINDS, ids=str)
def test_rows_of_other_plain_vits(arguments: dict[str, Any]) -> None:
    """Against the softmax that an unfused block hands to its dropout."""
    module, seen = small(**arguments), list[Tensor]()
    for block in module.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module.forward_features(photos(48, 80))
    full, prefix = list(seen), module.num_prefix_tokens
    for block, expected in enumerate(full):
        cls = vit.attention_rows(module, photos(48, 80), block, None).flatten(2)
        torch.testing.assert_close(cls, expected[:, :, 0, prefix:], atol=1e-5, rtol=0)
        patch = vit.attention_rows(module, photos(48, 80), block, (1, 2)).flatten(2)
        torch.testing.assert_close(patch, expected[:, :, prefix + 7, prefix:], atol=1e-5, rtol=0)


def test_without_a_class_token_a_patch_is_asked_for() -> None:
    module = small(class_token=False, global_pool="avg")
    with pytest.raises(Unsupported, match=r"no class token; ask for a patch: query=\(row, column\)"):
        vit.attention_rows(module, photos(), 0, None)
    with torch.no_grad():
        rows = vit.attention_rows(module, photos(), 0, (0, 3))
    torch.testing.assert_close(rows.sum(dim=(-2, -1)), torch.ones(2, 3))  # no prefix column was dropped


# Building


@pytest.mark.parametrize(
    ("architecture", "patch"), [("vit_tiny_patch16_224", 16), ("vit_small_patch32_224", 32)]
)
def test_stride_and_depth(architecture: str, patch: int) -> None:
    with torch.device("meta"):
        module = vit.build(architecture, {"depth": 3})
    assert (vit.stride(module), vit.depth(module)) == (patch, 3)
    assert not list(module.get_classifier().parameters())


def test_another_kind_of_network_is_no_vit() -> None:
    with (
        torch.device("meta"),
        pytest.raises(Unsupported, match="xcit_nano_12_p16_224 is a Xcit, not a plain ViT"),
    ):
        vit.build("xcit_nano_12_p16_224", {"dynamic_img_size": None})


@pytest.mark.parametrize(
    ("architecture", "arguments", "says"),
    [
        ("vit_tiny_patch16_242", {}, r"no architecture .*; did you mean 'vit_tiny_patch16_224'\?"),
        ("vit_tiny_patch16_224", {"embed_dims": 48}, r"cannot build vit_tiny_patch16_224 .*embed_dims"),
        ("vit_tiny_patch16_224", {"num_heads": 5}, "cannot build vit_tiny_patch16_224 .*num_heads"),
        ("resnet18", {}, "cannot build resnet18"),
        ("vit_tiny_patch16_224", {"patch_size": 0}, "cannot build vit_tiny_patch16_224 .*ZeroDivision"),
        ("vit_tiny_patch16_224", {"norm_layer": "nope"}, "cannot build .*KeyError: 'nope'"),
        ("vit_tiny_patch16_224", {"img_size": [1]}, "cannot build .*IndexError"),
    ],
)
def test_what_timm_cannot_build_is_the_cards_fault(
    architecture: str, arguments: dict[str, Any], says: str
) -> None:
    with torch.device("meta"), pytest.raises(CardError, match=says):
        vit.build(architecture, arguments)
