"""The browser app: what a model attends to, and what it imagines. `zoo.app.build()` is all of its pages.

It imports zoo alone. The arithmetic is pure functions of this folder, tested without a browser; `pages/` wires them.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.app.pages import build as build
    from zoo.app.server import serve as serve

# Read when the libraries are imported: nobody is told that a page was opened.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

_PUBLIC = {"build": "zoo.app.pages", "serve": "zoo.app.server"}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'zoo.app' has no attribute {name!r}")
