"""open_callouts() on the loop of the test: tasks, errors, and the end of the block."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest
import trio
import trio.testing

from callout import (
    C_ABSOLUTE,
    C_DIRECT_EXEC,
    MTX_SPIN,
    SBT_1MS,
    Callout,
    CalloutSystem,
    ClosedError,
    Mtx,
    callout_active,
    callout_barrier,
    callout_deactivate,
    callout_drain,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_reset_sbt_on,
    callout_schedule,
    callout_stop,
    callout_terminate,
    curcpu,
    giant,
    open_callouts,
    sbinuptime,
)
from callout._core.machine import CURRENT

from .loops import Halt, Holder, Tell, holdings, play, when_the_end_waits

HOUR = 3_600_000  # ticks
each_count = pytest.mark.parametrize("cpus", [1, 2])


def fresh() -> Callout:
    """Return an mpsafe callout of the current system."""
    c = Callout()
    callout_init(c, 1)
    return c


def fail(arg: str) -> None:
    """Be a callback that fails."""
    raise ValueError(arg)


def ignore(arg: object) -> None:
    """Be a callback that does nothing."""


def flat(group: BaseExceptionGroup[BaseException]) -> list[str]:
    """Return what is in a group, as text."""
    out: list[str] = []
    for error in group.exceptions:
        out += flat(error) if isinstance(error, BaseExceptionGroup) else [repr(error)]
    return sorted(out)


# -- it runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.trio
@each_count
async def test_callouts_run_on_the_loop_of_their_cpu(cpus: int) -> None:
    """A callback runs in the thread of the CPU that it is assigned to; CPU 0 is the loop that opened the system."""
    async with open_callouts(cpus) as system:
        threads = []
        for cpu in range(cpus):
            tell = Tell()
            callout_reset_on(fresh(), 1, tell, cpu, cpu)
            await tell.ran.wait()
            threads.append(tell.thread)

    assert system.cpus == cpus
    assert threads[0] == threading.get_ident()
    assert len(set(threads)) == cpus


@pytest.mark.trio
@each_count
async def test_a_callout_is_never_early(cpus: int) -> None:
    """When a callback runs, at least the time that was asked for has passed since the call."""
    async with open_callouts(cpus):
        for ticks in (1, 3, 7):
            tell = Tell()
            late: list[int] = []

            def look(arg: int, tell: Tell = tell, late: list[int] = late) -> None:
                late.append(sbinuptime() - arg)
                tell(arg)

            asked = sbinuptime() + (ticks << 32) // 1000
            callout_reset_on(fresh(), ticks, look, asked, cpus - 1)
            await tell.ran.wait()

            assert late[0] >= 0


@pytest.mark.trio
@each_count
async def test_callbacks_find_their_system(cpus: int) -> None:
    """Inside a callback, a cross-CPU call or a task of a CPU the system is the current one, on that CPU."""
    async with open_callouts(cpus) as system:
        last = system.cpu(cpus - 1)
        found: list[int] = []

        def look(then: Callable[[object], object]) -> None:
            fresh()
            found.append(curcpu())
            then(None)

        async def task(then: Callable[[object], object]) -> None:
            look(then)

        for start in (
            lambda tell: callout_reset_on(fresh(), 1, look, tell, last.id),
            lambda tell: last.call(look, tell),
            lambda tell: last.start_soon(task, tell),
        ):
            tell = Tell()
            start(tell)
            await tell.ran.wait()

    assert found == [cpus - 1] * 3


@pytest.mark.trio
async def test_many_systems_live_in_one_process() -> None:
    """A callout belongs to the system that was current when it was initialised; another one's end does not touch it."""
    tell = Tell()
    async with open_callouts() as outer:
        c = fresh()
        async with open_callouts() as inner:
            d = fresh()
            assert inner is not outer
            callout_reset(d, HOUR, ignore, None)
        callout_reset(c, 1, tell, "c")
        await tell.ran.wait()

        assert not callout_pending(d)
        with pytest.raises(ClosedError):
            callout_reset(d, 1, ignore, None)

    assert tell.args == ["c"]


