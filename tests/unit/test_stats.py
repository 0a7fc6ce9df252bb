"""What is counted, and what is made of it."""

from __future__ import annotations

import json
import threading
import weakref

import pytest
import trio
import trio.testing

from callout import (
    CALLOUT_TRYLOCK,
    ArgumentTypeError,
    ArgumentValueError,
    Callout,
    ClosedError,
    CpuStats,
    Histogram,
    Mtx,
    callout_arm_curcpu,
    callout_dequeue,
    callout_drain_all_async,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_reset_on,
    callout_stop,
    close_all_soon,
    drain_all,
    open_callouts,
)
from callout._core.counters import stats
from callout.testing import VirtualSMP


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Give a clock that jumps at once."""
    return trio.testing.MockClock(autojump_threshold=0)


def ignore(*args: object) -> None:
    """Be a callback that does nothing."""


@pytest.mark.trio
async def test_each_call_is_counted_where_it_belongs(autojump_clock: trio.testing.MockClock) -> None:
    """Armed, armed anew, stopped, run, drained, closed and refused: each counter says what was done, and no more."""
    async with open_callouts() as system:
        first, second = system.call_later(5, ignore), system.callout(ignore)
        second.reset(7)
        second.reset(9)
        second.reset(3)
        first.stop()
        first.stop()
        await trio.sleep(4)
        await second.drain()
        second.reset(1)
        await second.aclose()
        second.reset(1)
        first.reset(1)
        found = system.stats().total

        assert (found.armed, found.rearmed, found.stopped, found.fired) == (4, 2, 2, 1)
        assert (found.drained, found.closed, found.refused) == (2, 1, 1)
        assert (found.pending, found.errors, found.migrated, found.parks) == (1, 0, 0, 0)
        assert found.wakeups >= 1


@pytest.mark.trio
async def test_every_way_of_arming_and_stopping_is_counted() -> None:
    """The C names and the methods, for a callout with a lock and without, on the short paths and the long one."""
    async with open_callouts() as system:
        lock = system.mutex()
        locked, plain = Callout(), system.callout()
        callout_init_mtx(locked, lock)
        callout_reset(locked, 100_000, ignore, None)
        callout_reset(plain, 100_000, ignore, None)
        callout_reset(plain, 200_000, ignore, None)
        callout_reset_on(plain, 300_000, ignore, None, 0)
        with lock:
            callout_stop(locked)
        callout_stop(plain)
        late = system.call_later(100, ignore, tolerance=1)
        late.reset(50)
        late.stop()
        by_tick = Callout()
        callout_init(by_tick, 1)
        callout_reset(by_tick, 100_000, ignore, None)
        callout_dequeue(by_tick)
        for tick in (100_000, 200_000, 50_000):
            callout_arm_curcpu(by_tick, tick, ignore, None)
        callout_dequeue(by_tick, close=True)
        callout_dequeue(by_tick, close=True)
        found = system.stats().total

        assert (found.armed, found.rearmed, found.stopped, found.pending) == (5, 5, 5, 0)
        assert found.closed == 1


@pytest.mark.trio
async def test_errors_and_the_longest_callback_are_named(autojump_clock: trio.testing.MockClock) -> None:
    """A callback that raises is one error; the longest is named by its function, and none of it is kept alive."""

    def raises() -> None:
        raise ValueError

    errors: list[object] = []
    async with open_callouts(on_error=lambda error, c: errors.append(error)) as system:
        system.call_later(1, raises)
        system.call_later(2, autojump_clock.jump, 3)
        await trio.sleep(10)
        found = system.stats().total

        assert (found.errors, len(errors), found.fired) == (1, 1, 2)
        assert found.longest == found.busy == 3
        assert found.longest_function == "MockClock.jump"


def test_lateness_is_that_of_the_call() -> None:
    """A loop that was blocked for eight seconds calls what was due after three of them five seconds late."""
    clock = trio.testing.MockClock()

    async def main() -> None:
        async with open_callouts() as system:
            system.call_later(3, ignore)
            clock.jump(8)
            await trio.testing.wait_all_tasks_blocked()
            late = system.stats().total.lateness

            assert (sum(late.counts), late.total, late.max) == (1, 5.0, 5.0)
            assert late.quantile(0.5) == late.quantile(1) == 5.0

    trio.run(main, clock=clock)


@pytest.mark.trio
async def test_a_difference_is_what_was_done_between(autojump_clock: trio.testing.MockClock) -> None:
    """Later - earlier has the counts of the time between, and the momentary values of the later."""
    async with open_callouts() as system:
        system.call_later(1, ignore)
        await trio.sleep(2)
        before = system.stats()
        system.call_later(100, ignore)
        await trio.sleep(5)
        between = system.stats() - before

        assert between.uptime == 5
        assert (between.total.armed, between.total.fired, between.total.pending) == (1, 0, 1)
        assert sum(between.total.lateness.counts) == 0
        assert between.cpus[0].cpu == 0
        assert between.total.cpu == -1


@pytest.mark.trio
async def test_a_dict_of_it_is_json(autojump_clock: trio.testing.MockClock) -> None:
    """to_dict() has the CPUs and their total, of numbers, strings and lists only."""
    async with open_callouts() as system:
        system.call_later(1, ignore)
        await trio.sleep(2)
        found = system.stats().to_dict()

        assert json.loads(json.dumps(found)) == found
        assert found["total"]["fired"] == 1  # type: ignore[index]  # a dict


@pytest.mark.trio
async def test_cpus_are_counted_apart() -> None:
    """With two CPUs each has its own row, and one that moves is counted as migrated where it has come to."""
    async with open_callouts(cpus=2) as system:
        c = system.call_later(100, ignore, cpu=0)
        callout_reset_on(c, 100_000, ignore, None, 1)
        zero, one = system.stats().cpus

        assert (zero.pending, zero.armed, zero.rearmed, zero.stopped) == (0, 1, 0, 0)
        assert (one.pending, one.armed, one.rearmed, one.migrated) == (1, 0, 1, 1)


@pytest.mark.trio
async def test_what_cannot_be_done_is_refused() -> None:
    """A closed system has no counters to read, and those of two systems have no difference."""
    async with open_callouts() as system, open_callouts(cpus=2) as other:
        with pytest.raises(ArgumentValueError, match="two systems"):
            other.stats() - system.stats()
        with pytest.raises(TypeError):
            system.stats() - 1  # type: ignore[operator]  # on purpose
        earlier = system.stats()
        async with open_callouts() as third:
            with pytest.raises(ArgumentValueError, match="two systems"):
                third.stats() - earlier
        with pytest.raises(ArgumentValueError, match="write `later - earlier`"):
            earlier - system.stats()
    with pytest.raises(ClosedError, match="stats"):
        system.stats()


def test_parking_is_counted_in_times_and_seconds() -> None:
    """Softclock that finds the lock held waits once, for as long as it is held; a run stopped there is counted."""
    clock = trio.testing.MockClock()

    async def main() -> None:
        async with open_callouts() as system:
            lock = system.mutex()
            held, release, ended = trio.Event(), threading.Event(), trio.Event()

            def hold(token: trio.lowlevel.TrioToken, c: Callout) -> None:
                with lock:
                    token.run_sync_soon(held.set)
                    release.wait()
                    c.stop()
                token.run_sync_soon(ended.set)

            c = system.callout(ignore, lock=lock)
            thread = threading.Thread(target=hold, args=(trio.lowlevel.current_trio_token(), c))
            thread.start()
            await held.wait()
            c.reset(0)
            await trio.testing.wait_all_tasks_blocked()
            clock.jump(3)
            release.set()
            await ended.wait()
            thread.join()
            await c.drain()
            found = system.stats().total

            assert (found.parks, found.parked, found.stopped, found.fired) == (1, 3.0, 1, 0)

    trio.run(main, clock=clock)


@pytest.mark.parametrize("q", [None, "0.5", True])
def test_a_quantile_wants_a_number(q: object) -> None:
    """What is no number is refused as such."""
    with pytest.raises(ArgumentTypeError, match="from 0 to 1"):
        Histogram((1.0,), (0, 0), 0.0, 0.0).quantile(q)  # type: ignore[arg-type]  # on purpose


def test_quantiles_are_bounds_of_ranges() -> None:
    """The bound under which so many are; the longest of all where that is less; and nothing of nothing."""
    found = Histogram((1.0, 2.0, 4.0), (2, 1, 0, 1), 20.0, 15.0)

    assert [found.quantile(q) for q in (0, 0.5, 0.75, 0.76, 1)] == [1.0, 1.0, 2.0, 15.0, 15.0]
    assert Histogram((1.0,), (0, 0), 0.0, 0.0).quantile(0.5) == 0.0
    with pytest.raises(ArgumentValueError, match="from 0 to 1"):
        found.quantile(1.5)


# -- the callouts ------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_callouts_are_told_by_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """What is scheduled, the earliest first, whatever the order of arming; a limit cuts the rest off."""
    async with open_callouts() as system:
        for seconds in (5, 3600, 0.001, 100, 0.5, 70):
            system.call_later(seconds, ignore, name=f"after {seconds}")
        pushed = system.call_later(0.25, ignore, name="pushed out")
        pushed.reset(200)
        names = [info.name for info in system.callouts()]

        assert names == [
            *(f"after {seconds}" for seconds in (0.001, 0.5, 5, 70, 100)),
            "pushed out",
            "after 3600",
        ]
        for limit in range(8):
            assert [info.name for info in system.callouts(limit)] == names[:limit]


@pytest.mark.trio
async def test_what_is_told_of_a_callout(autojump_clock: trio.testing.MockClock) -> None:
    """Its name, function, lock, times and state, where it was armed in checking mode, and none of its arguments."""
    async with open_callouts(checking=True) as system:
        lock = system.mutex("conn")
        start = system.current_time()
        c = system.every(10, ignore, "a secret", lock=lock, name="idle")
        with lock:
            (info,) = system.callouts()

        assert (info.name, info.function, info.cpu, info.lock, info.period) == ("idle", "ignore", 0, "conn", 10)
        assert info.lock_owner is not None
        assert "MainThread" in info.lock_owner
        assert (info.deadline, info.due_in, sorted(info.state)) == (start + 10, 10, ["pending"])
        assert info.armed_at is not None
        assert "test_what_is_told_of_a_callout" in info.armed_at
        assert "secret" not in repr(info)
        assert system.callouts()[0].serial == info.serial
        assert system.callouts()[0].lock_owner is None
        with lock:
            c.stop()
        assert system.callouts() == []
        assert json.loads(json.dumps(info.to_dict()))["state"] == ["pending"]


@pytest.mark.trio
async def test_what_runs_is_told_with_when_it_was_due(autojump_clock: trio.testing.MockClock) -> None:
    """In its own callback it runs, and was due now; armed anew there, it is pending, too, with the next deadline."""
    seen: list[tuple[frozenset[str], float]] = []
    async with open_callouts() as system:

        def run() -> None:
            seen.extend((info.state, info.due_in) for info in system.callouts())
            c.reset(5)
            seen.extend((info.state, info.due_in) for info in system.callouts())

        c = system.call_later(1, run)
        await trio.sleep(2)

        assert seen == [(frozenset({"running"}), 0), (frozenset({"running", "pending"}), 5)]


@pytest.mark.trio
async def test_a_list_keeps_no_callout_alive() -> None:
    """When the callout was stopped and dropped it is gone, though the list is kept."""
    async with open_callouts() as system:
        c = system.call_later(100, ignore)
        infos = system.callouts()
        gone = weakref.ref(c)
        c.stop()
        del c

        assert gone() is None
        assert len(infos) == 1


@pytest.mark.trio
async def test_a_limit_is_a_count() -> None:
    """What is no int from 0 is refused, in the name of the call."""
    async with open_callouts() as system:
        with pytest.raises(ArgumentTypeError, match="callouts: limit"):
            system.callouts("50")  # type: ignore[arg-type]  # on purpose
        with pytest.raises(ArgumentValueError, match="callouts: limit"):
            system.callouts(-1)
    with pytest.raises(ClosedError):
        system.callouts()


# -- what is rare, on virtual CPUs -------------------------------------------------------------------------------------


def test_a_refused_trylock_is_no_arming() -> None:
    """What softclock files again, because the lock was held, was armed once, and is still pending."""
    with VirtualSMP(1, free_clock=False) as vm:
        lock, c = Mtx("m"), Callout()
        callout_init_mtx(c, lock, CALLOUT_TRYLOCK)
        callout_reset(c, 1, ignore, None)
        with lock:
            vm.tick()
            vm.tick()
        found = stats(vm.machine).total

        assert (found.armed, found.rearmed, found.pending, found.fired, found.parks) == (1, 0, 1, 0, 0)


def test_a_deferred_migration_is_one_arming() -> None:
    """Armed onto another CPU in its own callback, it is armed there once the callback has ended, and counted once."""
    with VirtualSMP(2, free_clock=False) as vm:
        c = Callout()
        callout_init(c, 1)
        seen: list[CpuStats] = []

        def run(arg: object) -> None:
            callout_reset_on(c, 5, ignore, None, 1)
            callout_reset_on(c, 7, ignore, None, 1)
            seen.append(stats(vm.machine).cpus[0])

        callout_reset(c, 1, run, None)
        vm.tick()
        vm.settle()
        zero, one = stats(vm.machine).cpus

        assert (seen[0].armed, seen[0].rearmed, seen[0].pending) == (2, 1, 1)
        assert (zero.armed, zero.rearmed, zero.pending, zero.migrated) == (2, 1, 0, 0)
        assert (one.armed, one.rearmed, one.pending, one.migrated) == (0, 0, 1, 1)
        assert stats(vm.machine).total.stopped == 0


def test_a_migration_that_is_taken_back_is_none() -> None:
    """Armed onto another CPU in its own callback, and back onto this one, it is armed here when the callback ends."""
    with VirtualSMP(2, free_clock=False) as vm:
        c = Callout()
        callout_init(c, 1)

        def run(arg: object) -> None:
            callout_reset_on(c, 5, ignore, None, 1)
            callout_reset_on(c, 7, ignore, None, 0)

        callout_reset(c, 1, run, None)
        vm.tick()
        vm.settle()

        assert [(cpu.pending, cpu.migrated) for cpu in stats(vm.machine).cpus] == [(1, 0), (0, 0)]


def test_sets_are_counted_one_by_one() -> None:
    """Closing three callouts drains and closes each of them; that two were scheduled is counted as two stops."""
    with VirtualSMP(1, free_clock=False) as vm:
        callouts = [Callout() for _ in range(3)]
        for c in callouts:
            callout_init(c, 1)
        for c in callouts[:2]:
            callout_reset(c, 10, ignore, None)
        assert close_all_soon(callouts, ignore)
        assert not close_all_soon(callouts, ignore)
        vm.settle()
        found = stats(vm.machine).total

        assert (found.drained, found.closed, found.stopped, found.pending) == (3, 3, 2, 0)


def test_drains_are_counted_once() -> None:
    """Whatever a call does to drain: wait, or have a function called, of one callout or of several."""
    with VirtualSMP(1, free_clock=False) as vm:
        first, second = Callout(), Callout()
        for c in (first, second):
            callout_init(c, 1)
        callout_drain_sync(first)
        callout_drain_async(first, ignore, None)
        vm.run(lambda: drain_all([first, second]))
        callout_drain_all_async([first, second], ignore, None)
        found = stats(vm.machine).total

        assert (found.drained, found.closed, found.stopped) == (6, 0, 0)


def test_what_is_refused_while_it_is_drained_is_counted() -> None:
    """An arming in its own callback, after a drain there, does nothing, and is counted as such."""
    with VirtualSMP(1, free_clock=False) as vm:
        c = Callout()
        callout_init(c, 1)

        def run(arg: object) -> None:
            callout_drain_async(c, ignore, None)
            callout_reset(c, 1, ignore, None)

        callout_reset(c, 1, run, None)
        vm.tick()
        vm.settle()
        found = stats(vm.machine).total

        assert (found.refused, found.drained, found.armed, found.fired) == (1, 1, 1, 1)
