"""How the command line reads its words: one style of message, the nearest valid word in it, and a recipe's knobs."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from zoo.cli.rooms import room
from zoo.errors import ZooError, did_you_mean, nearest
from zoo.pulling import find

if TYPE_CHECKING:
    from zoo.encoder import Encoder

KNOB = re.compile(r"--[A-Za-z][\w-]*\.[\w.-]+(=.*)?$", re.DOTALL)
NUMBER = re.compile(r"-\.?\d")


class UsageError(ZooError):
    """A command line that cannot be read."""


@dataclass(frozen=True)
class Command:
    """One verb of the command line: what it takes, and what it does with it."""

    name: str
    usage: str
    summary: str
    arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], None]
    takes_knobs: bool = False


class Parser(argparse.ArgumentParser):
    """argparse whose mistakes are ZooErrors, so that they look like all others; options are never abbreviated."""

    def __init__(self, **settings: Any) -> None:
        width = shutil.get_terminal_size().columns - 2
        super().__init__(
            **settings,
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
                prog, max_help_position=28, width=min(width, 110)
            ),
        )

    def option_strings(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` shows what it takes")


def one_of(*options: str) -> Callable[[str], str]:
    """An argument type that takes one of `options` and names the nearest where it is none of them."""

    def read(text: str) -> str:
        if text not in options:
            wrong = f"{text!r} is not one of {', '.join(options)}{did_you_mean(text, options)}"
            raise argparse.ArgumentTypeError(wrong)
        return text

    return read


def refuse_unknown(words: list[str], parser: Parser, *, takes_knobs: bool = False) -> NoReturn:
    """Raise UsageError for the first of `words`, which the parser did not know, with the option most like it."""
    word = next((word for word in words if word.startswith("-")), words[0])
    if not word.startswith("-"):
        parser.error(f"`{parser.prog}` has no place for {word!r}")
    # Without their dashes, which would make any two options look alike.
    found = nearest(
        word.partition("=")[0].lstrip("-"), [option.lstrip("-") for option in parser.option_strings()]
    )
    hint = f"; did you mean '--{found}'?" if found else ""
    if takes_knobs and not hint:
        hint = "; a recipe's knobs are written --section.knob VALUE, as in --optim.lr 1e-3"
    parser.error(f"`{parser.prog}` has no option {word}{hint}")


def listed(phrases: Mapping[str, str]) -> str:
    """Indented lines for a help text: a name and what it is."""
    width = max(map(len, phrases))
    return "\n".join(f"  {name:{width}}  {phrase}" for name, phrase in phrases.items())


def split_knobs(words: list[str]) -> tuple[list[str], list[str]]:
    """Take a recipe's knobs out of a command line: `--section.knob` and all words after it up to the next option.

    >>> split_knobs(["train", "mae/smoke", "photos", "--optim.lr", "1e-3", "--out", "runs/a"])
    (['train', 'mae/smoke', 'photos', '--out', 'runs/a'], ['--optim.lr', '1e-3'])
    """
    rest: list[str] = []
    knobs: list[str] = []
    current = rest
    for word in words:
        if word.startswith("-") and not NUMBER.match(word):
            current = knobs if KNOB.match(word) else rest
        current.append(word)
    return rest, knobs


def add_model(parser: Parser) -> None:
    """MODEL and the options that say how to load it."""
    parser.add_argument("model", metavar="MODEL", help="a name of `zoo list`, or a model folder")
    parser.add_argument(
        "--weights", metavar="FILE", help="weights of your own, or random: the untrained baseline"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")


def add_backend(parser: Parser) -> None:
    """Whose arithmetic: PyTorch's, or an exported graph's."""
    parser.add_argument(
        "--backend",
        type=one_of("torch", "onnx"),
        default="torch",
        help="torch, or onnx: MODEL is then an export folder, or a model with an onnx/ (default: torch)",
    )
    parser.add_argument(
        "--precision",
        metavar="P",
        help="of --backend onnx: fp32, fp16 or int8 (default: the most exact there is)",
    )


def check_model(arguments: argparse.Namespace) -> None:
    """Raise what `load_model` would of wrong words: before torch is imported or many images listed, both slow."""
    if getattr(arguments, "backend", None) == "onnx":
        if arguments.weights:
            raise UsageError(
                "--weights are PyTorch's, and an exported graph holds its own; leave out one of the two"
            )
        room("export.folder").export_folder(arguments.model)
    else:
        find(arguments.model)


def load_model(arguments: argparse.Namespace, size: int | None = None) -> Encoder:
    """The encoder the words of `add_model` and `add_backend` ask for, evaluated at `size` pixels where given."""
    backend = getattr(arguments, "backend", None)  # None: a command that knows only PyTorch's
    if backend == "onnx":
        return _exported(arguments, size)
    if backend == "torch" and arguments.precision:
        raise UsageError("--precision chooses among exported graphs; add --backend onnx")
    check_model(arguments)
    from zoo.loading import load

    return load(arguments.model, weights=arguments.weights, device=arguments.device, size=size)


def _exported(arguments: argparse.Namespace, size: int | None) -> Encoder:
    """The encoder that ONNX Runtime computes. --device auto leaves the provider to it."""
    check_model(arguments)
    providers = None if arguments.device == "auto" else (arguments.device,)
    encoder: Encoder = room("export.runtime").OnnxEncoder(
        arguments.model, providers=providers, precision=arguments.precision, size=size
    )
    return encoder
