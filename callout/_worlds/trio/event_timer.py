"""What wakes a CPU's loop when its next callout is due.

On Linux it is a ``timerfd`` on which the loop waits: any thread programs it with one system call, and it is more
punctual than the timeout of epoll. Where there is none, and under a clock that is not the system's, the loop's own
deadline is used (``DeadlineTimer``).
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns
from typing import Final, Protocol

import trio

from ..._core.units import NEVER, NS_PER_S

__all__ = ["HAS_TIMERFD", "DeadlineTimer", "EventTimer", "TimerFd", "to_ns", "to_seconds"]


class EventTimer(Protocol):
    """What wakes one CPU's loop."""

    def set(self, when: int) -> None:
        """Fire at *when* ns; ``NEVER``: not at all. From any thread."""
        ...

    async def expired(self) -> None:
        """Wait until it is time: for the clock interrupt, which sets it anew. It may return for nothing."""
        ...

    def wake(self) -> None:
        """Have ``expired()`` return now. On its loop."""
        ...

    def close(self) -> None:
        """Release what it holds; later calls of ``set`` do nothing."""
        ...


def to_ns(seconds: float) -> int:
    """Return a time of trio's clock in nanoseconds."""
    return round(seconds * NS_PER_S)


def to_seconds(when: int) -> float:
    """Return the first time of trio's clock at which *when* ns have come: ``to_ns`` of it is not less than *when*.

    Seconds as floats are coarser than nanoseconds after some months, so the nearest may be a little too early, and then
    a loop that sleeps until it would find nothing to do, for ever.
    """
    seconds = when / NS_PER_S
    while to_ns(seconds) < when:
        seconds = math.nextafter(seconds, math.inf)
    return seconds


class DeadlineTimer:
    """An event timer that is a deadline of its loop."""

    def __init__(self, now: Callable[[], int], *, follows_trio: bool) -> None:
        self._now = now
        self._follows_trio = follows_trio  # now() is trio's own clock
        self._token = trio.lowlevel.current_trio_token()
        self._when = NEVER
        self._scope: trio.CancelScope | None = None

    def set(self, when: int) -> None:
        """Move the deadline."""
        self._when = when
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._apply, idempotent=True)

    def _apply(self) -> None:
        if self._scope is not None:
            self._scope.deadline = self._deadline()

    def _deadline(self) -> float:
        when = self._when
        if when == NEVER:
            return math.inf
        if self._follows_trio:
            return to_seconds(when)
        return trio.current_time() + (when - self._now()) / NS_PER_S

    @trio.lowlevel.enable_ki_protection
    async def expired(self) -> None:
        """Sleep until the deadline."""
        while True:
            with trio.CancelScope(deadline=self._deadline()) as self._scope:
                await trio.sleep_forever()
            if self._when <= self._now():
                self._when = NEVER
                return

    def wake(self) -> None:
        """Have the deadline be past."""
        self._when = 0
        self._apply()

    def close(self) -> None:
        """Nothing is held."""


class TimerFd:
    """An event timer that is a ``timerfd`` (Linux).

    From the expiry of the descriptor to this task's turn some time passes, more than a loop takes for all the rest. So
    the descriptor is set earlier by the *lead*, which is learned: two of three turns come before their time. Those wait
    for the rest on the spot, some microseconds: nothing is ever early.

    While nobody waits for it the descriptor is left as it is: what the clock interrupt finds due does not have to wait
    for the system call that sets it.
    """

    def __init__(self) -> None:
        self._fd = _timerfd_create()
        self._when = NEVER  # what it is to be set to: without the lead
        self._lead = 0
        self._is_awaited = False
        # Guards against the descriptor's being closed, and its number given to somebody else, while it is set.
        # Recursive: a finalizer may run in here, and close the system.
        self._lock = threading.RLock()

    def set(self, when: int) -> None:
        """Set the timer: one system call if somebody waits, else none."""
        with self._lock:
            self._when = when
            if self._is_awaited:
                self._program()

    def _program(self) -> None:
        if self._fd >= 0:
            _timerfd_set(self._fd, 0 if self._when == NEVER else max(self._when - self._lead, 1))

    @trio.lowlevel.enable_ki_protection
    async def expired(self) -> None:
        """Wait for the descriptor. It is not read: setting it anew makes it unreadable again."""
        with self._lock:
            self._is_awaited = True
            self._program()
        try:
            await trio.lowlevel.wait_readable(self._fd)
        finally:
            with self._lock:
                self._is_awaited = False
                when, self._when = self._when, NEVER
        self._lead = self._await_time(when, self._lead)

    def wake(self) -> None:
        """Have it expire at once."""
        self.set(0)

    def _await_time(self, when: int, lead: int) -> int:
        """Wait until *when*, if that is less than the lead ahead; return what the lead is to be."""
        now = monotonic_ns()
        if now >= when:
            return min(lead + 2 * _LEAD_STEP, _LONGEST_LEAD)
        if when - now > lead:  # it was set anew meanwhile
            return lead
        while now < when:
            now = monotonic_ns()
        return max(lead - _LEAD_STEP, 0)

    def close(self) -> None:
        """Close the descriptor."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


_LEAD_STEP: Final = 2_000  # nanoseconds
_LONGEST_LEAD: Final = 200_000


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))  # type: ignore[mutable-override]  # a tuple will do


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))  # type: ignore[mutable-override]  # as above


_CLOCK_MONOTONIC: Final = 1
_TFD_TIMER_ABSTIME: Final = 1

if sys.version_info >= (3, 13) and hasattr(os, "timerfd_create"):

    def _timerfd_create() -> int:
        return os.timerfd_create(_CLOCK_MONOTONIC, flags=os.TFD_CLOEXEC)

    def _timerfd_set(fd: int, when: int) -> None:
        os.timerfd_settime_ns(fd, flags=_TFD_TIMER_ABSTIME, initial=when, interval=0)

    HAS_TIMERFD = True

else:
    try:
        _libc = ctypes.CDLL(None, use_errno=True)
        _create, _settime = _libc.timerfd_create, _libc.timerfd_settime
        HAS_TIMERFD = sys.platform == "linux"
    except (OSError, AttributeError, TypeError):  # not Linux, or a C library without it
        HAS_TIMERFD = False

    def _timerfd_create() -> int:
        fd: int = _create(_CLOCK_MONOTONIC, os.O_CLOEXEC)
        if fd < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, f"timerfd_create: {os.strerror(errno)}")
        return fd

    def _timerfd_set(fd: int, when: int) -> None:
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(when, NS_PER_S)))
        if _settime(fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, f"timerfd_settime: {os.strerror(errno)}")
