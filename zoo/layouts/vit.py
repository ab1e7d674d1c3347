"""Vision transformers with timm's names in their authors' wrappings: DINO, iBOT, MSN, I-JEPA, MoCo v3, DINOv2, MAE.

DINO took its module from timm, and most of those after it took theirs from DINO.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.layouts.rules import PARALLEL, Layout, Tensors
from zoo.positions import sincos_positions

HEADS = (r"head\.", r"fc\.", r"fc_norm\.", r"pre_logits\.")  # classifiers; MSN's projection is called fc
TIMM = (r"patch_embed\.proj\.weight", r"blocks\.0\.attn\.qkv\.weight")
NOT_PLAIN = (  # other architectures and methods with names much alike
    r"rel_pos_bias\.",
    r"blocks\.0\.attn\.(q_bias|relative_position|posmlp)",
    r"(vis_)?mask_token",
    r"register_tokens|storage_tokens",
    r"decoder_",
    r"cls_attn_blocks\.",
)


def _moco_v3_heads(module: nn.Module) -> str:
    """MoCo v3's ViT-S has 12 heads of 32 channels where timm's has 6 of 64: the same shapes, other numbers."""
    block: Any = module.get_submodule("blocks.0")
    heads, width = block.attn.num_heads, block.attn.qkv.in_features
    if width != 384 or heads == 12:
        return ""
    return (
        f"MoCo v3's ViT-S has 12 heads and this card's {heads}: the tensors fit and give other features; "
        "write arguments: {num_heads: 12}"
    )


def _dinov2(tensors: Tensors, module: nn.Module) -> Tensors:
    """timm's own conversion; with registers it adds the class token's position to the class token."""
    from timm.models.vision_transformer import _convert_dinov2

    converted: Tensors = _convert_dinov2(dict(tensors), module)  # type: ignore[arg-type]
    return converted


def mae_decoder_positions(stored: Tensor, width: int) -> str:
    """Why a decoder's stored positions (1, N or 1 + N, D) are not those it computes; empty where they are."""
    prefix = int(math.isqrt(stored.shape[1]) ** 2 != stored.shape[1])  # the class token's, which is zero
    side = math.isqrt(stored.shape[1] - prefix)
    if stored.shape != (1, prefix + side * side, width):
        return (
            f"its decoder's positions have shape {tuple(stored.shape)}, not (1, a square or 1 more, {width})"
        )
    ours = torch.cat([torch.zeros(prefix, width), sincos_positions((side, side), width)])
    apart = float((stored[0].float() - ours).abs().max())
    return (
        ""
        if apart < 1e-4
        else f"its decoder's positions differ by {apart:.2g} from the sine-cosine ones of MAE"
    )


MAE = Layout(
    name="mae_pth",
    writer="MAE, encoder and decoder",
    places=(("model", PARALLEL), ("", PARALLEL)),
    marks=TIMM,
    tells=(
        r"decoder_embed\.",
        r"decoder_blocks\.0\.attn\.qkv\.",
        r"mask_token",
    ),  # its encoder is published alone too
    never=(r"vis_mask_token",),
    drops=HEADS,
    decoder=r"decoder_|mask_token",
    decoder_renames=(("^decoder_pred", "head"), ("^decoder_", "")),
)
DINOV2 = Layout(
    name="dinov2_pth",
    writer="DINOv2, with and without registers",
    places=(("", PARALLEL), ("teacher", r"(module\.)?backbone\."), ("model", PARALLEL)),
    marks=(*TIMM, r"mask_token|register_tokens", r"blocks\.0\.ls1\.gamma"),
    never=(r"storage_tokens", r"decoder_"),
    drops=HEADS,
    convert=_dinov2,
)
MOCO_V3 = Layout(
    name="mocov3_vit",
    writer="MoCo v3, ViT",
    places=(("state_dict", r"(module\.)?base_encoder\."),),
    marks=TIMM,
    never=NOT_PLAIN,
    drops=HEADS,
    check=_moco_v3_heads,
)
IJEPA = Layout(
    name="ijepa_pth",
    writer="I-JEPA: its target encoder",
    places=(("target_encoder", PARALLEL), ("encoder", PARALLEL)),
    marks=TIMM,
    never=(*NOT_PLAIN, r"cls_token"),
    drops=HEADS,
)
MSN = Layout(
    name="msn_pth",
    writer="MSN: its target encoder",
    places=(("target_encoder", PARALLEL),),
    marks=(*TIMM, r"cls_token"),
    never=NOT_PLAIN,
    drops=HEADS,
)
IDENTITY = Layout(
    name="identity",
    writer="DINO and iBOT (the teacher of a full checkpoint), MAE's encoder alone, DeiT",
    places=(
        ("teacher", r"(module\.)?backbone\."),
        ("state_dict", PARALLEL),
        ("model", PARALLEL),
        ("", r"(module\.)?backbone\."),
        ("", PARALLEL),
    ),
    marks=(*TIMM, r"cls_token"),
    never=NOT_PLAIN,
    drops=HEADS,
)
LAYOUTS = (MAE, DINOV2, MOCO_V3, IJEPA, MSN, IDENTITY)
