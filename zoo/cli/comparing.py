"""`zoo compare`: which encoder is best for one's own images, as a table, two sentences and a chart."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli.arguments import Command, Parser, UsageError
from zoo.files import write_json
from zoo.found import check_exists
from zoo.pulling import find
from zoo.saving import picture_format, save_picture
from zoo.tables import table

if TYPE_CHECKING:
    from PIL import Image

    from zoo.evaluate.comparison import Compared


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "data", metavar="DATA", help="labelled images: a folder of class folders, parquet, or hf:owner/name"
    )
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="MODEL", help="names of `zoo list`, or model folders"
    )
    parser.add_argument("--test", metavar="DATA2", help="test on these instead of on a split of DATA")
    parser.add_argument(
        "--baselines", action="store_true", help="also score each architecture with random weights"
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="at most N images of either split, evenly spread (default: all)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of a split made here, the probe and the intervals (default: 0)"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--cache", metavar="FOLDER", help="keep features here (default: in $ZOO_HOME)")
    parser.add_argument("--out", metavar="CHART", help="draw the chart: .png, .jpg or .webp")
    parser.add_argument("--json", metavar="FILE", help="also write the rows here")


def _compare(arguments: argparse.Namespace) -> None:
    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError(f"--limit is {arguments.limit}; give 1 or more")
    if arguments.out:
        picture_format(arguments.out)  # before an hour of work
    for model in arguments.models:
        find(model)
    for data in filter(None, (arguments.data, arguments.test)):
        check_exists(data)
    from zoo.evaluate.comparison import compare, verdict  # torch: only for what exists

    rows = compare(
        arguments.data,
        arguments.models,
        test=arguments.test,
        baselines=arguments.baselines,
        limit=arguments.limit,
        seed=arguments.seed,
        device=arguments.device,
        cache=arguments.cache,
    )
    told = verdict(rows)
    print("\n".join([_table(rows), "", *told]).rstrip())
    if arguments.json:
        write_json(arguments.json, [dataclasses.asdict(row) for row in rows])
    if arguments.out:
        picture = _chart(rows, told, Path(arguments.data).name)
        print(f"wrote {save_picture(picture, arguments.out)} ({picture.width}×{picture.height})")


def _table(rows: Sequence[Compared]) -> str:
    header = ["model", "k-NN (95 %)", "linear (95 %)", "images/s", "parameters", "licence"]
    cells = [
        [row.name, str(row.knn), str(row.linear), _speed(row), f"{row.parameters:,}", row.licence]
        for row in rows
    ]
    return table(header, cells, right=["k-NN (95 %)", "linear (95 %)", "images/s", "parameters"])


def _speed(row: Compared) -> str:
    return "–" if row.images_per_second is None else f"{row.images_per_second:.3g}"


def _chart(rows: Sequence[Compared], told: Sequence[str], data: str) -> Image.Image:
    from zoo.charts import Bar, interval_chart

    bars = [
        Bar(
            row.name,
            " · ".join([f"{_speed(row)} images/s", f"{row.parameters / 1e6:.3g} M parameters", row.licence]),
            [(score.top1, score.low, score.high) for score in (row.knn, row.linear)],
        )
        for row in rows
    ]
    measured = (
        f"Top-1 on {rows[0].n_test:,} test images after {rows[0].n_train:,} labelled ones; "
        "lines are 95 % intervals over resampled test images."
    )
    return interval_chart(
        bars,
        ["k-NN", "linear probe"],
        title=f"Which encoder is best for {data}?",
        unit=" %",
        footer=[measured, *told],
    )


COMMANDS = (
    Command(
        "compare",
        "DATA --models MODEL … [options]",
        "tell which encoder is best for your images",
        _arguments,
        _compare,
    ),
)
