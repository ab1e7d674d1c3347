"""`zoo embed`, `zoo evaluate`: features on disk, and what they are worth."""

from __future__ import annotations

import argparse
import json
import sys

from zoo.cli.arguments import Command, Parser, UsageError, add_model, load_model
from zoo.files import atomic_write
from zoo.tables import table


def _embed_arguments(parser: Parser) -> None:
    add_model(parser)
    parser.add_argument(
        "source", metavar="SOURCE", help="an image folder, a parquet file or folder, or one image"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where part-00000.parquet … go")
    parser.add_argument(
        "--outputs",
        nargs="+",
        default=["pooled"],
        metavar="OUTPUT",
        help="pooled, cls, patches (default: pooled)",
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images at a time (default: chosen by device)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that decode images (default: by CPU cores)"
    )


def _embed(arguments: argparse.Namespace) -> None:
    from zoo.extract import extract

    encoder = load_model(arguments)
    folder = extract(
        encoder,
        arguments.source,
        arguments.out,
        outputs=tuple(arguments.outputs),
        batch_size=arguments.batch_size,
        workers=arguments.workers,
    )
    print(f"wrote {folder}; in Python: paths, labels, arrays = zoo.read_features({str(folder)!r})")


def _evaluate_arguments(parser: Parser) -> None:
    add_model(parser)
    parser.add_argument("data", metavar="DATA", help="labelled images: a folder of class folders, or parquet")
    parser.add_argument("--test", metavar="DATA2", help="test on these instead of on a split of DATA")
    parser.add_argument(
        "--protocol",
        nargs="+",
        default=["knn"],
        metavar="PROTOCOL",
        help="knn, linear, or both (default: knn)",
    )
    parser.add_argument(
        "--size", type=int, metavar="N", help="evaluate at N pixels (default: the model's own)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of a split made here and of the linear probe (default: 0)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the scores and all settings here")
    parser.add_argument(
        "--write-card", action="store_true", help="write the scores into the model's own card"
    )


def _evaluate(arguments: argparse.Namespace) -> None:
    from zoo.evaluate import frozen_scores
    from zoo.sources import train_and_test

    if arguments.write_card and arguments.weights:
        raise UsageError(
            "--write-card would put the scores of other weights on the card; leave out --weights"
        )
    train, test, origin = train_and_test(arguments.data, arguments.test, seed=arguments.seed)
    encoder = load_model(arguments, arguments.size)
    print(origin, file=sys.stderr)
    scores = frozen_scores(encoder, train, test, arguments.protocol, seed=arguments.seed)
    rows = [
        [s["protocol"], f"{s['top1']:.2f} %", s["test"], str(s["n_test"]), str(s["n_train"])] for s in scores
    ]
    header = ["protocol", "top-1", "tested on", "images", "trained on"]
    print(table(header, rows, right=["top-1", "images", "trained on"]))
    if arguments.json:
        with atomic_write(arguments.json) as temporary:
            temporary.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


COMMANDS = (
    Command("embed", "write the features of many images to a folder of parquet", _embed_arguments, _embed),
    Command("evaluate", "measure frozen features on labelled images", _evaluate_arguments, _evaluate),
)
