"""A CPU: on its loop, softclock and the event timer (its *services*), and its tasks.

CPU 0 is a task of the loop that opened the system, each other a thread with a ``trio.run()`` of its own. The services
are shielded from the application's cancellation: they must outlive whatever the block is left for.

A service that dies, for whatever reason, ends the run that it was at, has its exception leave through the block, and
is started anew: a task that cleans up may still need a callout. If it does so again and again it is left dead. Leaving
the block does not need it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING

import trio

from ..._core.cpu import Lane
from ..._core.lifecycle import abandon, end_calls
from ..._core.machine import CURRENT
from ..._core.units import NEVER
from . import current
from .checking import LoopCheck
from .forked import end_if_forked
from .services import LIVES, Services

if TYPE_CHECKING:
    from .system import CalloutSystem


class CpuRunner:
    """One CPU, seen from the loop of CPU 0."""

    def __init__(self, system: CalloutSystem, number: int) -> None:
        self._system = system
        self._number = number
        self._platform = system._platform
        self._loop = system._platform.loops[number]
        self._cpu = system._machine.cpus[number]
        self._tasks = system._cpus[number]._tasks
        self._services = self._loop.services = Services(
            self._loop, self._fire, partial(self._bury_run, self._cpu.interrupt)
        )
        self._home = system._platform.loops[0]
        self._check: LoopCheck | None = None
        self.error: BaseException | None = None  # why it could not come up
        self._begun = self._killed = False
        self.is_up = False
        self.up = trio.Event()  # it is up, or never will be
        self.tasks_over = trio.Event()
        self.over = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._thread: threading.Thread | None = None

    def start_here(self, crew: trio.Nursery) -> None:
        """Start it as a task of this loop."""
        crew.start_soon(self.run, name=f"cpu {self._number}")
        self._begun = True

    def start_thread(self) -> None:
        """Start it in a thread of its own; what goes wrong is its ``error``."""
        thread = threading.Thread(target=self._main, name=f"callout-cpu{self._number}", daemon=True)
        try:
            thread.start()
        except BaseException as error:  # the operating system has no thread left
            self.error = error
            self._bury()
        else:
            self._thread = thread
        self._begun = True

    def join(self) -> None:
        """Wait for its thread, which is about to end, if it has one."""
        if self._thread is not None:
            self._thread.join()

    async def cancel_tasks(self) -> None:
        """Cancel its tasks, when it is up; it may be neither up nor ever begun, if the system could not be opened."""
        if not self._begun:
            self._bury()
        await self.up.wait()
        if self.is_up:
            self._tasks.cancel()

    def kill(self) -> None:
        """End it where it stands: only if the orderly way has failed."""
        self._killed = True
        if self.is_up:
            self._tasks.cancel()  # they are shielded from the rest
        if self._number == 0:
            self._scope.cancel()
        elif self.is_up:
            self._loop.post(self._scope.cancel)

    # -- on its own loop -------------------------------------------------------------------------------------------

    def _tell(self, event: trio.Event) -> None:
        self._home.post(event.set)

    def _main(self) -> None:
        try:
            trio.run(self._loop_of_its_own, clock=self._platform.clock)
        except BaseException as error:  # nothing may be lost
            if self.is_up:
                self._system._fail(error)
            else:
                self.error = error
        finally:
            self._bury()

    @trio.lowlevel.enable_ki_protection
    async def _loop_of_its_own(self) -> None:
        CURRENT.set(self._system._machine)
        self._cpu.equip()
        self._platform.power_on(self._number, copy_context())
        current.opened(self._system._machine)
        try:
            await self.run()
        finally:
            current.closed(self._system._machine)
            self._platform.power_off(self._number)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Be the CPU until it takes no more calls."""
        if self._system._machine.held is not None:
            self._check = LoopCheck(self._system)
            trio.lowlevel.add_instrument(self._check)
        try:
            with self._scope:
                async with trio.open_nursery() as services:
                    services.start_soon(self._serve, name=repr(self._cpu.softclock))
                    await self._tasks.run(self._come_up)
                    self._tell(self.tasks_over)
        finally:
            if self._check is not None:
                trio.lowlevel.remove_instrument(self._check)
            if self._number == 0:
                self._bury()

    def _come_up(self) -> None:
        self.is_up = True
        self._tell(self.up)
        if self._killed:  # while it came up
            self.kill()

    def _bury(self) -> None:
        """Whatever it has died of: nothing runs here any more, no call is taken, and nobody waits for it."""
        try:
            for lane in self._cpu.lanes:
                abandon(lane)
            if self._cpu.open:
                if self.is_up:
                    self._loop.run_calls(partial(end_calls, self._cpu))
                else:
                    end_calls(self._cpu)
        except BaseException as error:
            self._system._fail(error)
        for event in (self.up, self.tasks_over, self.over):
            self._tell(event)

    # -- the services ----------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _serve(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stand_in, name=repr(self._cpu.interrupt))
            with self._one_of_the_services():
                await self._softclock()
            nursery.cancel_scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _softclock(self) -> None:
        for _ in range(LIVES):
            try:
                await self._services.softclock()
                return
            except trio.Cancelled:
                raise
            except BaseException as error:
                self._bury_run(self._cpu.softclock, error)
        while self._cpu.open:  # it is left dead; stand for it where it would wait for the close
            self._cpu.idle = self._platform.idle_waiter(self._number)
            await self._services.work()

    @trio.lowlevel.enable_ki_protection
    async def _stand_in(self) -> None:
        with self._one_of_the_services():
            await self._services.stand_in()

    @contextmanager
    @trio.lowlevel.enable_ki_protection
    def _one_of_the_services(self) -> Iterator[None]:
        me = trio.lowlevel.current_task()
        self._services.tasks.add(me)
        try:
            yield
        finally:
            self._services.tasks.discard(me)

    def _bury_run(self, lane: Lane, error: BaseException) -> None:
        """A service has died: end the run that it was at, and have its exception leave through the block."""
        end_if_forked()  # the error is that the engine refuses to go on
        self._system._fail(error)
        abandon(lane)

    @trio.lowlevel.enable_ki_protection
    def _fire(self, again: bool) -> bool:
        """Take the clock interrupt; *again*: for what the last one has left."""
        now = self._platform.now()
        if self._cpu.deadline != NEVER and not again and not self._platform.follows_trio:
            late = now - self._loop.due  # said once for all that are late
            if late > self._system._machine.slow:
                check = None if self._platform.hosted else self._check  # of the host's tasks nothing is known
                self._system._reporter.late(self._number, late, None if check is None else check.longest())
        return self._loop.clock_interrupt(now)
