"""BEiT's own names, which SimMIM's ViT and data2vec's share, and DINOv3's."""

from __future__ import annotations

from torch import nn

from zoo.errors import WeightsError
from zoo.layouts.rules import PARALLEL, SIMMIM_DECODER, SIMMIM_PLACES, SIMMIM_RENAMES, Layout, Tensors

_BEIT = (r"patch_embed\.proj\.weight", r"blocks\.0\.attn\.qkv\.weight", r"blocks\.0\.(attn\.q_bias|gamma_1)")
_TABLE = r"rel_pos_bias\.relative_position_bias_table|blocks\.0\.attn\.relative_position_bias_table"
_DROPS = (r"mask_token", r"lm_head\.", r"head\.", r".*relative_position_index", r"cls_pt_layers\.")


def _dinov3(tensors: Tensors, module: nn.Module) -> Tensors:
    """timm's own conversion. It leaves biases out where the module has none: refused unless they are zero."""
    from timm.models.eva import checkpoint_filter_fn

    wanted = module.state_dict()
    lost = [name for name in tensors if name.endswith("attn.qkv.bias") and _halves(name) not in wanted]
    if any(bool(tensors[name].any()) for name in lost):
        raise WeightsError(
            "DINOv3's file has biases of queries and values that this architecture lacks; the one named …_qkvb has them"
        )
    rest = {name: tensor for name, tensor in tensors.items() if name not in lost}
    converted: Tensors = checkpoint_filter_fn(rest, module)
    return converted


def _halves(name: str) -> str:
    return name.replace("qkv.bias", "q_bias")


BEIT = Layout(
    name="beit_pth_shared_rpb",
    writer="BEiT and BEiT v2, data2vec's vision model, with shared or per-layer relative positions",
    places=(("model", PARALLEL), ("module", PARALLEL), ("", PARALLEL)),
    marks=(*_BEIT, _TABLE),
    drops=_DROPS,
    plain_fc_norm=True,
)
SIMMIM_VIT = Layout(
    name="simmim_vit",
    writer="SimMIM's ViT with its decoder",
    places=SIMMIM_PLACES,
    marks=(*_BEIT, _TABLE),
    drops=_DROPS,
    decoder=SIMMIM_DECODER,
    decoder_renames=SIMMIM_RENAMES,
    plain_fc_norm=True,
)
DINOV3 = Layout(
    name="dinov3_pth",
    writer="DINOv3",
    places=(("", PARALLEL), ("teacher", r"(module\.)?backbone\."), ("model", PARALLEL)),
    marks=(r"storage_tokens", r"blocks\.0\.ls1\.gamma"),
    drops=(r"head\.",),
    convert=_dinov3,
)
LAYOUTS = (SIMMIM_VIT, DINOV3, BEIT)
