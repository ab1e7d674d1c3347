"""The `zoo` command: thin verbs over the library. Only the commands that need torch, rich or tyro import them."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from textwrap import indent

import zoo
from zoo.cli.arguments import Command, Parser, UsageError, refuse_unknown, split_knobs
from zoo.cli.spoken import as_typed
from zoo.errors import ZooError, did_you_mean
from zoo.tables import pairs

FAILED, INTERRUPTED, PIPE_CLOSED = 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code: 0, 2 for a mistake, 130 for Ctrl-C, 141 for a closed pipe."""
    given = sys.argv[1:] if argv is None else argv
    words = [word for word in given if word != "--traceback"]
    try:
        with _logging_to_stderr():
            _run(words)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        return _failed("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader (`| head`) has left: the interpreter's own flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (ZooError, OSError) as error:
        if "--traceback" in given or os.environ.get("ZOO_TRACEBACK") == "1":
            traceback.print_exc()
        return _failed(str(error), FAILED)


def _run(words: list[str]) -> None:
    """Find the command, read its arguments and run it."""
    commands = {command.name: command for command in _commands()}
    parser, parsers = _parsers(commands)
    named = next((word for word in words if not word.startswith("-")), None)
    if named is not None and named not in commands:
        message = f"no command {named!r}{did_you_mean(named, commands)}"
        raise UsageError(f"{message}; `zoo --help` shows them all")
    takes_knobs = named is not None and commands[named].takes_knobs
    words, knobs = split_knobs(words) if takes_knobs else (words, [])
    try:
        arguments, unknown = parser.parse_known_args(words)
    except SystemExit:  # how argparse leaves after --help and --version; its mistakes are UsageErrors
        return
    if unknown:
        refuse_unknown(unknown, parsers.get(named or "", parser), takes_knobs=takes_knobs)
    if named is None:
        parser.print_help()
        return
    arguments.knobs = knobs
    try:
        commands[named].run(arguments)
    except ZooError as error:
        error.args = (as_typed(str(error), parsers[named].option_strings()),)
        raise


def _commands() -> list[Command]:
    from zoo.cli import (
        benching,
        comparing,
        exporting,
        galleries,
        hub,
        looking,
        measuring,
        models,
        serving,
        training,
    )

    rooms = (models, hub, looking, galleries, measuring, comparing, benching, training, exporting, serving)
    return [command for room in rooms for command in room.COMMANDS]


def _parsers(commands: dict[str, Command]) -> tuple[Parser, dict[str, Parser]]:
    """The parser of the whole line, and those of the commands by name."""
    parser = Parser(
        prog="zoo",
        usage="zoo COMMAND …",
        description="Self-supervised image encoders: find, load, look, measure and train.",
        # argparse would break the line after a long name.
        epilog="commands:\n" + indent(pairs([(each.name, each.summary) for each in commands.values()]), "  "),
    )
    parser.add_argument("--version", action="version", version=f"ssl-zoo {zoo.__version__}")
    parser.add_argument(
        "--traceback", action="store_true", help="show where an error arose, as ZOO_TRACEBACK=1 does"
    )
    group = parser.add_subparsers(metavar="COMMAND", help="one of those below")
    for command in commands.values():
        prog = f"zoo {command.name}"
        usage = f"{prog} {command.usage}".rstrip()
        command.arguments(group.add_parser(command.name, prog=prog, usage=usage, description=command.summary))
    return parser, dict(group.choices)


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Notes of the library (licences, skipped images) as plain lines on stderr, and only while a command runs."""
    logger = logging.getLogger("zoo")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _failed(message: str, code: int) -> int:
    print(f"zoo: {message}", file=sys.stderr)
    return code
