"""UM-MAE's Swin (Li et al., 2205.10063): windows whose relative bias is computed from where tokens stood in the image.

Masking leaves one 16-pixel patch of every 2×2; together they make an image of half the side, dense but out of place. So
each token carries its row and column in the whole image, and a small network turns differences of these into a bias.
It fits any window: half as wide on the compact image as on the whole one.

Axes: B images, (h, w) the grid of a stage, C its width.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import ClassifierHead, PatchEmbed, calculate_drop_path_rates
from torch import Tensor, nn

from zoo.architectures.position_windows import Places, PositionAttention, PositionBlock
from zoo.architectures.registration import register
from zoo.cells import PATCH, compact_image, over_tokens, token_places

EPS = 1e-6  # of the norms between stages and at the end; inside blocks the authors keep torch's 1e-5


class Merge(nn.Module):
    """2×2 tokens become one of twice the width: a norm and a strided convolution."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.proj = nn.Conv2d(dim, out, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        merged: Tensor = self.proj(self.norm(x).permute(0, 3, 1, 2))
        return merged.permute(0, 2, 3, 1)


class Stage(nn.Module):
    """Blocks on one grid, whose windows shift in every second one; a merge before them, but for the first."""

    def __init__(self, downsample: nn.Module, blocks: list[PositionBlock]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, places: Places | None = None) -> Tensor:
        x = self.downsample(x)
        for block in self.blocks:
            x = block(x, places)
        return x


class UMMAESwin(nn.Module):
    """UM-MAE's Swin, with the attributes that timm's have. It takes every image size that is a multiple of 32.

    window_size: of the whole image; half of it on the compact one. The authors pre-train 256-pixel images with 8 (on
    compact images) and go on with 16: the same share of the grid. fc_norm: the norm follows the pooling, as in the
    authors' fine-tuned files. img_size and what follows it are timm's Swin's; here they change nothing.
    """

    def __init__(
        self,
        embed_dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        num_heads: tuple[int, ...] = (3, 6, 12, 24),
        window_size: int = 16,
        posmlp_dim: int = 32,
        mlp_ratio: float = 4.0,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        fc_norm: bool = False,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        img_size: Any = None,
        strict_img_size: bool = False,
        dynamic_img_size: bool = True,
    ) -> None:
        super().__init__()
        widths = [embed_dim * 2**stage for stage in range(len(depths))]
        self.num_classes, self.in_chans, self.global_pool = num_classes, in_chans, global_pool
        self.num_features = self.head_hidden_size = widths[-1]
        self.patch_embed = PatchEmbed(
            None, 4, in_chans, embed_dim, norm_layer=_norm, strict_img_size=False, output_fmt="NHWC"
        )
        rates: Any = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        self.layers = nn.ModuleList(
            Stage(
                Merge(widths[stage - 1], widths[stage]) if stage else nn.Identity(),
                [
                    PositionBlock(
                        widths[stage], num_heads[stage], window_size, bool(i % 2), posmlp_dim, rate, mlp_ratio
                    )
                    for i, rate in enumerate(rates[stage])
                ],
            )
            for stage in range(len(depths))
        )
        self.feature_info = [
            {"num_chs": width, "reduction": 4 * 2**stage, "module": f"layers.{stage}"}
            for stage, width in enumerate(widths)
        ]
        self.norm = nn.Identity() if fc_norm else _norm(widths[-1])
        self.fc_norm = _norm(widths[-1]) if fc_norm else nn.Identity()
        self.head = ClassifierHead(widths[-1], num_classes, global_pool, drop_rate, input_fmt="NHWC")
        self.apply(_initialise)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H/32, W/32, D) after the final norm."""
        return self.through_stages(self.patch_embed(x))

    def through_stages(self, x: Tensor, places: Places | None = None) -> Tensor:
        """Embedded tokens (B, h, w, C) through all blocks and the final norm. places: of a compact image's tokens."""
        for index, stage in enumerate(self.layers):
            if places is not None and index:
                places = places.merged()
            x = stage(x, places)
        normed: Tensor = self.norm(x)
        return normed

    def compact(self, pixels: Tensor, kept: Tensor, blind: Tensor | None, token: Tensor | None) -> Tensor:
        """(B, C, H, W) -> (B, H/64, W/64, D): the kept patches alone, through all blocks and the final norm.

        kept: (B, M), of each 2×2 cell of patches. blind: (B, M) bool, those that `token` (1, 1, C) replaces once they
        are embedded (§3.2).
        """
        grid = (pixels.shape[-2] // PATCH, pixels.shape[-1] // PATCH)
        side = PATCH // 4
        x = self.patch_embed(compact_image(pixels, kept, PATCH))
        if blind is not None and token is not None:
            x = torch.where(over_tokens(blind, grid, side)[..., None], token.to(x.dtype), x)
        return self.through_stages(x, Places(token_places(kept, grid, side), 1.0, side))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.fc_norm(self.head(x, pre_logits=True))
        out: Tensor = pooled if pre_logits else self.head.fc(self.head.drop(pooled))
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        classifier: nn.Module = self.head.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.head.reset(num_classes, pool_type=global_pool)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of parameters for layer-wise learning rates, as timm's Swin has them."""
        blocks = [
            (r"^layers\.(\d+).downsample", (0,)),
            (r"^layers\.(\d+)\.\w+\.(\d+)", None),
            (r"^norm", (99999,)),
        ]
        return {"stem": r"^patch_embed", "blocks": r"^layers\.(\d+)" if coarse else blocks}

    def no_weight_decay(self) -> set[str]:
        return set()


def _norm(width: int, **where: Any) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=EPS, **where)


def _initialise(module: nn.Module) -> None:
    """Xavier-uniform linear layers; convolutions, the position MLP's 1×1 ones too, normal by their fan-out."""
    if isinstance(module, PositionAttention):
        for name in ("posmlp.0.weight", "posmlp.2.weight"):
            nn.init.kaiming_normal_(module.get_parameter(name), mode="fan_out")
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        nn.init.zeros_(module.bias)


VARIANTS: dict[str, dict[str, Any]] = {
    "ssl_zoo_ummae_swin_tiny": {},  # Swin-T, as the authors have it
    "ssl_zoo_ummae_swin_micro": {  # for images of 128 pixels, on a CPU
        "embed_dim": 48,
        "depths": (2, 2, 2, 2),
        "window_size": 8,
    },
}
CONFIGURATION = {
    "input_size": (3, 256, 256),
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "fixed_input_size": False,
    "first_conv": "patch_embed.proj",
    "classifier": "head.fc",
}
register(UMMAESwin, VARIANTS, CONFIGURATION)
