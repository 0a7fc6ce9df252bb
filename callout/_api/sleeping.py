"""Who sleeps, on one list for each machine: taking a sleeper off it decides what has ended the sleep.

Event, timeout, cancellation and close all want to end a sleep; whoever takes the sleeper off the machine's list, which
is one atomic step, has done so, and the others have come too late. So each sleep ends once, and for one reason.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final
from weakref import WeakKeyDictionary

from .._core.guard import protected
from .._core.machine import Machine
from .._core.platform import Waiter
from .awaitable import refuse_closed


class Why(Enum):
    """What has ended a sleep."""

    EVENT = "what it waited for"
    TIMEOUT = "its time was over"
    CLOSE = "the machine was closed"


class Sleeper:
    """One that sleeps."""

    __slots__ = ("_waiter", "why")

    def __init__(self, waiter: Waiter) -> None:
        self._waiter = waiter
        self.why: Why | None = None

    async def wait(self) -> None:
        """Sleep until ``tell()``."""
        await self._waiter.wait()

    def tell(self, why: Why) -> None:
        """End the sleep: for whoever took the sleeper off the list."""
        self.why = why
        self._waiter.set()


_SLEEPERS: Final[WeakKeyDictionary[Machine, dict[Sleeper, None]]] = WeakKeyDictionary()


@protected
def enlist(call: str, machine: Machine, new_waiter: Callable[[], Waiter]) -> Sleeper:
    """Return a sleeper that is on the machine's list.

    Raises:
        ClosedError, ForkedError: the machine was closed.
    """
    refuse_closed(call, machine)
    sleeper = Sleeper(new_waiter())
    _SLEEPERS.setdefault(machine, {})[sleeper] = None
    return sleeper


@protected
def claim(machine: Machine, sleeper: Sleeper) -> bool:
    """Take *sleeper* off the machine's list; return whether it was there: then its sleep is the caller's to end."""
    return _SLEEPERS[machine].pop(sleeper, sleeper) is None


@protected
def wake(machine: Machine, sleeper: Sleeper, why: Why) -> bool:
    """End the sleep unless something else has ended it; return whether it was this."""
    if not claim(machine, sleeper):
        return False
    sleeper.tell(why)
    return True
