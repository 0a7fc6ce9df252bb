"""The real world: a CPU is a trio loop, a thread is a thread, a raw lock is a ``threading.RLock``.

What any thread does to a loop goes through ``TrioToken.run_sync_soon``, which may be called at any instant, also from
a signal handler or finalizer that has interrupted trio itself. What trio calls in this way must not raise: that would
end the whole ``trio.run()``. So everything goes through ``Loop.post``, which lets nothing out.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from ..._core.errors import LoopError
from ..._core.guard import keep_interrupts_out
from ..._core.platform import Entry, Thread, Waiter
from ..._core.rawlock import RawLock
from ..._core.units import NEVER, NS_PER_S
from ..rawlocks import new_lock
from .event_timer import HAS_TIMERFD, DeadlineTimer, EventTimer, TimerFd, to_ns
from .forked import end_if_forked
from .services import Services
from .waiters import ThreadWaiter, TrioWaiter

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

__all__ = ["Loop", "TrioPlatform"]

keep_interrupts_out(trio.lowlevel.enable_ki_protection, trio.lowlevel.disable_ki_protection)


class Loop:
    """One CPU's loop, while it runs."""

    def __init__(self, entry: Entry, fail: Callable[[BaseException], None]) -> None:
        """*fail* is told what goes wrong where nobody else can be told."""
        self.entry = entry
        self._fail = fail
        self.token: trio.lowlevel.TrioToken
        self.timer: EventTimer
        self.context: Context
        self.thread = 0
        self.services: Services  # softclock and the event timer: they run callbacks
        self._in_calls = False
        self.due = NEVER  # the earliest time at which the clock interrupt could have been taken
        self._when = NEVER  # what the event timer is set to
        self._interrupted = NEVER  # when the clock interrupt began that is being taken; NEVER: none is

    def set_event(self, when: int, now: int) -> None:
        """Program the event timer. From any thread.

        No lock guards what is noted here for the log: of two threads that do this at once, one's note may be lost.
        """
        # For a time that is past it can fire from now on, or since the interrupt began that keeps it from that.
        due = max(when, min(now, self._interrupted))
        # What it was set to may be overdue already when an earlier time is asked for.
        self.due = min(due, self.due) if when <= self._when else due
        self._when = when
        self.timer.set(when)

    def clock_interrupt(self, now: int) -> bool:
        """Take the clock interrupt; return whether there is more to do."""
        self.due = self._when = NEVER  # it is taken
        self._interrupted = now
        try:
            return self.entry.hardclock()
        finally:
            self._interrupted = NEVER

    def post(self, func: Callable[[], object], *, once: bool = False) -> None:
        """Have the loop call *func*; *once*: at least once after this call, however often it is posted.

        From any thread, at any instant. Never blocks. If the loop is gone nothing happens.
        """
        try:
            if once:
                self.token.run_sync_soon(self._do, func, idempotent=True)
            else:
                self.token.run_sync_soon(self._do, func)
        except trio.RunFinishedError:
            pass

    @trio.lowlevel.enable_ki_protection
    def _do(self, func: Callable[[], object]) -> None:
        try:
            func()
        except BaseException as error:
            self._fail(error)
        end_if_forked()

    def take_calls(self) -> None:
        """Run the cross-CPU calls, with the system current."""
        self.run_calls(self.entry.calls)

    def run_calls(self, func: Callable[[], None]) -> None:
        """Run *func*, which runs cross-CPU calls, with the system current."""
        self._in_calls = True
        try:
            self.context.run(func)
        finally:
            self._in_calls = False

    def in_callback(self) -> bool:
        """Whether this code, on this loop's thread, was called by a service or is a cross-CPU call."""
        if self._in_calls:
            return True
        try:
            return trio.lowlevel.current_task() in self.services.tasks
        except RuntimeError:  # the host of a guest run has the thread
            return False


# Which CPU of a platform is the current one of a thread, or of a task of another loop, that has bound itself to it.
_BOUND: ContextVar[Mapping[TrioPlatform, int]] = ContextVar("callout.bound")


C = TypeVar("C")


