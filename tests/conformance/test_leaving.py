"""Leaving the block in whatever way, whatever is going on: it ends, quietly if cancelled, and nothing is left."""

from __future__ import annotations

import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest
import trio
import trio.testing

from callout import (
    C_DIRECT_EXEC,
    MTX_SPIN,
    SBT_1MS,
    Callout,
    CalloutSystem,
    ClosedError,
    Event,
    LockHeldError,
    Mtx,
    callout_active,
    callout_drain,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt_on,
    callout_schedule,
    callout_stop,
    open_callouts,
)
from callout._core import lifecycle, runs, softclock
from callout._core.cpu import Cpu, Lane, Run
from callout._core.machine import CURRENT
from callout._core.phases import Phase
from callout._core.runs import turn
from callout._worlds.trio import leaving
from callout._worlds.trio.tasks import Start

from .loops import Halt, Holder, Tell, holdings, play, when_the_end_waits

HOUR: Final = 3_600_000  # ticks
each_way = pytest.mark.parametrize("way", ["return", "exception", "cancel"])
each_count = pytest.mark.parametrize("cpus", [1, 2])


def fresh() -> Callout:
    """Return an mpsafe callout of the current system."""
    c = Callout()
    callout_init(c, 1)
    return c


def ignore(arg: object) -> None:
    """Be a callback that does nothing."""


def leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


# -- start_soon() around the end ---------------------------------------------------------------------------------------


@pytest.mark.trio
@each_count
@pytest.mark.parametrize("way", ["exception", "cancel"])
async def test_a_task_that_was_handed_over_just_before_the_end(cpus: int, way: str) -> None:
    """What start_soon() accepted in the step in which the block is left is begun, and cancelled at its first await."""
    seen: list[str] = []

    async def task() -> None:
        seen.append("begun")
        try:
            await trio.sleep_forever()
        finally:
            seen.append("cancelled")

    async def body(system: CalloutSystem) -> None:
        system.cpu(cpus - 1).start_soon(task)

    await play(body, cpus, way)

    assert seen == ["begun", "cancelled"]


@pytest.mark.trio
@each_count
@each_way
async def test_a_callback_error_in_the_step_of_the_end(cpus: int, way: str) -> None:
    """An exception that a call raises while the block is being left comes out of the block, not out of trio.run()."""

    def fail() -> None:
        raise KeyError("call")

    async def body(system: CalloutSystem) -> None:
        system.cpu(cpus - 1).call(fail)

    with pytest.raises(BaseExceptionGroup) as caught:
        await play(body, cpus, way)

    assert "KeyError('call')" in map(repr, leaves(caught.value))


