"""`zoo bench`: what running a model costs by every way there is on this machine, side by side."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from zoo.cli.arguments import Command, Parser, UsageError, add_model, load_model
from zoo.cli.rooms import room
from zoo.files import write_json
from zoo.tables import table


def _arguments(parser: Parser) -> None:
    add_model(parser)
    parser.set_defaults(device="cpu")  # what is measured
    parser.add_argument("--size", type=int, metavar="N", help="images of N pixels (default: the model's own)")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[1, 8], metavar="B", help="images at a time (default: 1 8)"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of every way alike (default: torch's own)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the numbers here")


def _bench(arguments: argparse.Namespace) -> None:
    for option, values in (("--batch", arguments.batch), ("--threads", [arguments.threads or 1])):
        if min(values) < 1:
            raise UsageError(f"{option} is {min(values)}; give 1 or more")
    if arguments.threads == 0:
        raise UsageError("--threads is 0; give 1 or more")
    if arguments.device != "cpu":
        raise UsageError(f"`zoo bench` measures the processor, not {arguments.device}; leave out --device")
    encoder = load_model(arguments, arguments.size)
    found = room("export.bench").bench(encoder, batches=arguments.batch, threads=arguments.threads)
    print(f"{found.model} at {found.size} px, {found.threads} threads\n\n{_table(found.timings)}")
    for way, why in found.missing.items():
        print(f"{way}: left out, {why}")
    if arguments.json:
        write_json(arguments.json, dataclasses.asdict(found))


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
