"""The timer API of the year 2000 (Linux 2.3.99 and 2.4), and what was asked of timer functions then.

In those days ``del_timer()`` did not wait, few drivers saw the difference, and the kernel could not know when a
function had returned: it was to say so itself, with ``timer_exit()`` as its last deed. Here the engine knows. So
``timer_exit()`` and its relatives are stand-ins: nothing depends on them, and functions that forget them (the kernel
of 2000 then waited for ever), free their own timer, or are slow to return after ``timer_exit()``, do no harm.

Timers of this kind all run on CPU 0: until 2.4 timer functions never ran in parallel, for they were a bottom half,
and drivers relied on that.

A ``timer_list`` has ``expires`` (jiffies), ``function`` and ``data``; the function gets ``data``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from callout import (
    ARM_UNCHANGED,
    CALLOUT_REMOVED,
    CALLOUT_RUNNING,
    CalloutError,
    NotInitializedError,
    callout_arm,
    callout_barrier,
    callout_barrier_all,
    callout_barrier_all_sync,
    callout_barrier_sync,
    callout_dequeue,
    callout_pending,
    callout_running,
    check_barrier_all,
    must_await,
)

from ._base import (
    ADD,
    TimerBase,
    Waiting,
    check_function,
    check_timer,
    fail,
    quiesce,
    quiesce_blocking,
    refuse_not_set_up,
    refuse_pending,
    refuse_wait,
    run_function,
    set_up,
)
from ._jiffies import Variable, check_jiffies


class timer_list(TimerBase):  # noqa: N801 - the kernel's name
    """A timer.

    ``init_timer()`` makes it usable; fill in ``function``, ``data`` and ``expires``, then ``add_timer()`` it.
    """

    __slots__ = ("data",)

    data: Any  # it was an unsigned long, which is to say, anything

    def __init__(self) -> None:
        """Make a timer that was not initialised yet. Never blocks."""
        super().__init__()
        self.data = 0

    @property
    def function(self) -> Callable[[Any], object] | None:  # Any: as data
        """What is called, with ``data``, when the timer falls due."""
        return self._function

    @function.setter
    def function(self, value: Callable[[Any], object]) -> None:
        check_function("timer.function", value)
        self._function = value

    def __call__(self, expires: int) -> None:
        """Be the callback of the timer's callout."""
        function = self._function
        assert function is not None
        run_function(function, self.data)


def init_timer(timer: timer_list, /) -> None:
    """Make *timer* a timer of the current system, on CPU 0. Never blocks.

    Raises:
        NoSystemError: no system is open here.
        BusyError: it is pending or running.
    """
    set_up("init_timer", timer, timer_list)


def _arm(call: str, timer: timer_list, expires: int, how: int) -> int:
    if timer._function is None:
        refuse_not_set_up(call, timer)
        raise NotInitializedError(
            f"{call}: {timer!r} has no function: assign timer.function first", call=call, callout=timer
        )
    assigned = timer._assigned
    try:
        timer.overwrite(expires)
        facts = callout_arm(timer.entry, expires + 1, timer, expires, how)
    except CalloutError as error:
        timer._assigned = assigned  # it was not armed
        fail(call, timer, error)
    return facts


def add_timer(timer: timer_list, /) -> None:
    """Start *timer*, to fall due at the tick after ``timer.expires``, or at the next one if that has passed. Never
    blocks.

    Raises:
        BusyError: it is pending already (the kernel complained and did nothing).
        NotInitializedError: ``init_timer()`` was never called, or it has no function.
    """
    check_timer("add_timer", timer, timer_list)
    refuse_pending("add_timer", timer, _arm("add_timer", timer, timer.expires, ADD))


def mod_timer(timer: timer_list, expires: int | Variable, /) -> int:
    """Arm *timer* for *expires*, in jiffies, pending or not. Never blocks.

    Returns 1 if it was pending, else 0. Raises as ``add_timer()``; ArgumentTypeError if *expires* is not an int.
    """
    check_timer("mod_timer", timer, timer_list)
    expires = check_jiffies("mod_timer", "expires", expires)
    facts = _arm("mod_timer", timer, expires, ARM_UNCHANGED)
    return facts & CALLOUT_REMOVED


def timer_pending(timer: timer_list, /) -> int:
    """Return 1 if *timer* is armed and its function has not begun, else 0. Never blocks."""
    check_timer("timer_pending", timer)
    try:
        return callout_pending(timer.entry)
    except CalloutError as error:
        fail("timer_pending", timer, error)


