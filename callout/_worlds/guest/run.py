"""A run of trio as the guest of a loop of asyncio: its steps, and what becomes of it when the loop is closed.

The guest's steps are callbacks of the loop. One that is not called is lost, and the run with it: trio would find out in
a garbage collection, and the thread could have no other run. So the next step always stands in a queue of ours, too.
When the loop is closed before the run is over, the steps are called by hand until it is.

A loop says to nobody that it is closed. So ``close`` of this one loop is replaced while the run lasts.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

import trio

from ..._core.guard import protected
from ..trio.log import tell
from .waits import HostWaiter

Step = Callable[[], object]

_RUNS: Final[dict[int, GuestRun]] = {}  # those that are not over, by the thread of their loop


class GuestRun:
    """One run of trio in one loop."""

    def __init__(
        self,
        host: asyncio.AbstractEventLoop,
        main: Callable[[], Awaitable[None]],
        lost: Callable[[Exception | None], object],
    ) -> None:
        """*main* is its main task. *lost* is called when the loop is closed before the end. On its thread *main* has to
        end by itself then; elsewhere, and after an error, nothing more can be done with it.
        """
        self.host = host
        self.thread = threading.get_ident()
        self.is_over = False
        self.error: BaseException | None = None  # what has left main, when it is over
        self._main = main
        self._lost = lost
        self._is_lost = False
        self._over: list[HostWaiter] = []
        self._steps: SimpleQueue[Step] = SimpleQueue()
        self._close = self._close_host  # one object, by which it is known
        self._close_itself: Callable[[], None] = host.close

    def start(self) -> None:
        """Start it, in its loop. Raises OSError: there is no descriptor left; then nothing has changed."""
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._soon_threadsafe,
            run_sync_soon_not_threadsafe=self._soon,
            host_uses_signal_set_wakeup_fd=True,  # and if it does not, that is the application's affair
            done_callback=self._done,
        )
        _RUNS[self.thread] = self
        with suppress(AttributeError):  # a loop without attributes of its own: it is looked at later
            self.host.close = self._close  # type: ignore[method-assign]  # of this one loop only

    async def over(self) -> None:
        """Wait until it is over, in a task of the loop."""
        if not self.is_over:
            waiter = HostWaiter(self.host)
            self._over.append(waiter)
            await waiter.wait()

    # -- its steps -------------------------------------------------------------------------------------------------

    def _soon(self, step: Step) -> None:
        self._steps.put(step)
        if not self._is_lost:
            self.host.call_soon(self._step)

    def _soon_threadsafe(self, step: Step) -> None:
        self._steps.put(step)
        with suppress(RuntimeError):  # the loop is closed: the end by hand finds the step
            self.host.call_soon_threadsafe(self._step)

    @protected
    def _step(self) -> None:
        try:
            step = self._steps.get_nowait()
        except Empty:  # it was called by hand
            return
        try:
            step()
        except Exception as error:  # there is no thread left in which it could wait
            self._lost(error)
            self._keep()
            self._end(error)

    def _done(self, outcome: object) -> None:
        self._end(getattr(outcome, "error", None))

    def _end(self, error: BaseException | None) -> None:
        self.error = error
        self.is_over = True
        if _RUNS.get(self.thread) is self:
            del _RUNS[self.thread]
        if vars(self.host).get("close") is self._close:
            del self.host.close
        for waiter in self._over:
            waiter.set_here()

    # -- a loop that is closed -------------------------------------------------------------------------------------

    def _close_host(self) -> None:
        """Be ``close()`` of the loop."""
        try:
            if not self.host.is_running():  # else it will refuse
                self.end()
        finally:
            self._close_itself()

    def end(self) -> None:
        """End it, though the loop does not run and the block was not left."""
        if self.is_over or self._is_lost:
            return
        self._is_lost = True
        tell(
            "warning",
            "callout.abandoned",
            loop=repr(self.host),
            problem="the loop has ended, but the `async with callout.guest.open_callouts()` block was never left",
        )
        self._lost(None)
        if threading.get_ident() == self.thread:
            hooks = sys.get_asyncgen_hooks()
            try:
                while not self.is_over:
                    self._steps.get()()
            finally:
                sys.set_asyncgen_hooks(*hooks)  # the guest's end sets those of the loop again
        else:
            self._keep()

    def _keep(self) -> None:
        """Keep it for ever: what is left of a run must be ended on its own thread, and in order, or not at all."""
        _RUNS.pop(self.thread, None)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))


def run_here() -> GuestRun | None:
    """Return the run whose guest this thread has; one of a loop that is closed is ended first."""
    run = _RUNS.get(threading.get_ident())
    if run is not None and run.host.is_closed():
        run.end()
    return _RUNS.get(threading.get_ident())


def _at_exit() -> None:
    """End the runs whose loops will not go on: this process ends."""
    for run in list(_RUNS.values()):
        if not run.host.is_running():
            run.end()


def _after_fork() -> None:
    """In a forked child: the runs are the parent's, to be ended there."""
    for run in list(_RUNS.values()):
        run._keep()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
