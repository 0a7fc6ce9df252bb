"""The real world: a CPU is a trio loop, a thread is a thread, a raw lock is a ``threading.RLock``.

The event timer of a CPU is a ``timerfd`` on which its loop waits: any thread programs it with one system call, and it
is more punctual than the timeout of epoll. Where there is none, and under a clock that is not the system's, the
loop's own deadline is used (``DeadlineTimer``).

What any thread does to a loop goes through ``TrioToken.run_sync_soon``, which may be called at any instant, also from
a signal handler or finalizer that has interrupted trio itself.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import Context
from typing import TYPE_CHECKING, Final, Protocol, cast

import trio

from ..._core.guard import keep_interrupts_out
from ..._core.platform import Entry, RawLock, Thread, Waiter
from ..._core.units import NEVER, NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "HAS_TIMERFD",
    "DeadlineTimer",
    "EventTimer",
    "Loop",
    "ThreadWaiter",
    "TimerFd",
    "TrioPlatform",
    "TrioWaiter",
    "strike_until_done",
]

keep_interrupts_out(trio.lowlevel.enable_ki_protection, trio.lowlevel.disable_ki_protection)


class TrioWaiter:
    """A one-shot event for a task."""

    __slots__ = ("_event", "_token")

    def __init__(self) -> None:
        self._event = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    async def wait(self) -> None:
        """Wait until it is set. A checkpoint."""
        await self._event.wait()

    def set(self) -> None:
        """Set it, from anywhere. Never blocks."""
        with suppress(trio.RunFinishedError):  # the loop is gone, and the task with it
            self._token.run_sync_soon(self._event.set)

    def set_here(self) -> None:
        """Set it, from a task of the same loop."""
        self._event.set()


class ThreadWaiter:
    """A one-shot event for a thread.

    A bare lock: unlike ``threading.Event`` it can be set by what interrupted a ``set()``.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    async def wait(self) -> None:
        """Block the thread until it is set. Never yields."""
        self._lock.acquire()

    def set(self) -> None:
        """Set it. Never blocks."""
        self._lock.release()

    set_here = set


class EventTimer(Protocol):
    """What wakes one CPU's loop."""

    def set(self, when: int) -> None:
        """Strike at *when* ns; ``NEVER``: not at all. From any thread."""
        ...

    async def run(self, strike: Callable[[], bool]) -> None:
        """Call *strike* whenever it is time, again as long as it returns True, with a checkpoint between.

        Until cancelled.
        """
        ...

    def close(self) -> None:
        """Give back what it holds; later calls of ``set`` do nothing."""
        ...


async def strike_until_done(strike: Callable[[], bool]) -> None:
    """Call *strike* as long as it returns True, giving the other tasks a turn between."""
    while strike():
        await trio.lowlevel.checkpoint()


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
            return when / NS_PER_S
        return trio.current_time() + (when - self._now()) / NS_PER_S

    @trio.lowlevel.enable_ki_protection
    async def run(self, strike: Callable[[], bool]) -> None:
        """Sleep until the deadline, again and again."""
        while True:
            with trio.CancelScope(deadline=self._deadline()) as self._scope:
                await trio.sleep_forever()
            if self._when <= self._now():
                self._when = NEVER
                await strike_until_done(strike)

    def close(self) -> None:
        """Nothing is held."""


class TimerFd:
    """An event timer that is a ``timerfd`` (Linux)."""

    def __init__(self) -> None:
        self._fd = _timerfd_create()
        # Guards against the descriptor's being closed, and its number given to somebody else, while it is set.
        # Recursive: a finalizer may arm a callout in here; the engine looks at the deadline again after each setting.
        self._lock = threading.RLock()

    def set(self, when: int) -> None:
        """Set the timer: one system call."""
        with self._lock:
            if self._fd >= 0:
                _timerfd_set(self._fd, 0 if when == NEVER else max(when, 1))

    @trio.lowlevel.enable_ki_protection
    async def run(self, strike: Callable[[], bool]) -> None:
        """Wait for the descriptor, again and again."""
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            with suppress(BlockingIOError):  # set anew since it became readable
                os.read(self._fd, 8)
            await strike_until_done(strike)

    def close(self) -> None:
        """Close the descriptor."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))  # type: ignore[mutable-override]  # a tuple will do


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))  # type: ignore[mutable-override]  # as above


_CLOCK_MONOTONIC: Final = 1
_TFD_TIMER_ABSTIME: Final = 1

if sys.version_info >= (3, 13) and hasattr(os, "timerfd_create"):

    def _timerfd_create() -> int:
        return os.timerfd_create(_CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

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
        fd: int = _create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, f"timerfd_create: {os.strerror(errno)}")
        return fd

    def _timerfd_set(fd: int, when: int) -> None:
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(when, NS_PER_S)))
        if _settime(fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, f"timerfd_settime: {os.strerror(errno)}")


class Loop:
    """One CPU's loop, while it runs."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.token: trio.lowlevel.TrioToken
        self.timer: EventTimer
        self.context: Context
        self.thread = 0

    def take_calls(self) -> None:
        """Run the cross-CPU calls, with the system current."""
        self.context.run(self.entry.calls)


