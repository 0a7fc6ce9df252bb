"""``system.open_nursery()`` in a loop of asyncio: its tasks are those of an ``asyncio.TaskGroup``.

The group decides what a failure cancels, and what leaves the block; a task that was cancelled has not failed. It cannot
be cancelled as a whole, so a task that raises does that ("Terminating a task group", in the manual of asyncio).

The group makes no task in the call that starts one, but soon after, in a callback of the loop: with no lock held, and
outside of any task. An eager task factory runs the first step of a task inside its making.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from typing import TYPE_CHECKING

from ..._core.errors import GuestError, LoopThreadError
from ..._core.guard import protected
from ..._core.phases import Use, admit
from ..trio.forked import end_if_forked
from ..trio.tasks import run_async
from ..trio.timed import NO_TASK, Run, TimedNursery
from .platform import running_loop
from .waits import Task

if TYPE_CHECKING:
    from .system import GuestSystem


class _CancelledError(Exception):
    """Leaves a task of the group, because ``cancel()`` was called."""


async def _cancel() -> None:
    raise _CancelledError


class _HostRun(Run):
    """A task of asyncio."""

    task: Task | None = None  # until it has begun
    is_cancelled = False

    @protected
    def _cancel_here(self) -> None:
        if self.is_cancelled:  # a second CancelledError would end what it does about the first
            return
        self.is_cancelled = True
        if self.task is not None:
            self.task.cancel()

    def inside(self) -> bool:
        """Return whether this is its task. A task of asyncio does not know which others wait for it."""
        return self.task is not None and running_loop() is not None and asyncio.current_task() is self.task

    @protected
    def over(self, _: Task) -> None:
        """It has ended, perhaps before its first step."""
        self.nursery._ended(self)

    @protected
    async def body(self) -> None:
        """Be that task."""
        self.task = asyncio.current_task()  # an eager one has begun before its maker has it
        try:
            await run_async("open_nursery", self.async_fn, self.args)
        except asyncio.CancelledError as error:
            end_if_forked(error)
            raise
        except BaseException as error:
            self.nursery._failed(error)
            raise


class HostNursery(TimedNursery):
    """A nursery in a loop of asyncio."""

    def __init__(self, system: GuestSystem, group: asyncio.TaskGroup) -> None:
        super().__init__(system, 0, _HostRun)
        self._host = system._host
        self._group = group
        self._is_cancelled = False  # it is, or is about to be: the group takes no more tasks

    def _on_loop(self, func: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._host.call_soon_threadsafe(func)

    @protected
    def _cancel(self) -> None:
        with self._lock:
            if not self._over:
                self._hand_over(None, copy_context(), _cancel, (), None)

    @protected
    def _spawn(self, run: Run) -> None:
        assert isinstance(run, _HostRun)
        if self._is_cancelled:  # it is as a task that is cancelled before its first step
            self._ended(run)
            return
        body = run.body()
        try:
            task = self._group.create_task(body, name=run.name)
        except BaseException as error:  # of the application's task factory
            body.close()
            self._ended(run)
            self._system._fail(error)
        else:
            run.task = task
            task.add_done_callback(run.over)
            if run.async_fn is _cancel:
                self._is_cancelled = True

    def _failed(self, error: BaseException) -> None:
        self._is_cancelled = True
        super()._failed(error)

    @protected
    async def end(self, me: Task) -> None:
        """The body has ended normally, in the task *me*: stop what is scheduled, and wait for what runs."""
        if asyncio.current_task() is not me:
            raise GuestError("open_nursery: leave the block in the task that has entered it", call="open_nursery")
        self._starts.close()
        await self._until_over()

    @protected
    def forget(self) -> None:
        """No task is left, or will go on: end what has not begun. On the loop's thread."""
        self._starts.close()
        with self._lock:
            self._over = True
        for run in list(self._runs):
            self._ended(run)


@asynccontextmanager
@protected
async def host_nursery(system: GuestSystem) -> AsyncIterator[TimedNursery]:
    """Be the block of a nursery that is opened in a loop of asyncio."""
    admit("open_nursery", system._machine, Use.INIT)
    if running_loop() is not system._host:
        raise GuestError(
            "open_nursery: this is another loop of asyncio than the one that the system is open in; open it in a task "
            "of that one, started with system.cpu(0).start_soon(), or open a system in this loop, with "
            "callout.guest.open_callouts()",
            call="open_nursery",
        )
    me = asyncio.current_task()
    if me is None:
        raise LoopThreadError(NO_TASK, call="open_nursery")
    before = me.cancelling()
    group = asyncio.TaskGroup()
    await group.__aenter__()
    nursery = HostNursery(system, group)
    system._nurseries.add(nursery)
    left: BaseException | None = None
    was_cancelled = False
    try:
        try:
            yield nursery
            await nursery.end(me)
        except GeneratorExit:  # the task is garbage: the loop is closed, or nothing is scheduled and nothing runs
            raise
        except BaseException as error:
            left = error
            nursery._failed(error)
        try:
            await group.__aexit__(None if left is None else type(left), left, None)
        except* _CancelledError:
            was_cancelled = True
        finally:
            nursery.forget()
            system._nurseries.discard(nursery)
        if was_cancelled and me.cancelling():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # from 3.13 on the group has cancelled a task anew that was cancelled before
            if me.cancelling() > before:
                raise asyncio.CancelledError
    finally:
        del left  # its traceback refers to this frame


__all__ = ["HostNursery", "host_nursery"]
