"""UM-MAE's own names, for its Swin, PVT and ViT, and for the SimMIM that its authors trained beside it.

Their pyramids keep all blocks in one list, and a merge inside the first block of each stage.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import WeightsError
from zoo.layouts.rules import PARALLEL, Convert, Layout, Tensors
from zoo.layouts.vit import HEADS, TIMM
from zoo.positions import sincos_positions

_PLACES = (("model", PARALLEL), ("", PARALLEL))
_EMBEDDED = r"patch_embed\.proj\.weight"
_DECODER = r"decoder_|mask_token|vis_mask_token"
_DECODER_RENAMES = (("^decoder_pred", "head"), ("^decoder_", ""), ("^vis_mask_token", "secondary_token"))


def _in_stages(tensors: Tensors, stages: Any, called: str) -> Tensors:
    """blocks.K as the block J of the stage I it lies in; its merge as the stage's."""
    places = [(i, j) for i, stage in enumerate(stages) for j in range(len(stage.blocks))]

    def moved(match: re.Match[str]) -> str:
        number, merge = int(match[1]), match[2]
        if number >= len(places):
            return match[0]  # reported as unexpected
        stage, block = places[number]
        return f"{called}.{stage}.{merge}" if merge else f"{called}.{stage}.blocks.{block}."

    return {re.sub(r"^blocks\.(\d+)\.(downsample\.)?", moved, name): each for name, each in tensors.items()}


def _check_norms(tensors: Tensors, module: nn.Module) -> None:
    """WeightsError where file and module put the last norm on different sides of the pooling."""
    fine_tuned = "fc_norm.weight" in tensors
    if fine_tuned != ("fc_norm.weight" in module.state_dict()):
        told, value = (
            ("fine-tuned, with its norm behind", "true")
            if fine_tuned
            else ("pre-trained, with its norm before", "false")
        )
        raise WeightsError(f"it was {told} the pooling; write arguments: {{fc_norm: {value}}}")


def _swin(tensors: Tensors, module: nn.Module) -> Tensors:
    """Blocks in stages; 1×1 convolutions of the position MLP as the linear layers they are."""
    if not hasattr(module, "compact"):
        raise WeightsError(
            "UM-MAE's Swin computes its relative positions and merges patches otherwise than timm's; "
            "write architecture: ssl_zoo_ummae_swin_tiny"
        )
    _check_norms(tensors, module)
    staged = _in_stages(tensors, module.layers, "layers")
    return {
        name: each[:, :, 0, 0] if ".posmlp." in name and each.ndim == 4 else each
        for name, each in staged.items()
    }


def _pvt(tensors: Tensors, module: nn.Module) -> Tensors:
    """Blocks in stages; stored positions on their grid, or left out where they are the ones computed here."""
    if not hasattr(module, "compact"):
        raise WeightsError(
            "UM-MAE's PVT reduces keys and has positions otherwise than PVT; "
            "write architecture: ssl_zoo_ummae_pvt_small"
        )
    _check_norms(tensors, module)
    staged = _in_stages(tensors, module.stages, "stages")
    stored = staged.pop("pos_embed", None)
    if stored is None:
        return staged
    side = round(stored.shape[1] ** 0.5)
    if getattr(module, "pos_embed", None) is not None:
        return {**staged, "pos_embed": on_grid(stored, module.get_parameter("pos_embed"))}
    if stored.shape != (1, side * side, stored.shape[2]) or not torch.allclose(
        stored[0].float(), sincos_positions((side, side), stored.shape[2]), atol=1e-4
    ):
        raise WeightsError(
            "its positions are not sine-cosine ones but were trained; write arguments: {stored_positions: true}"
        )
    return staged


def on_grid(stored: Tensor, wanted: Tensor) -> Tensor:
    """Positions (1, N, C) of a square grid as those of a module (1, h, w, C), resized bilinearly where they differ.

    As they are where they are of no square grid, for the report.
    """
    side = round(stored.shape[1] ** 0.5)
    if stored.ndim != 3 or side * side != stored.shape[1] or stored.shape[2] != wanted.shape[-1]:
        return stored
    grid = stored.reshape(1, side, side, -1)
    if grid.shape == wanted.shape:
        return grid
    size = (wanted.shape[1], wanted.shape[2])
    moved = nn.functional.interpolate(grid.permute(0, 3, 1, 2).float(), size=size, mode="bilinear")
    return moved.permute(0, 2, 3, 1).to(stored.dtype)


def _simmim_head(tensors: Tensors, decoder: nn.Module) -> Tensors:
    """The linear layer to the 16-pixel patches of a 2×2, as the convolution whose PixelShuffle gives all 32 pixels.

    Theirs orders its outputs by (row, column, channel) inside a patch, and by the patch in the 2×2 last.
    """
    side = int(decoder.patch) // 2  # type: ignore[arg-type]
    out = dict(tensors)
    for name in ("head.weight", "head.bias"):
        rows = out[name].unflatten(
            0, (side, side, -1, 2, 2)
        )  # (row, column, channel, patch's row, its column)
        ours = rows.permute(2, 3, 0, 4, 1, *range(5, rows.ndim)).flatten(0, 4)
        out[name] = ours[:, :, None, None] if name == "head.weight" else ours
    return out


def _positions_of_its_authors(tensors: Tensors, decoder: nn.Module) -> Tensors:
    """The tensors; WeightsError where the card gives visible patches their own positions, which these never had."""
    if getattr(decoder, "pyramid", False) and getattr(decoder, "visible_pos", "") != "official":
        raise WeightsError(
            "UM-MAE's authors gave the visible patches of a pyramid other positions than their own when they trained "
            "this decoder (zoo/decoders/ummae.py); write decoder: {visible_pos: official}"
        )
    return tensors


_SWIN_MARKS = (_EMBEDDED, r"blocks\.0\.attn\.posmlp\.0\.")
_PVT_MARKS = (_EMBEDDED, r"blocks\.0\.attn\.sr\.weight", r"blocks\.0\.attn\.kv\.weight")
_SIMMIM_TELLS = (r"mask_token", r"decoder_pred\.")


def _layout(
    name: str, writer: str, marks: tuple[str, ...], convert: Convert, *, simmim: bool = False
) -> Layout:
    return Layout(
        name=name,
        writer=writer,
        places=_PLACES,
        marks=marks,
        tells=_SIMMIM_TELLS if simmim else (),
        never=(r"decoder_embed\.",) if simmim else (),
        drops=(r"head\.",),
        decoder=_DECODER,
        decoder_renames=_DECODER_RENAMES,
        convert=convert,
        decoder_convert=_simmim_head if simmim else _positions_of_its_authors,
    )


VIT = Layout(
    name="ummae_vit",
    writer="UM-MAE's ViT, encoder and decoder",
    places=_PLACES,
    marks=TIMM,
    tells=(r"vis_mask_token",),
    drops=HEADS,
    decoder=_DECODER,
    decoder_renames=_DECODER_RENAMES,
)
LAYOUTS = (
    _layout("ummae_simmim_swin", "UM-MAE's authors' SimMIM on Swin", _SWIN_MARKS, _swin, simmim=True),
    _layout("ummae_simmim_pvt", "UM-MAE's authors' SimMIM on PVT", _PVT_MARKS, _pvt, simmim=True),
    _layout("ummae_swin", "UM-MAE's Swin, encoder and decoder", _SWIN_MARKS, _swin),
    _layout("ummae_pvt", "UM-MAE's PVT, encoder and decoder", _PVT_MARKS, _pvt),
    VIT,
)
