"""Pyramid vision transformers: PVT (Wang et al., 2102.12122) and UM-MAE's variant of it (Li et al., 2205.10063).

Queries look at keys on a reduced grid. PVT reduces it with a strided convolution, has learned positions in every stage,
and a class token in the last. UM-MAE's averages r×r positions and maps them by a 1×1 convolution, in every stage, which
fits any r; it has sine-cosine positions before the first stage and no class token.

Axes: B images, (h, w) the grid of a stage, N its positions, T tokens (N, and one more with the class token), C width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import calculate_drop_path_rates, trunc_normal_
from torch import Tensor, nn

from zoo.architectures.reduced_attention import Grid, ReducedBlock
from zoo.architectures.registration import register
from zoo.cells import PATCH, compact_image, over_tokens, token_places
from zoo.positions import sincos_positions


class Embed(nn.Module):
    """A strided convolution, to the tokens of the next grid; PVT norms them."""

    def __init__(self, channels: int, dim: int, side: int, normed: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, side, stride=side)
        self.norm = nn.LayerNorm(dim) if normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, h, w, C')."""
        tokens: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return tokens


class Stage(nn.Module):
    """Blocks on one grid. Before them, but for the first stage, 2×2 positions become one; PVT adds positions."""

    def __init__(
        self, downsample: nn.Module, blocks: list[ReducedBlock], positions: tuple[int, int, int] | None
    ) -> None:
        super().__init__()
        self.downsample = downsample
        self.pos_embed = None if positions is None else nn.Parameter(torch.zeros(1, *positions))
        self.blocks = nn.ModuleList(blocks)

    def enter(self, x: Tensor) -> Tensor:
        """(B, h, w, C) as the stage before leaves it (or the patch embedding) -> tokens' grid of this one."""
        if not isinstance(self.downsample, nn.Identity):
            x = self.downsample(x.permute(0, 3, 1, 2))
        return x if self.pos_embed is None else x + resized(self.pos_embed, (x.shape[1], x.shape[2]))


def resized(positions: Tensor, grid: Grid) -> Tensor:
    """Learned positions (1, h, w, C) on another grid, bilinearly, as PVT's authors resize theirs."""
    if positions.shape[1:3] == grid:
        return positions
    moved = F.interpolate(positions.permute(0, 3, 1, 2).float(), size=grid, mode="bilinear")
    return moved.permute(0, 2, 3, 1).to(positions.dtype)


