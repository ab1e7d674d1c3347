"""`zoo attend`, `zoo reconstruct`, `zoo demo`: what a model sees, as pictures."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zoo.cli.arguments import Command, Parser, UsageError, add_model, load_model, one_of
from zoo.saving import picture_format, save_picture

if TYPE_CHECKING:
    from zoo.encoder import Encoder
    from zoo.images import ImageSource


def _attend_arguments(parser: Parser) -> None:
    add_model(parser)
    parser.add_argument("image", metavar="IMAGE", help="a photo")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="the picture to write: .png, .jpg or .webp"
    )
    parser.add_argument("--size", type=int, help="pixels of the short side (default: about 28 patches)")
    parser.add_argument("--block", type=int, default=-1, help="which block; -1 is the last (default: -1)")
    parser.add_argument(
        "--fit", type=one_of("whole", "crop"), default="whole", help="whole or crop (default: whole)"
    )
    parser.add_argument(
        "--query",
        type=int,
        nargs=2,
        metavar=("ROW", "COLUMN"),
        help="whose attention: a patch of the block's grid, from 0 (default: the class token)",
    )
    parser.add_argument(
        "--hierarchy", action="store_true", help="draw a pyramid's grids and a Swin's windows instead"
    )


def _attend(arguments: argparse.Namespace) -> None:
    image = _opened(arguments)
    encoder = load_model(arguments)
    if arguments.hierarchy:
        _draw_hierarchy(encoder, image, arguments)
        return
    from zoo.pictures import as_seen, attention_panel, outlined

    photo = as_seen(encoder, image, size=arguments.size, fit=arguments.fit)
    query: Literal["cls"] | tuple[int, int] = (
        (arguments.query[0], arguments.query[1]) if arguments.query else "cls"
    )
    heads = encoder.attention(photo[None], block=arguments.block, query=query)[0].cpu()
    count, h, w = heads.shape
    block = "the last block" if arguments.block == -1 else f"block {arguments.block}"
    if query != "cls":
        photo = outlined(photo, query, (h, w))
        block = f"patch ({', '.join(map(str, query))}) in {block}"
    title = f"{encoder.card.name} · {Path(arguments.image).name} · {block} · {h}×{w} patches"
    picture = attention_panel(photo, heads, title=title)
    path = save_picture(picture, arguments.out)
    print(f"{count} heads of {block} on {h}×{w} patches: {path} ({picture.width}×{picture.height})")


def _opened(arguments: argparse.Namespace) -> ImageSource:
    """The photo, or the path of an array, whose channels the model knows.

    What cannot be read, or written at the end, is told before torch is imported and a model loaded.
    """
    from zoo.arrays import SUFFIX
    from zoo.images import read_image

    picture_format(arguments.out)
    image: str = arguments.image
    if Path(arguments.out).resolve() == Path(image).resolve():
        raise UsageError(f"--out {arguments.out} is the photo itself; give another name")
    return image if Path(image).suffix.lower() == SUFFIX else read_image(image)


def _draw_hierarchy(encoder: Encoder, image: ImageSource, arguments: argparse.Namespace) -> None:
    from zoo.hierarchy import hierarchy_panel
    from zoo.pictures import as_seen

    size = arguments.size or encoder.size  # its own, for windows are made for it
    photo = as_seen(encoder, image, size=size, fit=arguments.fit)
    height, width = photo.shape[-2:]
    title = f"{encoder.card.name} · {Path(arguments.image).name} · {height}×{width} pixels"
    picture = hierarchy_panel(encoder, photo, title=title)
    path = save_picture(picture, arguments.out)
    print(f"the hierarchy of {encoder.card.name}: {path} ({picture.width}×{picture.height})")


def _reconstruct_arguments(parser: Parser) -> None:
    add_model(parser)
    parser.add_argument("image", metavar="IMAGE", help="a photo")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="the picture to write: .png, .jpg or .webp"
    )
    parser.add_argument("--strategy", help="random, grid, uniform or blockwise (default: the model's own)")
    parser.add_argument("--ratio", type=float, help="share of the patches to hide (default: the model's own)")
    parser.add_argument("--secondary", type=float, help="share of the visible patches to mask too")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed hides the same patches (default: 0)"
    )


def _reconstruct(arguments: argparse.Namespace) -> None:
    image = _opened(arguments)
    encoder = load_model(arguments)
    from zoo.pictures import reconstruction_caption, reconstruction_panel

    rec = encoder.reconstruct(
        image,
        strategy=arguments.strategy,
        ratio=arguments.ratio,
        secondary=arguments.secondary,
        seed=arguments.seed,
    )
    title = f"{encoder.card.name} · {Path(arguments.image).name}"
    strategy = arguments.strategy or (encoder.card.decoder.strategy if encoder.card.decoder else None)
    picture = reconstruction_panel(rec, strategy=strategy, seed=arguments.seed, title=title)
    path = save_picture(picture, arguments.out)
    print(
        f"{reconstruction_caption(rec, 0, strategy, arguments.seed)}: {path} ({picture.width}×{picture.height})"
    )


def _demo_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--out", default="demo", metavar="FOLDER", help="where the pictures go (default: demo/)"
    )


def _demo(arguments: argparse.Namespace) -> None:
    began = time.perf_counter()
    # Importing torch and timm takes longer than the work itself.
    print("looking at six photos with two bundled encoders …\n", flush=True)
    from zoo.demo import run

    run(Path(arguments.out), began=began)


COMMANDS = (
    Command(
        "attend",
        "MODEL IMAGE --out FILE [options]",
        "draw what each attention head of a model looks at",
        _attend_arguments,
        _attend,
    ),
    Command(
        "reconstruct",
        "MODEL IMAGE --out FILE [options]",
        "hide patches and draw what a model imagines there",
        _reconstruct_arguments,
        _reconstruct,
    ),
    Command(
        "demo",
        "[--out FOLDER]",
        "features, attention and reconstruction of six bundled photos, offline",
        _demo_arguments,
        _demo,
    ),
)