class TrioPlatform:
    """Real loops and real threads."""

    def __init__(self) -> None:
        """Make the platform for the trio run that this is called in."""
        clock = trio.lowlevel.current_clock()
        # trio exports no name for its own clock. Every other, trio.testing.MockClock among them, has to be followed.
        self.follows_trio = type(clock).__name__ != "SystemClock"
        self.now: Callable[[], int] = time.monotonic_ns
        if self.follows_trio:
            self.now = lambda: round(clock.current_time() * NS_PER_S)
        self.coalesces = not self.follows_trio
        self.current_thread: Callable[[], Thread] = threading.get_ident
        self.loops: list[Loop] = []
        self._cpus: dict[int, int] = {}  # thread -> CPU: loops, and threads that are bound

    def attach(self, cpu: int, entry: Entry) -> None:
        """Learn what to run for *cpu*."""
        assert cpu == len(self.loops)
        self.loops.append(Loop(entry))

    def power_on(self, cpu: int, context: Context) -> None:
        """Make the loop that this is called in the loop of *cpu*; *context* is that of what it runs."""
        loop = self.loops[cpu]
        loop.token = trio.lowlevel.current_trio_token()
        loop.context = context
        loop.thread = threading.get_ident()
        loop.timer = self.new_timer()
        self._cpus[loop.thread] = cpu

    def power_off(self, cpu: int) -> None:
        """Give back what the loop of *cpu* holds."""
        loop = self.loops[cpu]
        loop.timer.close()
        self._cpus.pop(loop.thread, None)

    def new_timer(self) -> EventTimer:
        """Return an event timer of the current loop."""
        if self.follows_trio or not HAS_TIMERFD:
            return DeadlineTimer(self.now, follows_trio=self.follows_trio)
        return TimerFd()

    @contextmanager
    def bind(self, cpu: int) -> Iterator[None]:
        """Make *cpu* the current CPU of this thread in a ``with`` block."""
        me = threading.get_ident()
        before = self._cpus.get(me)
        self._cpus[me] = cpu
        try:
            yield
        finally:
            if before is None:
                del self._cpus[me]
            else:
                self._cpus[me] = before

    def current_cpu(self) -> int:
        """Return the CPU of this thread."""
        return self._cpus.get(threading.get_ident(), 0)

    def in_loop(self) -> bool:
        """Whether this thread runs a loop of trio or asyncio."""
        if trio.lowlevel.in_trio_run():
            return True
        asyncio = sys.modules.get("asyncio")  # not imported here: a trio application need not pay for it
        if asyncio is None:
            return False
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    def raw_lock(self, label: str) -> RawLock:
        """Return a ``threading.RLock``."""
        return cast("RawLock", threading.RLock())

    def waiter(self) -> Waiter:
        """Return a waiter for the current task."""
        return TrioWaiter()

    def thread_waiter(self) -> Waiter:
        """Return a waiter for the current thread."""
        return ThreadWaiter()

    def set_event(self, cpu: int, when: int) -> None:
        """Program the event timer."""
        self.loops[cpu].timer.set(when)

    def interrupt(self, cpu: int) -> None:
        """Have the loop take its calls."""
        loop = self.loops[cpu]
        with suppress(trio.RunFinishedError):
            loop.token.run_sync_soon(loop.take_calls, idempotent=True)

    async def checkpoint(self) -> None:
        """Let the other tasks have a turn."""
        await trio.lowlevel.cancel_shielded_checkpoint()

    def shield(self) -> AbstractContextManager[object]:
        """Return a shielded cancel scope."""
        return trio.CancelScope(shield=True)

    def racy(self, record: type) -> type:
        """Return the class as it is."""
        return record
