"""UM-MAE's decoder (Li et al., 2205.10063): MAE's, on the tokens of cells where the encoder is a pyramid.

A pyramid's last stage has one token for every 2×2 cells of the compact image; four times the channels and a
PixelShuffle make them one token a cell. It stands for the cell's visible patch, whose position it gets. The authors'
own code gives it another: that of the patch with the same rank among the visible ones of the whole image in row-major
order. Three in four get a stranger's position so; `visible_pos="official"` repeats it for the authors' files, and for
nothing else.

Axes: B images, (h, w) the grid of 16-pixel patches, N = h*w, M = N/4 cells, D' the decoder's width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from zoo.cells import check_halves, kept_patches, one_per_cell
from zoo.decoders import Masks
from zoo.decoders.mae import MAEDecoder
from zoo.errors import MaskError, Unsupported
from zoo.masking import Seeds, draw_secondary, visible_indices
from zoo.patches import hidden_error
from zoo.positions import sincos_positions

if TYPE_CHECKING:
    from zoo.cards import DecoderSpec


class UMMAEDecoder(MAEDecoder):
    """MAE's decoder with UM-MAE's token for secondary masking, and cells where the encoder is a pyramid."""

    def __init__(
        self,
        encoder_width: int,
        token_width: int,
        width: int,
        depth: int,
        heads: int,
        patch: int,
        *,
        pyramid: bool,
        secondary: bool,
        visible_pos: Literal["own", "official"] = "own",
        channels: int = 3,
    ) -> None:
        super().__init__(encoder_width, width, depth, heads, patch, channels)
        self.visible_pos = visible_pos
        self.pyramid = pyramid
        if pyramid:
            self.embed = nn.Linear(encoder_width, 4 * width)
            nn.init.xavier_uniform_(self.embed.weight)
            nn.init.zeros_(self.embed.bias)
        self.secondary_token = nn.Parameter(0.02 * torch.randn(1, 1, token_width)) if secondary else None

    def forward_cells(
        self, tokens: Tensor, kept: Tensor, hidden: Tensor, asked: Tensor | None = None
    ) -> Tensor:
        """Pixels of every patch, (B, N, P*P*C), hidden and visible alike; or of the K asked for, (B, K, P*P*C).

        tokens: (B, h/4, w/4, D) of the compact image. kept: (B, M), the patch of each cell. hidden: (B, h, w); a cell
        that hides all four has nothing to tell, and its patches are mask tokens like the others. asked: (B, K).
        """
        grid = (hidden.shape[1], hidden.shape[2])
        cells = self.cells(tokens)  # (B, M, D')
        positions = sincos_positions(grid, cells.shape[2]).to(self.mask_token)
        blank = self.mask_token + positions  # (1, N, D')
        stands_at = kept.sort(dim=1).values if self.visible_pos == "official" else kept
        seen = ~hidden.flatten(1).gather(1, kept)[..., None]
        return self.to_pixels(
            blank, torch.where(seen, cells + positions[stands_at], blank[0, kept]), kept, asked
        )

    def cells(self, tokens: Tensor) -> Tensor:
        """(B, h/4, w/4, D) -> one token a cell, (B, M, D')."""
        spread = nn.functional.pixel_shuffle(self.embed(tokens).permute(0, 3, 1, 2), 2)
        cells: Tensor = spread.flatten(2).transpose(1, 2)
        return cells


def build(spec: DecoderSpec, module: nn.Module) -> UMMAEDecoder:
    """A decoder with fresh weights for that encoder."""
    encoder: Any = module
    if not _is_pyramid(module) and not isinstance(module, VisionTransformer):
        raise Unsupported(
            f"UM-MAE cannot mask a {type(module).__name__}, whose positions do not go along with its patches; "
            "it needs a plain ViT, ssl_zoo_ummae_swin_tiny or ssl_zoo_ummae_pvt_small"
        )
    return UMMAEDecoder(
        int(encoder.num_features),
        int(encoder.patch_embed.proj.out_channels),
        spec.width,
        spec.depth,
        spec.heads,
        spec.patch,
        pyramid=_is_pyramid(module),
        secondary=spec.secondary is not None,
        visible_pos=spec.visible_pos,
        channels=int(encoder.patch_embed.proj.in_channels),
    )


def _is_pyramid(module: nn.Module) -> bool:
    return hasattr(module, "compact")


def check_strategy(spec: DecoderSpec, module: nn.Module, strategy: str) -> None:
    """A pyramid needs one visible patch in every cell, as `uniform` and `grid` leave them."""
    if _is_pyramid(module) and strategy not in ("uniform", "grid"):
        raise MaskError(
            f"{strategy!r} leaves some 2×2 cells with more than one visible patch or none, and UM-MAE on a pyramid "
            "needs exactly one; use strategy='uniform'"
        )


def settle(
    spec: DecoderSpec, module: nn.Module, hidden: Tensor, secondary: float | None, seeds: Seeds
) -> Masks:
    """On a pyramid one patch of every cell: `zoo.cells.one_per_cell`. Cells with none show the secondary mask token."""
    if secondary and spec.secondary is None:
        raise Unsupported(
            "this model was not trained with secondary masking and has no token for it; leave it out"
        )
    blind = None
    if _is_pyramid(module):
        hidden, blind = one_per_cell(hidden, seeds)
        if spec.secondary is None and bool(blind.any()):
            raise MaskError(
                "this mask hides all four patches of some 2×2 cells, and this model has no token to put there; "
                "show one patch in each"
            )
    drawn = draw_secondary(hidden, seeds, secondary) if secondary else torch.zeros_like(hidden)
    both = drawn if blind is None else drawn | blind
    return Masks(hidden, both if secondary or bool(both.any()) else None)


def predict(family: Any, module: nn.Module, decoder: nn.Module, pixels: Tensor, masks: Masks) -> Tensor:
    """The encoder sees the compact image of a pyramid, or a ViT's visible patches; the decoder all (§3)."""
    tokens, seen = encode(family, module, decoder, pixels, masks)
    return decode(decoder, tokens, seen, masks.hidden)


def encode(
    family: Any, module: nn.Module, decoder: nn.Module, pixels: Tensor, masks: Masks
) -> tuple[Tensor, Tensor]:
    """The encoder's tokens of what it sees, and the row-major patches (B, V) that it sees.

    Tokens: (B, 1 + V, D) of a ViT, the class token first; (B, h/4, w/4, D) of a pyramid, where V = M.
    """
    hidden, secondary = masks
    if _is_pyramid(module):
        check_halves(pixels.shape[-2], pixels.shape[-1], family.stride(module))
        seen = kept_patches(hidden, secondary)
    else:
        seen = visible_indices(hidden)
    blind = None if secondary is None else secondary.flatten(1).gather(1, seen)
    token = decoder.secondary_token if secondary is not None else None
    if _is_pyramid(module):
        return module.compact(pixels, seen, blind, token), seen  # type: ignore[operator]
    return family.visible_tokens(module, pixels, seen, blind, token), seen


def decode(decoder: Any, tokens: Tensor, seen: Tensor, hidden: Tensor, asked: Tensor | None = None) -> Tensor:
    """Pixels of every patch, (B, N, P*P*C), from what `encode` gave, or of those asked for. hidden: (B, h, w)."""
    if decoder.pyramid:
        pixels: Tensor = decoder.forward_cells(tokens, seen, hidden, asked)
    else:
        pixels = decoder(tokens, seen, (hidden.shape[1], hidden.shape[2]), asked)
    return pixels


def error(predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error on hidden patches, those of the secondary mask left out: (B,)."""
    return hidden_error(predicted, target, hidden)
