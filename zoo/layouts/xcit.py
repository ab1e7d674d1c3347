"""XCiT, of DINO and of its authors."""

from __future__ import annotations

from torch import nn

from zoo.layouts.rules import PARALLEL, Layout, Tensors


def _timm(tensors: Tensors, module: nn.Module) -> Tensors:
    """timm's own conversion: `pos_embeder`, and queries, keys and values of class attention apart."""
    from timm.models.xcit import checkpoint_filter_fn

    converted: Tensors = checkpoint_filter_fn(dict(tensors), module)
    return converted


LAYOUTS = (
    Layout(
        name="xcit",
        writer="XCiT, DINO's among them (the teacher of a full checkpoint)",
        places=(
            ("teacher", r"(module\.)?backbone\."),
            ("model", PARALLEL),
            ("", PARALLEL),
        ),
        marks=(r"cls_attn_blocks\.0\.attn\.", r"blocks\.0\.attn\.temperature"),
        drops=(r"head\.",),
        convert=_timm,
    ),
)
