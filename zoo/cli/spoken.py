"""Advice of the library as one types it: `weights=FILE` as `--weights FILE`, `zoo.list_models()` as `zoo list`.

The library words its messages once, for Python; a command rewords what it has an option for, and nothing else.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Container

# What an option is called, or how it is typed, where it is not `--keyword value`.
_OTHERWISE = {"resume=False": "--anew", "query='cls'": "no --query", "providers=('cpu',)": "--device cpu"}

_CALL = re.compile(r"zoo\.(load|list_models)\(([^()]*)\)")
# A keyword stands in a sentence; one with a colon or a slash behind its value is somebody's file.
_KEYWORD = re.compile(
    r"""
    (?: ^ | (?<=[\s(]) ) (?P<name> \w+ ) =
    (?:
        (?P<quoted> '[^']*' | "[^"]*" | \([\w', ]*\) ) (?= $ | [\s,;:)] )
        | (?P<bare> [\w.]+ ) (?= $ | [\s,;)] )
    )
    """,
    re.VERBOSE,
)


def as_typed(message: str, options: Container[str]) -> str:
    """`message` with its Python reworded for a command that has these options.

    >>> as_typed("zoo.list_models() shows all; or pass weights=FILE", ["--weights"])
    '`zoo list` shows all; or pass --weights FILE'
    """

    def keyword(found: re.Match[str]) -> str:
        typed = _OTHERWISE.get(found[0]) or f"--{found['name'].replace('_', '-')} {_value(found)}"
        option = next(word for word in typed.split() if word.startswith("--"))
        return typed if option in options else found[0]

    return _KEYWORD.sub(keyword, _CALL.sub(_call, message))


def _call(found: re.Match[str]) -> str:
    """zoo.list_models(kind='x') as `zoo list --kind x`, and zoo.load(NAME, weights='x') as NAME --weights x."""
    given = [each for each in found[2].split(", ") if each]
    words = [
        f"--{named['name']} {_value(named)}" if (named := _KEYWORD.fullmatch(each)) else each.strip("'\"")
        for each in given
    ]
    return " ".join(words) if found[1] == "load" else f"`{' '.join(['zoo list', *words])}`"


def _value(found: re.Match[str]) -> str:
    """FILE, 'mine.pth' as mine.pth, and (row, column) as ROW COLUMN."""
    text = found["quoted"] or found["bare"]
    if text.startswith("("):
        return " ".join(text.strip("()").split(", ")).upper()
    return shlex.quote(text.strip("'\"")) if found["quoted"] else text
