"""An exception that a signal handler raises in what a CPU does by itself loses no callout, and leaves nobody asleep."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count

import pytest
import trio
import trio.testing

from callout import (
    C_DIRECT_EXEC,
    SBT_1MS,
    Callout,
    callout_drain_async,
    callout_init,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_stop,
)
from callout._core.cpu import Cpu, Ticket
from callout._core.drain import attach
from callout._core.invariants import check, check_cpu
from callout._core.lifecycle import abandon
from callout._core.machine import Machine
from callout._core.runs import end, turn
from callout._core.softclock import hardclock
from callout._core.units import NS_PER_S
from callout._core.wheel import callouts_of
from callout._worlds.trio.waiters import TrioWaiter

from .test_cut_short import CORE, Cut, Handler, open_alone

pytestmark = pytest.mark.pure

ROOMS = (*CORE, CORE[0].replace("_core", "_worlds"))


def ignore(_: object) -> None:
    """Do nothing."""


class Due:
    """Callouts that are due on a CPU whose loop is blocked by the test, and whose softclock is idle."""

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.direct = 0  # runs of the direct one
        self.plain = [Callout() for _ in range(3)]
        self.now = cpu.machine.platform.now()
        self.idle = TrioWaiter()
        cpu.idle = self.idle
        cpu.now = partial(int, self.now)
        for ticks, c in enumerate(self.plain, 1):
            callout_init(c, 1)
            callout_reset(c, ticks, ignore, None)
        self.at_once = Callout()
        callout_init(self.at_once, 1)
        callout_reset_sbt(self.at_once, SBT_1MS, 0, self.run, None, C_DIRECT_EXEC)
        cpu.now = partial(int, self.now + NS_PER_S)

    def run(self, _: object) -> None:
        """Be the direct callback."""
        self.direct += 1

    def check(self) -> None:
        """Assert that nothing was left half done."""
        assert not self.cpu.lock._is_owned()
        assert not self.cpu.busy
        check_cpu(self.cpu)
        for c in (*self.plain, self.at_once):
            check(c)


Play = Callable[[Machine, Due, Cut], Awaitable[None]]


def everywhere(play: Play, cpus: int, rooms: tuple[str, ...]) -> int:
    """Play once for each place at which it can be cut short, and once to the end; return how many places there are."""

    async def main() -> int:
        async with open_alone(cpus) as system:
            await trio.testing.wait_all_tasks_blocked()
            machine = system._machine
            cpu = machine.cpus[0]
            now, idle = cpu.now, cpu.idle
            try:
                for cuts in count():
                    cut = Cut(cuts, rooms)
                    await play(machine, Due(cpu), cut)
                    if not cut.happened:
                        return cuts
            finally:
                cpu.now, cpu.idle = now, idle
        raise AssertionError("never reached")

    return trio.run(main)


def test_an_exception_in_the_clock_interrupt_loses_nothing() -> None:
    """Wherever it comes, what was queued stays queued, the next interrupt queues the rest, and softclock is woken."""
    queued: set[int] = set()  # how many were in the queue when the interrupt had been cut short

    async def play(machine: Machine, due: Due, cut: Cut) -> None:
        cpu = due.cpu
        machine.report = lambda error, c: None
        try:
            with cut.armed():
                hardclock(cpu)
        except Handler:
            abandon(cpu.interrupt)  # as the service does that has died of it
        due.check()
        queued.add(len(callouts_of(cpu.softclock.queue)))
        while hardclock(cpu):
            pass
        due.check()

        assert callouts_of(cpu.softclock.queue) == due.plain, cut.where
        assert due.idle._event.is_set(), cut.where
        assert due.direct == 1 or cut.happened, cut.where
        assert not callout_pending(due.at_once)

        for c in due.plain:
            assert callout_stop(c) == 1

    assert everywhere(play, 1, ROOMS) >= 3
    assert queued >= {0, 3}


def test_an_exception_at_the_end_of_a_run_leaves_no_lock_held() -> None:
    """Wherever it comes, both CPUs can be used, and the deferred migration is carried out, at the latest now."""

    async def play(machine: Machine, due: Due, cut: Cut) -> None:
        cpu, other = machine.cpus
        hardclock(cpu)
        c = due.plain[0]
        run = turn(cpu.softclock)
        assert run is not None
        callout_reset_on(c, 3_600_000, ignore, None, 1)
        assert run.move is not None
        try:
            with cut.armed():
                end(cpu.softclock)
        except Handler:
            due.check()
            abandon(cpu.softclock)
        due.check()
        assert not other.lock._is_owned(), cut.where
        assert not other.busy, cut.where
        check_cpu(other)

        assert callouts_of(cpu.softclock.queue) == due.plain[1:]
        assert cpu.softclock.run is c.run is None
        assert c.c_cpu is other

        for each in due.plain:
            assert callout_stop(each) == 1

    assert everywhere(play, 2, CORE) >= 3


def test_an_exception_at_the_end_of_a_run_breaks_no_promise() -> None:
    """Wherever it comes, who waits for the run is woken, and completions are called or reported, at the latest now."""

    async def play(machine: Machine, due: Due, cut: Cut) -> None:
        cpu = due.cpu
        told: list[object] = []
        machine.report = lambda error, c: told.append(error)
        hardclock(cpu)
        run = turn(cpu.softclock)
        assert run is not None
        waiters = [TrioWaiter() for _ in range(3)]
        for waiter in waiters[:2]:
            attach(run, Ticket(0, waiter))
        assert callout_drain_async(run.callout, told.append, "completion") == 1
        attach(run, Ticket(0, waiters[2]))
        try:
            with cut.armed():
                end(cpu.softclock)
        except Handler:
            abandon(cpu.softclock)
        due.check()
        await trio.testing.wait_all_tasks_blocked()

        assert [waiter._event.is_set() for waiter in waiters] == [True] * 3, cut.where
        assert "completion" in told or isinstance(told[0], Handler), cut.where

        for each in due.plain:
            callout_stop(each)

    assert everywhere(play, 1, ROOMS) >= 6
