"""Leaving the block, by whatever way: the phases of ``_core.phases``, one after the other.

1. ``LEAVING``, after a normal end: awaited tasks end by themselves. An error anywhere, a cancellation and Ctrl-C cut
   this short.
2. ``CANCELLING``: all other tasks are cancelled, on all CPUs, and awaited. Callouts still run.
3. ``QUIESCING``: what is pending is stopped; runs in progress and their completions are awaited.
4. ``CLOSED``: every CPU has ended, its thread is joined, its descriptors are closed.

All this happens in a task of its own, shielded: a KeyboardInterrupt can be raised in the task that has opened the
system even where that is shielded, and it has to wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from ..._core.lifecycle import close, enter, quiesce
from ..._core.phases import Phase

if TYPE_CHECKING:
    from .cpus import CpuRunner
    from .system import CalloutSystem


async def insist(event: trio.Event) -> KeyboardInterrupt | None:
    """Wait, whatever comes; return a KeyboardInterrupt that came."""
    interrupt: KeyboardInterrupt | None = None
    with trio.CancelScope(shield=True):
        while not event.is_set():
            try:
                await event.wait()
            except KeyboardInterrupt as error:
                interrupt = error
    return interrupt


class Leaving:
    """Takes one system down."""

    def __init__(self, system: CalloutSystem, runners: Sequence[CpuRunner]) -> None:
        self._system = system
        self._runners = runners
        self._normally = False
        self._cut_short = False
        self._news = trio.Event()
        self._done = trio.Event()

    async def leave(self, nursery: trio.Nursery, left: BaseException | None) -> BaseException | None:
        """Take the system down, in a task of *nursery*; return what has to be raised then: *left*, or what came since.

        *left* is the exception that left the body.
        """
        self._normally = left is None and not self._system._errors
        nursery.start_soon(self._run)
        if self._normally:
            try:
                await self._done.wait()
            except (trio.Cancelled, KeyboardInterrupt) as error:
                left = error
                self.cut_short()
        interrupt = await insist(self._done)
        if interrupt is None:
            return left
        if left is not None and not isinstance(left, trio.Cancelled | KeyboardInterrupt):
            self._system._errors.insert(0, left)
        return interrupt

    def look_again(self) -> None:
        """The last awaited task may have ended. On CPU 0's loop."""
        self._news.set()

    def cut_short(self) -> None:
        """Wait for no task any more, but cancel them. On CPU 0's loop."""
        self._cut_short = True
        self._news.set()

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        machine, watch = self._system._machine, self._system._watch
        with trio.CancelScope(shield=True):
            try:
                if self._normally:
                    enter(machine, Phase.LEAVING)
                    watch.end_begins()
                    await self._awaited_tasks()
                enter(machine, Phase.CANCELLING)
                watch.end_begins()
                for runner in self._runners:
                    await runner.cancel_tasks()
                for runner in self._runners:
                    await runner.tasks_over.wait()
                watch.all_tasks_are_over()
                self._system._reporter.pending(await quiesce(machine))
                await close(machine)
                await self._all_over()
            except BaseException as error:  # a bug of ours
                self._system._fail(error)
                self.by_force()
                await self._all_over()
            finally:
                watch.stop()
                self._done.set()

    async def _all_over(self) -> None:
        for runner in self._runners:
            await runner.over.wait()
            runner.join()

    def by_force(self) -> None:
        """Have everything end where it stands: the orderly way has failed."""
        self._system._watch.stop()
        for runner in self._runners:
            runner.kill()

    def by_force_but_cpu_0(self) -> None:
        """End the other CPUs where they stand: the loop of CPU 0 is gone. From any thread."""
        for runner in self._runners[1:]:
            runner.kill()
        for runner in self._runners[1:]:
            runner.join()

    async def _awaited_tasks(self) -> None:
        while self._system._awaited and not self._cut_short:
            self._news = trio.Event()
            await self._news.wait()
