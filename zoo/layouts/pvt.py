"""PVT's own names and transformers'. Both store the class token's position in front of the last stage's others."""

from __future__ import annotations

from typing import Any

from torch import nn

from zoo.errors import WeightsError
from zoo.layouts.rules import PARALLEL, Layout, Renames, Tensors
from zoo.layouts.ummae import on_grid


def _convert(tensors: Tensors, module: nn.Module) -> Tensors:
    """Positions of every stage on their grid, the class token's apart; queries apart from keys and values."""
    ours: Any = module
    if not hasattr(module, "stages"):
        raise WeightsError(
            f"PVT's weights do not fit a {type(module).__name__}; write architecture: ssl_zoo_pvt_small"
        )
    out, wanted, last = dict(tensors), module.state_dict(), f"stages.{len(ours.stages) - 1}.pos_embed"
    if last in out:
        out["cls_position"], out[last] = out[last][:, :1], out[last][:, 1:]
    for name in list(out):
        if "attn.qkv." in name:
            joined = out.pop(name)
            width = len(joined) // 3
            out[name.replace("qkv", "q")], out[name.replace("qkv", "kv")] = joined[:width], joined[width:]
        elif name.endswith(".pos_embed") and name in wanted:
            out[name] = on_grid(out[name], wanted[name])
    return out


_STAGES: Renames = tuple(
    rename
    for stage in range(4)
    for rename in (
        (rf"^pos_embed{stage + 1}$", f"stages.{stage}.pos_embed"),
        (rf"^patch_embed{stage + 1}\.", f"stages.{stage}.downsample." if stage else "patch_embed."),
        (rf"^block{stage + 1}\.", f"stages.{stage}.blocks."),
    )
)
PVT = Layout(
    name="pvt_pth",
    writer="PVT",
    places=(("model", PARALLEL), ("state_dict", PARALLEL), ("", PARALLEL)),
    marks=(r"patch_embed1\.proj\.weight", r"block1\.0\.attn\.kv\.weight", r"pos_embed1"),
    drops=(r"head\.",),
    renames=_STAGES,
    convert=_convert,
)
TRANSFORMERS = Layout(
    name="hf_pvt",
    writer="transformers' Pvt",
    places=(("", r"(pvt\.)?"),),
    marks=(
        r"encoder\.patch_embeddings\.0\.projection\.weight",
        r"encoder\.block\.0\.0\.attention\.self\.query\.weight",
    ),
    drops=(r"classifier\.",),
    renames=(
        (r"^encoder\.layer_norm\.", "norm."),
        (r"^encoder\.patch_embeddings\.\d\.cls_token", "cls_token"),
        (r"^encoder\.patch_embeddings\.(\d)\.position_embeddings", r"stages.\1.pos_embed"),
        (r"^encoder\.patch_embeddings\.0\.", "patch_embed."),
        (r"^encoder\.patch_embeddings\.(\d)\.", r"stages.\1.downsample."),
        (r"^encoder\.block\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
        (r"\.projection\.", ".proj."),
        (r"attention\.self\.(query|key|value)\.", r"attn.\1."),
        (r"attention\.self\.sequence_reduction\.", "attn.sr."),
        (r"attention\.self\.layer_norm\.", "attn.norm."),
        (r"attention\.output\.dense\.", "attn.proj."),
        (r"layer_norm_([12])\.", r"norm\1."),
        (r"mlp\.dense([12])\.", r"mlp.fc\1."),
        (r"(patch_embed|downsample)\.layer_norm\.", r"\1.norm."),
    ),
    convert=_convert,
)
LAYOUTS = (PVT, TRANSFORMERS)
