"""One file per family of architectures; a card names its family by the stem of the file."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from zoo.errors import CardError, did_you_mean


def family(name: str) -> ModuleType:
    """The module of a family; CardError for a name no file here has (nothing else is ever imported)."""
    known = names()
    if name not in known:
        raise CardError(f"no family {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    return importlib.import_module(f"{__name__}.{name}")


def names() -> list[str]:
    """Stems of the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
