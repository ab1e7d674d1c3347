"""`zoo train`, `zoo methods`, `zoo recipes`: the training room, imported by name and only when asked for."""

from __future__ import annotations

import argparse
from types import ModuleType

from zoo.cli.arguments import Command, Parser, UsageError, listed
from zoo.cli.rooms import room
from zoo.found import check_exists
from zoo.pulling import find
from zoo.tables import table

STUDIES = {
    "augmentations": "10 runs of 20 epochs: SimCLR and BYOL without colours, grey or blur",
    "batch_size": "10 runs of 20 epochs: SimCLR and BYOL with batches of 128 down to 8",
    "efficiency": "4 runs of 10 epochs: SimMIM and UM-MAE on a small Swin and PVT, then fine-tuned",
    "methods": "9 runs of 15 minutes: every method, beside its network untrained; masked ones fine-tuned too",
    "ummae_masks": "6 runs of 800 steps: the loss of UM-MAE's ways to hide patches",
}


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
        "data",
        nargs="?",
        metavar="DATA",
        help="an image folder, a parquet file or folder, or hf:owner/name[@revision][:split], which is fetched once",
    )
    parser.add_argument(
        "--init",
        metavar="MODEL",
        help="go on from this model: its architecture and weights, for 1,000 steps at least",
    )
    parser.add_argument("--out", metavar="FOLDER", help="where the run and then its model go: runs/NAME")
    parser.add_argument(
        "--knobs", action="store_true", help="list the recipe's knobs and train nothing", dest="knobs_asked"
    )


def _train(arguments: argparse.Namespace) -> None:
    if arguments.knobs_asked:
        commands = _training_room()
        print(commands.recipe_text(arguments.recipe))
        print()
        print(table(["knob", "is", "type"], commands.knobs_table(arguments.recipe)))
        return
    _needed(arguments, "train")
    check_exists(arguments.data)  # what is missing is told before torch is imported
    if arguments.init is not None:
        find(arguments.init)
    room("training.listing").check_recipe(arguments.recipe)
    room("training.engine")  # where what it needs is not installed, its extra is named
    _training_room().train_command(
        arguments.recipe, arguments.data, arguments.out, arguments.init, arguments.knobs
    )


def _needed(arguments: argparse.Namespace, command: str) -> None:
    """UsageError where DATA or --out lacks, which only lists do without."""
    for option, what in (("data", "DATA"), ("out", "--out FOLDER")):
        if getattr(arguments, option) is None:
            raise UsageError(f"`zoo {command}` needs {what}; `zoo {command} --help` shows what it takes")


def _study_arguments(parser: Parser) -> None:
    parser.epilog = (
        f"studies, each for one seed:\n{listed(STUDIES)}\n\n"
        "A folder for each run, `table.md` and `chart.png`. The same command again skips what is finished.\n"
        "Knobs, such as --run.threads 2, hold for every run; what a study sets itself is refused. `zoo recipes` and\n"
        "`zoo train RECIPE --knobs` list them."
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="one of those below; without it they are listed"
    )
    parser.add_argument(
        "data", nargs="?", metavar="DATA", help="labelled images: a folder of class folders, or parquet"
    )
    parser.add_argument("--out", metavar="FOLDER", help="where the runs, the table and the chart go")
    parser.add_argument("--test", metavar="DATA2", help="test on these instead of on a split of DATA")
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="train each run for so long, not where epochs or steps are equal (default: the study's own budget)",
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
    if arguments.name is None:
        commands = _training_room()
        print(table(["study", "runs", "each", "what it shows"], commands.studies_table(), right=["runs"]))
        return
    _needed(arguments, "study")
    for data in filter(None, (arguments.data, arguments.test)):
        check_exists(data)
    made = _training_room().study_command(
        arguments.name,
        arguments.data,
        arguments.out,
        test=arguments.test,
        seeds=arguments.seeds,
        minutes=arguments.minutes,
        tune_epochs=arguments.tune_epochs,
        knobs=arguments.knobs,
    )
    print(made.read_text(encoding="utf-8"))


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
        "[NAME DATA --out FOLDER] [--minutes M] [--seeds N …]",
        "train and measure many runs for one table and chart",
        _study_arguments,
        _study,
        takes_knobs=True,
    ),
    Command("methods", "", "the self-supervised methods there are", _no_arguments, _methods),
    Command("recipes", "", "the recipes `zoo train` takes", _no_arguments, _recipes),
)
