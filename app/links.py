"""A page's settings in its address: whoever opens the link sees the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Value = str | int | float | list[str]


class Setting(NamedTuple):
    """One setting of a page. among: the values there are, or the smallest and the largest number; empty: any text."""

    default: Value
    among: Sequence[str] | tuple[float, float] = ()


def read_link(params: Mapping[str, str], settings: Mapping[str, Setting]) -> tuple[dict[str, Any], list[str]]:
    """The value of every setting, and the names of those whose value in the link is impossible: they are defaults."""
    values: dict[str, Any] = {name: setting.default for name, setting in settings.items()}
    wrong = []
    for name in settings.keys() & params.keys():
        try:
            values[name] = _read(params[name], settings[name])
        except ValueError:
            wrong.append(name)
    return values, sorted(wrong)


def _read(text: str, setting: Setting) -> Value:
    """The value `text` spells. Raises ValueError."""
    default, among = setting
    if isinstance(default, int | float):
        number = type(default)(text)
        low, high = (float(each) for each in among)
        if not math.isfinite(number) or not low <= number <= high:
            raise ValueError(text)
        return number
    words = text.split(",") if isinstance(default, list) else [text]
    if among and not set(words) <= set(map(str, among)):
        raise ValueError(text)
    return words if isinstance(default, list) else text


def writer(names: Sequence[str]) -> str:
    """JavaScript that puts the values of a page's inputs, in this order, into its address, and reloads nothing."""
    return (
        "(...values) => { const query = new URLSearchParams(location.search);"
        f" {json.dumps(list(names))}.forEach((name, i) => {{ const value = values[i];"
        " if (value === null || value === undefined || value === '') query.delete(name);"
        " else query.set(name, value); });"
        " history.replaceState(history.state, '', location.pathname + '?' + query); return []; }"
    )
