"""Tables and pairs as aligned plain text: nothing to import, and a pipe reads them as well as a person."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """Columns two spaces apart; the columns named in `right` hold numbers and end where their header ends.

    A star before a number stands in the space between.

    >>> print(table(["name", "k-NN"], [["a", "9.5 %"], ["longer", "74.5 %"]], right=["k-NN"]))
    name      k-NN
    a        9.5 %
    longer  74.5 %
    """
    columns = zip(header, zip(header, *rows, strict=True), strict=True)
    widths = [max(len(c.removeprefix("*") if name in right else c) for c in cells) for name, cells in columns]

    def line(cells: Sequence[str]) -> str:
        placed = zip(header, cells, widths, strict=True)
        spaced = (c.rjust(w + 2) if name in right else f"  {c.ljust(w)}" for name, c, w in placed)
        return "".join(spaced)[2:].rstrip()

    return "\n".join([line(header), *(line(row) for row in rows)])


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same cells as Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def printable(text: str) -> str:
    """`text` without control characters, by which a stranger's card could write over the terminal it is shown on."""
    return _CONTROLS.sub("", text)


def pairs(facts: Sequence[tuple[str, str]]) -> str:
    """One fact per line, its label in a column of its own; further lines of a value are indented to match."""
    width = max((len(label) for label, _ in facts), default=0)
    indent = "\n" + " " * (width + 2)
    return "\n".join(
        f"{label.ljust(width)}  {indent.join(value.splitlines())}".rstrip() for label, value in facts
    )
