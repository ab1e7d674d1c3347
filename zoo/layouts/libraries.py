"""Checkpoints of other self-supervised libraries: lightly, solo-learn, mmselfsup and mmpretrain.

Names as their sources have them: lightly's examples keep `self.backbone`, a Sequential of torchvision's children, or a
timm ViT as `backbone.vit`; solo-learn's BaseMethod keeps torchvision's or timm's module as `backbone` (`encoder` in its
first versions); OpenMMLab's models keep `backbone`, a ResNet with torchvision's names or a VisionTransformer of their
own, and MAE's decoder as `neck`.
"""

from __future__ import annotations

from zoo.layouts.rules import Layout

_MODULES = r"conv1\.weight|patch_embed\.proj\.weight"

LIGHTLY = Layout(
    name="lightly",
    writer="lightly",
    places=tuple(
        (where, rf"{prefix}(vit\.)?")
        for where in ("state_dict", "")
        for prefix in (r"teacher_backbone\.", r"backbone\.", r"student_backbone\.")
    ),
    marks=(r"(0\.weight|patch_embed\.proj\.weight)$", r"(4\.0\.conv1\.weight|blocks\.0\.attn\.qkv\.weight)$"),
    drops=(r"head\.", r"fc\.", r"mask_token"),
    renames=(
        (r"^0\.", "conv1."),
        (r"^1\.", "bn1."),
        (r"^4\.", "layer1."),
        (r"^5\.", "layer2."),
        (r"^6\.", "layer3."),
        (r"^7\.", "layer4."),
    ),
)
SOLO_LEARN = Layout(
    name="solo_learn",
    writer="solo-learn; mmselfsup's and mmpretrain's ResNets",
    places=(("state_dict", r"backbone\."), ("state_dict", r"encoder\.")),
    marks=(_MODULES, r"layer1\.0\.conv1\.weight|blocks\.0\.attn\.qkv\.weight"),
    drops=(r"head\.", r"fc\."),
)
_FFN = (
    (r"ffn\.layers\.0\.0\.", "mlp.fc1."),
    (r"ffn\.layers\.1\.", "mlp.fc2."),
    (r"(blocks\.\d+)\.ln([12])\.", r"\1.norm\2."),
)
MMPRETRAIN = Layout(
    name="mmpretrain",
    writer="mmselfsup and mmpretrain, MAE's decoder too",
    places=(
        ("state_dict", r"(backbone\.|(?=neck\.))"),
        ("", r"(backbone\.|(?=neck\.))"),
        ("state_dict", r""),
    ),
    marks=(
        r"patch_embed\.projection\.weight|conv1\.weight",
        r"layers\.0\.attn\.qkv\.weight|layer1\.0\.conv1\.weight",
    ),
    drops=(r"head\.", r"fc\.", r"mask_token"),
    renames=(
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        (r"^layers\.", "blocks."),
        *_FFN,
        (r"^ln1\.", "norm."),
    ),
    decoder=r"neck\.",
    decoder_renames=(
        (r"^neck\.decoder_blocks\.", "blocks."),
        *_FFN,
        (r"^neck\.(ln1|decoder_norm)\.", "norm."),
        (r"^neck\.decoder_pred\.", "head."),
        (r"^neck\.(decoder_)?", ""),
    ),
)
LAYOUTS = (SOLO_LEARN, MMPRETRAIN, LIGHTLY)
