"""A table that keeps nothing alive and runs no Python code in the middle of a garbage collection.

The tables of ``weakref`` remove what has died in a callback written in Python. A Ctrl-C that arrives during a
collection is raised by the next Python code that runs, and if that is such a callback, the interpreter prints it and
goes on: the Ctrl-C is lost. So here a dead entry stays, empty, until a later one is added.
"""

from __future__ import annotations

import weakref
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_FEW: Final = 16


class WeakValues(Generic[T]):
    """Objects by the id of something that lives at least as long as they do."""

    __slots__ = ("_limit", "_refs")

    def __init__(self) -> None:
        self._refs: dict[int, weakref.ref[T]] = {}
        self._limit = _FEW

    def __len__(self) -> int:
        """Return how many entries there are, the dead ones included."""
        return len(self._refs)

    def get(self, key: int) -> T | None:
        """Return what is there; None if nothing is, or it has died."""
        ref = self._refs.get(key)
        return None if ref is None else ref()

    def set(self, key: int, value: T) -> None:
        """Add *value*. The cost is constant on average: what has died is removed whenever the table has doubled."""
        self._refs[key] = weakref.ref(value)
        if len(self._refs) > self._limit:
            for each, ref in list(self._refs.items()):
                if ref() is None and self._refs.get(each) is ref:
                    self._refs.pop(each, None)
            self._limit = max(_FEW, 2 * len(self._refs))

    def pop(self, key: int) -> None:
        """Remove what is there, if anything is."""
        self._refs.pop(key, None)


__all__ = ["WeakValues"]