@pytest.mark.trio
@pytest.mark.parametrize("budget", [-1, HOUR * 1_000_000])
async def test_a_burst_of_callouts_lets_tasks_have_their_turn(budget: int) -> None:
    """When softclock has kept the loop for its time budget, tasks run before the next callback; else after them all."""
    async with open_callouts() as system:
        system._machine.budget = budget
        order: list[str] = []
        events = [trio.Event() for _ in range(3)]

        async def task(number: int) -> None:
            await events[number].wait()
            order.append(f"task {number}")

        def run(number: int) -> None:
            order.append(f"callback {number}")
            events[number].set()

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(task, number)
            await trio.testing.wait_all_tasks_blocked()
            when = sbinuptime() + SBT_1MS
            for number in range(3):
                callout_reset_sbt(fresh(), when, 0, run, number, C_ABSOLUTE)

    callbacks, tasks = [f"callback {number}" for number in range(3)], [f"task {number}" for number in range(3)]
    if budget < 0:
        # The task and softclock are both ready after the first callback, and trio runs such in any order.
        assert order.index("task 0") < order.index("callback 2")
    else:
        assert order[:3] == callbacks
        assert sorted(order[3:]) == tasks


# -- drains as tasks -------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_an_awaited_drain_leaves_the_loop_to_others() -> None:
    """While a task awaits a drain the other tasks of its loop go on; it is over when the callback has returned."""
    async with open_callouts(2):
        c, halt = fresh(), Halt()
        callout_reset_on(c, 1, halt, None, 1)
        await halt.there.wait()
        results: list[int] = []

        async def drain() -> None:
            results.append(await callout_drain(c))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(drain)
            await trio.testing.wait_all_tasks_blocked()

            assert results == []

            halt.let_go()

        assert results == [-1, -1, -1]
        assert halt.returned


@pytest.mark.trio
@each_count
async def test_awaitables_return_at_once_if_nothing_runs(cpus: int) -> None:
    """Drain, barrier and terminate of what does not run need no wait, and say what they found."""
    async with open_callouts(cpus):
        c = fresh()

        assert await callout_drain(c) == -1
        assert await callout_barrier(c) == 0

        callout_reset_on(c, HOUR, ignore, None, cpus - 1)

        assert await callout_barrier(c) == 0
        assert callout_pending(c)
        assert await callout_drain(c) == 1
        assert await callout_terminate(c) == -1
        assert callout_reset(c, 1, ignore, None) == 0
        assert not callout_pending(c)


@pytest.mark.trio
async def test_a_cancelled_drain_leaves_the_callout_stopped() -> None:
    """After a cancelled drain what was armed is gone, other drainers get their result, and the callout works again."""
    async with open_callouts(2):
        c, halt, tell = fresh(), Halt(), Tell()
        callout_reset_on(c, 1, halt, None, 1)
        await halt.there.wait()
        callout_reset(c, 1, tell, "next")
        results: list[int] = []

        async def drain() -> None:
            results.append(await callout_drain(c))

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                scope.cancel()
                await callout_drain(c)
            nursery.start_soon(drain)
            await trio.testing.wait_all_tasks_blocked()

            assert scope.cancelled_caught
            assert results == []

            halt.let_go()

        assert results == [-1]
        assert not callout_pending(c)

        callout_reset(c, 1, tell, "anew")
        await tell.ran.wait()

        assert tell.args == ["anew"]


@pytest.mark.trio
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_drain_in_a_task_gives_giant_up(cancelled: bool) -> None:
    """A task that holds Giant twice and awaits a drain lets the callback under Giant run, and then holds it twice."""
    async with open_callouts(1) as system:
        c, tell = Callout(), Tell()
        callout_init(c, 0)
        standing = trio.Event()

        async def stall(c: Callout) -> None:
            standing.set()

        system._machine.stall = stall
        mtx = giant()
        held = threading.Event()

        def hold() -> None:
            with system.bound(), mtx:
                held.set()
                go.wait()

        go = threading.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, hold)
            await trio.to_thread.run_sync(held.wait)
            callout_reset(c, 1, tell, "c")
            await standing.wait()
            # Softclock stands at Giant. The thread releases it, and this task acquires it before softclock has its
            # turn.
            go.set()
            mtx.lock()
            mtx.lock()
            with trio.CancelScope() as scope:
                if cancelled:
                    scope.cancel()
                result = await callout_drain(c)

                assert result == -1
                assert tell.args == ["c"]

            assert scope.cancelled_caught == cancelled
            assert mtx.recursed()
            mtx.unlock()
            mtx.unlock()


