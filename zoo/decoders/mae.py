"""MAE's decoder (He et al., 2111.06377): the tokens of visible patches back into pixels."""

from __future__ import annotations

import torch
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from zoo.positions import sincos_positions


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
        for block in self.blocks:
            x = block(x)
        pixels: Tensor = self.head(self.norm(x))
        return pixels[:, 1:]
