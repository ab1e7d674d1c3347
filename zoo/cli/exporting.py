"""`zoo export`: the export room, imported by name and only when asked for."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from zoo.cli.arguments import Command, Parser, UsageError, add_model, load_model, one_of
from zoo.cli.rooms import room
from zoo.errors import Unsupported
from zoo.pulling import find

_TARGETS = ("onnx", "tensorrt", "web")
_ROOM = "export.commands"


def _export_arguments(parser: Parser) -> None:
    parser.epilog = (
        "Each file is compared with PyTorch on cuts of six photos first, and is only there where it passed.\n"
        "Masked-image models also get reconstruct.onnx, with the mask as an input."
    )
    add_model(parser)
    parser.add_argument(
        "--to",
        type=one_of(*_TARGETS),
        default="onnx",
        metavar="TARGET",
        help="onnx, tensorrt, or web: a page that runs the model in the reader's browser",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where it goes (default: the model's own onnx/, which travels with it)",
    )
    parser.add_argument(
        "--precision",
        type=one_of("fp32", "fp16", "int8"),
        default="fp32",
        metavar="KIND",
        help="fp32, fp16 (for GPUs) or int8 (for CPUs); default: fp32",
    )
    parser.add_argument(
        "--size", type=int, metavar="PIXELS", help="side of its images (default: the model's)"
    )
    parser.add_argument(
        "--dynamic", action="store_true", help="any height and width that are multiples of the stride"
    )
    parser.add_argument(
        "--preprocess", action="store_true", help="takes uint8 pictures of any size, resized inside the graph"
    )
    parser.add_argument(
        "--attention", action="store_true", help="also the last block's class-token attention"
    )
    parser.add_argument("--pyramid", action="store_true", help="also the feature maps of all stages")
    parser.add_argument(
        "--no-engine",
        dest="engine",
        action="store_false",
        help="of --to tensorrt: stop at the graph, for an engine built elsewhere",
    )
    parser.add_argument(
        "--runtime",
        metavar="FOLDER",
        help="of --to web: an unpacked onnxruntime-web, where the network cannot be asked for it",
    )
    parser.add_argument(
        "--photos", metavar="SOURCE", help="photos (500 or more) whose nearest neighbours must stay the same"
    )


def _export(arguments: argparse.Namespace) -> None:
    if arguments.runtime is not None and arguments.to != "web":
        raise Unsupported("--runtime is of --to web: onnxruntime-web for its page; leave it out")
    find(arguments.model)  # a wrong name is told before the room is imported
    if arguments.to in _OTHERS:
        _OTHERS[arguments.to](arguments)
        return
    commands, out = room(_ROOM), _out(arguments)
    commands.export_command(
        load_model(arguments),
        out,
        arguments.precision,
        size=arguments.size,
        dynamic=arguments.dynamic,
        preprocess=arguments.preprocess,
        attention=arguments.attention,
        pyramid=arguments.pyramid,
        photos=arguments.photos,
    )


def _export_tensorrt(arguments: argparse.Namespace) -> None:
    for flag in ("preprocess", "attention", "pyramid"):
        if getattr(arguments, flag):
            raise Unsupported(
                f"--{flag} is of --to onnx: TensorRT's graph takes pixels and gives features; leave it out"
            )
    commands, out = room(_ROOM), _out(arguments)
    commands.tensorrt_command(
        load_model(arguments),
        out,
        arguments.precision,
        engine=arguments.engine,
        size=arguments.size,
        dynamic=arguments.dynamic,
        photos=arguments.photos,
    )


def _export_web(arguments: argparse.Namespace) -> None:
    for flag in ("size", "dynamic", "preprocess", "attention", "pyramid", "photos"):
        if getattr(arguments, flag):
            raise Unsupported(
                f"--{flag} is not of --to web: the page decides what its graph takes and gives; leave it out"
            )
    if arguments.out is None:
        raise UsageError("--to web begins a site or adds to one; give its folder: --out site/")
    room(_ROOM).web_command(
        load_model(arguments), arguments.out, arguments.precision, runtime=arguments.runtime
    )


def _out(arguments: argparse.Namespace) -> Path:
    """The folder asked for, or the onnx/ of the model's own folder. Raises UsageError where that is no place."""
    if arguments.out is not None:
        return Path(arguments.out)
    if arguments.weights:
        raise UsageError(
            "--weights are not the model's own, so its onnx/ is no place for them; give --out FOLDER"
        )
    found = find(arguments.model)
    if found.repo is not None:
        raise UsageError(
            f"{arguments.model} lies in the Hub's cache, which holds nothing else; give --out FOLDER"
        )
    model = found.fetched().place
    if not os.access(model, os.W_OK):
        raise UsageError(f"{model} may not be written into; give --out FOLDER")
    return model / "onnx"


_OTHERS = {"tensorrt": _export_tensorrt, "web": _export_web}

COMMANDS = (
    Command(
        "export",
        "MODEL --to onnx|tensorrt|web [--out FOLDER] [--precision fp32|fp16|int8]",
        "write a model as ONNX, TensorRT or a web page, where it passes against PyTorch",
        _export_arguments,
        _export,
    ),
)