class TrioPlatform:
    """Real loops and real threads."""

    def __init__(self) -> None:
        """Make the platform for the trio run that this is called in."""
        self.clock = clock = trio.lowlevel.current_clock()
        # trio exports no name for its own clock. Every other, trio.testing.MockClock among them, has to be followed.
        self.follows_trio = type(clock).__name__ != "SystemClock"
        self.now: Callable[[], int] = time.monotonic_ns
        if self.follows_trio:
            self.now = lambda: to_ns(clock.current_time())
        self.coalesces = not self.follows_trio
        self.cancelled: tuple[type[BaseException], ...] = (trio.Cancelled,)  # what a callback must not raise
        self.hosted = False  # the loop of CPU 0 has tasks that trio does not know
        self.current_thread: Callable[[], Thread] = threading.get_ident
        self.fail: Callable[[BaseException], None]  # of the system: set before a loop runs
        self.loops: list[Loop] = []
        self._cpus: dict[int, int] = {}  # a loop's thread -> its CPU

    def epoch(self) -> int:
        """Return what must be added to ``now()`` to get the time of trio's clock, in ns, rounded down.

        So what is due by ``now()`` is due by trio's clock. That of trio counts from a random time on, and the loops of
        all CPUs run with it.
        """
        if self.follows_trio:
            return 0
        # Of several looks at both clocks, the one between whose two parts the least time has passed.
        return max(math.floor(self.clock.current_time() * NS_PER_S) - self.now() for _ in range(10))

    def attach(self, cpu: int, entry: Entry) -> None:
        """Learn what to run for *cpu*."""
        assert cpu == len(self.loops)
        self.loops.append(Loop(entry, lambda error: self.fail(error)))

    def power_on(self, cpu: int, context: Context) -> None:
        """Make the loop that this is called in the loop of *cpu*; *context* is that of what it runs.

        Raises:
            OSError: there is no descriptor left for its event timer; then nothing has changed.
        """
        loop = self.loops[cpu]
        loop.token = trio.lowlevel.current_trio_token()
        loop.context = context
        loop.timer = self.new_timer()
        loop.thread = threading.get_ident()
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

    def loop_here(self) -> int | None:
        """Return the CPU whose loop this thread is."""
        return self._cpus.get(threading.get_ident())

    @contextmanager
    def bind(self, cpu: int) -> Iterator[None]:
        """Make *cpu* the current CPU of this thread, or of this task of another loop, in a ``with`` block."""
        token = _BOUND.set({**_BOUND.get({}), self: cpu})
        try:
            yield
        finally:
            _BOUND.reset(token)

    def name_of(self, thread: Thread) -> str:
        """Return the name of a thread."""
        # threading.enumerate() acquires a lock, which the code that this has interrupted may hold.
        known = getattr(threading, "_active", {}).get(thread)
        return f"thread {thread if known is None else known.name!r}"

    def current_cpu(self) -> int:
        """Return the CPU of this thread."""
        cpu = self._cpus.get(threading.get_ident())
        return _BOUND.get({}).get(self, 0) if cpu is None else cpu

    def in_callback(self) -> bool:
        """Whether this code runs inside a callback, a completion or a cross-CPU call."""
        cpu = self.loop_here()
        return cpu is not None and self.loops[cpu].in_callback()

    def in_loop(self) -> bool:
        """Whether this thread runs a loop of trio or asyncio."""
        return trio.lowlevel.in_trio_run() or in_asyncio()

    def refuse_await(self, call: str) -> None:
        """Raise LoopError in a task of asyncio, whether trio is its guest or runs in another thread."""
        if not in_task() and in_asyncio():
            raise LoopError(f"{call}: {_NO_TASK}", call=call)

    def raw_lock(self, label: str) -> RawLock:
        """Return a ``threading.RLock``, or what the compiled core has instead."""
        return new_lock()

    def cpu_lock(self, cpu: int) -> RawLock:
        """Return a lock like any other."""
        return self.raw_lock(f"cpu{cpu}")

    def waiter(self) -> Waiter:
        """Return a waiter for the current task. Raises LoopError outside of trio: nothing was changed yet."""
        if not in_task():
            raise LoopError(_NO_TASK)
        return TrioWaiter()

    def idle_waiter(self, cpu: int) -> Waiter:
        """Return what softclock is driven by."""
        idle = self.loops[cpu].services.idle
        idle.is_set = False
        return idle

    def thread_waiter(self) -> Waiter:
        """Return a waiter for the current thread."""
        return ThreadWaiter()

    def set_event(self, cpu: int, when: int) -> None:
        """Program the event timer."""
        self.loops[cpu].set_event(when, self.now())

    def interrupt(self, cpu: int) -> None:
        """Have the loop take its calls."""
        loop = self.loops[cpu]
        loop.post(loop.take_calls, once=True)

    def unguarded(self, label: str) -> None:
        """See ``Platform``."""

    async def checkpoint(self) -> None:
        """Let the other tasks have a turn."""
        await trio.lowlevel.cancel_shielded_checkpoint()

    def shield(self) -> AbstractContextManager[object]:
        """Return a shielded cancel scope."""
        return trio.CancelScope(shield=True)

    def shared(self, collection: C, instead: object = None) -> C:
        """Return it as it is."""
        return collection

    def timed_out(self) -> None:
        """See ``Platform``."""

    def freed(self, thing: object) -> None:
        """See ``Platform``."""

    def racy(self, record: type) -> type:
        """Return the class as it is."""
        return record


_NO_TASK: Final = (
    "this is no task of trio, and no other can wait for callouts; have a task of trio wait, started with "
    "system.cpu(0).start_soon() or in a nursery of trio, or have a function called instead: callout_drain_async()"
)


def in_task() -> bool:
    """Whether this is a task of trio: not a thread without a loop, nor the host of a guest run."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def asyncio_task() -> asyncio.Task[Any] | None:  # Any: whatever it returns
    """Return the task of asyncio that this is."""
    loaded = sys.modules.get("asyncio")
    if loaded is None or not in_asyncio():
        return None
    task: asyncio.Task[Any] | None = loaded.current_task()
    return task


def in_asyncio() -> bool:
    """Whether this thread runs a loop of asyncio."""
    asyncio = sys.modules.get("asyncio")  # not imported here: a trio application need not pay for it
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
