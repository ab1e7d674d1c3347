"""Swin transformers: SimMIM's own names, iBOT's and Microsoft's, and transformers'.

The authors merge patches at the end of a stage and timm at the start of the next: every `downsample` moves up one.
"""

from __future__ import annotations

import re

from torch import nn

from zoo.layouts.rules import PARALLEL, SIMMIM_DECODER, SIMMIM_PLACES, SIMMIM_RENAMES, Layout, Tensors

_MARKS = (r"patch_embed\.proj\.weight", r"layers\.0\.blocks\.0\.attn\.relative_position_bias_table")
_DROPS = (r"head\.", r".*relative_position_index", r".*attn_mask")


def _next_stage(tensors: Tensors, module: nn.Module) -> Tensors:
    """Downsampling of stage i becomes that of stage i + 1."""
    if not any(name.startswith("layers.0.downsample.") for name in tensors):
        return tensors  # timm's own order
    return {
        re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", name): tensor
        for name, tensor in tensors.items()
    }


SIMMIM = Layout(
    name="simmim_swin",
    writer="SimMIM's Swin with its decoder, iBOT's Swin (its teacher), Microsoft's Swin",
    places=(
        *SIMMIM_PLACES,
        ("teacher", r"(module\.)?backbone\."),
        ("state_dict", PARALLEL),
        ("model", PARALLEL),
        ("", PARALLEL),
    ),
    marks=_MARKS,
    drops=_DROPS,
    decoder=SIMMIM_DECODER,
    decoder_renames=SIMMIM_RENAMES,
    convert=_next_stage,
)
TRANSFORMERS = Layout(
    name="hf_swin_simmim",
    writer="transformers' Swin, SimMIM's among them",
    places=(("", r"(swin\.)?"),),
    marks=(
        r"embeddings\.patch_embeddings\.projection\.weight",
        r"encoder\.layers\.0\.blocks\.0\.attention\.",
        r".*relative_position_bias_table",
    ),
    drops=(r".*relative_position_index", r"classifier\.", r"pooler\."),
    renames=(
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^embeddings\.norm\.", "patch_embed.norm."),
        (r"^layernorm\.", "norm."),
        (r"^encoder\.layers\.", "layers."),
        (r"attention\.self\.(query|key|value)\.", r"attn.\1."),
        (r"attention\.q_proj\.", "attn.query."),
        (r"attention\.k_proj\.", "attn.key."),
        (r"attention\.v_proj\.", "attn.value."),
        (
            r"attention\.(self\.|relative_position_bias\.)relative_position_bias_table",
            "attn.relative_position_bias_table",
        ),
        (r"attention\.(output\.dense|o_proj)\.", "attn.proj."),
        (r"layernorm_before\.", "norm1."),
        (r"layernorm_after\.", "norm2."),
        (r"intermediate\.dense\.", "mlp.fc1."),
        (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    ),
    decoder=rf"embeddings\.mask_token|{SIMMIM_DECODER}",
    decoder_renames=((r"^embeddings\.", ""), *SIMMIM_RENAMES),
    convert=_next_stage,
)
LAYOUTS = (TRANSFORMERS, SIMMIM)
