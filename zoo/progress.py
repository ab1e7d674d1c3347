"""Progress with an ETA for everything that takes more than a moment, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def track(items: Sequence[T] | Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items with a rich bar on stderr; silent where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as bar

    yield from bar(items, description=what, total=total, console=Console(stderr=True), transient=True)


@contextmanager
def transfer(what: str, total: int | None = None, done: int = 0) -> Iterator[Callable[[float], None]]:
    """Yield a function to call with the bytes just moved: a rich bar with speed and ETA; silent likewise."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.DownloadColumn(),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda count: bar.advance(task, count)
