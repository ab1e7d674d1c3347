"""What is made once and kept while memory lasts: the least recently used goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Values by key, of at most `budget` bytes together; any number of threads may ask.

    Whoever asks first for a key makes its value, and the others wait for it. A value larger than the budget is kept
    alone. What was evicted lives on as long as somebody still works with it.
    """

    def __init__(self, budget: int, size_of: Callable[[Value], int]) -> None:
        self.budget = budget
        self._size_of = size_of
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of `key`, made now where it is not there. What `make` raises is raised, and nothing kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._values:  # made while we waited
                    return self._values[key][0]
            try:
                value = make()
                with self._lock:
                    self._values[key] = (value, self._size_of(value))
                    self._evict()
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return value

    def _evict(self) -> None:
        while len(self._values) > 1 and self.bytes > self.budget:
            self._values.popitem(last=False)

    @property
    def bytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(size for _, size in self._values.values())

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)
