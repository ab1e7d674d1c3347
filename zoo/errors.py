"""Every error the zoo raises on purpose: what was given, where it came from, and what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """Root of all errors raised on purpose. The command line prints its message and no traceback."""

    def __init__(self, message: str) -> None:
        # Advice follows after "; ", or after the question of `did_you_mean`.
        super().__init__(message.replace("?; ", "? "))


class UnknownModel(ZooError):
    """No model of that name."""


class CardError(ZooError):
    """A model card that cannot be read, or that says something impossible."""


class WeightsError(ZooError):
    """Weights that are missing, damaged, of another model, or of an unreadable kind."""


class ImageError(ZooError):
    """An image that cannot be read, or is not an image of the kind asked for."""


class SizeError(ZooError):
    """An image size the model cannot take."""


class MaskError(ZooError):
    """A mask, ratio or strategy that is impossible on the grid at hand."""


class DataError(ZooError):
    """A folder, parquet file or split that holds no usable images."""


class RecipeError(ZooError):
    """A recipe or one of its knobs that does not exist or cannot work."""


class HubError(ZooError):
    """A repo or file that the Hub, or its authors' server, does not give or take."""


class Unreachable(HubError):
    """A server that does not answer, or that HF_HUB_OFFLINE forbids to ask."""


class Unsupported(ZooError):
    """Something this model cannot do; the message names what works."""


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The shortest option that begins with `name`, or the one most like it; None where nothing is alike."""
    lowered = {option.lower(): option for option in options}
    if begun := [option for option in lowered if name and option.startswith(name.lower())]:
        return lowered[min(begun, key=len)]
    found = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    return lowered[found[0]] if found else None


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """`"; did you mean 'dino_vits16'?"`, or an empty string where nothing is alike."""
    found = nearest(name, options)
    return f"; did you mean {found!r}?" if found else ""
