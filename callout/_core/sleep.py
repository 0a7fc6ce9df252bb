"""Waiting for an event of any kind: until it comes, or a time has passed, or the machine is closed.

A sleeper is on two lists: the event's own, which gives the order, and the machine's, ``sleepers``. Removing it from the
machine's list decides which of event, timeout, close and cancellation it was: a dict's ``pop`` is atomic, so it is one
of them and no more. No sleeper is missed: it is on the lists before it looks at the phase; the close enters the phase
before it empties the list.

The timeout is a direct callout of the machine, as in sleepq_set_timeout(9), so it follows the machine's clock on every
platform.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from enum import Enum
from typing import TYPE_CHECKING

from .arm import arm, initialize
from .deadline import from_seconds
from .describe import shown
from .errors import ArgumentTypeError, ArgumentValueError, ClosedError
from .guard import protected
from .machine import Machine
from .phases import Phase, Use, admit
from .platform import Waiter
from .stop import stop
from .units import exact_int

if TYPE_CHECKING:
    pass


class Why(Enum):
    """What has woken a sleeper."""

    EVENT = "what it waited for"
    TIMEOUT = "its time was over"
    CLOSE = "the machine was closed"


class Sleeper:
    """One wait."""

    __slots__ = ("_waiter", "why")

    def __init__(self, waiter: Waiter) -> None:
        self._waiter = waiter
        self.why: Why | None = None

    def wait(self) -> Coroutine[object, object, None]:
        """Wait until it is woken."""
        return self._waiter.wait()

    def tell(self, why: Why) -> None:
        """Wake it: for the caller that removed it from the machine's list."""
        self.why = why
        self._waiter.set()


def timeout_to_ns(call: str, timeout: object) -> int | None:
    """Return *timeout*, seconds or None, in nanoseconds, rounded up."""
    if timeout is None:
        return None
    exact = float.__float__(timeout) if isinstance(timeout, float) else exact_int(timeout)
    if exact is None or isinstance(timeout, bool):
        raise ArgumentTypeError(f"{call}: timeout must be a number of seconds or None, not {shown(timeout)}", call=call)
    if not exact >= 0:
        raise ArgumentValueError(
            f"{call}: timeout must be a number of seconds from 0 up, got {shown(timeout)}", call=call
        )
    return from_seconds(exact)


@protected
def enlist(call: str, machine: Machine, new_waiter: Callable[[], Waiter]) -> Sleeper:
    """Return a sleeper that the machine knows.

    Raises:
        ClosedError, ForkedError: the machine was closed.
    """
    if machine.phase < Phase.CLOSED:
        sleeper = Sleeper(new_waiter())
        machine.sleepers[sleeper] = None
        if machine.phase < Phase.CLOSED or not claim(machine, sleeper):
            return sleeper
    admit(call, machine, Use.WAIT)
    raise AssertionError("a closed machine has admitted a wait")


@protected
def claim(machine: Machine, sleeper: Sleeper) -> bool:
    """Take *sleeper* off the machine's list; return whether it was there: then its wait is the caller's to end."""
    return machine.sleepers.pop(sleeper, sleeper) is None


@protected
def wake(machine: Machine, sleeper: Sleeper, why: Why) -> bool:
    """Wake *sleeper* unless something else has done so; return whether it was this."""
    if not claim(machine, sleeper):
        return False
    sleeper.tell(why)
    return True


@protected
def wake_all(machine: Machine) -> None:
    """Wake all sleepers, because the machine was closed."""
    for sleeper in list(machine.sleepers):
        wake(machine, sleeper, Why.CLOSE)


async def sleep(call: str, machine: Machine, sleeper: Sleeper, limit: int | None) -> Why:
    """Wait until *sleeper* is woken, or *limit* ns have passed; return which it was.

    A caller that is cancelled while it waits has to see whether it was woken all the same: then ``sleeper.why`` is set.

    Raises:
        ClosedError: the machine was closed.
    """
    alarm = None
    if limit is not None:
        alarm = machine.plain()
        initialize(call, machine, alarm, None, 0)

        def ring(_: None) -> None:
            wake(machine, sleeper, Why.TIMEOUT)

        arm(call, alarm, machine.platform.now() + limit, 0, ring, None, machine.cpus[0], direct=True)
    try:
        await sleeper.wait()
    finally:
        claim(machine, sleeper)
        if alarm is not None:
            try:
                stop(call, alarm)
            except ClosedError:
                pass  # the close has stopped it
    why = sleeper.why
    assert why is not None
    if why is Why.CLOSE:
        admit(call, machine, Use.WAIT)
    if why is Why.TIMEOUT:
        machine.platform.timed_out()
    return why


protected(sleep)
