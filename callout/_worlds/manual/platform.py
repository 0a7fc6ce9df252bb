"""The world without a loop as the engine sees it: real locks, a clock that is moved by hand, and one CPU that runs when
it is told to, in the thread that tells it.

At most one thread *drives* the CPU at a time. Softclock is a coroutine that the driver resumes; where it would wait for
a lock that another thread holds, the driver blocks. Nothing runs while nobody drives, so then no wait has to wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import coroutine
from typing import Any, Final, TypeVar

from ..._core.errors import BusyError, LivelockError, LoopError, ReentrantCallError
from ..._core.platform import Entry, Thread
from ..._core.rawlock import RawLock
from ..._core.units import NEVER
from ..rawlocks import new_lock

T = TypeVar("T")

AT_ONE_TIME: Final = 10_000  # so many clock interrupts may come with the clock standing still

_AWAITED: Final = (
    "nothing is awaited while another thread is in advance(): what is to be waited for runs there; use drain_sync() or "
    "close_sync()"
)


class ManualWaiter:
    """A one-shot event: what the driver runs yields it, all others find it set."""

    __slots__ = ("_lock", "_platform")

    def __init__(self, platform: ManualPlatform) -> None:
        self._platform = platform
        self._lock = threading.Lock()
        self._lock.acquire()

    async def wait(self) -> None:
        """Wait until it is set: the driver does."""
        while not self._lock.acquire(blocking=False):
            if not self._platform.is_driver():
                raise LoopError(_AWAITED)
            await _yielded(self)

    def block(self) -> None:
        """Block the thread until it is set."""
        with self._lock:
            pass  # it is acquired again by wait()

    def set(self) -> None:
        """Set it. Never blocks."""
        self._lock.release()

    set_here = set


class ThreadWaiter(ManualWaiter):
    """A one-shot event that blocks the thread."""

    __slots__ = ()

    async def wait(self) -> None:
        """Block the thread until it is set. Never yields."""
        self._lock.acquire()


class Idle:
    """What softclock waits for when it has nothing to do. It is the same each time."""

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        self.is_set = False

    async def wait(self) -> None:
        """Wait for work."""
        while not self.is_set:
            await _yielded(self)

    def set(self) -> None:
        """There is some."""
        self.is_set = True

    set_here = set


@coroutine
def _yielded(waiter: ManualWaiter | Idle) -> Generator[ManualWaiter | Idle, None, None]:
    """Tell the driver what is waited for."""
    yield waiter


class ManualPlatform:
    """One CPU, whose time is ``time``."""

    coalesces = False

    def __init__(self) -> None:
        self.time = 0
        self.driver: Thread = None  # the thread that drives it now
        self._turn = threading.Lock()  # held by the driver
        self._serving = False  # the driver is in the engine, or in a callback
        self._entry: Entry
        self._softclock: Coroutine[Any, Any, None] | None = None
        self._idle = Idle()
        self._event = NEVER  # what the event timer is set to
        self._called = False  # there are cross-CPU calls
        self.current_thread: Callable[[], Thread] = threading.get_ident

    # -- driving it ----------------------------------------------------------------------------------------------------

    def is_driver(self) -> bool:
        """Whether this thread drives the CPU."""
        return self.driver == threading.get_ident()

    @contextmanager
    def driving(self, call: str) -> Iterator[None]:
        """Be the driver in a ``with`` block. Raises ReentrantCallError, BusyError."""
        if self.is_driver():
            raise ReentrantCallError(
                f"{call}: this is a callback of an advance() that is in progress, and time does not move inside it; "
                "arm a callout instead",
                call=call,
            )
        if not self._turn.acquire(blocking=False):
            raise BusyError(f"{call}: another thread is in advance() or close()", call=call)
        self.driver = threading.get_ident()
        try:
            yield
        finally:
            self.driver = None
            self._turn.release()

    def power_on(self) -> None:
        """Begin softclock, which finds nothing to do. By the driver."""
        self._softclock = self._entry.softclock()
        self.serve()

    def serve(self) -> None:
        """Run what was called from elsewhere, and softclock until it has nothing to do. By the driver."""
        self._serving = True
        try:
            while True:
                if self._called:
                    self._called = False
                    self._entry.calls()
                elif self._softclock is None or not self._resume(self._softclock):
                    return
        finally:
            self._serving = False

    def _resume(self, softclock: Coroutine[Any, Any, None]) -> bool:
        """Run softclock until it waits for something; return whether it may go on."""
        try:
            waits_for = softclock.send(None)
        except StopIteration:  # the system is closed
            self._softclock = None
            return False
        if isinstance(waits_for, ManualWaiter):
            waits_for.block()
            return True
        return self._called

    def run_until(self, until: int, stopped: Callable[[], bool]) -> None:
        """Move the clock to *until*, and on the way to each time at which something is due, and run that; unless
        *stopped* says that something has gone wrong. By the driver.

        Raises:
            LivelockError: there is no end to what is due at one time.
        """
        times = 0
        while True:
            self.serve()
            if stopped():
                return
            if self._event > until:
                break
            times = 0 if self._event > self.time else times + 1
            if times > AT_ONE_TIME:
                raise LivelockError(
                    f"advance: after {AT_ONE_TIME:,} clock interrupts something is still due at the same time: a "
                    "callback arms itself for now, and the clock stands still while it runs",
                    call="advance",
                )
            self.time = max(self.time, self._event)
            self._event = NEVER
            self._interrupted()
        self.time = until

    def _interrupted(self) -> None:
        self._serving = True
        try:
            while self._entry.hardclock():
                pass
        finally:
            self._serving = False

    def drive(self, waits: Coroutine[Any, Any, T]) -> None:
        """Run a coroutine of the engine to its end; the CPU has a turn wherever it waits. By the driver."""
        while True:
            try:
                waits.send(None)
            except StopIteration:
                return
            self.serve()

    # -- the Platform protocol -----------------------------------------------------------------------------------------

    def attach(self, cpu: int, entry: Entry) -> None:
        """Learn what to run."""
        self._entry = entry

    def now(self) -> int:
        """Return the time that the clock was moved to."""
        return self.time

    def name_of(self, thread: Thread) -> str:
        """Return the name of a thread."""
        return next((f"thread {each.name!r}" for each in threading.enumerate() if each.ident == thread), "a thread")

    def current_cpu(self) -> int:
        """Return the CPU."""
        return 0

    def in_callback(self) -> bool:
        """Whether this code runs inside a callback."""
        return self._serving and self.is_driver()

    def in_loop(self) -> bool:
        """Return False: no loop is needed for anything here."""
        return False

    def refuse_await(self, call: str) -> None:
        """Raise LoopError while a thread drives the CPU."""
        if self.driver is not None:
            raise LoopError(f"{call}: {_AWAITED}", call=call)

    def raw_lock(self, label: str) -> RawLock:
        """Return a lock."""
        return new_lock()

    def cpu_lock(self, cpu: int) -> RawLock:
        """Return a lock like any other."""
        return self.raw_lock("")

    def waiter(self) -> ManualWaiter:
        """Return a waiter."""
        return ManualWaiter(self)

    def idle_waiter(self, cpu: int) -> Idle:
        """Return what softclock waits for."""
        self._idle.is_set = False
        return self._idle

    def thread_waiter(self) -> ThreadWaiter:
        """Return a waiter for the current thread."""
        return ThreadWaiter(self)

    def set_event(self, cpu: int, when: int) -> None:
        """Program the event timer."""
        self._event = when

    def interrupt(self, cpu: int) -> None:
        """Have the driver take the calls: the next one, if there is none now."""
        self._called = True

    def unguarded(self, label: str) -> None:
        """See ``Platform``."""

    async def checkpoint(self) -> None:
        """There are no other tasks."""

    def shield(self) -> AbstractContextManager[object]:
        """Nothing is cancelled here."""
        return nullcontext()

    def shared(self, collection: T, instead: object = None) -> T:
        """Return it as it is."""
        return collection

    def timed_out(self) -> None:
        """See ``Platform``."""

    def freed(self, thing: object) -> None:
        """See ``Platform``."""

    def racy(self, record: type) -> type:
        """Return the class as it is."""
        return record
