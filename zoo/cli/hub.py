"""`zoo pull`, `zoo verify`, `zoo push`: models from where they lie, checked, and onto the Hub."""

from __future__ import annotations

import argparse

from zoo.cli.arguments import Command, Parser
from zoo.tables import pairs


def _pull_arguments(parser: Parser) -> None:
    parser.add_argument(
        "model", metavar="NAME", help="a name of `zoo list`, or user/repo[@revision] on the Hub"
    )


def _pull(arguments: argparse.Namespace) -> None:
    from zoo.pulling import find

    found = find(arguments.model).fetched()
    print(f"{arguments.model} is in {found.place}; load it with zoo.load({found.card.name!r})")


def _verify_arguments(parser: Parser) -> None:
    parser.add_argument(
        "model", metavar="NAME", help="a name of `zoo list`, a model folder, or user/repo[@revision]"
    )


def _verify(arguments: argparse.Namespace) -> None:
    from zoo.verifying import verify

    found = verify(arguments.model)
    facts = [("folder", str(found.folder))]
    for file, digest in found.sha256.items():
        said = "not on the card" if file in found.unstated else "as on the card"
        facts.append((file, f"sha256 {digest}, {said}"))
    facts += [("config.json", "as on the card"), ("parameters", f"{found.parameters:,}, as on the card")]
    print(f"{found.name} is sound\n\n{pairs(facts)}")


def _push_arguments(parser: Parser) -> None:
    parser.add_argument("model", metavar="NAME", help="a name of `zoo list`, or a model folder")
    parser.add_argument("repo", metavar="REPO", help="user/repo on the Hub; made where there is none")
    parser.add_argument("--public", action="store_true", help="make a new repo public (default: private)")


def _push(arguments: argparse.Namespace) -> None:
    from zoo.pushing import push

    address = push(arguments.model, arguments.repo, private=not arguments.public)
    print(f"pushed {arguments.model} to {address}; load it with zoo.load({arguments.repo!r})")


COMMANDS = (
    Command("pull", "NAME", "fetch a model's weights, check them and keep them", _pull_arguments, _pull),
    Command("verify", "NAME", "check a model's files against its card", _verify_arguments, _verify),
    Command("push", "NAME REPO [--public]", "upload a model to the Hub", _push_arguments, _push),
)
