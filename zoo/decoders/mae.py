"""MAE's decoder (He et al., 2111.06377): the tokens of visible patches back into pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from zoo.decoders import Masks
from zoo.errors import Unsupported
from zoo.masking import Seeds, visible_indices
from zoo.patches import hidden_error
from zoo.positions import sincos_positions

if TYPE_CHECKING:
    from zoo.cards import DecoderSpec


class MAEDecoder(nn.Module):
    """MAE's decoder (§3 of 2111.06377): mask tokens in the holes, fixed positions, a few blocks, pixels."""

    def __init__(
        self, encoder_width: int, width: int, depth: int, heads: int, patch: int, channels: int = 3
    ) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio=4, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth)
        )
        self.norm = LayerNorm(
            width
        )  # timm's: 1e-6 inside the root, as in the authors' code, where torch has 1e-5
        self.head = nn.Linear(width, patch * patch * channels)
        self._initialise()

    def _initialise(self) -> None:
        """Xavier-uniform linear layers and a N(0, 0.02) mask token, as in the authors' pre-training."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, visible: Tensor, grid: tuple[int, int]) -> Tensor:
        """Pixels of every patch, (B, N, P*P*C), hidden and visible alike.

        tokens: (B, 1 + V, D), the class token first. visible: (B, V) row-major patch indices. Positions are recomputed
        for the grid (h, w), exactly, at any size.
        """
        x = self.embed(tokens)  # (B, 1 + V, D')
        batch, _, width = x.shape
        patches = self.mask_token.to(x.dtype).expand(batch, grid[0] * grid[1], width)
        patches = patches.scatter(1, visible[..., None].expand(-1, -1, width), x[:, 1:])
        patches = patches + sincos_positions(grid, width).to(x)
        x = torch.cat([x[:, :1], patches], dim=1)  # the class token's own position is zero
        return self.to_pixels(x)[:, 1:]

    def to_pixels(self, x: Tensor) -> Tensor:
        """(B, T, D') through the blocks and the head: (B, T, P*P*C)."""
        for block in self.blocks:
            x = block(x)
        pixels: Tensor = self.head(self.norm(x))
        return pixels


def build(spec: DecoderSpec, module: nn.Module) -> MAEDecoder:
    """A decoder with fresh weights for that encoder, which can be a plain ViT alone."""
    if not isinstance(module, VisionTransformer):
        raise Unsupported(
            f"MAE drops patches, which a {type(module).__name__} cannot do; it needs a plain ViT, and kind 'simmim' or "
            "'ummae' works with others"
        )
    channels = module.patch_embed.proj.in_channels
    return MAEDecoder(int(module.num_features), spec.width, spec.depth, spec.heads, spec.patch, channels)


def check_strategy(spec: DecoderSpec, module: nn.Module, strategy: str) -> None:
    """A plain ViT takes every mask."""


def settle(
    spec: DecoderSpec, module: nn.Module, hidden: Tensor, secondary: float | None, seeds: Seeds
) -> Masks:
    """The mask as it is; Unsupported where a second one should lie on top."""
    if secondary:
        raise Unsupported(
            "this model was not trained with secondary masking and has no token for it; leave it out"
        )
    return Masks(hidden)


def predict(family: Any, module: nn.Module, decoder: nn.Module, pixels: Tensor, masks: Masks) -> Tensor:
    """The encoder sees the visible patches alone, the decoder all (§3)."""
    visible = visible_indices(masks.hidden)
    predicted: Tensor = decoder(
        family.visible_tokens(module, pixels, visible),
        visible,
        (masks.hidden.shape[1], masks.hidden.shape[2]),
    )
    return predicted


def error(predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error on hidden patches: (B,)."""
    return hidden_error(predicted, target, hidden)
