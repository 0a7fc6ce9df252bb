"""The methods of a callout while others do the same, while it falls due, and while its system is closed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from callout import Callout, ClosedError, ResetResult, StopResult, close_all_soon, drain_all
from callout._core import runs, sets
from callout._core.levels import COARSE
from callout._core.lifecycle import close, enter, quiesce
from callout._core.periodic import Grid
from callout._core.phases import Phase
from callout._core.sets import drain_all_async
from callout._core.short import arm_at, stop_now
from callout._core.state import FIELDS, PENDING, QUEUED
from callout.explore import Violation, explore
from callout.testing import VirtualSMP
from tests.race.history import undisturbed
from tests.race.mutants import Mutant

TICK: Final = 0.001  # seconds
_state_of: Final = FIELDS["state"].__get__  # no switch point


def ignore(*args: object) -> None:
    """Do nothing."""


@pytest.mark.parametrize("locked", [False, True])
def test_a_true_stop_is_a_run_that_does_not_come(*, locked: bool) -> None:
    """A thread stops what another arms anew, where it falls due: each arming ran, was replaced or removed."""

    def scenario(vm: VirtualSMP) -> None:
        lock = vm.mutex("m") if locked else None
        ran: list[int] = []
        armed: list[ResetResult] = []
        stopped: list[StopResult] = []

        def run(number: int) -> None:
            assert lock is None or lock.owned()
            ran.append(number)

        def stop() -> None:
            if lock is None:
                stopped.append(c.stop())
                return
            with lock:
                stopped.append(c.stop())

        with undisturbed(vm):
            c = vm.call_later(TICK, run, 1, lock=lock)
            vm.spawn(lambda: armed.append(c.reset(TICK, run, 2)))
            vm.spawn(stop)
        vm.settle()

        gone = sum(map(bool, stopped)) + armed.count(ResetResult.REARMED)
        assert len(ran) + gone == 2
        assert ran == sorted(ran)
        assert not c.pending

    certificate = explore(scenario, cpus=1, bound=1 if locked else 2)

    assert certificate.exhausted


@pytest.mark.parametrize("others", ["late", "soon"])
@pytest.mark.parametrize("state", ["idle", "pending"])
def test_the_event_timer_is_set_for_the_first_of_two(state: str, others: str) -> None:
    """Two threads arm two callouts at once; a slot of the wheel is in use, so that the short path finds it."""

    def scenario(vm: VirtualSMP) -> None:
        begins = (vm.platform.time >> COARSE) + 3 << COARSE
        when = {"soon": (begins + 10_000_000) / 1e9, "late": (begins + 400_000_000) / 1e9}

        def arm_one(c: Callout, name: str) -> None:
            c.reset_at(when[name])
            waits = _state_of(c) & (PENDING | QUEUED) == PENDING
            assert not waits or vm.platform.serving[0] or vm.platform.events[0] <= c.time

        with undisturbed(vm):
            vm.call_at(when["late"], ignore)
            a, b = vm.callout(ignore), vm.callout(ignore)
            if state == "pending":
                a.reset(5)
                b.reset(5)
            vm.spawn(lambda: arm_one(b, others))
        arm_one(a, "soon")
        vm.settle()

    certificate = explore(scenario, cpus=1, bound=2 if state == "idle" else 1)

    assert certificate.exhausted


def test_a_reset_during_a_drain_is_refused() -> None:
    """What a callback arms while a drain waits for it is refused; when the drain has returned nothing runs."""

    def scenario(vm: VirtualSMP) -> None:
        ran: list[ResetResult] = []
        over: list[bool] = []

        def run() -> None:
            assert not over, "a run after the drain"
            run = c.run
            assert run is not None
            drained = run.refusing
            ran.append(c.reset(TICK) if len(ran) < 2 else ResetResult.REFUSED)
            assert not drained or ran[-1] is ResetResult.REFUSED

        def drain() -> None:
            c.drain_sync()
            over.append(True)

        with undisturbed(vm):
            c = vm.call_later(TICK, run)
            vm.spawn(drain)
        vm.settle()

        assert over
        assert not c.pending

    certificate = explore(scenario, cpus=1, bound=2)

    assert certificate.exhausted


@pytest.mark.parametrize("cpus", [1, 2])
def test_while_the_system_is_closed(cpus: int) -> None:
    """What reset() has armed runs before the end or never; it is refused, or the close says that it is too late."""

    def scenario(vm: VirtualSMP) -> None:
        ended: list[bool] = []
        told: list[bool] = []

        def run() -> None:
            assert not ended, "a callback after the close"

        async def leave() -> None:
            enter(vm.machine, Phase.CANCELLING)
            await quiesce(vm.machine)
            await close(vm.machine)
            ended.append(True)

        def act() -> None:
            try:
                told.append(bool(c.reset(TICK)))
            except ClosedError:
                assert vm.machine.phase is Phase.CLOSED

        with undisturbed(vm):
            c = vm.callout(run, cpu=cpus - 1)
            vm.spawn(leave, cpu=0, name="leave")
            vm.spawn(act, name="thread")
        vm.settle()

        assert ended
        assert c.prev is c.next is None
        assert c.run is None
        assert not c.pending

    certificate = explore(scenario, cpus=cpus, bound=1)

    assert certificate.exhausted


# -- periodic ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "drain", "close_soon", "reset"])
def test_what_ends_a_repetition_ends_it(how: str) -> None:
    """At whatever moment of a run: afterwards nothing is scheduled, or only what a reset has asked for."""

    def scenario(vm: VirtualSMP) -> None:
        ran: list[float] = []
        over: list[bool] = []

        def tick() -> None:
            assert not over, "a run after its end"
            ran.append(vm.current_time())
            if len(ran) >= 3:
                p.stop()

        async def end() -> None:
            if how == "stop":
                p.stop()
            elif how == "drain":
                await p.drain()
                over.append(True)
            elif how == "close_soon":
                assert p.close_soon(over.append, True)
            else:
                p.stop()
                p.reset(10 * TICK)

        with undisturbed(vm):
            p = vm.every(TICK, tick)
            vm.spawn(end, cpu=0)
        vm.settle()

        assert not p.pending
        assert p.missed == 0
        if how == "reset":
            assert len(ran) >= 3, "a moved grid goes on"
        elif how != "stop":
            assert over

    certificate = explore(scenario, cpus=1, bound=1 if how == "reset" else 2)

    assert certificate.exhausted


def test_a_thread_stops_a_repetition() -> None:
    """A stop that finds a run in progress, and nothing scheduled yet, ends it all the same."""

    def scenario(vm: VirtualSMP) -> None:
        ran: list[int] = []

        def tick() -> None:
            ran.append(1)
            if len(ran) >= 3:
                p.stop()

        def stop() -> None:
            p.stop()
            stopped.append(len(ran))

        stopped: list[int] = []
        with undisturbed(vm):
            p = vm.every(TICK, tick)
            vm.spawn(stop)
        vm.settle()

        assert stopped
        assert not p.pending
        assert len(ran) <= stopped[0] + 1

    certificate = explore(scenario, cpus=1, bound=2)

    assert certificate.exhausted


def test_a_moved_grid_is_not_moved_back() -> None:
    """A thread moves the grid: but for the run in progress, none begins before the time that it has asked for."""

    def scenario(vm: VirtualSMP) -> None:
        ran: list[float] = []
        asked: list[tuple[float, int]] = []

        def tick() -> None:
            ran.append(vm.current_time())
            if len(ran) >= 3:
                p.stop()

        def move() -> None:
            when = vm.current_time() + 10 * TICK
            if p.reset_at(when):
                asked.append((when, len(ran)))

        with undisturbed(vm):
            p = vm.every(TICK, tick)
            vm.spawn(move)
        vm.settle()

        for when, runs_then in asked:
            assert sum(at < when for at in ran[runs_then:]) <= 1

    certificate = explore(scenario, cpus=1, bound=1)

    assert certificate.exhausted


# -- sets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("locked", [False, True])
def test_one_completion_comes_from_two_teardowns(*, locked: bool) -> None:
    """Two threads and a callback close the same three callouts at once: one is told True, and one completion comes,
    when none of the three runs.
    """

    def scenario(vm: VirtualSMP) -> None:
        lock = vm.mutex("m", recursive=True) if locked else None
        told: list[bool] = []
        running: list[str] = []
        freed: list[str] = []

        def close_all(name: str) -> None:
            if lock is None:
                told.append(drain_all_async("close_all_soon", tuple(three), free, name, close=True))
                return
            with lock:
                told.append(drain_all_async("close_all_soon", tuple(three), free, name, close=True))

        def called(name: str) -> None:
            assert not freed, "a run after the completion"
            running.append(name)
            if name == "a":
                close_all(name)
            running.remove(name)

        def free(_: object) -> None:
            assert not running
            freed.append("freed")

        with undisturbed(vm):
            three = [vm.callout(called, name, lock=lock, cpu=n) for n, name in enumerate("ab")]
            three.append(vm.callout(called, "c", lock=lock))
            three[0].reset(TICK)
            three[1].reset(TICK)
            vm.spawn(lambda: close_all("thread"))
        vm.settle()

        assert sum(told) == 1
        assert freed == ["freed"]
        assert all(c.closed and c.func is None for c in three)

    certificate = explore(scenario, cpus=2, bound=1)

    assert certificate.exhausted


def test_a_set_is_drained_while_it_is_armed() -> None:
    """When drain_all() has returned none of them runs, and what was armed before that was removed or has run."""

    def scenario(vm: VirtualSMP) -> None:
        ran: list[int] = []
        armed: list[ResetResult] = []
        removed: list[int] = []

        def arm() -> None:
            armed.append(two[0].reset(TICK))
            armed.append(two[1].reset(TICK))

        async def drain() -> None:
            removed.append(await drain_all(two))

        with undisturbed(vm):
            two = [vm.callout(ran.append, n, cpu=n) for n in range(2)]
            two[0].reset(TICK)
            vm.spawn(arm)
            vm.spawn(drain, cpu=0)
        vm.settle()

        scheduled = 1 + armed.count(ResetResult.ARMED)
        assert len(ran) + removed[0] == scheduled

    certificate = explore(scenario, cpus=2, bound=1)

    assert certificate.exhausted


def test_a_completion_waits_for_what_was_closed_before() -> None:
    """One of two callouts is closed by itself, and still runs, when both are closed together."""

    def scenario(vm: VirtualSMP) -> None:
        running: list[int] = []
        log: list[str] = []
        told: list[str] = []

        def called() -> None:
            running.append(1)
            vm.platform.point()
            running.pop()

        def both() -> None:
            if close_all_soon([a, b], done, "both"):
                told.append("both")

        def one() -> None:
            if a.close_soon(done, "one"):
                told.append("one")

        def done(what: str) -> None:
            assert not running
            log.append(what)

        with undisturbed(vm):
            a, b = vm.call_later(TICK, called, cpu=1), vm.callout(ignore)
            vm.spawn(one)
            vm.spawn(both)
        vm.settle()

        assert "both" in told
        assert sorted(log) == sorted(told)

    certificate = explore(scenario, cpus=2, bound=2)

    assert certificate.exhausted


FOUND_BY: Final[list[tuple[Mutant, Callable[[], None]]]] = [
    (
        Mutant("reset() does not set the event timer", arm_at, "at is None or when < cpu.deadline", "at is None"),
        partial(test_the_event_timer_is_set_for_the_first_of_two, "idle", "late"),
    ),
    (
        Mutant(
            "reset() arms although all was stopped",
            arm_at,
            "record.run is None and record.c_cpu is cpu.plain and when <= FAR",
            "record.run is None and record.c_cpu is cpu and when <= FAR",
        ),
        partial(test_while_the_system_is_closed, 1),
    ),
    (
        Mutant(
            "reset() arms what runs",
            arm_at,
            "record.run is None and record.c_cpu is cpu.plain and when <= FAR",
            "record.c_cpu is cpu.plain and when <= FAR",
        ),
        test_a_reset_during_a_drain_is_refused,
    ),
    (
        Mutant("stop() removes what is queued by halves", stop_now, "record.state = state & TRACED", "pass"),
        partial(test_a_true_stop_is_a_run_that_does_not_come, locked=False),
    ),
    (
        Mutant("a stop does not end a repetition", Grid.advance, "IF_IDLE | IF_ACTIVE", "IF_IDLE"),
        test_a_thread_stops_a_repetition,
    ),
    (
        Mutant("a period replaces what a reset has asked for", Grid.advance, "IF_IDLE | IF_ACTIVE", "IF_ACTIVE"),
        test_a_moved_grid_is_not_moved_back,
    ),
    (
        Mutant("the completion of a set comes with each run", runs.is_last, "ticket.rest is None", "True"),
        partial(test_one_completion_comes_from_two_teardowns, locked=False),
    ),
    (
        Mutant(
            "the second teardown is promised a completion, too",
            drain_all_async,
            "not (close and c.state & CLOSED)",
            "True",
        ),
        partial(test_one_completion_comes_from_two_teardowns, locked=False),
    ),
    (
        Mutant("what is closed is not refused", sets._stop_all, "c.state |= CLOSED", "pass"),
        partial(test_one_completion_comes_from_two_teardowns, locked=False),
    ),
]


@pytest.mark.parametrize("paths", ["short"], indirect=True)  # the long way is that of others
@pytest.mark.parametrize(("mutant", "test"), FOUND_BY, ids=[str(row[0]) for row in FOUND_BY])
def test_a_planted_bug_is_found(mutant: Mutant, test: Callable[[], None], paths: str) -> None:
    """Each test can fail."""
    assert paths == "short"
    with mutant.planted(), pytest.raises(Violation):
        test()
