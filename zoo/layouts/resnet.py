"""ResNets with torchvision's names, in each method's wrapping. timm's names are the same."""

from __future__ import annotations

from torch import nn

from zoo.layouts.rules import PARALLEL, Layout

_MARKS = (r"conv1\.weight", r"bn1\.running_mean", r"layer1\.0\.conv1\.weight", r"layer4\.0\.")
_HEADS = (
    r"fc\.",
    r"fc[12]\.",
    r"head\.",
    r"projection_head\.",
    r"prototypes\d*\.",
    r"l2norm\.",
    r"contrastive_head\.",
)

# (dictionary, prefix), and whose it is. The student's or the query's encoder where a file holds both: it is what was
# published and evaluated, but for DINO's, where it is the teacher.
_PLACES = (
    (
        "classy_state_dict.base_model.model.trunk",
        r"(_feature_blocks\.|base_model\._feature_blocks\.)",
    ),  # VISSL
    ("teacher", r"(module\.)?backbone\."),  # DINO
    ("state_dict", r"(module\.)?encoder_q\."),  # MoCo v1, v2
    ("state_dict", r"(module\.)?base_encoder\."),  # MoCo v3
    ("state_dict", r"(module\.)?encoder\."),  # SimSiam
    ("model", r"(module\.)?backbone\."),  # Barlow Twins and VICReg, full checkpoints
    ("model", r"(module\.)?encoder\."),  # PyContrast: InfoMin, InstDisc, PIRL
    ("network", PARALLEL),  # OBoW
    ("state_dict", PARALLEL),  # InstDisc (lemniscate)
    ("model", PARALLEL),
    ("", r"module\."),  # SwAV, DeepCluster v2, SeLa v2
)

PREFIXED = Layout(
    name="resnet50_prefixed",
    writer="MoCo, SimSiam, SwAV, DeepCluster v2, SeLa v2, VISSL, PyContrast, InstDisc, OBoW",
    places=_PLACES,
    marks=_MARKS,
    drops=_HEADS,
)
TORCHVISION = Layout(
    name="resnet50_torchvision",
    writer="torchvision, Barlow Twins, VICReg, DINO's ResNet-50, OBoW",
    places=(("", r""), *_PLACES),
    marks=_MARKS,
    drops=_HEADS,
)


def _same_padding(module: nn.Module) -> str:
    """BYOL pads as TensorFlow does: the same shapes on torch's padding would give other features."""
    if getattr(getattr(module, "conv1", None), "padding", None) != (3, 3):
        return ""
    return (
        "BYOL's network pads as TensorFlow does, which this card's does not: the tensors fit and give other "
        "features; write architecture: ssl_zoo_resnet50_same, or another of the ssl_zoo_resnet…_same"
    )


SIMCLR = Layout(
    name="simclr_tf",
    writer="SimCLR, converted from TensorFlow by tonylins/simclr-converter",
    places=(("state_dict", PARALLEL), ("", PARALLEL)),
    marks=_MARKS,
    drops=_HEADS,
)
BYOL = Layout(
    name="byol_jax",
    writer="BYOL, converted from JAX by chigur/byol-convert",
    places=(("state_dict", PARALLEL), ("", PARALLEL)),
    marks=_MARKS,
    drops=_HEADS,
    check=_same_padding,
)
LAYOUTS = (PREFIXED, TORCHVISION, SIMCLR, BYOL)
