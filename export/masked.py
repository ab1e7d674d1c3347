"""reconstruct.onnx: encoder and decoder of a masked image in one graph. The mask is an input: nothing is random.

Whoever runs it draws the mask by the lines in zoo/masking.py, and so repeats Python's picture. All give `predicted`
(batch, N, P*P*C), the decoder's own output on every patch, and take `pixels` (batch, C, H, W), normalised, and

  MAE, UM-MAE on a ViT   `visible` (batch, V) int64: row-major indices of the visible patches, ascending, any V
  UM-MAE on a pyramid    `kept` (batch, M) int64: the patch that each 2×2 cell shows, cells in row-major order; `hidden`
                         (batch, h, w) bool
  SimMIM, BEiT           `hidden` (batch, h, w) bool

and, where the model was trained with secondary masking, `blind` (batch, V or M) bool: those of `visible` or `kept` in
whose place the encoder sees a mask token.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from zoo.card_specs import DecoderSpec
from zoo.cells import kept_patches
from zoo.decoders import Masks, kind
from zoo.encoder import Encoder
from zoo.errors import Unsupported
from zoo.export.graph import TRACED, Graph, settled
from zoo.masking import batch_seeds, draw_mask, visible_indices


class VisibleGraph(nn.Module):
    """The encoder on visible patches alone, then the decoder."""

    def __init__(
        self, encoder: Encoder, module: nn.Module, decoder: nn.Module, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        self.family, self.module, self.decoder, self.grid = encoder.family, module, decoder, grid

    def forward(self, pixels: Tensor, visible: Tensor, blind: Tensor | None = None) -> Tensor:
        family: Any = self.family
        token = None if blind is None else self.decoder.secondary_token
        tokens = family.visible_tokens(self.module, pixels, visible, blind, token)
        predicted: Tensor = self.decoder(tokens, visible, self.grid)
        return predicted


class CellsGraph(nn.Module):
    """The encoder on the compact image of the kept patches, then the decoder."""

    def __init__(self, module: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.module, self.decoder = module, decoder

    def forward(self, pixels: Tensor, kept: Tensor, hidden: Tensor, blind: Tensor | None = None) -> Tensor:
        module: Any = self.module
        decoder: Any = self.decoder
        tokens = module.compact(pixels, kept, blind, None if blind is None else decoder.secondary_token)
        predicted: Tensor = decoder.forward_cells(tokens, kept, hidden)
        return predicted


class TokenGraph(nn.Module):
    """The encoder on all patches, mask tokens in the place of hidden ones, then the decoder."""

    def __init__(self, encoder: Encoder, module: nn.Module, decoder: nn.Module, named: str) -> None:
        super().__init__()
        self.family, self.module, self.decoder, self.kind = encoder.family, module, decoder, kind(named)

    def forward(self, pixels: Tensor, hidden: Tensor) -> Tensor:
        return self.kind.predict(self.family, self.module, self.decoder, pixels, Masks(hidden))


def hides(encoder: Encoder) -> bool:
    """Whether it predicts what is hidden: it has a decoder, and is no tokenizer, which sees everything."""
    spec = encoder.card.decoder
    return encoder.decoder is not None and spec is not None and spec.kind != "dvae"


def reconstruction_graph(encoder: Encoder) -> Graph:
    """The encoder and its decoder at the encoder's size. Raises Unsupported where there is no decoder."""
    spec, decoder = encoder.card.decoder, encoder.decoder
    if spec is None or decoder is None or not hides(encoder):
        raise Unsupported(
            f"{encoder.card.name} has no decoder of what is hidden, so it cannot reconstruct; "
            "zoo.list_models(kind='generative') names models that can"
        )
    sides = (encoder.size, encoder.size)
    module = settled(encoder, sides)
    decoder = copy.deepcopy(decoder).to("cpu", torch.float32).eval().requires_grad_(False)
    grid = encoder.mask_grid(*sides)
    masks = drawn_masks(encoder, TRACED)
    pixels = torch.zeros(TRACED, encoder.transform.channels, *sides)
    inputs = {"pixels": pixels, **mask_inputs(spec, module, masks)}
    traced: nn.Module
    if "visible" in inputs:
        traced = VisibleGraph(encoder, module, decoder, grid)
    elif "kept" in inputs:
        traced = CellsGraph(module, decoder)
    else:
        traced = TokenGraph(encoder, module, decoder, spec.kind)
    batch = torch.export.Dim("batch", min=1, max=4096)
    free: dict[str, dict[int, Any]] = {name: {0: batch} for name in inputs}
    if "visible" in inputs:
        count = torch.export.Dim("visible", min=2, max=grid[0] * grid[1])
        for name in ("visible", "blind"):
            if name in free:
                free[name][1] = count
    return Graph(traced.eval(), inputs, ("predicted",), free)


def drawn_masks(encoder: Encoder, count: int, ratio: float | None = None) -> Masks:
    """Masks of so many images as the card has them, by the seeds 0, 1, …"""
    spec = encoder.card.decoder
    assert spec is not None
    seeds, grid = batch_seeds(0, count), encoder.mask_grid(encoder.size, encoder.size)
    hidden = draw_mask(spec.strategy, grid, seeds, spec.ratio if ratio is None else ratio)
    return kind(spec.kind).settle(spec, encoder.module, hidden, spec.secondary, seeds)


def mask_inputs(spec: DecoderSpec, module: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """Masks as the graph's inputs, in its order. All images hide equally many patches. module: the encoder's."""
    if spec.kind in ("simmim", "beit"):
        return {"hidden": masks.hidden}
    if hasattr(module, "compact"):
        name, index = "kept", kept_patches(masks.hidden, masks.secondary)
        inputs = {"kept": index, "hidden": masks.hidden}
    else:
        name, index = "visible", visible_indices(masks.hidden)
        inputs = {name: index}
    if spec.secondary is not None:
        second = torch.zeros_like(masks.hidden) if masks.secondary is None else masks.secondary
        inputs["blind"] = second.flatten(1).gather(1, index)
    return inputs
