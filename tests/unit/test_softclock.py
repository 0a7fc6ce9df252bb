"""What a CPU does by itself: which lane runs what, for how long at a time, and what is said of a run afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from callout import (
    C_DIRECT_EXEC,
    CALLOUT_RETURNUNLOCKED,
    CALLOUT_SHAREDLOCK,
    CALLOUT_TRYLOCK,
    MTX_RECURSE,
    MTX_SPIN,
    SBT_1MS,
    SBT_1S,
    Callout,
    Mtx,
    RwLock,
    UseAfterFree,
    callout_active,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_init_rw,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_reset_sbt_on,
)
from callout._core import phases
from callout._core.cpu import BARRIER, CANCELLED, STARTED, Run, Ticket
from callout._core.invariants import check_cpu
from callout._core.lifecycle import close, enter, fork, quiesce, stop_all
from callout._core.phases import Phase
from callout._core.runs import serve, skip, turn
from callout._core.softclock import hardclock
from callout._core.state import DIRECT, Func
from callout.testing import VirtualSMP


@pytest.fixture
def vm() -> Iterator[VirtualSMP]:
    """Two virtual CPUs whose clock stands still."""
    with VirtualSMP(2, free_clock=False) as vm:
        yield vm


def ignore(_: object) -> None:
    """Do nothing."""


def spend(vm: VirtualSMP, time: int) -> None:
    """Let time pass, in a callback."""
    vm.platform.time += time


def arm_direct(func: Callable[[None], object], lock: Mtx | None = None, flags: int = 0) -> Callout:
    """Return a direct callout of CPU 0 that is due at the next tick."""
    c = Callout()
    if lock is None:
        callout_init(c, 1)
        callout_reset_sbt(c, SBT_1MS, 0, func, None, C_DIRECT_EXEC)
    else:
        callout_init_mtx(c, lock, flags)
        with lock:
            callout_reset_sbt(c, SBT_1MS, 0, func, None, C_DIRECT_EXEC)
    return c


# -- the time budget ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("each", "at_once"), [(1, 3), (10, 2), (11, 1)])
def test_the_interrupt_stops_when_it_has_used_more_than_its_budget(vm: VirtualSMP, each: int, at_once: int) -> None:
    """While there is time it runs what is due; else it leaves the rest for later, with no run in progress."""
    vm.machine.budget = 10
    cpu = vm.machine.cpus[0]
    ran: list[int] = []
    done: list[int] = []
    callouts: list[Callout] = []

    def run(_: None) -> None:
        spend(vm, each)
        callout_drain_async(callouts[len(ran)], done.append, len(ran))
        ran.append(len(ran))

    callouts += [arm_direct(run) for _ in range(3)]
    vm.platform.time += vm.machine.tick
    more = hardclock(cpu)

    assert len(ran) == at_once
    assert more is (at_once < 3)
    assert done == ran
    while more:
        more = hardclock(cpu)
    assert done == ran == [0, 1, 2]


def test_an_interrupt_with_nothing_left_is_over_however_long_it_took(vm: VirtualSMP) -> None:
    """It is not called again where the run that took too long was the last."""
    vm.machine.budget = 10
    arm_direct(lambda _: spend(vm, 1000))
    vm.platform.time += vm.machine.tick

    assert hardclock(vm.machine.cpus[0]) is False


@pytest.mark.parametrize(("each", "turns"), [(5, 0), (6, 1), (11, 2)])
def test_softclock_gives_others_a_turn_when_it_has_used_more_than_its_budget(
    vm: VirtualSMP, monkeypatch: pytest.MonkeyPatch, each: int, turns: int
) -> None:
    """It yields when its budget is used up, not before, and begins to reckon anew; no run is in progress meanwhile."""
    vm.machine.budget = 10
    checkpoint = vm.platform.checkpoint
    given: list[Run | None] = []

    async def count() -> None:
        given.append(vm.machine.cpus[0].softclock.run)
        await checkpoint()

    monkeypatch.setattr(vm.platform, "checkpoint", count)
    for _ in range(2):
        c = Callout()
        callout_init(c, 1)
        callout_reset(c, 1, lambda _: spend(vm, each), None)
    vm.tick()
    vm.check()

    assert given == [None] * turns


def test_each_of_several_runs_has_the_lock_of_its_own_callout(vm: VirtualSMP) -> None:
    """However they follow each other: with a mutex, without, with another one, and with a lock of another kind."""
    rw = RwLock()
    locks: list[Mtx | RwLock | None] = [Mtx("a"), Mtx("b"), None, Mtx("c"), rw, None, None, Mtx("d")]
    held: list[list[int]] = []

    def look(_: None) -> None:
        held.append([number for number, lock in enumerate(locks) if lock is not None and lock.owned()])

    for lock in locks:
        c = Callout()
        if lock is None:
            callout_init(c, 1)
        elif isinstance(lock, Mtx):
            callout_init_mtx(c, lock)
        else:
            callout_init_rw(c, lock)
        callout_reset(c, 1, look, None)
    vm.tick()
    vm.check()

    assert held == [[0], [1], [], [3], [4], [], [], [7]]


@pytest.mark.parametrize(("each", "turns"), [(5, 0), (6, 1), (11, 2)])
def test_what_does_not_start_counts_as_well(
    vm: VirtualSMP, monkeypatch: pytest.MonkeyPatch, each: int, turns: int
) -> None:
    """A run whose lock is gone takes the time of its report, and softclock yields when that used up its budget."""
    vm.machine.budget = 10
    checkpoint = vm.platform.checkpoint
    given: list[Run | None] = []
    reported: list[str] = []

    async def count() -> None:
        given.append(vm.machine.cpus[0].softclock.run)
        await checkpoint()

    def report(error: BaseException, c: Callout | None) -> None:
        reported.append(type(error).__name__)
        spend(vm, each)

    monkeypatch.setattr(vm.platform, "checkpoint", count)
    monkeypatch.setattr(vm.machine, "report", report)
    for _ in range(2):
        c, m = Callout(), Mtx()
        callout_init_mtx(c, m)
        callout_reset(c, 1, ignore, None)
        m.destroy()
    vm.tick()
    vm.check()

    assert reported == ["LockDestroyedError"] * 2
    assert given == [None] * turns


def test_an_interrupt_that_has_nothing_for_softclock_lets_it_sleep(vm: VirtualSMP) -> None:
    """Softclock is woken when there is something in its queue, and not by a direct callout."""
    cpu = vm.machine.cpus[0]
    idle = cpu.idle
    arm_direct(ignore)
    vm.tick()

    assert cpu.idle is idle

    c = Callout()
    callout_init(c, 1)
    callout_reset(c, 1, ignore, None)
    vm.tick()

    assert cpu.idle is not idle


def test_the_interrupt_of_a_closed_cpu_does_nothing(vm: VirtualSMP) -> None:
    """A timer that fires after the close is taken in silence."""
    enter(vm.machine, Phase.CANCELLING)
    vm.run(lambda: quiesce(vm.machine))
    vm.run(lambda: close(vm.machine))

    assert hardclock(vm.machine.cpus[0]) is False


# -- the two lanes -----------------------------------------------------------------------------------------------------


def test_a_callout_has_one_run_at_a_time_whatever_lane_it_is_for(vm: VirtualSMP) -> None:
    """A direct arming that falls due while softclock is still at the callout's lock waits for softclock."""
    spin, c, ran = Mtx("s", MTX_SPIN), Callout(), list[str]()
    callout_init_mtx(c, spin)
    with spin:
        callout_reset(c, 1, ran.append, "first")
        vm.tick()  # softclock waits for the mutex
        assert callout_reset_sbt(c, SBT_1MS, 0, ran.append, "second", C_DIRECT_EXEC) == 1
        vm.tick()
        for cpu in vm.machine.cpus:
            check_cpu(cpu)
        assert vm.machine.cpus[0].interrupt.run is None
    vm.settle()
    vm.check()

    assert ran == ["second"]