# -- tasks -----------------------------------------------------------------------------------------------------------


@pytest.mark.trio
@each_count
async def test_tasks_may_be_started_from_anywhere(cpus: int) -> None:
    """start_soon() starts a task on the CPU that it names, from the block, a callback, a task there, or a thread."""
    async with open_callouts(cpus) as system:
        last = system.cpu(cpus - 1)
        found: list[tuple[str, int]] = []

        async def task(who: str, tell: Tell) -> None:
            await trio.lowlevel.checkpoint()
            found.append((who, curcpu()))
            tell(who)

        async def parent(who: str, tell: Tell) -> None:
            last.start_soon(task, who, tell)

        for start in (
            lambda tell: last.start_soon(task, "block", tell),
            lambda tell: callout_reset_on(fresh(), 1, lambda arg: last.start_soon(task, "callback", arg), tell, 0),
            lambda tell: callout_reset_on(
                fresh(), 1, lambda arg: last.start_soon(task, "callback there", arg), tell, last.id
            ),
            lambda tell: last.start_soon(parent, "task", tell),
        ):
            tell = Tell()
            start(tell)
            await tell.ran.wait()
        tell = Tell()
        await trio.to_thread.run_sync(last.start_soon, task, "thread", tell)
        await tell.ran.wait()

    assert found == [(who, cpus - 1) for who in ("block", "callback", "callback there", "task", "thread")]


@pytest.mark.trio
@each_count
async def test_leaving_normally_waits_for_the_tasks(cpus: int) -> None:
    """The end of the block waits until its tasks have ended, those included that the last ones start on other CPUs."""
    ended: list[int] = []
    async with open_callouts(cpus) as system:

        async def hop(left: int) -> None:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            if left:
                system.cpu(left % cpus).start_soon(hop, left - 1)
            ended.append(left)

        system.cpu(cpus - 1).start_soon(hop, 6)

    assert sorted(ended) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.trio
@each_count
async def test_callouts_run_while_the_end_waits_for_tasks(cpus: int) -> None:
    """A task for which the end of the block waits may itself wait for a callout."""
    tell = Tell()
    async with open_callouts(cpus) as system:
        c = fresh()

        async def task() -> None:
            woken = Tell()
            callout_reset_on(c, 1, woken, None, cpus - 1)
            await woken.ran.wait()
            tell("woken")

        system.cpu(cpus - 1).start_soon(task)

    assert tell.args == ["woken"]


@pytest.mark.trio
@each_count
async def test_leaving_with_an_exception_cancels_the_tasks(cpus: int) -> None:
    """The end of the block by an exception cancels the tasks of all CPUs, and the exception comes out as it is."""
    ended: list[str] = []

    async def body(system: CalloutSystem) -> None:
        there = Tell()

        async def task() -> None:
            there(None)
            try:
                await trio.sleep_forever()
            finally:
                ended.append("cancelled")

        system.cpu(cpus - 1).start_soon(task)
        await there.ran.wait()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await play(body, cpus)

    assert ended == ["cancelled"]


@pytest.mark.trio
@each_count
async def test_a_task_that_fails_ends_the_block(cpus: int) -> None:
    """What a task raises cancels the body and leaves through the block, from whichever CPU."""

    async def task() -> None:
        raise ValueError("task")

    async def body(system: CalloutSystem) -> None:
        system.cpu(cpus - 1).start_soon(task)
        await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await play(body, cpus)

    assert flat(caught.value) == ["ValueError('task')"]


# -- errors of callbacks ---------------------------------------------------------------------------------------------


@pytest.mark.trio
@each_count
async def test_a_callback_that_fails_ends_the_block(cpus: int) -> None:
    """Without on_error what a callback raises cancels the body and leaves through the block."""
    before = holdings()

    async def body(system: CalloutSystem) -> None:
        callout_reset_on(fresh(), 1, fail, "callback", cpus - 1)
        await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await play(body, cpus)

    assert flat(caught.value) == ["ValueError('callback')"]
    assert holdings() == before


