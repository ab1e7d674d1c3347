"""Decoders of masked-image models: one file per kind, which a card's `decoder.kind` names.

What each file offers is the protocol `Kind`: the decoder itself, and how an encoder of any family works with it.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from torch import Tensor, nn

from zoo.errors import CardError, Unsupported, did_you_mean
from zoo.masking import Seeds

if TYPE_CHECKING:
    from zoo.cards import DecoderSpec
    from zoo.features import Features


class Masks(NamedTuple):
    """What B images hide, on the grid (h, w) of the card's `mask_patch`."""

    hidden: Tensor  # (B, h, w) bool
    secondary: Tensor | None = None  # (B, h, w) bool: patches that a mask token replaces in the encoder

    def rows(self, index: Tensor) -> Masks:
        """The masks of some of the images."""
        return Masks(self.hidden[index], None if self.secondary is None else self.secondary[index])

    def to(self, device: Any) -> Masks:
        return Masks(self.hidden.to(device), None if self.secondary is None else self.secondary.to(device))


def without_second(hidden: Tensor, secondary: float | None, why: str) -> Masks:
    """The mask as it is; Unsupported, saying `why`, where a second one should lie on top."""
    if secondary:
        raise Unsupported(f"{why}; leave it out")
    return Masks(hidden)


def with_mask_tokens(
    family: Any, module: nn.Module, decoder: nn.Module, pixels: Tensor, masks: Masks
) -> Features:
    """The whole encoder, with the decoder's mask token in place of hidden patches. Raises Unsupported."""
    if not hasattr(family, "with_mask_token"):
        raise Unsupported(f"{type(module).__name__} has no patch embedding to put mask tokens in")
    features: Features = family.with_mask_token(module, pixels, masks.hidden, decoder.mask_token)
    return features


class Kind(Protocol):
    """The functions of a kind's file. P: pixels along the side of a patch of the mask's grid, N = h*w patches."""

    def build(self, spec: DecoderSpec, module: nn.Module) -> nn.Module:
        """A decoder with fresh weights for that encoder."""

    def check_strategy(self, spec: DecoderSpec, module: nn.Module, strategy: str) -> None:
        """Raises MaskError for a strategy whose masks the encoder cannot take."""

    def settle(
        self, spec: DecoderSpec, module: nn.Module, hidden: Tensor, secondary: float | None, seeds: Seeds
    ) -> Masks:
        """The masks that the encoder will really see, of (B, h, w) asked for and a share of the visible ones on top.

        Raises Unsupported where the model knows no secondary mask, MaskError where the mask cannot be made to fit.
        """

    def predict(
        self, family: Any, module: nn.Module, decoder: nn.Module, pixels: Tensor, masks: Masks
    ) -> Tensor:
        """The decoder's pixels of every patch (B, N, P*P*C), of normalised (B, C, H, W); differentiable.

        All images hide equally many patches. Raises MaskError for sizes the encoder cannot mask.
        """

    def error(self, predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
        """The method's loss of each image: (B,). predicted, target: (B, N, P*P*C). hidden: (B, N) bool."""


def kind(name: str) -> Kind:
    """The file of a kind; CardError for a name no file here has."""
    if name not in (known := names()):
        raise CardError(f"no decoder kind {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    return cast(Kind, importlib.import_module(f"{__name__}.{name}"))


def names() -> list[str]:
    """Stems of the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
