"""Checking mode's look at every step of every task of a loop: awaits with a lock held, and what blocks the loop."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import trio

from ..._core.errors import SleepError
from ..._core.phases import Phase
from ..._locks.lock import Lock

if TYPE_CHECKING:
    from .system import CalloutSystem


class LoopCheck(trio.abc.Instrument):
    """Reports a task that has awaited while its thread held a lock, and knows the longest step of late."""

    def __init__(self, system: CalloutSystem) -> None:
        self._system = system
        self._told = False
        self._begun = 0
        self._longest = 0
        self._longest_task: str | None = None

    def longest(self) -> str | None:
        """Return the name of the task that has kept the loop longest since this was asked before."""
        name, self._longest_task, self._longest = self._longest_task, None, 0
        return name

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task goes on."""
        self._begun = time.monotonic_ns()
        if self._system._platform.hosted and not self._told and (mine := self._held()):
            self._told = True
            self._system._fail(
                SleepError(
                    f"a task of asyncio awaited with {', '.join(map(repr, mine))} held: "
                    "give locks up before an await, or the loop stops whenever its softclock wants them"
                )
            )

    def _held(self) -> list[Lock] | None:
        """Return the locks that this thread holds."""
        machine = self._system._machine
        if not machine.held or machine.phase is Phase.FORKED:
            return None
        return machine.held.get(threading.get_ident())

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task has come to an await, or to its end."""
        spent = time.monotonic_ns() - self._begun if self._begun else 0  # it may be the step that has added this
        if spent > self._longest:
            self._longest, self._longest_task = spent, task.name
        if not self._told and (mine := self._held()):
            self._told = True
            where = ""
            for frame, line in task.iter_await_frames():
                if frame.f_globals.get("__name__", "").partition(".")[0] not in ("callout", "trio"):
                    where = f" at {frame.f_code.co_filename}:{line} in {frame.f_code.co_qualname}()"
            self._system._fail(
                SleepError(
                    f"task {task.name} awaited{where} with {', '.join(map(repr, mine))} held: "
                    "give locks up before an await, or the loop stops whenever its softclock wants them"
                )
            )