@pytest.mark.trio
@pytest.mark.parametrize("when", ["before", "after", "between"])
async def test_a_nursery_that_has_closed_is_given_no_task(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread's start_soon() that meets the end of a CPU's tasks is either begun or a ClosedError, never both."""
    async with open_callouts() as system:
        tasks = system.cpu(0)._tasks
        begun: list[int] = []

        async def task() -> None:
            begun.append(1)

        # The thread has looked at the phase, and the tasks end before or after it has handed its task over; or the loop
        # looks for what was handed over just before the thread finds out that they have ended.
        hand_over = tasks._hand_over

        def interleaved(*args: object) -> None:
            if when == "before":
                hand_over(*args)  # type: ignore[arg-type]  # passed through
            tasks._end()
            if when != "before":
                hand_over(*args)  # type: ignore[arg-type]  # as above

        monkeypatch.setattr(tasks, "_hand_over", interleaved)
        if when == "between":
            tasks._handed_over = Seen(tasks._start_all)
        if when == "before":
            system.cpu(0).start_soon(task)
        else:
            with pytest.raises(ClosedError, match="start_soon: no more tasks are started"):
                system.cpu(0).start_soon(task)
        tasks._start_all()

    assert begun == [1] * (when == "before")
    assert not system._awaited


class Seen(deque[Start]):
    """What was handed over; the loop looks at each at once."""

    def __init__(self, look: Callable[[], object]) -> None:
        super().__init__()
        self._look = look

    def append(self, start: Start) -> None:
        """Have it looked at."""
        super().append(start)
        self._look()


@pytest.mark.trio
@each_count
async def test_tasks_of_a_periodic_callout_do_not_keep_the_block_open(cpus: int) -> None:
    """A periodic callout that starts tasks, each longer than its period, does not keep the block from being left."""
    tell = Tell()
    async with open_callouts(cpus) as system:
        c = fresh()

        def beat(arg: object) -> None:
            callout_reset(c, 1, beat, arg)
            system.cpu(cpus - 1).start_soon(trio.sleep_forever if system._machine.phase > Phase.OPEN else nothing)
            tell(arg)

        async def nothing() -> None:
            pass

        callout_reset(c, 1, beat, None)
        await tell.ran.wait()

    assert not callout_pending(c)


@pytest.mark.trio
@each_count
async def test_a_callback_that_starts_tasks_does_not_hurt_a_cancelled_block(cpus: int) -> None:
    """While a cancelled task cleans up callouts still run; what they start is refused, and the block stays quiet."""
    ticked: list[int] = []

    async def body(system: CalloutSystem) -> None:
        c = fresh()

        def beat(arg: object) -> None:
            callout_reset(c, 1, beat, arg)
            system.cpu(0).start_soon(trio.sleep_forever)
            system.cpu(0).call(ticked.append, 1)

        async def cleans_up() -> None:
            try:
                there(None)
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    tell = Tell()
                    callout_reset(fresh(), 5, tell, None)
                    await tell.ran.wait()  # it may need a timer

        there = Tell()
        callout_reset(c, 1, beat, None)
        system.cpu(cpus - 1).start_soon(cleans_up)
        await there.ran.wait()

    await play(body, cpus, "cancel")

    assert ticked


@pytest.mark.trio
async def test_a_task_that_starts_another_when_it_is_cancelled() -> None:
    """Tasks that start each other in their clean-up do not keep a cancelled block open for ever."""

    async def body(system: CalloutSystem) -> None:
        async def again() -> None:
            try:
                there(None)
                await trio.sleep_forever()
            finally:
                system.cpu(0).start_soon(again)

        there = Tell()
        system.cpu(0).start_soon(again)
        await there.ran.wait()

    await play(body, 1, "cancel")


# -- which tasks a normal end waits for --------------------------------------------------------------------------------


@pytest.mark.trio
@each_count
async def test_which_tasks_a_normal_end_waits_for(cpus: int) -> None:
    """It waits for what was started before, and for what that starts, also by a thread; others are cancelled."""
    ended: list[str] = []
    go = trio.Event()
    async with open_callouts(cpus) as system:
        last = system.cpu(cpus - 1)

        async def leaf(name: str) -> None:
            await trio.lowlevel.checkpoint()
            ended.append(name)

        async def never(name: str) -> None:
            try:
                system.cpu(0).call(go.set)
                await trio.sleep_forever()
            finally:
                ended.append(f"{name} cancelled")

        async def parent() -> None:
            await wait_for_phase(system, Phase.LEAVING)
            await trio.to_thread.run_sync(last.start_soon, leaf, "by a thread of a task")
            last.start_soon(leaf, "by a task")
            # A callback starts one that nobody waits for.
            callout_reset(fresh(), 1, lambda arg: last.start_soon(never, "by a callback"), None)
            await go.wait()

        tell = Tell()

        def early(arg: object) -> None:
            last.start_soon(leaf, "by an early callback")
            tell(arg)

        callout_reset(fresh(), 1, early, None)
        await tell.ran.wait()
        system.cpu(0).start_soon(parent)

    assert sorted(ended) == [
        "by a callback cancelled",
        "by a task",
        "by a thread of a task",
        "by an early callback",
    ]


async def wait_for_phase(system: CalloutSystem, phase: Phase) -> None:
    """Wait, by checkpoints, until the system is in that phase; the trio scheduler runs everything else between."""
    while system._machine.phase is not phase:
        await trio.lowlevel.checkpoint()


@pytest.mark.trio
@each_count
@pytest.mark.parametrize("why", ["cancel", "callback", "task"])
async def test_waiting_for_tasks_is_cut_short(cpus: int, why: str) -> None:
    """A cancellation or an error that comes while a normal end waits for tasks cancels those."""
    ended: list[str] = []

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("cancelled")

    async def fails() -> None:
        raise ValueError(why)

    def fail(arg: str) -> None:
        raise ValueError(arg)

    async def later(system: CalloutSystem, scope: trio.CancelScope) -> None:
        await wait_for_phase(system, Phase.LEAVING)
        if why == "cancel":
            scope.cancel()
        elif why == "callback":
            system.cpu(cpus - 1).call(fail, why)
        else:
            system.cpu(cpus - 1).start_soon(fails)

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with open_callouts(cpus) as system:
                system.cpu(0).start_soon(task)
                system.cpu(0).start_soon(later, system, scope)
        assert scope.cancelled_caught

    if why == "cancel":
        await main()
    else:
        with pytest.raises(ExceptionGroup) as caught:
            await main()
        assert [repr(error) for error in leaves(caught.value)] == [f"ValueError({why!r})"]

    assert ended == ["cancelled"]


# -- all CPUs work until the last completion ---------------------------------------------------------------------------


@pytest.mark.trio
@each_way
@pytest.mark.parametrize("direct", [False, True])
async def test_a_completion_of_the_end_finds_every_cpu(way: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a callback or completion of one CPU still runs, no other CPU is closed: it may stop callouts there."""
    results: list[int] = []
    halt = Halt()

    async def body(system: CalloutSystem) -> None:
        elsewhere, c = fresh(), Callout()
        callout_init_mtx(c, Mtx("spin", MTX_SPIN))
        callout_reset_on(elsewhere, HOUR, ignore, None, 1)

        def completed(arg: object) -> None:
            results.append(callout_stop(elsewhere))
            results.append(callout_reset(elsewhere, HOUR, ignore, None))
            system.cpu(1).call(ignore, None)

        def run(arg: object) -> None:
            assert callout_drain_async(c, completed, None) == 1
            halt(arg)
            completed(arg)

        callout_reset_sbt_on(c, SBT_1MS, 0, run, None, 2, C_DIRECT_EXEC if direct else 0)
        await halt.there.wait()

    when_the_end_waits(monkeypatch, halt.let_go)
    await play(body, 3, way)

    # The completion may come before or after what was pending has been stopped.
    assert results in ([1, 0, 1, 0], [1, 0, -1, 0])


@pytest.mark.trio
@each_way
async def test_a_completion_finds_every_cpu_when_nothing_else_is_left(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nothing is pending any more the last callback and its completion find every CPU open; they arm nothing."""
    results: list[int] = []
    holders: list[Holder] = []

    async def body(system: CalloutSystem) -> None:
        mtx, elsewhere, c = Mtx(), fresh(), Callout()
        callout_init_mtx(c, mtx)
        callout_reset_on(elsewhere, HOUR, ignore, None, 1)
        callout_reset_on(c, HOUR, ignore, None, 2)

        def completed(arg: object) -> None:
            results.append(callout_stop(elsewhere))
            results.append(callout_reset(elsewhere, 1, ignore, None))
            system.cpu(1).call(results.append, 99)

        def run(arg: object) -> None:
            results.append(callout_drain_async(c, completed, None))
            completed(arg)

        holders.append(Holder(system, mtx, c, run))
        await holders[0].standing.wait()
        when_the_end_waits(monkeypatch, lambda: holders[0].let_go(lambda: None), at_last=True)

    await play(body, 3, way)
    holders[0].join()

    assert results == [1, -1, 0, -1, 0]


# -- a migration that was deferred until after the end has begun -------------------------------------------------------


@pytest.mark.pure
@pytest.mark.trio
@each_way
async def test_a_run_that_ends_between_the_stopping_of_two_cpus(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration onto a CPU whose callouts have been stopped is not carried out, though that from which it comes has
    not been stopped yet.
    """
    ran: list[object] = []
    callouts: list[Callout] = []
    holders: list[Holder] = []
    stop_all, end = lifecycle.stop_all, runs.end
    ended = threading.Event()

    def end_and_tell(lane: Lane) -> None:
        end(lane)
        ended.set()

    def stop_and_let_the_run_end(cpu: Cpu) -> list[Callout]:
        stopped = stop_all(cpu)
        if cpu.id == 0:
            holders[0].let_go(lambda: None)
            ended.wait()
        return stopped

    async def body(system: CalloutSystem) -> None:
        mtx, c = Mtx(), Callout()
        callouts.append(c)
        callout_init_mtx(c, mtx)
        callout_reset_on(c, HOUR, ignore, None, 1)
        holders.append(Holder(system, mtx, c, ran.append))
        await holders[0].standing.wait()

        assert callout_reset_on(c, 1, ran.append, "moved", 0) == 1

        monkeypatch.setattr(runs, "end", end_and_tell)
        monkeypatch.setattr(softclock, "end", end_and_tell)  # where its time is over
        monkeypatch.setattr(lifecycle, "stop_all", stop_and_let_the_run_end)

    await play(body, 2, way)
    holders[0].join()

    assert ran == []
    assert [(callout_pending(c), callout_active(c), c.run) for c in callouts] == [(0, 0, None)]


@pytest.mark.trio
async def test_a_call_that_posts_itself_ends(autojump_clock: trio.testing.MockClock) -> None:
    """A cross-CPU call that makes the same call again and again does not keep the block open, and is no error."""
    async with open_callouts() as system:

        def again() -> None:
            system.cpu(0).call(again)

        again()


# -- services that die -------------------------------------------------------------------------------------------------


@pytest.mark.pure
@pytest.mark.trio
@pytest.mark.parametrize("direct", [False, True])
@each_count
async def test_a_service_that_dies_leaves_through_the_block(
    direct: bool, cpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of softclock or the interrupt ends its run, releases the lock, serves drainers, and leaves by the block."""
    drained: list[int] = []
    mtxs: list[Mtx] = []

    async def body(system: CalloutSystem) -> None:
        def broken(*args: object) -> None:
            raise MemoryError("in the engine")

        c, mtx = Callout(), Mtx("m", MTX_SPIN)
        mtxs.append(mtx)
        callout_init_mtx(c, mtx)
        tell = Tell()

        def run(arg: object) -> None:
            callout_drain_async(c, drained.append, 1)
            tell(arg)
            monkeypatch.setattr("callout._core.runs._release_after", broken)

        callout_reset_sbt_on(c, SBT_1MS, 0, run, None, cpus - 1, C_DIRECT_EXEC if direct else 0)
        await tell.ran.wait()
        await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await play(body, cpus)

    assert [repr(error) for error in leaves(caught.value)] == ["MemoryError('in the engine')"]
    assert drained == [1]
    assert not mtxs[0].holds()


@pytest.mark.pure
@pytest.mark.trio
@each_count
async def test_softclock_that_always_dies(cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Softclock that dies each time it is started is left dead in the end, and the block can be left all the same."""
    died: list[int] = []

    async def body(system: CalloutSystem) -> None:
        def broken(lane: Lane) -> Run | None:
            if lane.direct or lane.cpu.id != cpus - 1:  # another's softclock may not have had its first turn yet
                return turn(lane)
            died.append(1)
            raise MemoryError("in the engine")

        monkeypatch.setattr("callout._core.runs.turn", broken)
        callout_reset_on(fresh(), 1, ignore, None, cpus - 1)
        try:
            await trio.sleep_forever()
        finally:
            callout_reset_on(fresh(), 1, ignore, None, cpus - 1)

    with pytest.raises(BaseExceptionGroup) as caught:
        await play(body, cpus)

    assert set(map(repr, leaves(caught.value))) == {"MemoryError('in the engine')"}
    assert len(died) == 3


@pytest.mark.trio
async def test_a_bug_in_leaving_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the taking down itself comes out of the block, which ends, threads and all."""
    before = holdings()

    async def broken(machine: object) -> None:
        raise RuntimeError("quiesce")

    monkeypatch.setattr(leaving, "quiesce", broken)

    async def body(system: CalloutSystem) -> None:
        callout_reset_on(fresh(), HOUR, ignore, None, 1)

    with pytest.raises(ExceptionGroup) as caught:
        await play(body, 2)

    assert [repr(error) for error in leaves(caught.value)] == ["RuntimeError('quiesce')"]
    assert holdings() == before


# -- every way, with everything going on -------------------------------------------------------------------------------


class Busy:
    """A system with callbacks running, drains waiting, tasks starting tasks, and threads arming and waiting."""

    def __init__(self, system: CalloutSystem, way: str) -> None:
        self.system = system
        self.way = way
        self.mtx = Mtx("m")
        self.callouts = [Callout() for _ in range(6)]
        for number, c in enumerate(self.callouts):
            if number % 2:
                callout_init_mtx(c, self.mtx)
            else:
                callout_init(c, 1)
        self.event = Event()
        self.outcomes: list[str] = []
        self.tell = Tell()

    def begin(self) -> None:
        """Have it all begin."""
        cpus = self.system.cpus
        for number, c in enumerate(self.callouts):
            callout_reset_on(c, 1 + number % 3, self.beat, c, number % cpus)
        self.system.cpu(cpus - 1).start_soon(self.hop, 3)
        self.system.cpu(0).start_soon(self.drains)
        self.threads = [threading.Thread(target=target) for target in (self.arms, self.waits)]
        for thread in self.threads:
            thread.start()

    def beat(self, c: Callout) -> None:
        """Be a periodic callback, that starts tasks and makes calls."""
        callout_reset_on(c, 1, self.beat, c, c.c_cpu.id)
        self.system.cpu(0).start_soon(trio.lowlevel.checkpoint)
        self.system.cpu(0).call(ignore, None)
        if c is self.callouts[1]:
            callout_drain_async(c, self.completed, None)
        self.tell(None)

    async def hop(self, left: int) -> None:
        """Be a task that starts tasks."""
        await trio.lowlevel.checkpoint()
        if left:
            self.system.cpu(left % self.system.cpus).start_soon(self.hop, left - 1)

    async def drains(self) -> None:
        """Be a task that drains."""
        await callout_drain(self.callouts[0])

    def completed(self, arg: object) -> None:
        """Be a completion."""
        if self.way == "completion":
            raise ValueError("completion")

    def arms(self) -> None:
        """Be a thread that arms and starts until it is refused."""
        c = self.callouts[4]
        try:
            with self.system.bound():
                while True:
                    callout_schedule(c, 1)
                    self.system.cpu(0).call(ignore, None)
        except ClosedError:
            self.outcomes.append("refused")

    def waits(self) -> None:
        """Be a thread that waits for what never comes."""
        try:
            self.event.wait_sync()
        except ClosedError:
            self.outcomes.append("woken")

    def check(self) -> None:
        """Assert that nothing is left, and that threads were told."""
        for thread in self.threads:
            thread.join()
        assert sorted(self.outcomes) == ["refused", "woken"]
        assert [callout_pending(c) for c in self.callouts] == [0] * len(self.callouts)
        assert all(c.run is None for c in self.callouts)
        assert self.system._machine.phase is Phase.CLOSED
        assert not self.system._machine.sleepers
        assert not any(self.system._machine.held or ())
        assert self.mtx.trylock()
        self.mtx.unlock()
        assert self.system.giant.trylock()
        self.system.giant.unlock()


EXPECTED: Final = {
    "normal": set[str](),
    "exception": {"KeyError('body')"},
    "cancelled": set[str](),
    "ctrl-c": {"KeyboardInterrupt()"},
    "callback": {"ValueError('callback')"},
    "task": {"ValueError('task')"},
    "completion": {"ValueError('completion')"},
    "log": {"ValueError('callback')"},
}


@contextmanager
def log_that_fails(way: str) -> Iterator[None]:
    """Have the package's log fail."""

    def broken(record: logging.LogRecord) -> bool:
        raise OSError("the disk is full")

    logger = logging.getLogger("callout")
    if way == "log":
        logger.addFilter(broken)
    try:
        yield
    finally:
        logger.removeFilter(broken)


def fail(arg: str) -> None:
    """Be a callback that fails."""
    raise ValueError(arg)


async def fails(arg: str) -> None:
    """Be a task that fails."""
    raise ValueError(arg)


def leave_busy(cpus: int, way: str) -> tuple[list[str], Busy]:
    """Open a system, have everything go on, leave it in that way; return what came out of the block."""
    busy: list[Busy] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with open_callouts(cpus) as system:
                busy.append(Busy(system, way))
                busy[0].begin()
                await busy[0].tell.ran.wait()
                match way:
                    case "exception":
                        raise KeyError("body")
                    case "cancelled":
                        scope.cancel()
                    case "ctrl-c":
                        signal.raise_signal(signal.SIGINT)
                    case "callback" | "log":
                        callout_reset_on(fresh(), 1, fail, "callback", cpus - 1)
                    case "task":
                        system.cpu(cpus - 1).start_soon(fails, way)
                    case "normal":
                        return
                    case _:  # the completion's error
                        pass
                await trio.sleep_forever()

    out: list[str] = []
    try:
        with log_that_fails(way):
            trio.run(main)
    except BaseException as error:
        out = [repr(leaf) for leaf in leaves(error)]
    return out, busy[0]


@pytest.mark.parametrize("cpus", [1, 2, 4])
@pytest.mark.parametrize("way", EXPECTED)
def test_every_way_out_of_a_busy_system(cpus: int, way: str) -> None:
    """However it is left, with everything going on: it ends, with the right exceptions, and nothing is left of it."""
    before = holdings()
    out, busy = leave_busy(cpus, way)
    busy.check()

    assert set(out) == EXPECTED[way]
    assert holdings() == before
    assert CURRENT.get(None) is None


@pytest.mark.parametrize(("cpus", "holder", "runs_on"), [(1, 0, 0), (2, 0, 1), (2, 1, 0), (2, 1, 1)])
@pytest.mark.parametrize("mocked", [False, True])
def test_a_lock_that_a_loop_holds_at_the_end_does_not_hang_it(
    cpus: int, holder: int, runs_on: int, mocked: bool
) -> None:
    """Nothing would release it: what waits for it fails, with what to do, and the system is closed."""
    if mocked and cpus > 1:
        pytest.skip("a mock clock drives one loop")

    async def main() -> None:
        async with open_callouts(cpus, checking=False) as system:
            lock, waits, held = system.mutex("held"), trio.Event(), trio.Event()

            async def hold() -> None:
                lock.lock()
                system.cpu(0).call(held.set)

            system.cpu(holder).start_soon(hold)
            await held.wait()
            with system.tracing(lambda event: waits.set() if event.kind == "waiting" else None):
                system.call_later(0, pytest.fail, "it ran", lock=lock, cpu=runs_on)
                await waits.wait()

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0) if mocked else None)

    assert caught.group_contains(LockHeldError, match=r"lock 'held' held, and .* waits for that; release it before")
