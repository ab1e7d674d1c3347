"""Progress with an ETA for everything that takes more than a moment, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

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


class Bar:
    """`transfer` in the shape of tqdm, for a library that draws bars of its own and lets its user pass their class."""

    title = ""

    @classmethod
    def titled(cls, title: str) -> type[Bar]:
        """A class of bars that are called so, whatever the library calls them."""
        return type(cls.__name__, (cls,), {"title": title})

    def __init__(self, *, total: float | None = None, initial: float = 0, **_: Any) -> None:
        self.total, self.n = total, initial
        self._stack = ExitStack()
        size = int(total) if total else None
        self._advance = self._stack.enter_context(transfer(self.title, size, int(initial)))

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, count: float | None = 1) -> None:
        self.n += count or 0
        self._advance(count or 0)

    def close(self) -> None:
        self._stack.close()

    def ignored(self, *_: Any, **__: Any) -> None:
        """What it is told of speeds and compressed bytes: the bar computes its own."""

    update_transfer = set_postfix_str = set_transfer_postfix_str = refresh = ignored
