"""`zoo list`, `zoo show`, `zoo register`, `zoo remove`: the models there are, from their cards alone."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from zoo import registry
from zoo.cli.arguments import Command, Parser, UsageError, one_of
from zoo.cli.listing import facts, listing
from zoo.cli.markdown import methods_table, models_page
from zoo.cli.rooms import room
from zoo.cli.showing import show
from zoo.cli.trained import trained_table
from zoo.errors import did_you_mean
from zoo.pulling import find
from zoo.repos import list_repos
from zoo.tables import printable

# Made from the cards: docs/models.md, and the README's tables of published methods and of what was trained here.
MARKDOWN = {"models": models_page, "methods": methods_table, "trained": trained_table}


def _list_arguments(parser: Parser) -> None:
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="PATTERN",
        help="as in dino, or 'dino_vit?16' (default: all)",
    )
    parser.add_argument("--method", help="only models of this method, as in dino or mae")
    parser.add_argument("--kind", help="only discriminative, generative or supervised models")
    parser.add_argument(
        "--commercial", action="store_true", help="only weights whose licence allows commercial use"
    )
    parser.add_argument("--hub", metavar="USER", help="the models in a user's repos on the Hub instead")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--markdown",
        type=one_of(*MARKDOWN),
        metavar="WHAT",
        help="print docs/models.md (models) or a table of the README (methods, trained), of all that come with the zoo",
    )


def _list(arguments: argparse.Namespace) -> None:
    if arguments.markdown:
        print(MARKDOWN[arguments.markdown](registry.own_cards()).rstrip())
        return
    # As one types it: in any case, and without wildcards any part of a name.
    pattern = arguments.pattern.lower()
    pattern = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    filters = {"method": arguments.method, "kind": arguments.kind, "commercial": arguments.commercial or None}
    if arguments.hub:
        there = [card for card in list_repos(arguments.hub) if fnmatchcase(card.name.lower(), f"*/{pattern}")]
        cards = registry.matching(there, **filters)
    else:
        cards = registry.list_cards(pattern, **filters)
        if not cards:
            _check_filters(arguments)
    if arguments.json:
        print(json.dumps([facts(card) for card in cards], indent=2))
    elif cards:
        print(printable(listing(cards, shutil.get_terminal_size((120, 24)).columns)))
    elif arguments.hub:
        print(f"{arguments.hub} has no such model on the Hub, or none that you may see", file=sys.stderr)
    else:
        print(f"no model matches {arguments.pattern!r} here; `zoo list` shows all", file=sys.stderr)


def _check_filters(arguments: argparse.Namespace) -> None:
    """Raise UsageError for a method or kind that no card has."""
    for what in ("method", "kind"):
        wanted = getattr(arguments, what)
        known = sorted({getattr(card, what) for card in registry.list_cards()})
        if wanted is not None and wanted not in known:
            message = f"no model of {what} {wanted!r}{did_you_mean(wanted, known)}"
            raise UsageError(f"{message}; there are {', '.join(known)}")


def _show_arguments(parser: Parser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a name of `zoo list`, a model folder, or user/repo[@revision] on the Hub",
    )
    parser.add_argument("--json", action="store_true", help="print the whole card as JSON")


def _show(arguments: argparse.Namespace) -> None:
    found = find(arguments.model)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(found.card), indent=2, default=str))
    else:
        width = shutil.get_terminal_size((120, 24)).columns
        print(printable(show(found.card, width, _exported(found.place))))


def _exported(place: Path) -> list[str]:
    """What lies in a model's onnx/, or in an export folder, and how it passed: a line a file."""
    for folder in (place / "onnx", place):
        if (folder / "parity.json").is_file():
            told: list[str] = room("export.shown").lines(folder)
            return told
    return []


def _register_arguments(parser: Parser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="a model folder, such as a finished run")
    parser.add_argument("name", metavar="NAME", help="what to call it")


def _register(arguments: argparse.Namespace) -> None:
    place = registry.register(arguments.folder, arguments.name)
    print(f"registered {arguments.name} in {place}; load it with zoo.load({arguments.name!r})")


def _remove_arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="a model that was registered")


def _remove(arguments: argparse.Namespace) -> None:
    print(f"removed {registry.remove(arguments.name)}")


COMMANDS = (
    Command(
        "list",
        "[PATTERN] [options]",
        "the models there are, with published numbers and licence",
        _list_arguments,
        _list,
    ),
    Command("show", "MODEL [--json]", "everything the card of a model says", _show_arguments, _show),
    Command(
        "register",
        "FOLDER NAME",
        "copy a model folder into the local zoo under a name",
        _register_arguments,
        _register,
    ),
    Command("remove", "NAME", "delete a model from the local zoo", _remove_arguments, _remove),
)