@pytest.mark.trio
@each_count
async def test_on_error_gets_it_instead(cpus: int) -> None:
    """With on_error the block goes on: it is called with the exception and the callout, on the CPU that ran it."""
    got: list[tuple[str, Callout | None, int]] = []
    tell = Tell()

    def on_error(error: Exception, c: Callout | None) -> None:
        got.append((repr(error), c, curcpu()))
        tell(None)

    async with open_callouts(cpus, on_error=on_error):
        c = fresh()
        callout_reset_on(c, 1, fail, "oops", cpus - 1)
        await tell.ran.wait()
        again = Tell()
        callout_reset(c, 1, again, "goes on")
        await again.ran.wait()

    assert got == [("ValueError('oops')", c, cpus - 1)]
    assert again.args == ["goes on"]


@pytest.mark.trio
@each_count
@pytest.mark.parametrize("flags", [0, C_DIRECT_EXEC])
async def test_on_error_finds_the_callouts_lock_free(cpus: int, flags: int) -> None:
    """When on_error is called, the lock of the callout that failed has been released, and no lock of a CPU is held."""
    held: list[bool] = []

    async with open_callouts(cpus, on_error=lambda error, c: on_error()) as system:
        mtx, c, tell = Mtx("spin", MTX_SPIN), Callout(), Tell()

        def on_error() -> None:
            held.append(mtx.holds() or any(cpu.lock._is_owned() for cpu in system._machine.cpus))
            with mtx:
                tell(None)

        callout_init_mtx(c, mtx)
        callout_reset_sbt_on(c, SBT_1MS, 0, fail, "oops", cpus - 1, flags)
        await tell.ran.wait()

    assert held == [False]


@pytest.mark.trio
@each_count
async def test_an_on_error_that_fails_ends_the_block(cpus: int) -> None:
    """What on_error itself raises leaves through the block."""

    def on_error(error: Exception, c: Callout | None) -> None:
        raise RuntimeError("worse")

    async def body(system: CalloutSystem) -> None:
        callout_reset_on(fresh(), 1, fail, "oops", cpus - 1)
        await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await play(body, cpus, on_error=on_error)

    assert flat(caught.value) == ["RuntimeError('worse')"]


@pytest.mark.trio
async def test_what_on_error_is_not_for() -> None:
    """SystemExit and the like are not given to on_error: they leave through the block."""
    got: list[object] = []

    def leave(arg: int) -> None:
        raise SystemExit(arg)

    async def body(system: CalloutSystem) -> None:
        callout_reset(fresh(), 1, leave, 3)
        await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await play(body, on_error=lambda error, c: got.append(error))

    assert flat(caught.value) == ["SystemExit(3)"]
    assert got == []


@pytest.mark.trio
async def test_an_error_beside_the_bodys_own() -> None:
    """If the body fails because a callback did, both come out, in one group."""

    async def body(system: CalloutSystem) -> None:
        callout_reset(fresh(), 1, fail, "callback")
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            raise KeyError("body") from error

    with pytest.raises(ExceptionGroup) as caught:
        await play(body)

    assert "ValueError('callback')" in flat(caught.value)
    assert "KeyError('body')" in flat(caught.value)


@pytest.mark.trio
@each_count
async def test_a_call_that_fails_is_treated_as_a_callback(cpus: int) -> None:
    """What a cross-CPU call raises goes to on_error, with None for the callout."""
    got: list[tuple[str, Callout | None]] = []
    tell = Tell()

    def on_error(error: Exception, c: Callout | None) -> None:
        got.append((repr(error), c))
        tell(None)

    async with open_callouts(cpus, on_error=on_error) as system:
        system.cpu(cpus - 1).call(fail, "call")
        await tell.ran.wait()

    assert got == [("ValueError('call')", None)]


# -- the end of the block --------------------------------------------------------------------------------------------


each_way = pytest.mark.parametrize("way", ["return", "exception", "cancel"])


