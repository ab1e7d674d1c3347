"""The encoder: images in, features, attention and reconstructions out.

Axes: B images, N patches on the grid (h, w), D width, C channels, (H, W) pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from zoo.batches import Batch, Images, to_batches
from zoo.decoders import Masks, kind
from zoo.errors import SizeError, Unsupported
from zoo.families import Family, family
from zoo.features import Features, join
from zoo.masking import DEFAULT_RATIO, as_mask, batch_seeds, draw_mask
from zoo.patches import grid_of
from zoo.reconstruction import Reconstruction, by_visible_count, reconstruction
from zoo.transforms import Size, Transform

if TYPE_CHECKING:
    from zoo.cards import DecoderSpec, ModelCard

Fit = Literal["crop", "whole"]

# Images that go through the network at once: more gains no speed on a CPU and costs memory.
CHUNK = 64


class Encoder:
    """A frozen image encoder with its card. It has no mutable state: threads may share one.

    Every method on images takes what `to_batches` takes, with fit="crop" (the card's evaluation transform) or "whole"
    (nothing cut or padded) and size=None (pixels of the short side, or (h, w)).

    >>> encoder = zoo.load("dino_vitt16_imagenette")
    >>> encoder(["cat.jpg", "dog.jpg"])
    Features(pooled 2×192, patches 2×64×192, grid 8×8)
    """

    def __init__(
        self,
        card: ModelCard,
        module: nn.Module,
        decoder: nn.Module | None = None,
        through: Family | None = None,
    ) -> None:
        """through: what asks the module for features, where that is not the card's family."""
        self.card = card
        self.family = through or family(card.family)
        self.module = module.eval()
        self.decoder = decoder.eval() if decoder is not None else None
        spec = card.transform
        self.transform = Transform(spec.size, spec.crop_pct, spec.interpolation, spec.mean, spec.std)
        self.stride: int = self.family.stride(module)

    def __repr__(self) -> str:
        return f"Encoder({self.card.name}, {self.card.architecture}, {self.size} px, D={self.dim}, {self.device})"

    @property
    def dim(self) -> int:
        """D, the width of the pooled features."""
        width = self.module.num_features
        assert isinstance(width, int)  # timm's convention
        return width

    @property
    def size(self) -> int:
        """Side in pixels of the images the card's numbers were measured at."""
        return self.transform.size

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Encoder:
        """An encoder on another device or of another dtype; this one stays as it is."""
        if torch.device(device or self.device) == self.device and (dtype or self.dtype) == self.dtype:
            return self
        module, decoder = (
            copy.deepcopy(part).to(device=device, dtype=dtype) if part is not None else None
            for part in (self.module, self.decoder)
        )
        assert module is not None  # only a decoder can be missing
        return Encoder(self.card, module, decoder, self.family)

    @torch.no_grad()
    def __call__(
        self, images: Images, *, fit: Fit = "crop", size: Size | None = None
    ) -> Features | list[Features]:
        """Features of the images; where a list ends on several grids, one Features an image, in order."""
        batches = to_batches(images, self.transform, self.stride, fit=fit, size=size)
        found = [(batch, self._features(batch.pixels)) for batch in batches]
        if len(found) == 1:
            return found[0][1]
        each = {index: features[i] for batch, features in found for i, index in enumerate(batch.indices)}
        return [each[index] for index in sorted(each)]

    def forward_features(self, pixels: Tensor) -> Features:
        """Features of (B, C, H, W) float pixels that are already normalised; differentiable."""
        return self.family.features(self.module, self._moved(pixels))

    @torch.no_grad()
    def intermediates(
        self,
        images: Images,
        layers: Sequence[int] = (-4, -3, -2, -1),
        *,
        fit: Fit = "crop",
        size: Size | None = None,
    ) -> list[Features]:
        """Features after each of the asked blocks, through the final norm, on images of one size.

        A pyramid's blocks are numbered through all stages; a stage of another width stays as its blocks leave it.
        """
        pixels = self._one_batch(images, fit, size).pixels
        wanted = [self._block(layer) for layer in layers]
        chunks = [self.family.intermediates(self.module, chunk, wanted) for chunk in self._chunks(pixels)]
        return [join(list(parts)) for parts in zip(*chunks, strict=True)]

    @torch.no_grad()
    def attention(
        self,
        images: Images,
        block: int = -1,
        query: Literal["cls"] | tuple[int, int] = "cls",
        *,
        fit: Fit = "crop",
        size: Size | None = None,
    ) -> Tensor:
        """Attention of one query over the patches in one block, (B, heads, h, w): softmax rows, not renormalised.

        A pyramid answers on the block's own grid, a PVT on the reduced grid of the block's keys.

        query: "cls" or a patch (row, column). Exact while the blocks use fused kernels: only this row is recomputed.
        Raises Unsupported for a query or block the model does not have, SizeError where images end on several grids.
        """
        pixels = self._one_batch(images, fit, size).pixels
        index, patch = self._block(block), _query(query)
        return torch.cat(
            [self.family.attention_rows(self.module, chunk, index, patch) for chunk in self._chunks(pixels)]
        )

    @torch.no_grad()
    def pyramid(self, images: Images, *, fit: Fit = "crop", size: Size | None = None) -> list[Tensor]:
        """Feature maps [(B, C_i, h_i, w_i)], finest first; one level for a plain ViT."""
        pixels = self._one_batch(images, fit, size).pixels
        levels = [self.family.pyramid(self.module, chunk) for chunk in self._chunks(pixels)]
        return [torch.cat(parts) for parts in zip(*levels, strict=True)]

    @torch.no_grad()
    def reconstruct(
        self,
        images: Images,
        mask: object = None,
        *,
        strategy: str | None = None,
        ratio: float | None = None,
        secondary: float | None = None,
        seed: int = 0,
        fit: Fit = "crop",
        size: Size | None = None,
    ) -> Reconstruction:
        """Hide patches, predict them, and give the pictures: original, masked, predicted, composite.

        mask: (h, w) or (B, h, w), True = hidden, instead of a drawn one; where the model needs another, the result says
        what was used. Image i of a batch is masked by seed + i. secondary: share of the visible patches to hide on top.
        Raises Unsupported where the model has no decoder, MaskError for an impossible mask.
        """
        spec = self._spec()
        how = kind(spec.kind)
        pixels = self._one_batch(images, fit, size).pixels.to(self.device)
        hidden, seeds = self._mask(mask, strategy, ratio, pixels, seed), batch_seeds(seed, len(pixels))
        masks = how.settle(spec, self._masked(), hidden, secondary, seeds).to(self.device)

        def predict(rows: Tensor, _: Tensor) -> Tensor:
            return self._predicted(pixels[rows], masks.rows(rows))

        predicted = by_visible_count(masks.hidden, predict).float()
        return reconstruction(
            pixels,
            masks,
            predicted,
            self.transform,
            spec.mask_patch,
            normalised_targets=spec.normalised_targets,
            error=how.error,
        )

    def mask_grid(self, height: int, width: int) -> tuple[int, int]:
        """The grid (h, w) a mask of an image of height × width pixels lives on."""
        return grid_of(height, width, self._spec().mask_patch)

    def _mask(
        self, mask: object, strategy: str | None, ratio: float | None, pixels: Tensor, seed: int
    ) -> Tensor:
        """The given mask checked, or one drawn: by the card's strategy and ratio where nothing else is asked."""
        spec, count = self._spec(), len(pixels)
        grid = self.mask_grid(*pixels.shape[-2:])
        if mask is not None:
            return as_mask(mask, grid, count)
        chosen = strategy or spec.strategy
        kind(spec.kind).check_strategy(spec, self._masked(), chosen)
        if ratio is None:
            ratio = spec.ratio if chosen == spec.strategy else DEFAULT_RATIO.get(chosen)
        return draw_mask(chosen, grid, batch_seeds(seed, count), ratio)

    def _masked(self) -> nn.Module:
        """What encodes masked images."""
        return self.module

    def _predicted(self, pixels: Tensor, masks: Masks) -> Tensor:
        """The decoder's pixels of every patch, (B, N, P*P*C), of images that hide equally many."""
        assert self.decoder is not None  # `_spec` has seen to it
        how = kind(self._spec().kind)
        return how.predict(self.family, self.module, self.decoder, self._moved(pixels), masks)

    def _spec(self) -> DecoderSpec:
        """What the card says of the decoder. Raises Unsupported where there is none."""
        if self.decoder is None or self.card.decoder is None:
            others = "zoo.list_models(kind='generative') names models that can"
            if self.transform.channels != 3:
                others += "; if it was loaded with in_chans, its decoder stayed behind"
            raise Unsupported(f"{self.card.name} has no decoder, so it cannot reconstruct; {others}")
        return self.card.decoder

    def _features(self, pixels: Tensor) -> Features:
        return join([self.forward_features(chunk) for chunk in self._chunks(pixels)])

    def _chunks(self, pixels: Tensor) -> list[Tensor]:
        return [self._moved(chunk) for chunk in pixels.split(CHUNK)]

    def _moved(self, pixels: Tensor) -> Tensor:
        return pixels.to(self.device, self.dtype)

    def _one_batch(self, images: Images, fit: Fit, size: Size | None) -> Batch:
        batches = to_batches(images, self.transform, self.stride, fit=fit, size=size)
        if len(batches) > 1:
            sizes = ", ".join("×".join(map(str, batch.pixels.shape[-2:])) for batch in batches)
            raise SizeError(
                f"these images end on several sizes ({sizes}), and this gives one tensor for all; "
                "call it per image, or use fit='crop'"
            )
        return batches[0]

    def _block(self, block: int) -> int:
        """A non-negative block index."""
        depth: int = self.family.depth(self.module)
        if not -depth <= block < depth:
            raise Unsupported(
                f"{self.card.name} has blocks 0 to {depth - 1} (or -{depth} to -1), no block {block}"
            )
        return block % depth


def _query(query: object) -> tuple[int, int] | None:
    """A patch (row, column), or None for the class token."""
    if query == "cls":
        return None
    if not isinstance(query, Sequence) or isinstance(query, str) or len(query) != 2:
        raise Unsupported(f"query is 'cls' or a patch (row, column), not {query!r}")
    return int(query[0]), int(query[1])
