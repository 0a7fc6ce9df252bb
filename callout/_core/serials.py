"""Serial numbers of callouts and locks, for those that look inside: each has one from when it is first looked at."""

from __future__ import annotations

from itertools import count
from typing import Generic, TypeVar

from .weak import ByIdentity

T = TypeVar("T")


class Serials(Generic[T]):
    """Object -> number. No number is used twice, as an address may be. Keeps nothing alive."""

    __slots__ = ("_known", "_next")

    def __init__(self) -> None:
        self._known: ByIdentity[T, int] = ByIdentity()
        self._next = count(1)

    def of(self, obj: T) -> int:
        """Return the number of *obj*. A lock is held that all who ask for it hold, so that it gets one only: of a
        callout that of its CPU.
        """
        number = self._known.get(obj)
        if number is None:
            number = next(self._next)
            self._known.set(obj, number)
        return number
