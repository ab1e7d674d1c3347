"""The rooms beside zoo/, imported by name and only when a command asks for one."""

from __future__ import annotations

import importlib
from types import ModuleType

from zoo.errors import Unsupported

# The extra of `pip install` that brings what a room needs, and what is done there.
_EXTRAS = {
    "training": ("train", "training"),
    "export": ("export", "an exported graph"),
    "app": ("app", "the browser app"),
}


def room(module: str) -> ModuleType:
    """`zoo.MODULE`, as in room("training.commands"). Raises Unsupported where what it needs is not installed."""
    extra, what = _EXTRAS[module.partition(".")[0]]
    try:
        return importlib.import_module(f"zoo.{module}")
    except ModuleNotFoundError as error:
        missing = f"{what} needs {error.name!r}, which is not installed"
        raise Unsupported(f"{missing}; type: pip install 'ssl-zoo[{extra}]'") from error
