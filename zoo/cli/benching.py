"""`zoo bench`: what running a model costs by every way there is on this machine, side by side."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments import Command, Parser, UsageError, add_model, load_model
from zoo.cli.measuring import write_results
from zoo.cli.rooms import room
from zoo.files import write_json
from zoo.registry import find
from zoo.tables import table

if TYPE_CHECKING:
    from zoo.encoder import Encoder

BATCH = 8  # images at a time, at most, where nothing else is asked
BUSY = 0.5  # of the processors: a load above it, before anything is measured, is other work


def _arguments(parser: Parser) -> None:
    add_model(parser)
    parser.set_defaults(device="cpu")  # what is measured
    parser.add_argument("--size", type=int, metavar="N", help="images of N pixels (default: the model's own)")
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[1, BATCH],
        metavar="B",
        help="images at a time (default: 1 8)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of every way alike (default: torch's own)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the numbers here")
    parser.add_argument(
        "--resnet50",
        action="store_true",
        help="only PyTorch, beside ResNet-50 at 224 px, 8 images at a time (or the largest --batch)",
    )
    parser.add_argument(
        "--write-card", action="store_true", help="write the ratio to ResNet-50 into the model's own card"
    )


def _bench(arguments: argparse.Namespace) -> None:
    for option, values in (("--batch", arguments.batch), ("--threads", [arguments.threads or 1])):
        if min(values) < 1:
            raise UsageError(f"{option} is {min(values)}; give 1 or more")
    if arguments.threads == 0:
        raise UsageError("--threads is 0; give 1 or more")
    if arguments.device != "cpu":
        raise UsageError(f"`zoo bench` measures the processor, not {arguments.device}; leave out --device")
    if arguments.write_card and not arguments.resnet50:
        raise UsageError("a card says how fast a model is beside ResNet-50; add --resnet50")
    if arguments.write_card and arguments.weights:
        raise UsageError("--write-card would put the speed of other weights on the card; leave out --weights")
    if arguments.write_card:
        find(arguments.model)  # a repo's card is its owner's: refused before the work, not after it
    encoder = load_model(arguments, arguments.size)
    _warn_if_busy()
    if arguments.resnet50:
        return _beside_resnet50(arguments, encoder)
    found = room("export.bench").bench(encoder, batches=arguments.batch, threads=arguments.threads)
    print(f"{found.model} at {found.size} px, {found.threads} threads\n\n{_table(found.timings)}")
    for way, why in found.missing.items():
        print(f"{way}: left out, {why}")
    if arguments.json:
        write_json(arguments.json, dataclasses.asdict(found))


def _warn_if_busy() -> None:
    """Say so where other work has kept the processors busy for the last minute: timings beside it are worth little."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    processors = os.cpu_count() or 1
    if load > BUSY * processors:
        print(
            f"other work runs on this machine (load {load:.1f}, {processors} processors): ways that use more threads "
            "suffer more, so measure again when it is quiet",
            file=sys.stderr,
        )


def _beside_resnet50(arguments: argparse.Namespace, encoder: Encoder) -> None:
    """Print, and write where it is asked, how fast the model is beside ResNet-50."""
    beside = room("export.speed").beside_resnet50
    found = dataclasses.asdict(beside(encoder, batch=max(arguments.batch), threads=arguments.threads))
    print(
        f"{found['model']} at {found['size']} px: {found['images_per_second']:.1f} images/s; ResNet-50 at 224 px: "
        f"{found['resnet50_per_second']:.1f}\n{found['ratio']:.2f} times as many (quartiles "
        f"{found['low']:.2f}–{found['high']:.2f} of {found['rounds']} rounds), by PyTorch, {found['threads']} threads, "
        f"{found['batch']} images at a time"
    )
    if arguments.json:
        write_json(arguments.json, found)
    if arguments.write_card:
        from zoo.evaluate.results import speed_result

        write_results(arguments.model, [speed_result(found, _command(arguments))])


def _command(arguments: argparse.Namespace) -> str:
    """The command that measures the speed again."""
    words = ["zoo", "bench", arguments.model, "--resnet50"]
    for option in ("size", "threads"):
        if value := getattr(arguments, option):
            words += [f"--{option}", str(value)]
    if max(arguments.batch) != BATCH:
        words += ["--batch", str(max(arguments.batch))]
    return shlex.join(words)


def _table(timings: list[Any]) -> str:
    header = ["batch", "way", "images/s", "ms a call", "quartiles", "× eager", "peak MiB", "cosine"]
    rows = [
        [
            str(each.batch),
            each.way,
            f"{each.images_per_second:.1f}",
            f"{each.milliseconds:.1f}",
            f"{each.low:.1f}–{each.high:.1f}",
            f"{each.against_eager:.2f}",
            "–" if each.peak_mebibytes is None else f"{each.peak_mebibytes:.0f}",
            f"{each.cosine:.5f}",
        ]
        for each in timings
    ]
    return table(header, rows, right=[name for name in header if name != "way"])


COMMANDS = (
    Command(
        "bench",
        "MODEL [options]",
        "time a model by every way to run it: eager, compiled, ONNX, OpenVINO",
        _arguments,
        _bench,
    ),
)
