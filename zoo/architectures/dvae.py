"""The encoder of DALL·E's discrete VAE (Ramesh et al., 2102.12092, Appendix A.1): residual groups, max-pools between.

It says an image in words: at each position, logits over a vocabulary. Axes: B images, V words, S the stride in pixels,
(h, w) = (H/S, W/S) positions, D the width of the last group.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from zoo.architectures.registration import register


class Convolution(nn.Conv2d):
    """A convolution that keeps the grid; weights begin normal with a variance of 1 over the fan-in, biases at zero."""

    def __init__(self, into: int, out: int, side: int) -> None:
        super().__init__(into, out, side, padding=side // 2)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=(self.weight[0].numel()) ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Block(nn.Module):
    """x + gain · path(x), the path four convolutions through a quarter of the width, a ReLU before each.

    sides: of the four kernels. gain: 1 over the square of the number of blocks of the whole network.
    """

    def __init__(self, into: int, out: int, sides: tuple[int, ...], gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.skip = Convolution(into, out, 1) if into != out else nn.Identity()
        widths = (into, *[out // 4] * 3, out)
        layers: list[nn.Module] = []
        for (before, after), side in zip(itertools.pairwise(widths), sides, strict=True):
            layers += [nn.ReLU(), Convolution(before, after, side)]
        self.path = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w)."""
        mixed: Tensor = self.skip(x) + self.gain * self.path(x)
        return mixed


class DVAEEncoder(nn.Module):
    """Pixels to words; as timm's models do, a call gives pooled features, and `logits` the words.

    vocabulary: V. hidden: width of the first group; each group doubles it, and all but the last halve the grid.
    blocks: in each group. groups: S is 2 ** (groups - 1). global_pool, num_classes: timm's, who passes them; the mean
    is the only pooling, and there is no classifier.
    """

    def __init__(
        self,
        vocabulary: int = 8192,
        hidden: int = 256,
        blocks: int = 2,
        groups: int = 4,
        in_chans: int = 3,
        num_classes: int = 0,
        global_pool: str = "avg",
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if drop_path_rate:
            raise ValueError(f"a discrete VAE drops no paths; leave out drop_path_rate={drop_path_rate}")
        if global_pool != "avg" or num_classes:
            raise ValueError("a discrete VAE pools the mean of its positions, and has no classifier")
        self.vocabulary, self.in_chans, self.num_classes = vocabulary, in_chans, 0
        self.stride: int = 2 ** (groups - 1)
        widths = [hidden * 2**group for group in range(groups)]
        self.num_features = widths[-1]
        self.feature_info = [
            {"num_chs": width, "reduction": 2**group, "module": f"groups.{group}"}
            for group, width in enumerate(widths)
        ]
        gain = 1 / (groups * blocks) ** 2
        self.stem = Convolution(in_chans, hidden, 7)
        self.groups = nn.ModuleList(
            nn.Sequential(
                *(Block(before if b == 0 else width, width, (3, 3, 3, 1), gain) for b in range(blocks))
            )
            for before, width in zip([hidden, *widths], widths, strict=False)
        )
        self.words = Convolution(widths[-1], vocabulary, 1)

    def forward_features(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W), both sides multiples of S -> (B, D, h, w), as the last group leaves them."""
        x = self.stem(pixels)
        for index, group in enumerate(self.groups):
            x = group(x if index == 0 else nn.functional.max_pool2d(x, 2))
        return torch.as_tensor(x)

    def forward_head(self, positions: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, D, h, w) -> their mean (B, D)."""
        return positions.mean(dim=(2, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) -> pooled (B, D)."""
        return self.forward_head(self.forward_features(pixels))

    def spoken(self, positions: Tensor) -> Tensor:
        """(B, D, h, w), from `forward_features` -> logits over the words (B, V, h, w)."""
        logits: Tensor = self.words(positions.relu())
        return logits

    def logits(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) -> logits over the words (B, V, h, w)."""
        return self.spoken(self.forward_features(pixels))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of parameters for layer-wise learning rates, as timm's models have them."""
        return {"stem": r"^stem", "blocks": r"^groups\.(\d+)" if coarse else r"^groups\.(\d+)\.(\d+)"}

    def get_classifier(self) -> nn.Module:
        return nn.Identity()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        if num_classes:
            raise ValueError("a discrete VAE has no classifier")


VARIANTS: dict[str, dict[str, Any]] = {
    "ssl_zoo_dvae": {},  # DALL·E's own sizes
    "ssl_zoo_dvae_small": {"vocabulary": 512, "hidden": 64, "blocks": 1},
}
CONFIGURATION = {
    "input_size": (3, 112, 112),
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "fixed_input_size": False,
    "first_conv": "stem",
    "classifier": None,
}
register(DVAEEncoder, VARIANTS, CONFIGURATION)
