"""Tokenizers of BEiT: a discrete VAE of the zoo, or the encoder of DALL·E's from a file of its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.architectures.dvae import DVAEEncoder
from zoo.checkpoints import read_checkpoint
from zoo.decoders.dvae import DVAEDecoder
from zoo.errors import RecipeError, WeightsError
from zoo.layouts.rules import renamed, stripped
from zoo.training.augment import IMAGENET_MEAN, IMAGENET_STD
from zoo.weights import load_into

# How the file of the package dall_e, openai/DALL-E's encoder.py, names what our DVAEEncoder has.
_DALLE = (
    (r"^input\.", "stem."),
    (r"^output\.conv\.", "words."),
    (r"\bid_path\b", "skip"),
    *(
        (rf"^group_{group}\.block_{block}\.", f"groups.{group - 1}.{block - 1}.")
        for group in range(1, 10)
        for block in range(1, 10)
    ),
    *((rf"\bres_path\.conv_{conv}\b", f"path.{2 * conv - 1}") for conv in range(1, 5)),
    (r"\.w$", ".weight"),
    (r"\.b$", ".bias"),
)


class Tokenizer(nn.Module):
    """Images to words, frozen: (B, C, h*S, w*S), normalised by `statistics` -> (B, h, w) int64.

    statistics: mean and std of each channel. squeezed: it wants pixels as DALL·E's encoder does, from 0.1 to 0.9, and
    not normalised.
    """

    def __init__(
        self,
        encoder: DVAEEncoder,
        squeezed: bool = False,
        statistics: tuple[Sequence[float], Sequence[float]] = (IMAGENET_MEAN, IMAGENET_STD),
    ) -> None:
        super().__init__()
        self.encoder, self.squeezed, self.statistics = encoder, squeezed, statistics
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """The likeliest word of each position, in float32 whatever the run's precision."""
        with torch.autocast(pixels.device.type, enabled=False):
            if self.squeezed:
                mean, std = (pixels.new_tensor(each)[:, None, None] for each in self.statistics)
                pixels = 0.8 * (pixels * std + mean) + 0.1
            words: Tensor = self.encoder.logits(pixels).argmax(dim=1)
        return words


def read_tokenizer(given: str | Path) -> tuple[Tokenizer, DVAEDecoder | None]:
    """A tokenizer with what paints its words: a model of the zoo that `dvae` trained, by folder or name.

    Or a file of the tensors of DALL·E's encoder, without a decoder. Its own file is a pickled object and is never
    executed; where the package dall_e is installed and its author trusted, this makes the other:
    `torch.save(torch.load("encoder.pkl", weights_only=False).state_dict(), "encoder.pth")`.
    Raises RecipeError for a model that is no tokenizer, and WeightsError for such a file that is not DALL·E's.

    >>> tokenizer, painter = read_tokenizer("runs/dvae_imagenette")
    """
    if Path(given).is_file():
        return Tokenizer(_dalle(Path(given)), squeezed=True), None
    from zoo.loading import load

    model = load(given, device="cpu")
    if not isinstance(model.module, DVAEEncoder):
        raise RecipeError(
            f"--method.tokenizer is {given}, a {type(model.module).__name__}; give a folder that "
            "`zoo train dvae/… DATA --out FOLDER` made, or a file of the tensors of DALL·E's encoder"
        )
    assert model.decoder is None or isinstance(
        model.decoder, DVAEDecoder
    )  # the only kind that takes a DVAEEncoder
    return Tokenizer(model.module, statistics=(model.transform.mean, model.transform.std)), model.decoder


def _dalle(path: Path) -> DVAEEncoder:
    """DALL·E's encoder, of the sizes that the tensors have."""
    for tensors in read_checkpoint(path).values():
        named = {
            renamed(name, _DALLE): tensor
            for name, tensor in stripped(tensors, r"(encoder\.)?blocks\.").items()
        }
        if {"stem.weight", "words.weight"} <= set(named):
            places = {tuple(map(int, name.split(".")[1:3])) for name in named if name.startswith("groups.")}
            sizes: dict[str, Any] = {
                "vocabulary": len(named["words.weight"]),
                "hidden": len(named["stem.weight"]),
                "groups": 1 + max(group for group, _ in places),
                "blocks": 1 + max(block for _, block in places),
            }
            encoder = DVAEEncoder(**sizes)
            load_into(encoder, named, where=str(path))
            return encoder
    raise WeightsError(
        f"{path} does not hold the tensors of DALL·E's encoder (blocks.input.w, blocks.output.conv.w, …); "
        "save its state_dict, or give a folder that `zoo train dvae/…` made"
    )
