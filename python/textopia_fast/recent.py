"""What was made for the last few keys, for things that are costly to make and to keep."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Recent"]

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Calls `make(key)` unless its result is among the last `kept`. Safe from many threads."""

    def __init__(self, make: Callable[[Key], Value], kept: int) -> None:
        self._make = make
        self._kept = kept
        self._lock = threading.Lock()
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __call__(self, key: Key) -> Value:
        with self._lock:
            if key not in self._values:
                while len(self._values) >= self._kept:  # before: its memory may be needed
                    self._values.popitem(last=False)
                self._values[key] = self._make(key)
            self._values.move_to_end(key)
            return self._values[key]
