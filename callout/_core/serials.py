"""Serial numbers of callouts, for those that look inside: a callout has one from when it is first looked at."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from .weak import ByIdentity

if TYPE_CHECKING:
    from .._api.callout import Callout


class Serials:
    """Callout -> number. No number is used twice, as an address may be. Keeps nothing alive."""

    __slots__ = ("_known", "_next")

    def __init__(self) -> None:
        self._known: ByIdentity[Callout, int] = ByIdentity()
        self._next = count(1)

    def of(self, c: Callout) -> int:
        """Return the number of *c*. The lock of its CPU is held, so that it gets one only."""
        number = self._known.get(c)
        if number is None:
            number = next(self._next)
            self._known.set(c, number)
        return number
