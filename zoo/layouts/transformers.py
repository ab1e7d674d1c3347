"""Hugging Face transformers' names: those in files on the Hub (version 4) and those version 5 has in memory.

Files on the Hub say `encoder.layer.0.attention.attention.query`; version 5 renames them on reading to
`layers.0.attention.q_proj`, and back on saving, but for ViTMAE's decoder: its blocks become
`decoder_encoder.layer.0`.
"""

from __future__ import annotations

from torch import nn

from zoo.layouts.rules import Layout, Renames, Tensors

# Names both versions share, once the block has ours. query, key and value are joined into qkv afterwards.
_BLOCK: Renames = (
    (r"attention\.(attention|self)\.(query|key|value)\.", r"attn.\2."),
    (r"attention\.(attention\.|self\.)?relative_position_bias\.(relative_position_bias_table)", r"attn.\2"),
    (r"attention\.self\.(relative_position)", r"attn.\1"),
    (r"(blocks\.\d+)\.relative_position_bias\.(relative_position_bias_table)", r"\1.attn.\2"),
    (r"attention\.q_proj\.", "attn.query."),
    (r"attention\.k_proj\.", "attn.key."),
    (r"attention\.v_proj\.", "attn.value."),
    (r"attention\.(output\.dense|o_proj)\.", "attn.proj."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"lambda_([12])$", r"gamma_\1"),
    (r"layer_scale([12])\.lambda1$", r"ls\1.gamma"),
)
_EMBEDDINGS: Renames = (
    (r"^embeddings\.cls_token", "cls_token"),
    (r"^embeddings\.position_embeddings", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.register_tokens", "register_tokens"),
    (r"^layernorm\.", "norm."),
)
_LAYER = r"^(encoder\.layers?|layers?)\.(\d+)\."
_ENCODER: Renames = ((_LAYER, r"blocks.\2."), *_EMBEDDINGS, *_BLOCK)
_MARKS = (r"embeddings\.patch_embeddings\.projection\.weight", r"(encoder\.)?layers?\.0\.")
_DROPS = (
    r"embeddings\.mask_token",
    r"pooler\.dense\.",
    r".*relative_position_index",
    r"classifier\.",
    r"lm_head\.",
)


def _registers(tensors: Tensors, module: nn.Module) -> Tensors:
    """timm adds the class token's position to the class token where there are registers, and so stores none."""
    if "register_tokens" not in tensors:
        return tensors
    rest = dict(tensors)
    rest["reg_token"] = rest.pop("register_tokens")
    rest["cls_token"] = rest["cls_token"] + rest["pos_embed"][:, :1]
    rest["pos_embed"] = rest["pos_embed"][:, 1:]
    return rest


VIT = Layout(
    name="hf_vit_to_timm",
    writer="transformers' ViT, IJepa and ViTMSN",
    places=(("", r"(vit\.|ijepa\.)?"),),
    marks=(*_MARKS, r"embeddings\.position_embeddings", r"layernorm\.weight"),
    never=(r".*(lambda_?1|relative_position)", r"decoder\."),
    drops=_DROPS,
    renames=_ENCODER,
)
VIT_MAE = Layout(
    name="hf_vitmae_to_mae",
    writer="transformers' ViTMAE, encoder and decoder",
    places=(("", r"(vit\.)?"),),
    marks=(*_MARKS, r"decoder\.decoder_embed\."),
    drops=_DROPS,
    renames=_ENCODER,
    decoder=r"decoder\.",
    decoder_renames=(
        (r"^decoder\.(decoder_layers|decoder_encoder\.layer)\.(\d+)\.", r"blocks.\2."),
        (r"^decoder\.decoder_pred\.", "head."),
        (r"^decoder\.(decoder_)?", ""),
        *_BLOCK,
    ),
)
DINOV2 = Layout(
    name="hf_dinov2_to_timm",
    writer="transformers' Dinov2, with and without registers",
    places=(("", r"(dinov2\.|dinov2_with_registers\.)?"),),
    marks=(*_MARKS, r".*layer_scale1\.lambda1", r"embeddings\.position_embeddings"),
    drops=_DROPS,
    renames=(*_ENCODER, (r"mlp\.weights_in\.", "mlp.fc1."), (r"mlp\.weights_out\.", "mlp.fc2.")),
    convert=_registers,
)
BEIT = Layout(
    name="hf_beit_to_timm_shared_rpb",
    writer="transformers' Beit, with shared or per-layer relative positions",
    places=(("", r"(beit\.)?"),),
    marks=(*_MARKS, r".*lambda_1", r".*relative_position_bias_table", r"layernorm\.|pooler\.layernorm\."),
    drops=_DROPS,
    renames=(
        *_ENCODER,
        (r"^(encoder\.relative_position_bias|shared_position_bias)\.", "rel_pos_bias."),
        (r"^pooler\.layernorm\.", "fc_norm."),
    ),
    plain_fc_norm=True,
)
DATA2VEC = Layout(
    name="data2vec_hf_to_timm",
    writer="transformers' Data2VecVision",
    places=(("", r"(data2vec_vision\.)?"),),
    marks=(*_MARKS, r".*lambda_1", r".*relative_position_bias_table"),
    never=(r"layernorm\.", r"pooler\.layernorm\."),
    drops=_DROPS,
    renames=BEIT.renames,
    plain_fc_norm=True,
)
DINOV3 = Layout(
    name="hf_dinov3_to_timm",
    writer="transformers' DINOv3ViT",
    places=(("", r"(dinov3_vit\.)?(?:model\.(?=layer\.))?"),),
    marks=(r"embeddings\.register_tokens", r"layer\.0\.attention\.q_proj\.weight", r"layer\.0\.mlp\.up_proj"),
    drops=(r"embeddings\.mask_token", r"rope_embeddings\."),
    renames=(
        (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
        (r"^embeddings\.register_tokens", "reg_token"),
        (r"^layer\.", "blocks."),
        (r"layer_scale([12])\.lambda1$", r"gamma_\1"),
        (r"mlp\.up_proj\.", "mlp.fc1."),
        (r"mlp\.down_proj\.", "mlp.fc2."),
        *_EMBEDDINGS,
        *_BLOCK,
    ),
)
LAYOUTS = (VIT_MAE, DINOV3, DINOV2, BEIT, DATA2VEC, VIT)
