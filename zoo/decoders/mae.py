"""MAE's decoder (He et al., 2111.06377): the tokens of visible patches back into pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from zoo.decoders import Masks, without_second
from zoo.errors import Unsupported
from zoo.masking import Seeds, visible_indices
from zoo.patches import hidden_error, take
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

    def forward(
        self, tokens: Tensor, visible: Tensor, grid: tuple[int, int], asked: Tensor | None = None
    ) -> Tensor:
        """Pixels of every patch, (B, N, P*P*C), hidden and visible alike; or of the K asked for, (B, K, P*P*C).

        tokens: (B, 1 + V, D), the class token first. visible: (B, V) row-major patch indices; asked: (B, K), likewise.
        Positions are recomputed for the grid (h, w), exactly, at any size.
        """
        x = self.embed(tokens)  # (B, 1 + V, D')
        # Of the parameters' type: under autocast x has fewer bits, and the sum, which the blocks add to, must not.
        positions = F.pad(
            sincos_positions(grid, x.shape[2]).to(self.mask_token), (0, 0, 1, 0)
        )  # the class token's: 0
        places = F.pad(visible + 1, (1, 0))  # (B, 1 + V)
        blank = self.mask_token + positions  # (1, 1 + N, D')
        pixels = self.to_pixels(blank, x + positions[places], places, None if asked is None else asked + 1)
        return pixels if asked is not None else pixels[:, 1:]

    def to_pixels(self, blank: Tensor, own: Tensor, places: Tensor, asked: Tensor | None = None) -> Tensor:
        """Tokens (B, S, D') at their places (B, S), blank ones (1, T, D') elsewhere: pixels (B, T, P*P*C).

        asked: (B, K), the tokens whose pixels are wanted, (B, K, P*P*C). Then no work is done twice or for nothing: all
        images share the blank tokens, until the first block mixes them with others, and the last block leaves out what
        nobody asked for.
        """
        x = _laid(blank, own, places)
        blocks = list(self.blocks)
        if asked is not None and blocks:
            *earlier, last = blocks
            if earlier:
                x = _first_block(earlier[0], x, blank, own, places)
            for block in earlier[1:]:
                x = block(x)
            x = _last_block(last, x, asked)
        else:
            for block in blocks:
                x = block(x)
            x = x if asked is None else take(x, asked)
        pixels: Tensor = self.head(self.norm(x))
        return pixels


def _laid(blank: Tensor, own: Tensor, places: Tensor) -> Tensor:
    """Rows (B, S, D) at their places among blank ones (1, T, D): (B, T, D)."""
    return blank.expand(own.shape[0], -1, -1).scatter(1, places[..., None].expand(-1, -1, own.shape[2]), own)


def _first_block(block: Any, x: Tensor, blank: Tensor, own: Tensor, places: Tensor) -> Tensor:
    """`block(x)`, with queries, keys and values of the blank tokens computed once for all images."""
    blank, own = (block.attn.qkv(block.norm1(each)) for each in (blank, own))
    q, k, v = _laid(blank, own, places).chunk(3, dim=2)
    return _after_attention(block, x, q, k, v)


def _last_block(block: Any, x: Tensor, asked: Tensor) -> Tensor:
    """`block(x)` at the asked tokens alone, (B, K, D'), which still look at all."""
    normed, qkv, width = block.norm1(x), block.attn.qkv, x.shape[2]
    q = F.linear(take(normed, asked), qkv.weight[:width], qkv.bias[:width])
    k, v = F.linear(normed, qkv.weight[width:], qkv.bias[width:]).chunk(2, dim=2)
    return _after_attention(block, take(x, asked), q, k, v)


def _after_attention(block: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The rest of a pre-norm block. x, q: (B, K, D'). k, v: (B, T, D')."""
    q, k, v = (each.unflatten(2, (block.attn.num_heads, -1)).transpose(1, 2) for each in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    x = x + block.attn.proj(mixed)
    out: Tensor = x + block.mlp(block.norm2(x))
    return out


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
    return without_second(
        hidden, secondary, "this model was not trained with secondary masking and has no token for it"
    )


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
