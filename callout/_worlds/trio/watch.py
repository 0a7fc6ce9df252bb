"""Names, in the log, what has been waiting for long: softclock at a lock, a drain, the end of the block.

Nothing is looked at as long as nothing waits: an idle system has no timer of its own. Under a clock that is not the
system's nothing is looked at either, since to sleep would move that clock; but what the end waits for is named once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final

import trio

from ..._api.callout import Callout
from ..._core.cpu import WAITING, Run
from ..._core.describe import name_of
from ..._core.errors import LockHeldError
from ..._core.frames import place_of
from ..._core.lifecycle import runs
from ..._core.refusal import Refusal
from ..._locks.lock import Lock
from .log import tell, text_of
from .platform import asyncio_task

if TYPE_CHECKING:
    from .system import CalloutSystem

_LONG: Final = 1.0  # seconds; then after twice as long, and so on


class _Wait:
    """Somebody waits."""

    __slots__ = ("callout", "next", "since", "what", "who")

    def __init__(self, what: str, c: Callout) -> None:
        self.what = what
        self.callout = c
        self.who = _whoever_this_is()
        self.since = monotonic()
        self.next = self.since + _LONG

    def tell(self, now: float) -> None:
        """Say so; next time when it has lasted twice as long."""
        seconds = now - self.since
        self.next = now + seconds
        callout, by, lasts = text_of(self.callout), self.who, round(seconds, 3)
        if self.what == "lock":
            lock = getattr(self.callout, "lock", None)
            tell(
                "warning",
                "callout.lock_waits",
                callout=callout,
                lock=text_of(lock),
                by=by,
                seconds=lasts,
                acquired=_acquired_at(lock),
            )
        else:
            tell("warning", "callout.drain_waits", call=self.what, callout=callout, by=by, seconds=lasts)


def _acquired_at(lock: Lock | None) -> str | None:
    """Return where *lock* was acquired by the thread that holds it: in checking mode, else None."""
    since = None if lock is None else lock.since
    return None if since is None or since[1] is None else place_of(*since[1])


def _whoever_this_is() -> str:
    if (task := asyncio_task()) is not None:
        return f"task {task.get_name()}"
    try:
        return f"task {trio.lowlevel.current_task().name}"
    except RuntimeError:
        return f"thread {threading.current_thread().name}"


class Watch:
    """Watches the waits of one system, from a task of CPU 0's loop."""

    def __init__(self, system: CalloutSystem) -> None:
        self._system = system
        self._follows_trio = system._platform.follows_trio
        self._home = system._platform.loops[0]
        self._waits: dict[_Wait, None] = {}
        self._end = _EndWait(system)
        self._news = trio.Event()
        self._until = math.inf  # when the task looks next
        self._tasks_over = False
        self._scope = trio.CancelScope(shield=True)

    @contextmanager
    def waits(self, what: str, c: Callout) -> Iterator[None]:
        """Somebody waits in this block: the call named for a run of *c*; "lock": that run for its lock."""
        if self._tasks_over and what == "lock":
            self._look_at_locks()
        if self._follows_trio:
            yield
            return
        wait = _Wait(what, c)
        self._waits[wait] = None
        if wait.next < self._until:
            self._home.post(self.look)
        try:
            yield
        finally:
            del self._waits[wait]

    def look(self) -> None:
        """Have the task look: something waits. On CPU 0's loop."""
        self._news.set()

    def end_begins(self) -> None:
        """The body of the block has ended; look at what that waits for, too. On CPU 0's loop."""
        self._end.begin()
        self.look()

    def all_tasks_are_over(self) -> None:
        """The end waits for runs only. On CPU 0's loop. Under a clock that is not the system's, name them now."""
        if self._follows_trio:
            self._end.name_runs()
        self._tasks_over = True
        self._look_at_locks()

    def _look_at_locks(self) -> None:
        """A lock that a loop holds will not be released any more, and some run may wait for it."""
        for loop in self._system._platform.loops:
            if loop.thread:  # it is up
                loop.post(self._refuse_held_locks)

    def _refuse_held_locks(self) -> None:
        """Have the runs that wait for a lock of this loop's thread fail, instead of waiting for ever."""
        for cpu in self._system._machine.cpus:
            for run in runs(cpu):
                lock = run.lock
                if run.state == WAITING and lock is not None and lock.holds():
                    lock.poison(
                        Refusal(
                            LockHeldError,
                            f"open_callouts: the block has ended with lock {lock.name!r} held, and {run.callout!r} "
                            "waits for that; release it before, and await nothing with a lock held",
                        )
                    )

    def stop(self) -> None:
        """Watch no more. On CPU 0's loop."""
        self._scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Watch, until stopped."""
        with self._scope:
            while True:
                self._news = trio.Event()
                self._until = math.inf
                if not self._follows_trio:
                    self._until = min([self._end.next, *(wait.next for wait in list(self._waits))])
                with trio.CancelScope() as scope:
                    if self._until != math.inf:
                        scope.deadline = trio.current_time() + max(self._until - monotonic(), 0)
                    await self._news.wait()
                if not self._follows_trio:
                    self._tell(monotonic())

    def _tell(self, now: float) -> None:
        for wait in list(self._waits):
            if wait.next <= now:
                wait.tell(now)
        if self._end.next <= now:
            self._end.tell(now)


class _EndWait:
    """The end of the block waits."""

    def __init__(self, system: CalloutSystem) -> None:
        self._system = system
        self._pause = _LONG
        self._seen: set[Run] = set()
        self.next = math.inf

    def begin(self) -> None:
        """It has begun."""
        self._seen = self._runs()
        self.next = monotonic() + self._pause

    def tell(self, now: float) -> None:
        """Name each callback for which it has been waiting since the last look, or else the tasks; ever more rarely."""
        self._pause *= 2
        self.next = now + self._pause
        runs_now = self._runs()
        self._name(runs_now & self._seen)
        self._seen = runs_now
        tasks = [name_of(start.async_fn) for start in list(self._system._awaited)]
        if tasks:
            tell("info", "callout.close_waits", tasks=tasks[:5], count=len(tasks))

    def name_runs(self) -> None:
        """Name each callback that runs."""
        self._name(self._runs())

    def _runs(self) -> set[Run]:
        return {run for cpu in self._system._machine.cpus for run in runs(cpu)}

    @staticmethod
    def _name(waited_for: set[Run]) -> None:
        for run in sorted(waited_for, key=lambda run: run.cpu.id):
            tell("warning", "callout.close_waits", callout=text_of(run.callout), cpu=run.cpu.id)
