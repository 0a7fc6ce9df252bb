"""Tables that keep nothing alive and run no Python code in the middle of a garbage collection.

The tables of ``weakref`` remove what has died in a callback written in Python. A Ctrl-C that arrives during a
collection is raised by the next Python code that runs, and if that is such a callback, the interpreter prints it and
goes on: the Ctrl-C is lost. So here a dead entry stays, empty, until a later one is added.
"""

from __future__ import annotations

import weakref
from typing import Final, Generic, TypeVar

T = TypeVar("T")
V = TypeVar("V")

_FEW: Final = 16


class _Table(Generic[T, V]):
    """Weak references, each with something that is known of it, by the id of something."""

    __slots__ = ("_limit", "_rows")

    def __init__(self) -> None:
        self._rows: dict[int, tuple[weakref.ref[T], V]] = {}
        self._limit = _FEW

    def __len__(self) -> int:
        """Return how many entries there are, the dead ones included."""
        return len(self._rows)

    def _add(self, key: int, ref: weakref.ref[T], known: V) -> None:
        """Add a row. The cost is constant on average: what has died is removed whenever the table has doubled."""
        self._rows[key] = ref, known
        if len(self._rows) > self._limit:
            for each, row in self._rows.copy().items():
                if row[0]() is None and self._rows.get(each) is row:
                    self._rows.pop(each, None)
            self._limit = max(_FEW, 2 * len(self._rows))


class WeakValues(_Table[T, None]):
    """Objects by the id of something that lives at least as long as they do."""

    __slots__ = ()

    def get(self, key: int) -> T | None:
        """Return what is there; None if nothing is, or it has died."""
        row = self._rows.get(key)
        return None if row is None else row[0]()

    def set(self, key: int, value: T) -> None:
        """Add *value*."""
        self._add(key, weakref.ref(value), None)

    def pop(self, key: int) -> None:
        """Remove what is there, if anything is."""
        self._rows.pop(key, None)


class ByIdentity(_Table[T, V]):
    """What is known of objects. They are told apart by identity: a class may define ``__eq__`` and ``__hash__``."""

    __slots__ = ()

    def get(self, obj: T) -> V | None:
        """Return what is known of *obj*; None if nothing is."""
        row = self._rows.get(id(obj))
        return row[1] if row is not None and row[0]() is obj else None

    def set(self, obj: T, known: V) -> None:
        """Have *known* be known of *obj*, instead of what was."""
        self._add(id(obj), weakref.ref(obj), known)

    def pop(self, obj: T) -> None:
        """Have nothing be known of *obj*."""
        row = self._rows.get(id(obj))
        if row is not None and row[0]() is obj:
            del self._rows[id(obj)]


__all__ = ["ByIdentity", "WeakValues"]
