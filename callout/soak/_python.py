"""The Python spelling where it has no twin in C: callouts that a system makes, periods, sets, timers that start tasks.

The methods of a callout that do have one are called beside it, in ``_freebsd``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import isfinite

import trio

from .. import Callout, Mtx, Periodic, ResetResult, TimedNursery, TimeoutTask, current_system
from ._ledger import Account, Arming, Ledger
from ._round import TICK


class Fresh(Account):
    """A callout that is made armed, and perhaps stopped."""

    def __init__(self, ledger: Ledger, lock: Mtx | None) -> None:
        super().__init__(ledger, "fresh callout")
        self.lock = lock
        self.c: Callout

    def make(self, name: str, n: int, cpu: int) -> None:
        """Make it by the method of that *name*, to run *n* ticks from now."""
        system, arming = current_system(), self.arming(n * TICK)
        try:
            if name == "call_at":
                self.c = system.call_at(system.current_time() + n / 1000, self.fire, arming, lock=self.lock, cpu=cpu)
            else:
                self.c = system.call_later(n / 1000, self.fire, arming, lock=self.lock, cpu=cpu)
        except BaseException:
            self.fails()
            raise
        self.was_armed(arming, replaced=False)

    def fire(self, arming: Arming) -> None:
        """Be the callback."""
        self.enter(arming, locked=self.lock is None or self.lock.owned())
        self.leave()


class Beat(Account):
    """A periodic callout, which nothing but the end stops.

    Its times are on a grid, and each of them either has a run or is counted as missed. So between two runs the next
    deadline moves on by as many periods as there were runs and missed ones.
    """

    def __init__(self, ledger: Ledger, lock: Mtx | None, n: int, cpu: int) -> None:
        super().__init__(ledger, "periodic callout", single=False)
        self.lock = lock
        self.p: Periodic | None = None  # until it was made: its first run may be sooner
        self.before: tuple[float, int] | None = None  # at an earlier run: the next deadline; runs, and missed ones
        arming = self.arming(n * TICK)
        self.p = current_system().every(n / 1000, self.fire, lock=lock, cpu=cpu)
        self.was_armed(arming, replaced=False)

    def fire(self) -> None:
        """Be the callback: it is armed for its next time already, unless a drain that began before that, or the end of
        the system, has refused it.
        """
        self.enter(locked=self.lock is None or self.lock.owned())
        p = self.p
        if p is None or isfinite(p.deadline):
            self.was_armed(self.arming(0), replaced=False)
        if p is not None and isfinite(p.deadline):
            now = p.deadline, self.fired + p.missed
            deadline, count = self.before or now
            more = (now[1] - count) - round((now[0] - deadline) / p.period)
            if more:
                self.ledger.problem(f"{self.name}: of its periods {more} too many ran or were missed")
            self.before = now
        self.leave()


class Set(Account):
    """Callouts that are drained and closed together: what was removed is told of all, so there is one balance."""

    def __init__(self, ledger: Ledger, name: str) -> None:
        super().__init__(ledger, name)
        self.members: list[Account] = []

    def terminated(self) -> None:
        """Note that none of them is ever armed again, and none runs."""
        for account in self.members:
            account.terminated()

    def settle(self, stopped: int = 0) -> None:
        """Draw the balance of them all."""
        for account in self.members:
            self.armed += account.armed
            self.replaced += account.replaced
            self.fired += account.fired
            self.removed += account.removed
            self.refused += account.refused
            self.unsure += account.unsure
        super().settle(stopped * len(self.members))


class Timed(Account):
    """A timer that starts a task: of one worker, in a nursery that ends before the balance is drawn."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger, "timer that starts a task", single=False)
        self._periodic = False

    async def live(self, n: int, again: int, rest: float) -> None:
        """Start a task *n* ticks from now; *rest* seconds later, *again* ticks from then, and at last stop it."""
        async with self._scheduled(n, lambda nursery: nursery.start_later(n / 1000, self.run, rest)) as task:
            await trio.sleep(rest)
            arming = self.arming(again * TICK)
            result = task.reset(again / 1000)
            self.was_armed(arming, replaced=result is ResetResult.REARMED, refused=not result)
            await trio.sleep(rest)

    async def beat(self, n: int, rest: float, most: float) -> None:
        """Start a task every *n* ticks, each of which takes *rest* seconds; *most* seconds later stop that."""
        self._periodic = True
        async with self._scheduled(n, lambda nursery: nursery.start_every(n / 1000, self.run, rest)):
            await trio.sleep(most)

    @asynccontextmanager
    async def _scheduled(self, n: int, start: Callable[[TimedNursery], TimeoutTask]) -> AsyncIterator[TimeoutTask]:
        """Have *start* schedule a task *n* ticks from now, in a nursery of its own; at the end of the block stop it."""
        told = False
        try:
            async with current_system().open_nursery() as nursery:
                arming = self.arming(n * TICK)
                task = start(nursery)
                self.was_armed(arming, replaced=False)
                yield task
                self.remove(bool(task.stop()))
                told = True
        finally:
            if not told:
                self.doubt()  # the end of the nursery has stopped what was scheduled

    async def run(self, rest: float) -> None:
        """Be the task."""
        if self._periodic:
            self.was_armed(self.arming(0), replaced=False)  # for its next time
        self.enter()
        try:
            await trio.sleep(rest)
        finally:
            self.leave()