def del_timer(timer: timer_list, /) -> int:
    """Disarm *timer*; if it runs, its function goes on and may add it again. Never blocks, never waits.

    Returns 1 if it was pending, else 0.
    """
    check_timer("del_timer", timer)
    try:
        return callout_dequeue(timer.entry) & CALLOUT_REMOVED
    except CalloutError as error:
        fail("del_timer", timer, error)


# Andrew Morton's name for it: with it a call site says that it does not want to wait, and those that say nothing can
# be looked for.
del_timer_async = del_timer


def del_timer_sync(timer: timer_list, /) -> Waiting:
    """Disarm *timer* and wait until its function, if it runs, has returned: ``await`` it, with no lock held.

    Returns the number of times that it was disarmed: 0 if it was idle, 1 if it was pending, one more if the function
    added it again meanwhile.

    Raises:
        SelfDrainError: called by the timer's own function; at once, before anything is awaited.
        LockHeldError: in checking mode, the caller holds a lock.
        NotInitializedError: ``init_timer()`` was never called.
    """
    refuse_wait("del_timer_sync", timer)
    return must_await("del_timer_sync", _del_timer_sync(timer), "del_timer_sync_blocking")


async def _del_timer_sync(timer: timer_list) -> int:
    refuse_wait("del_timer_sync", timer)  # again: since the call a lock may have been acquired
    facts = callout_dequeue(timer.entry)
    deleted = facts & CALLOUT_REMOVED
    # The end of the run deletes what was added meanwhile, in one step with it, so there is nothing to look at a
    # second time.
    return deleted + await quiesce("del_timer_sync", timer) if facts & CALLOUT_RUNNING else deleted


def del_timer_sync_blocking(timer: timer_list, /) -> int:
    """Do as ``del_timer_sync()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    refuse_wait("del_timer_sync_blocking", timer, blocking=True)
    facts = callout_dequeue(timer.entry)
    deleted = facts & CALLOUT_REMOVED
    return deleted + quiesce_blocking("del_timer_sync_blocking", timer) if facts & CALLOUT_RUNNING else deleted


def wait_on_timers() -> Coroutine[Any, Any, None]:
    """Wait until every timer function, and every other callback, that runs now on any CPU has returned. Hold no lock.

    With functions that do not add their timers again: ``del_timer()`` for each, one ``wait_on_timers()``, and no code
    of theirs is in use any more.
    """
    check_barrier_all("wait_on_timers")
    return must_await("wait_on_timers", _wait_on_timers(), "wait_on_timers_blocking")


async def _wait_on_timers() -> None:
    await callout_barrier_all()


def wait_on_timers_blocking() -> None:
    """Do as ``wait_on_timers()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    check_barrier_all("wait_on_timers_blocking", blocking=True)
    callout_barrier_all_sync()


# -- what the engine makes unnecessary -----------------------------------------------------------------------------


def timer_exit(timer: timer_list, /) -> None:
    """Do nothing. A function had to call this as its last deed, or ``del_timer_sync()`` never came back. Never blocks.

    The engine knows when the function has returned, which is later than this, and the only moment after which its
    code may be thrown away.
    """


def timer_set_running(timer: timer_list, /) -> None:
    """Do nothing. The kernel called this before it called the function. Never blocks."""


def timer_is_running(timer: timer_list, /) -> int:
    """Return 1 if *timer*'s function runs, by the engine's own knowledge and whatever ``timer_exit()`` has said; else
    0.

    Never blocks.
    """
    check_timer("timer_is_running", timer)
    try:
        return callout_running(timer.entry)
    except CalloutError as error:
        fail("timer_is_running", timer, error)


def timer_synchronize(timer: timer_list, /) -> Coroutine[Any, Any, None]:
    """Wait until *timer*'s function, if it runs, has returned. Disarms nothing. Hold no lock.

    The kernel spun until ``timer_exit()``. Prefer ``del_timer_sync()``.
    """
    refuse_wait("timer_synchronize", timer)
    return must_await("timer_synchronize", _timer_synchronize(timer), "timer_synchronize_blocking")


async def _timer_synchronize(timer: timer_list) -> None:
    await callout_barrier(timer.entry)


def timer_synchronize_blocking(timer: timer_list, /) -> None:
    """Do as ``timer_synchronize()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    refuse_wait("timer_synchronize_blocking", timer, blocking=True)
    callout_barrier_sync(timer.entry)


__all__ = [
    "add_timer",
    "del_timer",
    "del_timer_async",
    "del_timer_sync",
    "del_timer_sync_blocking",
    "init_timer",
    "mod_timer",
    "timer_exit",
    "timer_is_running",
    "timer_list",
    "timer_pending",
    "timer_set_running",
    "timer_synchronize",
    "timer_synchronize_blocking",
    "wait_on_timers",
    "wait_on_timers_blocking",
]