def test_a_direct_callout_that_cannot_have_its_lock_keeps_no_other(vm: VirtualSMP) -> None:
    """The interrupt goes on with the next callout when one with CALLOUT_TRYLOCK is refused its mutex."""
    spin, ran = Mtx("s", MTX_SPIN), list[str]()
    arm_direct(lambda _: ran.append("refused"), spin, CALLOUT_TRYLOCK)
    arm_direct(lambda _: ran.append("next"))
    vm.platform.time += vm.machine.tick
    with spin:
        vm.spawn(hardclock, vm.machine.cpus[0], cpu=0)
        vm.settle()

        assert ran == ["next"]


def test_softclock_waits_until_the_interrupt_has_run_the_rest(vm: VirtualSMP) -> None:
    """Direct callouts go first: while the interrupt has some left over, softclock has nothing to run."""
    vm.machine.budget = -1  # every run is one too many
    cpu = vm.machine.cpus[0]
    c, ran = Callout(), list[str]()
    callout_init(c, 1)
    callout_reset(c, 1, ran.append, "plain")
    for _ in range(2):
        arm_direct(lambda _: ran.append("direct"))
    vm.platform.time += vm.machine.tick

    def task() -> None:
        assert hardclock(cpu) is True
        assert turn(cpu.softclock) is None
        assert hardclock(cpu) is False
        assert ran == ["direct", "direct"]
        run = turn(cpu.softclock)
        assert run is not None
        assert run.callout is c

    vm.spawn(task, cpu=0)
    vm.settle()

    assert vm.platform.errors == []
    assert cpu.softclock.run is not None


def test_a_direct_callback_has_its_mutex(vm: VirtualSMP) -> None:
    """The interrupt acquires the spin mutex of a direct callout before the call, and releases it after that."""
    spin, held = Mtx("s", MTX_SPIN), list[bool]()
    arm_direct(lambda _: held.append(spin.owned()), spin)
    vm.tick()
    vm.check()

    assert held == [True]
    assert spin._owner is None


