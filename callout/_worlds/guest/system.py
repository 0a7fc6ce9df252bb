"""A callout system whose CPU 0 is a loop of asyncio: its tasks are tasks of asyncio, and so is what failures cancel.

A task is awaited, or cancelled, at the end of the block as the tasks of other CPUs are (``_worlds.trio.tasks``). One
that somebody else has cancelled has not failed, as in a ``TaskGroup``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Self, cast

import trio

from ..._core.cpu import Cpu
from ..._core.describe import name_of
from ..._core.guard import protected
from ..._core.machine import Machine
from ..trio.platform import Loop
from ..trio.reporting import OnError
from ..trio.system import CalloutSystem
from ..trio.tasks import Start, Tasks
from ..trio.timed import TimedNursery
from .platform import GuestPlatform, running_loop
from .timed import HostNursery, host_nursery
from .waits import Task


class HostTasks(Tasks):
    """The tasks of CPU 0."""

    def __init__(self, system: CalloutSystem, loop: Loop, host: asyncio.AbstractEventLoop) -> None:
        super().__init__(system, loop)
        self._host = host
        self._running: dict[Task, Start] = {}
        self._changed = trio.Event()
        self._is_open = False
        self._ends = False
        self._is_lost = False

    def _wake(self) -> None:
        try:
            self._host.call_soon_threadsafe(self._start_all_here)
        except RuntimeError:  # the loop is closed
            pass

    def cancel(self) -> None:
        """Cancel them all, and have no more started. From any thread."""
        self._loop.post(self._cancel_here)

    def forget(self) -> None:
        """The loop is closed: none of them will ever go on."""
        self._is_lost = True
        gone, self._running = self._running, {}
        for start in gone.values():
            self._over(start)
        self._cancel_here()

    @trio.lowlevel.enable_ki_protection
    async def run(self, up: Callable[[], object]) -> None:
        """Keep the tasks, in a task of trio, until ``cancel`` was called and all have ended; call *up* when they can be
        started.
        """
        with trio.CancelScope(shield=True):
            self._is_open = True
            up()
            self._start_all()
            while not self._ends:
                await self._changes()
            self._end()
            for task in list(self._running):
                task.cancel()
            while self._running:
                await self._changes()

    def _end(self) -> None:
        super()._end()
        self._is_open = False

    async def _changes(self) -> None:
        await self._changed.wait()
        self._changed = trio.Event()

    def _cancel_here(self) -> None:
        self._ends = True
        self._changed.set()

    @protected
    def _start_all(self) -> None:
        for _ in range(len(self._handed_over)):  # what comes meanwhile has the loop call this again, after its tasks
            if not self._is_open:
                return
            try:
                start = self._handed_over.popleft()
            except IndexError:
                return
            if self._is_lost:
                self._over(start)
                continue
            coroutine = self._run(start)
            try:
                new = partial(self._host.create_task, coroutine, name=name_of(start.async_fn))
                task = self._loop.context.run(new)
            except BaseException as error:  # of the application's task factory
                coroutine.close()
                self._over(start)
                self._system._fail(error)
                continue
            self._running[task] = start
            task.add_done_callback(self._ended)

    @protected
    def _ended(self, task: Task) -> None:
        start = self._running.pop(task, None)
        if start is not None:
            self._over(start)  # one that was cancelled before its first step has not said so
        if not task.cancelled() and (error := task.exception()) is not None:
            self._system._fail(error)
            self._ends = True
        self._changed.set()


class Body:
    """The body of the block: the task that has entered it, which is cancelled when something fails."""

    def __init__(self) -> None:
        self.task: Task | None = None  # None: it has not been entered yet, or is being left
        self.was_cancelled = False  # by this, which has to be undone
        self._is_cancelled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing is held."""

    def entered(self, task: Task | None) -> None:
        """This is the task."""
        self.task = task
        if self._is_cancelled:
            self.cancel()

    def cancel(self) -> None:
        """Cancel the task, once. On the loop."""
        self._is_cancelled = True
        if self.task is not None and not self.was_cancelled:
            self.was_cancelled = self.task.cancel()

    def left(self) -> None:
        """The block is being left: nothing is cancelled any more, and what was is undone."""
        task, self.task = self.task, None
        if self.was_cancelled and task is not None:
            task.uncancel()


class GuestSystem(CalloutSystem):
    """A callout system in a loop of asyncio."""

    def __init__(self, machine: Machine, platform: GuestPlatform, on_error: OnError | None) -> None:
        self._host = platform.host
        self._nurseries: set[HostNursery] = set()  # those of CPU 0 that are open
        super().__init__(machine, platform, on_error)

    def _new_tasks(self, cpu: Cpu, loop: Loop) -> Tasks:
        return super()._new_tasks(cpu, loop) if cpu.id else HostTasks(self, loop, self._host)

    def _new_body(self) -> Body:
        return Body()

    def _new_nursery(self) -> AbstractAsyncContextManager[TimedNursery]:
        return super()._new_nursery() if running_loop() is None else host_nursery(self)

    @property
    def body(self) -> Body:
        """The body of the block."""
        return cast("Body", self._body)

    def _abandon(self) -> None:
        """The loop is closed: no task of it goes on. On its thread."""
        tasks = self._cpus[0]._tasks
        assert isinstance(tasks, HostTasks)
        tasks.forget()
        while self._nurseries:
            self._nurseries.pop().forget()
