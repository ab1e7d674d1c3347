"""SimMIM (Xie et al., 2111.09886): a mask token in the place of hidden patches, one linear layer back to pixels.

The encoder sees every patch, so that any mask will do. Axes: B images, (h, w) the mask's grid, P the pixels along the
side of its patches, S the encoder's stride.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from zoo.decoders import Masks, with_mask_tokens, without_second
from zoo.errors import CardError
from zoo.masking import Seeds
from zoo.patches import patchify

if TYPE_CHECKING:
    from zoo.cards import DecoderSpec


class SimMIMDecoder(nn.Module):
    """The mask token, and a 1×1 convolution with a PixelShuffle (§3.3)."""

    def __init__(self, encoder_width: int, token_width: int, patch: int, channels: int = 3) -> None:
        super().__init__()
        self.patch = patch
        self.mask_token = nn.Parameter(torch.zeros(1, 1, token_width))
        self.head = nn.Conv2d(encoder_width, patch * patch * channels, 1)
        trunc_normal_(self.mask_token, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, H/S, W/S) -> the image (B, C, H, W)."""
        return nn.functional.pixel_shuffle(self.head(features), self.patch)


def build(spec: DecoderSpec, module: nn.Module) -> SimMIMDecoder:
    """A decoder with fresh weights for that encoder; CardError where it has no final norm, which comes before it.

    timm's ViTs and BEiTs leave theirs out where the mean of patches has a norm of its own, as it has by default.
    """
    encoder: Any = module
    if isinstance(getattr(encoder, "norm", None), nn.Identity):
        argument = "fc_norm" if hasattr(encoder, "reg_token") else "use_fc_norm"
        raise CardError(
            f"SimMIM's decoder reads patches after the final norm, which this {type(module).__name__} lacks with "
            f"pooling: avg; write arguments: {{{argument}: false}}"
        )
    embedding = encoder.patch_embed.proj
    return SimMIMDecoder(encoder.num_features, embedding.out_channels, spec.patch, embedding.in_channels)


def check_strategy(spec: DecoderSpec, module: nn.Module, strategy: str) -> None:
    """Any mask will do."""


def settle(
    spec: DecoderSpec, module: nn.Module, hidden: Tensor, secondary: float | None, seeds: Seeds
) -> Masks:
    """The mask as it is; Unsupported where a second one should lie on top."""
    return without_second(
        hidden, secondary, "SimMIM hides every patch in the same way, and has no secondary masking"
    )


def predict(family: Any, module: nn.Module, decoder: nn.Module, pixels: Tensor, masks: Masks) -> Tensor:
    """Mask tokens through the whole encoder, and pixels at its stride (§3)."""
    image = decoder(with_mask_tokens(family, module, decoder, pixels, masks).as_map())
    return patchify(image, pixels.shape[-1] // masks.hidden.shape[-1])


def error(predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Mean absolute error on hidden pixels: (B,). 0 where an image hides nothing."""
    per_patch = (predicted - target).abs().mean(dim=-1)  # (B, N)
    return (per_patch * hidden).sum(dim=1) / hidden.sum(dim=1).clamp(min=1)