@pytest.mark.trio
@each_way
@pytest.mark.parametrize("cpus", [1, 3])
async def test_nothing_is_left(way: str, cpus: int) -> None:
    """After the block, however it was left, its threads have ended and its descriptors are closed."""
    before = holdings()
    inside: list[tuple[set[threading.Thread], int]] = []

    async def body(system: CalloutSystem) -> None:
        inside.append(holdings())

    await play(body, cpus, way)

    assert len(inside[0][0]) == len(before[0]) + cpus - 1
    assert holdings() == before
    assert CURRENT.get(None) is None


@pytest.mark.trio
@each_way
@each_count
async def test_what_is_pending_is_stopped(way: str, cpus: int) -> None:
    """After the block, however it was left, no callout is pending or active, and none of them ran."""
    ran: list[object] = []
    callouts: list[Callout] = []

    async def arm(system: CalloutSystem) -> None:
        for number in range(10):
            callouts.append(fresh())
            callout_reset_on(callouts[-1], HOUR + number, ran.append, number, number % cpus)

    await play(arm, cpus, way)

    assert [(callout_pending(c), callout_active(c)) for c in callouts] == [(0, 0)] * 10
    assert ran == []


@pytest.mark.trio
@each_way
async def test_the_end_waits_for_a_run_in_progress(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block is not left, in whatever way, before a callback that runs on another CPU has returned."""
    halt = Halt()
    returned: list[bool] = []

    def let_go() -> None:
        returned.append(halt.returned)
        halt.let_go()

    async def body(system: CalloutSystem) -> None:
        callout_reset_on(fresh(), 1, halt, None, 1)
        await halt.there.wait()

    when_the_end_waits(monkeypatch, let_go)
    await play(body, 2, way)

    assert [*returned, halt.returned] == [False, True]


@pytest.mark.trio
@each_way
async def test_promised_completions_are_called(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A completion for which callout_drain_async() said 1 is called before the block is left, in whatever way."""
    log: list[str] = []
    halt = Halt()

    async def body(system: CalloutSystem) -> None:
        c = fresh()
        callout_reset_on(c, 1, halt, None, 1)
        await halt.there.wait()

        assert callout_drain_async(c, log.append, "completed") == 1

    def let_go() -> None:
        log.append("released")
        halt.let_go()

    when_the_end_waits(monkeypatch, let_go)
    await play(body, 2, way)
    log.append("left")

    assert log == ["released", "completed", "left"]


@pytest.mark.trio
@each_way
async def test_a_completion_at_a_lock_is_called(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits for a run that stands at a lock which a thread holds, and its completion is called."""
    log: list[object] = []
    holders: list[Holder] = []

    async def body(system: CalloutSystem) -> None:
        mtx, c = Mtx(), Callout()
        callout_init_mtx(c, mtx)
        holders.append(Holder(system, mtx, c, log.append))
        await holders[0].standing.wait()

        def drain() -> None:
            log.append(callout_drain_async(c, log.append, "completed"))

        when_the_end_waits(monkeypatch, lambda: holders[0].let_go(drain), at_last=True)

    await play(body, 1, way)
    log.append("left")
    holders[0].join()

    assert log == [1, "completed", "left"]


@pytest.mark.trio
@each_way
async def test_arming_during_the_end_is_refused(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a callback or thread arms while the block's end waits for a run is refused, as during a drain."""
    results: list[int] = []
    holders: list[Holder] = []

    async def body(system: CalloutSystem) -> None:
        mtx, c, d = Mtx(), Callout(), fresh()
        callout_init_mtx(c, mtx)

        def run(arg: object) -> None:
            results.append(callout_reset(c, 1, run, arg))
            results.append(callout_reset(d, 1, run, arg))
            results.append(callout_pending(c) + callout_pending(d))

        def arm() -> None:
            results.append(callout_reset(d, 1, run, None))
            results.append(callout_pending(d))

        holders.append(Holder(system, mtx, c, run))
        await holders[0].standing.wait()
        when_the_end_waits(monkeypatch, lambda: holders[0].let_go(arm), at_last=True)

    await play(body, 1, way)
    holders[0].join()

    assert results == [0] * 5


@pytest.mark.trio
async def test_a_deferred_migration_is_stopped_by_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deferred migration is not carried out once the end of the block has begun."""
    ran: list[object] = []
    callouts: list[Callout] = []
    holders: list[Holder] = []

    async def body(system: CalloutSystem) -> None:
        mtx, c = Mtx(), Callout()
        callout_init_mtx(c, mtx)
        callouts.append(c)
        holders.append(Holder(system, mtx, c, ran.append))
        await holders[0].standing.wait()

        assert callout_reset_on(c, 1, ran.append, "moved", 1) == 1

        when_the_end_waits(monkeypatch, lambda: holders[0].let_go(lambda: None), at_last=True)

    await play(body, 2)
    holders[0].join()

    assert ran == []
    assert (callout_pending(callouts[0]), callout_active(callouts[0])) == (0, 0)


@pytest.mark.trio
@each_way
async def test_what_a_last_callback_starts_is_refused_quietly(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback for which the end of the block waits starts no task and makes no call, and is not told so."""
    began: list[str] = []
    holders: list[Holder] = []

    async def task() -> None:
        began.append("task")

    async def body(system: CalloutSystem) -> None:
        mtx, c = Mtx(), Callout()
        callout_init_mtx(c, mtx)

        def run(arg: object) -> None:
            for cpu in (0, 1):
                system.cpu(cpu).start_soon(task)
                system.cpu(cpu).call(began.append, "call")
            began.append("returned")

        holders.append(Holder(system, mtx, c, run))
        await holders[0].standing.wait()
        when_the_end_waits(monkeypatch, lambda: holders[0].let_go(lambda: None), at_last=True)

    await play(body, 2, way)
    holders[0].join()

    assert began == ["returned"]


USES: dict[str, Callable[[Callout], object]] = {
    "init": lambda c: callout_init(c, 1),
    "reset": lambda c: callout_reset(c, 1, ignore, None),
    "reset_on": lambda c: callout_reset_on(c, 1, ignore, None, 0),
    "reset_sbt": lambda c: callout_reset_sbt(c, 1, 0, ignore, None),
    "schedule": lambda c: callout_schedule(c, 1),
    "stop": callout_stop,
    "drain": lambda c: callout_drain(c).send(None),
    "drain_sync": callout_drain_sync,
    "drain_async": lambda c: callout_drain_async(c, ignore, None),
    "deactivate": callout_deactivate,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@each_count
def test_after_the_end_everything_is_refused(use: Callable[[Callout], object], cpus: int) -> None:
    """Every call on a callout of a closed system is an error that says that the block was left."""

    async def main() -> tuple[Callout, CalloutSystem]:
        async with open_callouts(cpus) as system:
            c = fresh()
            callout_reset_on(c, HOUR, ignore, None, cpus - 1)
        return c, system

    c, system = trio.run(main)
    current = CURRENT.set(system._machine)  # as in a task that has outlived the block
    try:
        with pytest.raises(ClosedError, match="block has been left"):
            use(c)
    finally:
        CURRENT.reset(current)

    assert not callout_pending(c)


@pytest.mark.trio
@each_count
async def test_calls_and_tasks_are_refused_after_the_end(cpus: int) -> None:
    """After the block cross-CPU calls and tasks are an error, on every CPU, and never run."""
    ran: list[int] = []

    async def task() -> None:
        ran.append(1)

    async with open_callouts(cpus) as system:
        pass
    for number in range(cpus):
        with pytest.raises(ClosedError, match="closed"):
            system.cpu(number).call(ran.append, 1)
        with pytest.raises(ClosedError, match="closed"):
            system.cpu(number).start_soon(task)

    assert ran == []


@pytest.mark.trio
@pytest.mark.parametrize("cpus", [1, 3])
async def test_calls_before_the_end_do_run(cpus: int) -> None:
    """Every cross-CPU call that was accepted runs exactly once, also the last before the end and those of threads."""
    ran: list[int] = []
    async with open_callouts(cpus) as system:

        def make(first: int) -> None:
            for number in range(first, first + 100):
                system.cpu(number % cpus).call(ran.append, number)

        async with trio.open_nursery() as nursery:
            for thread in range(4):
                nursery.start_soon(trio.to_thread.run_sync, make, thread * 100)
        make(400)

    assert sorted(ran) == list(range(500))


@pytest.mark.trio
async def test_a_call_that_was_not_refused_runs() -> None:
    """Of calls that threads go on making while the system closes, those and only those run that did not raise."""
    ran: list[tuple[int, int]] = []
    accepted: list[tuple[int, int]] = []
    begun = [threading.Event() for _ in range(2)]

    def make(thread: int) -> None:
        number = 0
        while True:
            try:
                system.cpu(1).call(ran.append, (thread, number))
            except ClosedError:
                return
            accepted.append((thread, number))
            number += 1
            begun[thread].set()

    async with open_callouts(2) as system:
        threads = [threading.Thread(target=make, args=(number,)) for number in range(2)]
        for number, thread in enumerate(threads):
            thread.start()
            await trio.to_thread.run_sync(begun[number].wait)
    for thread in threads:
        await trio.to_thread.run_sync(thread.join)

    assert sorted(ran) == sorted(accepted)


# -- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.trio
@pytest.mark.parametrize("flags", [0, C_DIRECT_EXEC])
async def test_an_expensive_callback_is_named(caplog: pytest.LogCaptureFixture, flags: int) -> None:
    """A callback that takes longer than the threshold, a direct one too, is named in the log, with its time."""
    with caplog.at_level(logging.WARNING, "callout"):
        async with open_callouts(expensive=1e-9):
            tell = Tell()

            def dear(arg: object) -> None:
                tell(arg)

            callout_reset_sbt(fresh(), 0, 0, dear, None, flags)
            await tell.ran.wait()

    (record,) = [record.getMessage() for record in caplog.records if "callout.expensive" in record.getMessage()]
    assert "dear" in record
    assert "milliseconds" in record


@pytest.mark.trio
async def test_a_callback_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An error of a callback is in the log, though on_error took it."""
    tell = Tell()
    with caplog.at_level(logging.ERROR, "callout"):
        async with open_callouts(on_error=lambda error, c: tell(error)):
            callout_reset(fresh(), 1, fail, "oops")
            await tell.ran.wait()

    assert [record.getMessage() for record in caplog.records if "callback_error" in record.getMessage()] != []


class Named(logging.Handler):
    """Waits for the log to name what the end of a block waits for."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._then = then

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a record."""
        if "close_waits" in record.getMessage():
            self.messages.append(record.getMessage())
            self._then()


@pytest.mark.trio
@pytest.mark.parametrize(("way", "direct"), [("return", False), ("cancel", True)])
async def test_a_callback_that_does_not_return_is_named(way: str, direct: bool) -> None:
    """While the end waits for a callback that runs, and stops its CPU's loop, the log names it, but no short one."""
    halt = Halt()
    named = Named(halt.let_go)
    logging.getLogger("callout").addHandler(named)

    async def body(system: CalloutSystem) -> None:
        c = fresh()

        def again(arg: object) -> None:
            callout_reset(c, 1, again, arg)

        callout_reset(c, 1, again, "short")
        if direct:
            d = Callout()
            callout_init_mtx(d, Mtx("spin", MTX_SPIN))
            callout_reset_sbt_on(d, SBT_1MS, 0, halt, "the long one", 1, C_DIRECT_EXEC)
        else:
            callout_reset_on(fresh(), 1, halt, "the long one", 1)
        await halt.there.wait()

    try:
        await play(body, 2, way)
    finally:
        logging.getLogger("callout").removeHandler(named)

    (message,) = named.messages
    assert "a Halt" in message
    assert "cpu=1" in message
    assert "the long one" not in message  # arguments may be secrets


@pytest.mark.trio
async def test_a_run_at_a_lock_is_named(autojump_clock: trio.testing.MockClock) -> None:
    """Under a mock clock, too, the log names a run that stands at a lock when nothing else is waited for."""
    holders: list[Holder] = []
    named = Named(lambda: holders[0].let_go(lambda: None))
    logging.getLogger("callout").addHandler(named)

    async def body(system: CalloutSystem) -> None:
        mtx, c = Mtx(), Callout()
        callout_init_mtx(c, mtx)
        holders.append(Holder(system, mtx, c, ignore))
        await holders[0].standing.wait()

    try:
        await play(body)
    finally:
        logging.getLogger("callout").removeHandler(named)
    holders[0].join()

    (message,) = named.messages
    assert "waiting for its lock" in message
    assert "held up" not in message  # as above
