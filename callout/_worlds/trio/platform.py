"""The real world: a CPU is a trio loop, a thread is a thread, a raw lock is a ``threading.Lock``.

What any thread does to a loop goes through ``TrioToken.run_sync_soon``, which may be called at any instant, also from
a signal handler or finalizer that has interrupted trio itself.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import Context
from typing import TYPE_CHECKING

import trio

from ..._core.guard import keep_interrupts_out
from ..._core.platform import Entry, RawLock, Thread, Waiter
from ..._core.units import NS_PER_S
from .event_timer import HAS_TIMERFD, DeadlineTimer, EventTimer, TimerFd
from .waiters import ThreadWaiter, TrioWaiter

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Loop", "TrioPlatform"]

keep_interrupts_out(trio.lowlevel.enable_ki_protection, trio.lowlevel.disable_ki_protection)


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
        """Return a ``threading.Lock``."""
        return threading.Lock()

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