def test_a_deferred_direct_arming_is_direct_and_as_precise_as_asked(vm: VirtualSMP) -> None:
    """What is carried out at the end of a run has all that the call asked for."""
    c, spin = Callout(), Mtx("s", MTX_SPIN)
    callout_init_mtx(c, spin)

    def callback(_: None) -> None:
        callout_reset_sbt_on(c, SBT_1S, SBT_1MS, ignore, None, 1, C_DIRECT_EXEC)

    with spin:
        callout_reset(c, 1, callback, None)
    vm.tick()

    assert c.c_cpu.id == 1
    assert c.state & DIRECT
    assert c.precision >= 999_999
    vm.check()


def test_a_migration_is_not_carried_out_behind_the_stop_of_all_that_is_pending(vm: VirtualSMP) -> None:
    """A run that ends while the system quiesces arms nothing on a CPU where everything was stopped already."""
    c = Callout()
    callout_init(c, 1)

    def callback(_: None) -> None:
        callout_reset_on(c, 5, ignore, None, 1)
        enter(vm.machine, Phase.CANCELLING)
        enter(vm.machine, Phase.QUIESCING)
        stop_all(vm.machine.cpus[1])

    callout_reset(c, 1, callback, None)
    vm.tick()
    vm.check()

    assert not callout_pending(c)
    assert not callout_active(c)
    assert len(vm.machine.cpus[1].wheel) == 0


# -- what is said afterwards -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("took", [9, 10, 11])
def test_a_callback_that_took_longer_than_is_slow_is_said_to_be_expensive(
    vm: VirtualSMP, took: int, *, direct: bool
) -> None:
    """It is named, with how long it took; one that took just as long is not."""
    vm.machine.slow = 10
    said: list[tuple[Func, int]] = []
    vm.machine.expensive = lambda func, took: said.append((func, took))

    def slow(_: None) -> None:
        spend(vm, took)

    c = Callout()
    if direct:
        c = arm_direct(slow)
    else:
        callout_init(c, 1)
        callout_reset(c, 1, slow, None)
    vm.tick()

    assert said == ([(slow, 11)] if took == 11 else [])
    assert not callout_pending(c)


def test_a_callback_that_has_changed_its_read_lock_into_another_is_told_the_first_fault(vm: VirtualSMP) -> None:
    """It returned without the lock that it was given, and that is what is said; what it holds instead is released."""
    rw, c = RwLock("rw"), Callout()
    callout_init_rw(c, rw, CALLOUT_SHAREDLOCK)

    def callback(_: None) -> None:
        rw.runlock()
        rw.wlock()

    callout_reset(c, 1, callback, None)
    vm.tick()
    (error,) = vm.errors

    assert "returned without <RwLock 'rw'" in str(error)
    assert not rw.holds()
    assert rw._writer is None


@pytest.mark.parametrize("flags", [0, CALLOUT_RETURNUNLOCKED])
def test_a_lock_that_a_callback_has_kept_is_named_as_held(vm: VirtualSMP, flags: int) -> None:
    """The error is worded before the lock is released, and says who holds it."""
    m, c = Mtx("m", MTX_RECURSE), Callout()
    callout_init_mtx(c, m, flags)
    callout_reset(c, 1, lambda _: m.lock(), None)
    vm.tick()
    (error,) = vm.errors

    assert "<Mtx 'm' held by " in str(error)
    assert ("CALLOUT_RETURNUNLOCKED and returned with" if flags else "has acquired <Mtx 'm'") in str(error)
    assert m._owner is None


def test_a_lock_that_was_freed_under_a_cancelled_run_is_reported(vm: VirtualSMP) -> None:
    """Softclock cannot release it, says so, and goes on."""

    class Freed:
        def release_as(self, shared: bool) -> None:
            raise UseAfterFree("it was freed")

    c = Callout()
    c.lock = cast("Any", Freed())
    skip(Run(c, vm.machine.cpus[0].softclock, CANCELLED, shared=False, unlocked=False))

    assert [type(error) for error in vm.errors] == [UseAfterFree]


def test_in_a_forked_child_nobody_else_is_served(vm: VirtualSMP, monkeypatch: pytest.MonkeyPatch) -> None:
    """A completion that forks returns in the child, too, where the tickets behind it are not the child's."""
    monkeypatch.setattr(phases, "IN_CHILD", False)
    served: list[str] = []
    waiter: Any = SimpleNamespace(set=lambda: served.append("waiter"))
    run = Run(Callout(), vm.machine.cpus[0].softclock, STARTED, shared=False, unlocked=False)
    tickets = [
        Ticket(BARRIER, None, lambda _: fork(vm.machine)),
        Ticket(BARRIER, waiter),
        Ticket(BARRIER, None, served.append, "completion"),
    ]
    serve(run, tickets)

    assert served == []
