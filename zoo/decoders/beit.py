"""BEiT (Bao et al., 2106.08254): a mask token in the place of hidden patches, one linear layer to words, words painted.

The head and the mask token are BEiT's; what paints is the decoder of the discrete VAE whose words it learned. Axes: B
images, (h, w) the patches, V words, S the pixels along the side of a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

from zoo.decoders import Masks, dvae, with_mask_tokens, without_second
from zoo.errors import CardError
from zoo.masking import Seeds
from zoo.patches import hidden_error, patchify

if TYPE_CHECKING:
    from zoo.cards import DecoderSpec


class BEiTDecoder(nn.Module):
    """The mask token, the head over the words (§2.4), and what paints them."""

    def __init__(self, width: int, vocabulary: int, painter: dvae.DVAEDecoder | None) -> None:
        """width: of the encoder's patches. painter: words' probabilities (B, V, h, w) -> pixels; None cannot paint."""
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.head = nn.Linear(width, vocabulary)
        self.painter = painter
        trunc_normal_(self.mask_token, std=0.02)
        trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, h, w, D) after the final norm -> (B, C, S*h, S*w), painted from the words' probabilities."""
        assert self.painter is not None  # no folder holds a decoder without it
        image: Tensor = self.painter(self.head(patches).softmax(dim=-1).permute(0, 3, 1, 2))
        return image


def build(spec: DecoderSpec, module: nn.Module) -> BEiTDecoder:
    """A decoder with fresh weights for that encoder; CardError where it has no final norm, which comes before it."""
    encoder: Any = module
    if isinstance(getattr(encoder, "norm", None), nn.Identity):
        raise CardError(
            f"BEiT's head reads patches after the final norm, which this {type(module).__name__} lacks with "
            "pooling: avg; write arguments: {use_fc_norm: false}"
        )
    painter = dvae.built(spec, encoder.patch_embed.proj.in_channels)
    return BEiTDecoder(encoder.num_features, spec.vocabulary, painter)


def check_strategy(spec: DecoderSpec, module: nn.Module, strategy: str) -> None:
    """Any mask will do."""


def settle(
    spec: DecoderSpec, module: nn.Module, hidden: Tensor, secondary: float | None, seeds: Seeds
) -> Masks:
    """The mask as it is; Unsupported where a second one should lie on top."""
    return without_second(
        hidden, secondary, "BEiT hides every patch in the same way, and has no secondary masking"
    )


def predict(family: Any, module: nn.Module, decoder: nn.Module, pixels: Tensor, masks: Masks) -> Tensor:
    """Mask tokens through the whole encoder, words of every patch, painted and enlarged to the image."""
    seen = with_mask_tokens(family, module, decoder, pixels, masks)
    small = decoder(seen.as_map().permute(0, 2, 3, 1))
    image = F.interpolate(small, size=(pixels.shape[-2], pixels.shape[-1]), mode="bilinear")
    return patchify(image, pixels.shape[-1] // masks.hidden.shape[-1])


def error(predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error on hidden pixels, (B,): the words that were right are known to the tokenizer alone."""
    return hidden_error(predicted, target, hidden)
