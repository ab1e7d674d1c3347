"""The decoder of a discrete VAE (Ramesh et al., 2102.12092, Appendix A.1): words back to pixels.

Nothing is hidden from a tokenizer: `reconstruct` shows what its words keep of the whole picture. Axes: B images, V
words, S the pixels along the side of a word, (h, w) the grid of words.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architectures.dvae import Block, Convolution
from zoo.decoders import Masks
from zoo.errors import CardError, MaskError, Unsupported
from zoo.masking import Seeds
from zoo.patches import hidden_error, patchify

if TYPE_CHECKING:
    from zoo.cards import DecoderSpec


class DVAEDecoder(nn.Module):
    """Words through residual groups, each but the last followed by a doubling of the grid, to normalised pixels."""

    def __init__(self, vocabulary: int, width: int, blocks: int, word: int, channels: int = 3) -> None:
        """width: of the last group; each before it is twice as wide. blocks: in each group. word: S."""
        super().__init__()
        groups = round(math.log2(word)) + 1
        widths = [width * 2**group for group in reversed(range(groups))]
        gain = 1 / (groups * blocks) ** 2
        # As a card's decoder says them.
        self.sizes = {"width": width, "depth": blocks, "vocabulary": vocabulary, "word": word}
        self.stem = Convolution(vocabulary, widths[0] // 2, 1)
        self.groups = nn.ModuleList(
            nn.Sequential(
                *(Block(before if b == 0 else wide, wide, (1, 3, 3, 3), gain) for b in range(blocks))
            )
            for before, wide in zip([widths[0] // 2, *widths], widths, strict=False)
        )
        self.pixels = Convolution(widths[-1], channels, 1)

    def forward(self, words: Tensor) -> Tensor:
        """Probabilities of the words (B, V, h, w), one-hot or not -> pixels (B, C, S*h, S*w)."""
        x = self.stem(words)
        for index, group in enumerate(self.groups):
            x = group(x if index == 0 else F.interpolate(x, scale_factor=2.0, mode="nearest"))
        image: Tensor = self.pixels(x.relu())
        return image


def built(spec: DecoderSpec, channels: int) -> DVAEDecoder:
    """The decoder of words that a card describes."""
    if spec.word < 1 or spec.word & (spec.word - 1):
        raise CardError(f"a word of {spec.word} pixels is no power of two; write word: 8, say")
    if spec.vocabulary < 2:
        raise CardError(
            f"vocabulary {spec.vocabulary} holds too few words; write as many as the tokenizer has"
        )
    return DVAEDecoder(spec.vocabulary, spec.width, spec.depth, spec.word, channels)


def build(spec: DecoderSpec, module: nn.Module) -> DVAEDecoder:
    """A decoder with fresh weights for that tokenizer; CardError where the two have other words."""
    encoder: Any = module
    theirs = (getattr(encoder, "vocabulary", None), getattr(encoder, "stride", None))
    if theirs != (spec.vocabulary, spec.word):
        raise CardError(
            f"the decoder's vocabulary and word, {spec.vocabulary} and {spec.word} px, are not those of its "
            f"{type(module).__name__}: {theirs[0]} and {theirs[1]}"
        )
    return built(spec, encoder.in_chans)


def check_strategy(spec: DecoderSpec, module: nn.Module, strategy: str) -> None:
    """Any: `settle` sees to it that nothing is hidden."""


def settle(
    spec: DecoderSpec, module: nn.Module, hidden: Tensor, secondary: float | None, seeds: Seeds
) -> Masks:
    """No mask at all. Raises MaskError for one that hides something, Unsupported for a second one."""
    if secondary:
        raise Unsupported("a tokenizer sees the whole picture and has no secondary masking; leave it out")
    if bool(hidden.any()):
        raise MaskError(
            "a tokenizer sees the whole picture, and shows what its words keep of it; "
            "leave mask, strategy and ratio out"
        )
    return Masks(hidden)


def predict(family: Any, module: nn.Module, decoder: nn.Module, pixels: Tensor, masks: Masks) -> Tensor:
    """The likeliest word of each position, painted."""
    encoder: Any = module
    words = encoder.logits(pixels).argmax(dim=1)  # (B, h, w)
    image = decoder(one_hot(words, encoder.vocabulary).to(pixels.dtype))
    return patchify(image, pixels.shape[-1] // masks.hidden.shape[-1])


def one_hot(words: Tensor, vocabulary: int) -> Tensor:
    """Words (B, h, w) -> (B, V, h, w) of 0 and 1."""
    return F.one_hot(words, vocabulary).permute(0, 3, 1, 2)


def error(predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error of each image, (B,), over all of it: what is not hidden is said in words too."""
    return hidden_error(predicted, target, hidden.new_ones(hidden.shape))
