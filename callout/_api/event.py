"""``Event``: what any thread may set, once, and any number may wait for, tasks and threads alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from .._core.drain import run_blocking
from .._core.errors import LoopThreadError, SleepError
from .._core.guard import protected
from .._core.machine import current_machine
from .._core.phases import Use, admit
from .._core.platform import Waiter
from .._core.sleep import Sleeper, Why, claim, enlist, sleep, timeout_to_ns, wake
from .awaitable import must_await, refuse_loop


class Event:
    """A one-shot event. Any thread may set it; any number of tasks, of any loop, may wait for it with ``wait()``, and
    any number of threads with ``wait_sync()``.

    ``trio.Event`` is for tasks of one loop, ``threading.Event`` for threads without one; callbacks and cross-CPU
    calls need both.
    """

    __slots__ = ("__weakref__", "_is_set", "_machine", "_point", "_sleepers")

    def __init__(self) -> None:
        """Make an event of the current system. Never blocks."""
        self._machine = current_machine("Event")
        # On virtual CPUs looking at the flag and setting it are switch points: no lock guards it.
        self._point = self._machine.platform.unguarded("an event")
        self._is_set = False
        self._sleepers: deque[Sleeper] = self._machine.platform.shared(deque())

    def is_set(self) -> bool:
        """Return whether it was set. Never blocks. Raises ForkedError in a forked child."""
        admit("is_set", self._machine, Use.LOOK)
        return self._look()

    def _look(self) -> bool:
        if self._point is not None:
            self._point()
        return self._is_set

    @protected
    def set(self) -> None:
        """Set it: every wait ends, and later ones return at once. Never blocks.

        From any thread, callback or call, also after the system was closed. To set it again changes nothing. Raises
        ForkedError in a forked child.
        """
        admit("set", self._machine, Use.LOOK)
        if self._point is not None:
            self._point()
        self._is_set = True
        # No waiter is missed: it appends itself to the deque before it looks at the flag, and both of a deque's
        # operations are atomic.
        while self._sleepers:
            try:
                sleeper = self._sleepers.popleft()
            except IndexError:  # another thread was faster
                return
            wake(self._machine, sleeper, Why.EVENT)

    def wait(self, timeout: float | None = None) -> Coroutine[Any, Any, bool]:
        """Wait, awaited, until it is set, but no longer than *timeout* seconds of the system's clock. Hold no lock.

        Returns whether it is set: False only after a timeout.

        Raises:
            ClosedError: the system was closed, before this call or during it, and the event was not set.
            ForkedError: in a forked child.
            ArgumentTypeError, ArgumentValueError: *timeout* is no number, or negative.
            SleepError: in checking mode, the caller holds a lock.
            LoopError: this is a task of asyncio, but ``callout.guest`` has not opened the system.
        """
        limit = self._limit("wait", timeout)
        refuse_loop("wait", self._machine, blocking=False)
        return must_await("wait", self._wait_awaited(limit))

    def wait_sync(self, timeout: float | None = None) -> bool:
        """Do as ``wait()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
        platform = self._machine.platform
        if platform.in_loop():
            raise LoopThreadError(
                "wait_sync: this thread runs an event loop, which must not be blocked; use `await event.wait()`",
                call="wait_sync",
            )
        limit = self._limit("wait_sync", timeout)
        return run_blocking(self._wait("wait_sync", platform.thread_waiter, limit)) is not False

    def _limit(self, call: str, timeout: float | None) -> int | None:
        """Raise what is wrong with the call; return *timeout* in nanoseconds."""
        machine = self._machine
        limit = timeout_to_ns(call, timeout)
        if machine.held is not None and (mine := machine.held.get(machine.platform.current_thread())):
            raise SleepError(f"{call}: release {mine} first: nobody may sleep with a mutex held", call=call)
        admit(call, machine, Use.LOOK)
        return limit

    async def _wait_awaited(self, limit: int | None) -> bool:
        platform = self._machine.platform
        waited = await self._wait("wait", platform.waiter, limit)
        if waited is None:
            await platform.checkpoint()
        return waited is not False

    async def _wait(self, call: str, new_waiter: Callable[[], Waiter], limit: int | None) -> bool | None:
        """Wait; return whether it was set, None if there was no need to wait."""
        if self._look():
            return None
        machine = self._machine
        sleeper = enlist(call, machine, new_waiter)
        self._sleepers.append(sleeper)
        if self._look() and claim(machine, sleeper):
            self._forget(sleeper)
            return None
        try:
            return await sleep(call, machine, sleeper, limit) is Why.EVENT
        finally:
            self._forget(sleeper)

    @protected
    def _forget(self, sleeper: Sleeper) -> None:
        try:
            self._sleepers.remove(sleeper)
        except ValueError:  # set() has taken it
            pass


__all__ = ["Event"]
