"""`zoo gallery`: what models make of the same photos, which nobody chose."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli.arguments import Command, Parser, UsageError
from zoo.pulling import find
from zoo.saving import save_picture
from zoo.sources import held_or_all

if TYPE_CHECKING:
    from PIL import Image

    from zoo.gallery import Shown

PICTURES = ("reconstruction.jpg", "attention.jpg", "colours.jpg")
MOST = 400_000  # bytes of a picture, so that a page of several opens at once


def _arguments(parser: Parser) -> None:
    parser.epilog = (
        "Writes reconstruction.jpg (of the models with a decoder), attention.jpg (with a class token) and\n"
        "colours.jpg (the main directions of patch tokens). The photos are the first by the SHA-256 of their id,\n"
        "of the validation or test split where DATA has one: none is chosen."
    )
    parser.add_argument("data", metavar="DATA", help="images: a folder, parquet, or hf:owner/name")
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="MODEL", help="names of `zoo list`, or model folders"
    )
    parser.add_argument(
        "--untrained",
        nargs="+",
        default=[],
        metavar="MODEL",
        help="also show the architectures of these with random weights, before the others",
    )
    parser.add_argument(
        "--out", default="gallery", metavar="FOLDER", help="where the pictures go (default: gallery/)"
    )
    parser.add_argument("--count", type=int, default=24, metavar="N", help="so many photos (default: 24)")
    parser.add_argument(
        "--strategy", help="random, grid, uniform or blockwise masks (default: the models' own that all take)"
    )
    parser.add_argument("--ratio", type=float, help="share of the patches to hide (default: the strategy's)")
    parser.add_argument("--seed", type=int, default=0, help="photo i is masked by seed + i (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")


def _gallery(arguments: argparse.Namespace) -> None:
    source = held_or_all(arguments.data)
    for name in (*arguments.models, *arguments.untrained):
        find(name)  # a misspelt one is told before torch is imported
    from zoo.gallery import attentions, colours, reconstructions, sample, with_class_token

    photos = sample(source, arguments.count)
    print(photos.said)
    bare, loaded = _shown(arguments)
    out = Path(arguments.out)
    # A tokenizer's decoder paints whole images: it takes no mask.
    decoders = [(each, each.encoder.card.decoder) for each in loaded]
    if masked := [each for each, decoder in decoders if decoder is not None and decoder.kind != "dvae"]:
        asked = {"strategy": arguments.strategy, "ratio": arguments.ratio, "seed": arguments.seed}
        picture, errors = reconstructions(masked, photos, **asked)
        means = ", ".join(f"{name} {float(error.mean()):.4f}" for name, error in errors.items())
        _save(picture, out / PICTURES[0], f"mean error on hidden pixels: {means}")
    if looking := with_class_token([*bare, *loaded]):
        _save(attentions(looking, photos), out / PICTURES[1], _names(looking))
    _save(colours([*bare, *loaded], photos), out / PICTURES[2], _names([*bare, *loaded]))


def _shown(arguments: argparse.Namespace) -> tuple[list[Shown], list[Shown]]:
    """The untrained and the trained encoders that were asked for. Raises UsageError for one named twice."""
    from zoo.gallery import Shown
    from zoo.loading import load

    named: tuple[list[Shown], list[Shown]] = ([], [])
    for shown, models, weights in zip(
        named, (arguments.untrained, arguments.models), ("random", None), strict=True
    ):
        for model in models:
            encoder = load(model, weights=weights, device=arguments.device)
            name = encoder.card.name + (", untrained" if weights else "")
            if name in [each.name for each in shown]:
                raise UsageError(f"{name} is named twice; name each model once")
            shown.append(Shown(name, encoder))
    return named


def _names(models: Sequence[Shown]) -> str:
    return ", ".join(each.name for each in models)


def _save(picture: Image.Image, path: Path, what: str) -> None:
    save_picture(picture, path, most=MOST)
    print(f"{path} ({picture.width}×{picture.height}, {path.stat().st_size / 1000:.0f} kB): {what}")


COMMANDS = (
    Command(
        "gallery",
        "DATA --models MODEL … [options]",
        "draw what models make of photos that nobody chose, side by side",
        _arguments,
        _gallery,
    ),
)