class PVT(nn.Module):
    """A pyramid vision transformer of four stages, which takes every image size that is a multiple of 32.

    averaged: UM-MAE's reduction of keys, sine-cosine positions, and no class token; else PVT's. sr_ratios: on the whole
    image. stored_positions: UM-MAE's positions are parameters, as in its authors' files, who fine-tune them. img_size:
    the one whose positions are stored. fc_norm: the norm follows the pooling, as in their fine-tuned files.
    """

    def __init__(
        self,
        embed_dims: tuple[int, ...] = (64, 128, 320, 512),
        depths: tuple[int, ...] = (3, 4, 6, 3),
        num_heads: tuple[int, ...] = (1, 2, 5, 8),
        mlp_ratios: tuple[float, ...] = (8, 8, 4, 4),
        sr_ratios: tuple[int, ...] = (8, 4, 2, 1),
        averaged: bool = False,
        stored_positions: bool = False,
        img_size: int = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        fc_norm: bool = False,
        drop_path_rate: float = 0.0,
        strict_img_size: bool = False,
        dynamic_img_size: bool = True,
    ) -> None:
        super().__init__()
        if global_pool not in (("avg",) if averaged else ("token", "avg")):
            raise ValueError(f"global_pool={global_pool!r}; write avg" + ("" if averaged else " or token"))
        self.num_classes, self.in_chans, self.global_pool = num_classes, in_chans, global_pool
        self.num_features = self.head_hidden_size = embed_dims[-1]
        self.averaged = averaged
        self.patch_embed = Embed(in_chans, embed_dims[0], 4, normed=not averaged)
        rates: Any = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        self.stages = nn.ModuleList()
        for i, dim in enumerate(embed_dims):
            side = img_size // (4 * 2**i)
            entrance = Embed(embed_dims[i - 1], dim, 2, normed=not averaged) if i else nn.Identity()
            settings = (dim, num_heads[i], sr_ratios[i], averaged, mlp_ratios[i])
            blocks = [ReducedBlock(*settings, rate) for rate in rates[i]]
            self.stages.append(Stage(entrance, blocks, None if averaged else (side, side, dim)))
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"}
            for i, dim in enumerate(embed_dims)
        ]
        side = img_size // 4
        stored = sincos_positions((side, side), embed_dims[0]).reshape(1, side, side, -1)
        self.pos_embed = nn.Parameter(stored) if averaged and stored_positions else None
        self.cls_token = None if averaged else nn.Parameter(torch.zeros(1, 1, embed_dims[-1]))
        self.cls_position = None if averaged else nn.Parameter(torch.zeros(1, 1, embed_dims[-1]))
        self.norm = nn.Identity() if fc_norm else nn.LayerNorm(embed_dims[-1], eps=1e-6)
        self.fc_norm = nn.LayerNorm(embed_dims[-1], eps=1e-6) if fc_norm else nn.Identity()
        self.head = nn.Linear(embed_dims[-1], num_classes) if num_classes else nn.Identity()
        self._initialise()

    def _initialise(self) -> None:
        """As the authors: PVT N(0, 0.02) throughout, UM-MAE Xavier-uniform, convolutions normal by their fan-out."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                (nn.init.xavier_uniform_ if self.averaged else _narrow)(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d) and self.averaged:
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        if self.averaged:
            nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))
            return
        for name, parameter in self.named_parameters():
            if name.endswith(("pos_embed", "cls_token", "cls_position")):
                _narrow(parameter)

    def before_stages(self, x: Tensor, places: Tensor | None = None) -> Tensor:
        """Embedded tokens (B, h, w, C) with UM-MAE's positions; places (B, h, w, 2): where a compact image's stood."""
        if not self.averaged:
            return x
        grid = (x.shape[1], x.shape[2]) if places is None else (2 * x.shape[1], 2 * x.shape[2])
        if self.pos_embed is None:
            positions = sincos_positions(grid, x.shape[3]).to(self.patch_embed.proj.weight).unflatten(0, grid)
        else:
            positions = resized(self.pos_embed, grid)[0]
        placed: Tensor = x + (positions if places is None else positions[places[..., 0], places[..., 1]])
        return placed

    def enter(self, index: int, x: Tensor) -> tuple[Tensor, Grid]:
        """Positions (B, h, w, C) before a stage -> its tokens (B, T, C), the class token first, and their grid."""
        stage: Any = self.stages[index]
        x = stage.enter(x)
        tokens, grid = x.flatten(1, 2), (x.shape[1], x.shape[2])
        if self.cls_token is not None and self.cls_position is not None and index == len(self.stages) - 1:
            cls = (self.cls_token + self.cls_position).expand(x.shape[0], -1, -1)
            tokens = torch.cat([cls, tokens], dim=1)
        return tokens, grid

    def through_stages(self, x: Tensor, compact: bool = False) -> Tensor:
        """Embedded tokens (B, h, w, C) with their positions -> (B, T, D) after the final norm."""
        tokens, grid = x, (0, 0)
        for index, stage in enumerate(self.stages):
            tokens, grid = self.enter(index, tokens.unflatten(1, grid) if index else x)
            for block in stage.blocks:  # type: ignore[union-attr]
                tokens = block(tokens, grid, compact)
        normed: Tensor = self.norm(tokens)
        return normed

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, T, D) after the final norm, the class token first where there is one."""
        return self.through_stages(self.before_stages(self.patch_embed(x)))

    def compact(self, pixels: Tensor, kept: Tensor, blind: Tensor | None, token: Tensor | None) -> Tensor:
        """(B, C, H, W) -> (B, H/64, W/64, D): UM-MAE's kept patches alone, through all blocks and the final norm.

        kept: (B, M), of each 2×2 cell of patches. blind: (B, M) bool, those that `token` (1, 1, C) replaces once they
        are embedded; it gets their positions (§3.2).
        """
        grid, side = (pixels.shape[-2] // PATCH, pixels.shape[-1] // PATCH), PATCH // 4
        x = self.patch_embed(compact_image(pixels, kept, PATCH))
        if blind is not None and token is not None:
            x = torch.where(over_tokens(blind, grid, side)[..., None], token.to(x.dtype), x)
        tokens = self.through_stages(self.before_stages(x, token_places(kept, grid, side)), compact=True)
        positions: Tensor = tokens.unflatten(1, (grid[0] // 4, grid[1] // 4))
        return positions

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        prefix = 0 if self.cls_token is None else 1
        pooled = self.fc_norm(x[:, 0] if self.global_pool == "token" else x[:, prefix:].mean(dim=1))
        out: Tensor = pooled if pre_logits else self.head(pooled)
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes, self.global_pool = num_classes, global_pool or self.global_pool
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of parameters for layer-wise learning rates, as timm's pyramids have them.

        What enters a stage belongs to its first block, the class token to the last stage's.
        """
        last = len(self.stages) - 1
        blocks = [
            (r"^stages\.(\d+)\.(?:downsample|pos_embed)", (0,)),
            (r"^stages\.(\d+)\.\w+\.(\d+)", None),
            (r"^cls_(?:token|position)$", (last, 0)),
            (r"^norm", (99999,)),  # timm's number for the layer before
        ]
        return {
            "stem": r"^(?:patch_embed|pos_embed)",
            "blocks": r"^stages\.(\d+)" if coarse else blocks,
        }

    def no_weight_decay(self) -> set[str]:
        positions = {name for name, _ in self.named_parameters() if name.endswith("pos_embed")}
        return {*positions, "cls_token", "cls_position"}


def _narrow(tensor: Tensor) -> None:
    trunc_normal_(tensor, std=0.02)


_UMMAE: dict[str, Any] = {"averaged": True, "global_pool": "avg", "img_size": 256}
VARIANTS: dict[str, dict[str, Any]] = {
    "ssl_zoo_pvt_tiny": {"depths": (2, 2, 2, 2)},
    "ssl_zoo_pvt_small": {},
    "ssl_zoo_pvt_medium": {"depths": (3, 4, 18, 3)},
    "ssl_zoo_pvt_large": {"depths": (3, 8, 27, 3)},
    "ssl_zoo_ummae_pvt_small": _UMMAE,
    "ssl_zoo_ummae_pvt_micro": {  # for images of 128 pixels, on a CPU
        **_UMMAE,
        "embed_dims": (32, 64, 160, 256),
        "depths": (2, 2, 2, 2),
        "sr_ratios": (4, 2, 1, 1),
        "img_size": 128,
    },
}
CONFIGURATION = {
    "input_size": (3, 224, 224),
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "fixed_input_size": False,
    "first_conv": "patch_embed.proj",
    "classifier": "head",
}
register(PVT, VARIANTS, CONFIGURATION)
