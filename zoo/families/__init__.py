"""One file per family of architectures; a card names its family by the stem of the file.

What each file offers is the protocol `Family`, as functions of the module.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import Tensor, nn

import zoo.architectures  # noqa: F401  registers with timm what only the zoo has
from zoo.errors import CardError, did_you_mean

if TYPE_CHECKING:
    from zoo.features import Features


class Family(Protocol):
    """The functions of a family's file.
    Axes: B images, C channels, (H, W) pixels, N patches on the grid (h, w), D width.

    pixels: (B, C, H, W), normalised, H and W multiples of the stride. block, layers: non-negative block indices,
    numbered through all stages. What an architecture does not have raises Unsupported, naming what works.
    For masked-image decoders (zoo/decoders) a family also has `visible_tokens`, where it can encode visible patches
    alone, and `with_mask_token`, where a token may take the place of hidden ones.
    """

    def build(self, architecture: str, arguments: dict[str, Any], interpolation: str = "timm") -> nn.Module:
        """An untrained module without a classifier. interpolation: whose rule resizes positions off the native size."""

    def stride(self, module: nn.Module) -> int:
        """Pixels between neighbouring patches, and what image sides are multiples of."""

    def features(self, module: nn.Module, pixels: Tensor) -> Features:
        """Pooled, class token and patches after the final norm; differentiable."""

    def depth(self, module: nn.Module) -> int:
        """Number of blocks."""

    def intermediates(self, module: nn.Module, pixels: Tensor, layers: Sequence[int]) -> list[Features]:
        """Features after each of the asked blocks, through the final norm where there is one of that width."""

    def attention_rows(
        self, module: nn.Module, pixels: Tensor, block: int, query: tuple[int, int] | None
    ) -> Tensor:
        """Softmax rows (B, heads, h, w) of one query in one block, on the grid of that block's keys: its own, but PVT's
        reduced one. query: a position of the block's grid; None: the class token.
        """

    def pyramid(self, module: nn.Module, pixels: Tensor) -> list[Tensor]:
        """Feature maps [(B, C_i, h_i, w_i)], finest first; one level for a plain ViT."""


def family(name: str) -> Family:
    """The module of a family; CardError for a name no file here has (nothing else is ever imported)."""
    known = names()
    if name not in known:
        raise CardError(f"no family {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    return cast(Family, importlib.import_module(f"{__name__}.{name}"))


def names() -> list[str]:
    """Stems of the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
