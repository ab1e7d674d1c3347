"""Mappings as YAML gives them into dataclasses and back, by type hints; everything that is wrong is said at once."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import sys
import types
from collections.abc import Collection, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from zoo.card_yaml import ALMOST_NUMBER, AlmostNumber
from zoo.errors import CardError, did_you_mean

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def keys_of(kind: type) -> dict[str, dataclasses.Field[Any]]:
    """Fields of a dataclass by the key they have in YAML: metadata["key"], or their name."""
    return {field.metadata.get("key", field.name): field for field in dataclasses.fields(kind)}


def to_plain(value: Any) -> Any:
    """A dataclass as what YAML can spell; fields at their default are left out. Raises CardError for other objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: to_plain(each) for key, each in differing(value).items()}
    if isinstance(value, Mapping):
        return {str(key): to_plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(each) for each in value]
    if isinstance(value, str):
        return value.encode(errors="replace").decode()  # a path's undecodable bytes become "?"
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):  # a subclass such as numpy.float64 has no spelling in YAML
        return int(value) if isinstance(value, int) else float(value)
    raise CardError(
        f"{value!r} is a {type(value).__name__}, which no card can hold; convert it to a number or text"
    )


def differing(instance: Any) -> dict[str, Any]:
    """Fields of a dataclass instance that are not at their default, by key."""
    values = {}
    for key, field in keys_of(type(instance)).items():
        value = getattr(instance, field.name)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if value != default:
            values[key] = value
    return values


def read_fields(
    kind: type,
    keys: Mapping[str, dataclasses.Field[Any]],
    data: Mapping[str, Any],
    at: str,
    problems: list[str],
    others: Collection[str] = (),
) -> dict[str, Any]:
    """Values of `keys` in `data` by field name, checked against the hints of `kind`.

    at: the dotted key of `data`. What is wrong is added to `problems`, all of it. others: further keys allowed there.
    """
    options = [*keys, *others]
    for key in data:
        if key not in options:
            problems.append(f"{_dotted(at, key)}: unknown key{did_you_mean(str(key), options)}")
    needed = [key for key, field in keys.items() if _required(field)]
    if missing := [_dotted(at, key) for key in needed if key not in data]:
        problems.append(f"missing: {', '.join(missing)}")
    hints = _hints(kind)
    return {
        field.name: _value(hints[field.name], data[key], _dotted(at, key), problems)
        for key, field in keys.items()
        if key in data
    }


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _dotted(at: str, key: object) -> str:
    return f"{at}.{key}" if at else str(key)


def _value(hint: Any, data: Any, at: str, problems: list[str]) -> Any:
    """`data` as the type `hint` names, or None with a problem added."""
    origin = get_origin(hint)
    if hint is Any:
        return _plain(data, at, problems)
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in get_args(hint) if each is not types.NoneType)
        return None if data is None else _value(inner, data, at, problems)
    if origin is Literal:
        return _choice(get_args(hint), data, at, problems)
    if origin is tuple:
        return _tuple(get_args(hint), data, at, problems)
    if origin is dict:
        return _dict(get_args(hint)[1], data, at, problems)
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, data, at, problems)
    return _scalar(hint, data, at, problems)


def _dataclass(kind: Any, data: Any, at: str, problems: list[str]) -> Any:
    if not isinstance(data, dict):
        problems.append(f"{at}: found {_found(data)}, expected a mapping of {', '.join(keys_of(kind))}")
        return None
    before = len(problems)
    values = read_fields(kind, keys_of(kind), data, at, problems)
    try:
        return kind(**values) if len(problems) == before else None
    except CardError as error:
        problems.append(f"{at}: {error}")
        return None


def _tuple(hints: tuple[Any, ...], data: Any, at: str, problems: list[str]) -> tuple[Any, ...] | None:
    if not isinstance(data, list):
        problems.append(f"{at}: found {_found(data)}, expected a list; write [{_example(data)}]")
        return None
    return tuple(_value(hints[0], each, f"{at}[{i}]", problems) for i, each in enumerate(data))


def _dict(hint: Any, data: Any, at: str, problems: list[str]) -> dict[str, Any] | None:
    if not isinstance(data, dict):
        problems.append(f"{at}: found {_found(data)}, expected a mapping (key: value)")
        return None
    for key in data:
        if not isinstance(key, str):
            problems.append(f"{at}: found the key {_found(key)}, expected text; put it in quotes")
    return {str(key): _value(hint, each, _dotted(at, key), problems) for key, each in data.items()}


def _plain(data: Any, at: str, problems: list[str]) -> Any:
    """Anything YAML spells without a type of ours to hold it against; only its traps are caught."""
    if isinstance(data, dict):
        return _dict(Any, data, at, problems)
    if isinstance(data, list):
        return [_plain(each, f"{at}[{i}]", problems) for i, each in enumerate(data)]
    if isinstance(data, AlmostNumber):
        problems.append(f"{at}: found {_found(data)}; {_number_fix(data)}, or put it in quotes")
        return None
    return _scalar(float, data, at, problems) if isinstance(data, float) else data


def _choice(options: tuple[Any, ...], data: Any, at: str, problems: list[str]) -> Any:
    if isinstance(data, str) and data in options:
        return str(data)
    hint = did_you_mean(data, options) if isinstance(data, str) else ""
    problems.append(f"{at}: found {_found(data)}, expected {' or '.join(map(repr, options))}{hint}")
    return None


def _scalar(kind: type, data: Any, at: str, problems: list[str]) -> Any:
    if kind is str and isinstance(data, str):
        return str(data)  # of an AlmostNumber too: here it is text
    if kind is float and type(data) in (int, float) and abs(data) <= sys.float_info.max:
        return float(data)
    if kind in (int, bool) and type(data) is kind:
        return data
    problems.append(f"{at}: found {_found(data)}, expected {_WORDS[kind]}{_fix(kind, data)}")
    return None


def _found(data: Any) -> str:
    """What YAML made of the text, in a person's words."""
    if isinstance(data, AlmostNumber):
        return f"{data}, which YAML takes for text"
    if isinstance(data, str):
        return f"the text {data if len(data) < 60 else data[:60] + '…'!r}"
    if isinstance(data, (dict, list)):
        return "a mapping" if isinstance(data, dict) else "a list"
    if data is None or isinstance(data, bool):
        return "nothing" if data is None else str(data).lower()
    return str(data)


def _fix(kind: type, data: Any) -> str:
    """What to type instead, where that can be told."""
    if kind is str and not isinstance(data, (dict, list)) and data is not None:
        return "; put it in quotes"
    if kind is float and isinstance(data, str):
        return f"; {_number_fix(data)}" if _is_number(data) else ""
    if kind is int and isinstance(data, (str, float)) and _is_number(digits := str(data).replace(",", "")):
        return f"; write {float(digits):.0f}" if float(digits).is_integer() else ""
    return ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number_fix(text: str) -> str:
    """`write 1.0e-6` for 1e-6; a quoted number just loses its quotes."""
    if not ALMOST_NUMBER.match(text):
        return f"write {text.strip()} without quotes"
    mantissa, exponent = re.split("[eE]", text)
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"write {mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"


def _example(data: Any) -> str:
    return str(data) if isinstance(data, (str, int, float)) else "one, two"
