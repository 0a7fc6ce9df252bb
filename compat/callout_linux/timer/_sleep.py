"""Sleeping for a number of jiffies, on a timer of one's own.

Source: schedule_timeout() of kernel/time/timer.c (Linux 6.12).
"""

from __future__ import annotations

from callout import ArgumentTypeError, ArgumentValueError, Event, check_barrier_all, must_await

from .._base import Waiting
from .._jiffies import MAX_SCHEDULE_TIMEOUT, Variable, exact_int, jiffies, shown
from ._list import DEFINE_TIMER, mod_timer, timer_delete


def _check(call: str, timeout: int | Variable) -> int:
    if isinstance(timeout, Variable):
        timeout = timeout()
    exact = exact_int(timeout)
    if exact is None:
        raise ArgumentTypeError(f"{call}: timeout must be an int, a number of jiffies, not {shown(timeout)}", call=call)
    if not 0 <= exact <= MAX_SCHEDULE_TIMEOUT:
        raise ArgumentValueError(
            f"{call}: timeout must be from 0 to MAX_SCHEDULE_TIMEOUT, got {shown(exact)}", call=call
        )
    return exact


class _Nap:
    """One sleep: a timer that sets an event."""

    def __init__(self, jiffies_: int) -> None:
        self.over = Event()
        self._length = jiffies_
        self._until = jiffies + jiffies_
        self._timer = DEFINE_TIMER(lambda _: self.over.set())
        if jiffies_ != MAX_SCHEDULE_TIMEOUT:
            mod_timer(self._timer, self._until)

    def end(self) -> None:
        """Disarm the timer, also if the sleep was cancelled."""
        timer_delete(self._timer)

    def left(self) -> int:
        """Return how many jiffies are left."""
        return self._length if self._length == MAX_SCHEDULE_TIMEOUT else max(self._until - jiffies, 0)


async def _sleep(length: int) -> int:
    check_barrier_all("schedule_timeout")  # again: since the call a lock may have been acquired
    nap = _Nap(length)
    try:
        await nap.over.wait()
    finally:
        nap.end()
    return nap.left()


def schedule_timeout(timeout: int | Variable, /) -> Waiting:
    """Sleep for *timeout* jiffies, and never less: ``await`` it, with no lock held.

    As after ``set_current_state(TASK_UNINTERRUPTIBLE)``: nobody wakes it early, for there is no ``wake_up_process()``.
    What is to be woken sleeps by ``callout.msleep()``. With ``MAX_SCHEDULE_TIMEOUT`` it ends only by being cancelled.

    Returns the number of jiffies that are left, which is 0.

    Raises:
        ArgumentTypeError, ArgumentValueError: *timeout* is not an int, or negative (Linux: a warning, and 0).
        SelfDrainError: called by a timer's function, which would wait for its own softclock.
        SleepError: in checking mode, the caller holds a lock.
    """
    length = _check("schedule_timeout", timeout)
    check_barrier_all("schedule_timeout")
    return must_await("schedule_timeout", _sleep(length), "schedule_timeout_blocking")


def schedule_timeout_blocking(timeout: int | Variable, /) -> int:
    """Do as ``schedule_timeout()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    length = _check("schedule_timeout_blocking", timeout)
    check_barrier_all("schedule_timeout_blocking", blocking=True)
    nap = _Nap(length)
    try:
        nap.over.wait_sync()
    finally:
        nap.end()
    return nap.left()
