"""`zoo train`, `zoo methods`, `zoo recipes`: the training room, imported by name and only when asked for."""

from __future__ import annotations

import argparse
from types import ModuleType

from zoo.cli.arguments import Command, Parser, UsageError
from zoo.cli.rooms import room
from zoo.tables import table


def _training_room() -> ModuleType:
    return room("training.commands")


def _train_arguments(parser: Parser) -> None:
    parser.epilog = (
        "Recipes: `zoo recipes`. `zoo train RECIPE --knobs` lists what a recipe's knobs are set to.\n"
        "The same command again continues a run that was stopped."
    )
    parser.add_argument(
        "recipe", metavar="RECIPE", help="METHOD/RECIPE, as in mae/smoke, or ./mymethod.py:recipe"
    )
    parser.add_argument(
        "data", nargs="?", metavar="DATA", help="an image folder, or a parquet file or folder"
    )
    parser.add_argument(
        "--init", metavar="MODEL", help="start from this model's encoder, and its decoder where it fits"
    )
    parser.add_argument("--out", metavar="FOLDER", help="where the run and then its model go: runs/NAME")
    parser.add_argument(
        "--knobs", action="store_true", help="list the recipe's knobs and train nothing", dest="knobs_asked"
    )


def _train(arguments: argparse.Namespace) -> None:
    room = _training_room()
    if arguments.knobs_asked:
        print(room.recipe_text(arguments.recipe))
        print()
        print(table(["knob", "is", "type"], room.knobs_table(arguments.recipe)))
        return
    for option, what in (("data", "DATA"), ("out", "--out FOLDER")):
        if getattr(arguments, option) is None:
            raise UsageError(f"`zoo train` needs {what}; `zoo train --help` shows what it takes")
    room.train_command(arguments.recipe, arguments.data, arguments.out, arguments.init, arguments.knobs)


def _study_arguments(parser: Parser) -> None:
    parser.epilog = (
        "A folder for each run, `table.md` and `chart.png`. The same command again skips what is finished.\n"
        "Knobs, such as --run.threads 2, hold for every run; `zoo recipes` and `zoo train RECIPE --knobs` list them."
    )
    parser.add_argument("name", metavar="NAME", help="methods, augmentations, batch_size or ummae_masks")
    parser.add_argument("data", metavar="DATA", help="labelled images: a folder of class folders, or parquet")
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="where the runs, the table and the chart go"
    )
    parser.add_argument("--test", metavar="DATA2", help="test on these instead of on a split of DATA")
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="train each run for so long (default: the study's own budget)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0],
        metavar="N",
        help="a run of each for every cell (default: 0)",
    )
    parser.add_argument(
        "--tune-epochs",
        type=int,
        default=10,
        metavar="N",
        help="epochs of fine-tuning, where a study tunes (default: 10)",
    )


def _study(arguments: argparse.Namespace) -> None:
    table = _training_room().study_command(
        arguments.name,
        arguments.data,
        arguments.out,
        test=arguments.test,
        seeds=arguments.seeds,
        minutes=arguments.minutes,
        tune_epochs=arguments.tune_epochs,
        knobs=arguments.knobs,
    )
    print(table.read_text(encoding="utf-8"))


def _no_arguments(parser: Parser) -> None:
    del parser


def _methods(arguments: argparse.Namespace) -> None:
    del arguments
    print(table(["method", "what it does"], _training_room().methods_table()))


def _recipes(arguments: argparse.Namespace) -> None:
    del arguments
    print(table(["recipe", "what it trains"], _training_room().recipes_table()))


COMMANDS = (
    Command(
        "train",
        "RECIPE DATA [--section.knob VALUE …] --out FOLDER [--init MODEL]",
        "train an encoder on your own images",
        _train_arguments,
        _train,
        takes_knobs=True,
    ),
    Command(
        "study",
        "NAME DATA --out FOLDER [--minutes M] [--seeds N …]",
        "train and measure many runs for one table and chart",
        _study_arguments,
        _study,
        takes_knobs=True,
    ),
    Command("methods", "", "the self-supervised methods there are", _no_arguments, _methods),
    Command("recipes", "", "the recipes `zoo train` takes", _no_arguments, _recipes),
)
