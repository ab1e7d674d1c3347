"""ResNets that timm lacks: every width multiplied, and padded as TensorFlow does. Tensors have torchvision's names.

Widths: SimCLR's `width_multiplier` (2002.05709, §4.2) and BYOL's (2006.07733, §4.1) multiply all channels, the stem's
and the outputs' too; torchvision's `wide_resnet50_2` widens only the inner 3×3. Padding: TensorFlow's SAME puts the odd
pixel of a strided layer after the image, torch's symmetric padding before it. BYOL pads so everywhere, SimCLR at the
max-pool alone.
"""

from __future__ import annotations

from typing import Any, Literal

from timm.layers import create_conv2d, create_pool2d
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from zoo.architectures.registration import register

# Which layers pad as TensorFlow's SAME does: every one with a stride, or the max-pool alone.
Same = Literal["none", "pool", "all"]

DEPTHS = {50: (3, 4, 6, 3), 200: (3, 24, 36, 3)}  # residual blocks of each stage


class WiderResNet(ResNet):
    """A ResNet of bottlenecks with all widths times `width`, and SAME padding where `same` says."""

    def __init__(self, *, width: int = 1, same: Same = "none", **arguments: Any) -> None:
        channels = tuple(width * each for each in (64, 128, 256, 512))
        super().__init__(block=Bottleneck, channels=channels, **arguments)  # type: ignore[arg-type]
        if width > 1:
            self._widen_stem(64 * width)
        if same != "none":
            self.maxpool = create_pool2d("max", 3, stride=2, padding="same")
        if same == "all":
            self._pad_convolutions()
        self.init_weights()

    def _widen_stem(self, width: int) -> None:
        """timm's plain stem always has 64 channels: this one has `width`, and the first block takes them."""
        first: Any = self.get_submodule("layer1.0")
        self.conv1 = nn.Conv2d(self.in_chans, width, 7, stride=2, padding=3, bias=False)  # type: ignore[assignment]
        self.bn1 = nn.BatchNorm2d(width)
        first.conv1 = nn.Conv2d(width, first.conv1.out_channels, 1, bias=False)
        first.downsample[0] = nn.Conv2d(width, first.downsample[0].out_channels, 1, bias=False)
        self.feature_info[0]["num_chs"] = width

    def _pad_convolutions(self) -> None:
        """Convolutions with stride 2 and a kernel above 1 pad as SAME; with stride 1 the two paddings are one."""
        for parent in list(self.modules()):
            for name, conv in list(parent.named_children()):
                if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2) and conv.kernel_size > (1, 1):
                    sizes = (conv.in_channels, conv.out_channels, conv.kernel_size[0])
                    setattr(parent, name, create_conv2d(*sizes, stride=2, padding="same"))


VARIANTS: dict[str, tuple[int, int, Same]] = {  # (depth, width, same)
    "ssl_zoo_resnet50x2": (50, 2, "none"),
    "ssl_zoo_resnet50x4": (50, 4, "none"),
    "ssl_zoo_resnet200x2": (200, 2, "none"),
    "ssl_zoo_resnet50_same": (50, 1, "all"),
    "ssl_zoo_resnet50x2_same": (50, 2, "all"),
    "ssl_zoo_resnet50x4_same": (50, 4, "all"),
    "ssl_zoo_resnet200x2_same": (200, 2, "all"),
    "ssl_zoo_resnet50_samepool": (50, 1, "pool"),
    "ssl_zoo_resnet50x2_samepool": (50, 2, "pool"),
    "ssl_zoo_resnet50x4_samepool": (50, 4, "pool"),
}
_CONFIGURATION = {
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "crop_pct": 0.875,
    "first_conv": "conv1",
    "classifier": "fc",
}
register(
    WiderResNet,
    {
        name: {"layers": DEPTHS[depth], "width": width, "same": same}
        for name, (depth, width, same) in VARIANTS.items()
    },
    _CONFIGURATION,
)
