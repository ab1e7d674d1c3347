"""`zoo app`: the app room, imported by name and only when asked for."""

from __future__ import annotations

import argparse

from zoo.cli.arguments import Command, Parser
from zoo.cli.rooms import room
from zoo.pulling import find


def _app_arguments(parser: Parser) -> None:
    parser.epilog = (
        "All models whose weights are on this machine can be chosen there; `zoo pull NAME` adds one."
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="MODEL",
        help="the model to open with, fetched where it is not here yet; may be given more than once",
    )
    parser.add_argument("--port", type=int, default=7860, help="0 takes any free one (default: 7860)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="0.0.0.0 lets other machines in (default: 127.0.0.1, this machine alone)",
    )
    parser.add_argument("--site", metavar="FOLDER", help="what `zoo export --to web` wrote, as one more page")


def _app(arguments: argparse.Namespace) -> None:
    for model in arguments.model:
        find(model)
    # Importing torch and Gradio takes longer than loading a model.
    print("starting …", flush=True)
    room("app.commands").app_command(arguments.model, arguments.host, arguments.port, arguments.site)


COMMANDS = (
    Command(
        "app",
        "[--model MODEL] [--port PORT] [--host HOST]",
        "look at models in the browser: attention, reconstruction, comparison",
        _app_arguments,
        _app,
    ),
)
