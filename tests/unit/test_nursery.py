"""Timers that start tasks: when a run begins, what waits for its end, and how the nursery ends."""

from __future__ import annotations

import functools
import math
import signal
from collections.abc import Callable
from contextvars import ContextVar
from threading import get_ident

import pytest
import trio
import trio.testing

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    BusyError,
    ClosedError,
    Event,
    LoopThreadError,
    NotAwaitedError,
    ResetResult,
    SelfDrainError,
    SleepError,
    StopResult,
    TimedNursery,
    TimeoutTask,
    current_system,
    open_callouts,
)

now = trio.current_time


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Give a clock that jumps at once."""
    return trio.testing.MockClock(autojump_threshold=0)


class Log:
    """What has happened, and when."""

    def __init__(self) -> None:
        self.events: list[tuple[str, float]] = []

    def say(self, what: str) -> None:
        """Note it."""
        self.events.append((what, now()))

    async def work(self, name: str, seconds: float) -> None:
        """Take so long."""
        self.say(f"{name} begins")
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.say(f"{name} is cancelled")
            raise
        self.say(f"{name} ends")

    def starts(self) -> list[float]:
        """Return when runs have begun."""
        return [at for what, at in self.events if what.endswith("begins")]


@pytest.fixture
def log() -> Log:
    """Give an empty one."""
    return Log()


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_a_start_comes_at_its_time(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """Once, with its arguments; it is running until its task has ended."""
    async with open_callouts() as system, system.open_nursery() as nursery:
        t = nursery.start_later(5, log.work, "a", 2, name="worker")
        at = nursery.start_at(now() + 9, log.work, "b", 1)

        assert isinstance(nursery, TimedNursery)
        assert (t.pending, t.running, t.name, t.deadline, t.remaining(), t.missed) == (True, False, "worker", 5, 5, 0)
        assert (at.name, at.deadline) == (None, 9)

        await trio.sleep(6)
        assert (t.pending, t.running, t.deadline, t.remaining()) == (False, True, math.inf, math.inf)
        await trio.sleep(10)
        assert (t.pending, t.running, t.closed) == (False, False, False)
        assert log.events == [("a begins", 5), ("a ends", 7), ("b begins", 9), ("b ends", 10)]


@pytest.mark.trio
async def test_a_task_that_is_not_armed_does_not_start(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """Until it is reset; 0 is not inside the call."""
    async with open_callouts() as system, system.open_nursery() as nursery:
        t = nursery.task(log.work, "a", 1)
        await trio.sleep(100)
        assert not t.pending

        assert t.reset(0) is ResetResult.ARMED
        assert not t.running
        await trio.sleep(0.5)
        assert t.running
        assert t.reset_at(now() + 20) is ResetResult.ARMED
        await trio.sleep(30)

        assert log.starts() == [100, 120.5]


@pytest.mark.trio
async def test_a_reset_during_a_run_is_for_the_next(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """It comes at its time, or, if that is before the end of the run, at the end: never two at once."""
    async with open_callouts() as system, system.open_nursery() as nursery:
        t = nursery.start_later(1, log.work, "a", 10)
        await trio.sleep(2)
        assert t.reset(3) is ResetResult.ARMED
        assert repr(t) == f"<TimeoutTask at {id(t):#x} Log.work on cpu 0: running, due in 3 s>"
        await trio.sleep(4)

        assert (t.running, t.pending, t.deadline, t.remaining()) == (True, True, 5, 0)
        assert repr(t) == f"<TimeoutTask at {id(t):#x} Log.work on cpu 0: running, due at its end>"

        await trio.sleep(6)  # the second runs, since 11
        assert t.reset(20) is ResetResult.ARMED
        await trio.sleep(100)

        assert log.starts() == [1, 11, 32]


@pytest.mark.trio
async def test_what_is_due_can_be_replaced_and_stopped(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """As what is scheduled can: one start for them all, or none."""
    async with open_callouts() as system, system.open_nursery() as nursery:
        t = nursery.start_later(1, log.work, "a", 10)
        await trio.sleep(2)
        t.reset(1)
        await trio.sleep(2)
        assert t.reset(20) is ResetResult.REARMED
        assert t.deadline == 24
        await trio.sleep(21)  # the second runs, since 24
        t.reset(1)
        await trio.sleep(2)
        assert t.stop() is StopResult.BOTH
        assert not t.pending
        assert t.stop() is StopResult.RUNNING
        await trio.sleep(100)

        assert log.starts() == [1, 24]
        assert t.stop() is StopResult.IDLE
        assert t.reset(1)
        assert t.stop() is StopResult.REMOVED


@pytest.mark.trio
async def test_periodic_runs_never_overlap(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """A period whose time comes during a run is skipped, and counted; the grid stays."""
    async with open_callouts() as system:
        async with system.open_nursery() as nursery:
            t = nursery.start_every(10, log.work, "a", 25, first=5)
            await trio.sleep(70)
            assert (log.starts(), t.missed) == ([5, 35, 65], 4)
            assert t.reset(2) is ResetResult.REARMED  # moves the grid
            await trio.sleep(40)
            assert log.starts()[3:] == [92]
            assert t.stop() is StopResult.BOTH
            await trio.sleep(100)
            assert len(log.starts()) == 4

        assert t.reset(1) is ResetResult.REFUSED


@pytest.mark.trio
async def test_a_periodic_one_can_end_itself(autojump_clock: trio.testing.MockClock) -> None:
    """Its own task may stop it, and the first period is the default for the first start."""
    at: list[float] = []

    async def tick() -> None:
        at.append(now())
        if len(at) == 3:
            assert t.stop() is StopResult.BOTH

    async with open_callouts() as system, system.open_nursery() as nursery:
        t = nursery.start_every(10, tick)
        await trio.sleep(100)

    assert at == [10, 20, 30]


@pytest.mark.trio
async def test_retry_with_back_off(autojump_clock: trio.testing.MockClock) -> None:
    """A task that arms itself is started anew after it has ended."""
    at: list[float] = []
    done = trio.Event()

    async def connect() -> None:
        at.append(now())
        if len(at) == 4:
            done.set()
        else:
            t.reset(2 ** len(at))

    async with open_callouts() as system, system.open_nursery() as nursery:
        t = nursery.start_later(0, connect)
        await done.wait()

    assert at == [0, 2, 6, 14]


# -- the end of the nursery --------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_a_normal_end_stops_what_is_pending_and_awaits_what_runs(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    """What is due at the end of a run counts as pending; from the end of the body on every arming is refused."""
    async with open_callouts() as system:
        async with system.open_nursery() as nursery:
            running = nursery.start_later(1, log.work, "a", 10)
            pending = nursery.start_later(5, log.work, "b", 1)
            every = nursery.start_every(2, log.work, "c", 1)
            await trio.sleep(2.5)
            running.reset(0)
            await trio.sleep(0.1)
            assert repr(nursery) == "<TimedNursery, open: 2 running, 3 scheduled>"

        assert now() == 11
        assert log.events[-1] == ("a ends", 11)
        assert log.starts() == [1, 2]
        for t in (running, pending, every):
            assert t.reset(1) is ResetResult.REFUSED
            assert t.reset_at(1) is ResetResult.REFUSED
            assert (t.pending, t.running, t.stop(), t.cancel()) == (False, False, StopResult.IDLE, StopResult.IDLE)
            assert await t.drain() is False
        assert not nursery.start_later(1, log.work, "d", 1).pending
        assert not nursery.start_every(1, log.work, "d", 1).pending
        assert repr(nursery) == "<TimedNursery, ended: 0 running, 0 scheduled>"
        await trio.sleep(100)
        assert len(log.starts()) == 2


@pytest.mark.trio
async def test_start_soon_works_until_the_last_task_has_ended(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """A task may start others while the nursery waits for it, though no timer of it may be armed; then none may."""

    async def first() -> None:
        await trio.sleep(5)
        assert t.reset(1) is ResetResult.REFUSED
        nursery.start_soon(log.work, "second", 5)

    async with open_callouts() as system:
        async with system.open_nursery() as nursery:
            t = nursery.start_later(0, first)
            nursery.start_soon(log.work, "other", 1, name="another")
            await trio.sleep(1)

        assert log.events[-1] == ("second ends", 10)
        with pytest.raises(ClosedError, match="start_soon: this nursery has ended"):
            nursery.start_soon(log.work, "third", 1)


@pytest.mark.trio
async def test_an_exception_of_the_body_cancels(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """What runs is cancelled, and nothing more is started."""
    async with open_callouts() as system:
        with pytest.RaisesGroup(pytest.RaisesExc(KeyError)):
            async with system.open_nursery() as nursery:
                t = nursery.start_later(1, log.work, "a", 10)
                await trio.sleep(2)
                t.reset(1)
                await trio.sleep(2)
                raise KeyError

        assert log.events == [("a begins", 1), ("a is cancelled", 4)]
        assert not t.pending


@pytest.mark.trio
async def test_an_exception_of_a_task_leaves_through_the_nursery(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    """Not through on_error; the body and the other tasks are cancelled, and the failed one is not started anew."""
    told: list[object] = []
    began: list[float] = []

    async def bad() -> None:
        began.append(now())
        t.reset(0)
        await trio.sleep(1)
        raise KeyError

    async with open_callouts(on_error=lambda error, c: told.append(error)) as system:
        with pytest.RaisesGroup(pytest.RaisesExc(KeyError)):
            async with system.open_nursery() as nursery:
                nursery.start_later(0, log.work, "a", 10)
                t = nursery.start_later(1, bad)
                await trio.sleep_forever()

    assert (began, told) == ([1], [])
    assert log.events == [("a begins", 0), ("a is cancelled", 2)]


@pytest.mark.trio
async def test_an_exception_while_the_nursery_waits(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """One of start_soon() cancels the others, though the body has ended."""

    async def bad() -> None:
        await trio.sleep(3)
        raise KeyError

    async with open_callouts() as system:
        with pytest.RaisesGroup(pytest.RaisesExc(KeyError)):
            async with system.open_nursery() as nursery:
                nursery.start_soon(bad)
                nursery.start_soon(log.work, "a", 10)
        assert log.events[-1] == ("a is cancelled", 3)


@pytest.mark.trio
async def test_cancel_from_a_thread(log: Log) -> None:
    """Body and tasks are cancelled, and what is scheduled is stopped at once; the block swallows the cancellation."""
    async with open_callouts() as system:
        reached = False
        async with system.open_nursery() as nursery:
            nursery.start_soon(log.work, "a", math.inf)
            t = nursery.start_later(1000, log.work, "b", 1)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(nursery.cancel)
            assert t.stop() is StopResult.IDLE
            assert t.reset(1) is ResetResult.REFUSED
            await trio.sleep_forever()
            reached = True
        assert not reached
        assert [what for what, _ in log.events] == ["a begins", "a is cancelled"]
        nursery.cancel()  # again, and too late: nothing


@pytest.mark.trio
async def test_a_cancellation_around_it(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """A scope around the block that expires while it waits cancels what runs; what is due is not started."""
    async with open_callouts() as system:
        with trio.move_on_after(5) as scope:
            async with system.open_nursery() as nursery:
                nursery.start_later(1, log.work, "a", 10)
                await trio.sleep(2)
        assert scope.cancelled_caught
        with trio.move_on_after(5):
            async with system.open_nursery() as nursery:
                t = nursery.start_later(1, log.work, "b", 10)
                await trio.sleep(2)
                t.reset(0)
                await trio.sleep_forever()

        assert log.events == [("a begins", 1), ("a is cancelled", 5), ("b begins", 6), ("b is cancelled", 10)]


@pytest.mark.trio
async def test_a_system_that_closes_refuses_and_starts_nothing(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    """A nursery that outlives its system: what is pending is stopped, what is due is not started, what runs goes on."""
    ready, over = trio.Event(), trio.Event()
    timers: list[TimeoutTask] = []

    async def elsewhere() -> None:
        async with current_system().open_nursery() as nursery:
            timers.append(nursery.start_later(1, log.work, "a", 10))
            timers.append(nursery.start_later(100, log.work, "b", 10))
            await trio.sleep(2)
            timers[0].reset(0)
            await trio.sleep(1)
            ready.set()
            await over.wait()
            for t in timers:
                with pytest.raises(ClosedError):
                    t.reset(1)

    async with trio.open_nursery() as around:
        async with open_callouts():
            around.start_soon(elsewhere)
            await ready.wait()
        over.set()

    assert log.events == [("a begins", 1), ("a ends", 11)]


@pytest.mark.parametrize("ended", [False, True])
def test_ctrl_c_cancels_what_runs(ended: bool, log: Log) -> None:
    """Where it is raised in the body, and where that has ended and the nursery waits; what runs is waited for."""

    @trio.lowlevel.enable_ki_protection
    async def press() -> None:
        await trio.sleep(3)
        signal.raise_signal(signal.SIGINT)  # it is kept until the main task can have it

    async def main() -> None:
        async with open_callouts() as system, system.open_nursery() as nursery:
            nursery.start_soon(log.work, "a", math.inf)
            nursery.start_later(0, press)
            nursery.start_later(5, log.work, "b", 1)
            await trio.sleep(1 if ended else math.inf)

    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(BaseExceptionGroup) as caught:
            trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        signal.signal(signal.SIGINT, old)
    assert caught.value.split(KeyboardInterrupt)[1] is None
    assert log.events == [("a begins", 0), ("a is cancelled", 3)]


# -- cancel, drain, close ----------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_cancel_is_for_one_task(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """It stops the timer, and cancels the run that is in progress; no other task, and not the next run."""
    async with open_callouts() as system, system.open_nursery() as nursery:
        t = nursery.start_later(1, log.work, "a", 10)
        nursery.start_soon(log.work, "b", 20)
        assert t.cancel() is StopResult.REMOVED
        t.reset(1)
        await trio.sleep(2)
        t.reset(1)
        assert t.cancel() is StopResult.BOTH
        assert t.cancel() is StopResult.RUNNING
        assert t.running
        await t.drain()
        assert log.events[-1] == ("a is cancelled", 2)
        t.reset(1)
        await trio.sleep(1.5)
        assert t.running
    assert log.events[-1] == ("b ends", 20)


@pytest.mark.trio
async def test_drain_waits_for_the_task(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """It stops, waits, and is a checkpoint; armings are refused until the run has ended, and are welcome then."""
    async with open_callouts() as system, system.open_nursery() as nursery:
        t = nursery.start_later(1, log.work, "a", 10)
        with trio.testing.assert_checkpoints():
            assert await t.drain() is True
        t.reset(1)
        await trio.sleep(2)
        t.reset(50)

        async def feed() -> None:
            assert t.reset(1) is ResetResult.REFUSED

        system.cpu(0).start_soon(feed)
        assert await t.drain() is True
        assert now() == 11
        assert t.reset(1) is ResetResult.ARMED
        await trio.sleep(2)
        with trio.move_on_after(1) as scope:
            await t.drain()
        assert scope.cancelled_caught
        assert t.running
        assert t.reset(1) is ResetResult.ARMED  # nobody waits any more


@pytest.mark.trio
async def test_close_cancels_and_is_for_good(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """At the end of `async with` too, shielded; what it would have started is forgotten, and armings are refused."""
    async with open_callouts() as system, system.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with nursery.start_later(1, log.work, "a", 10) as t:
                await trio.sleep(2)
                scope.cancel()
        assert log.events == [("a begins", 1), ("a is cancelled", 2)]
        assert (t.closed, t.running, t.pending) == (True, False, False)
        assert t.reset(1) is ResetResult.REFUSED
        assert t._async_fn is None
        assert repr(t) == f"<TimeoutTask at {id(t):#x} on cpu 0: closed>"
        with trio.testing.assert_no_checkpoints():
            await t.aclose()
        with pytest.raises(ClosedError, match=r"async with: <TimeoutTask.*> was closed; make a new one"):
            await t.__aenter__()


@pytest.mark.trio
async def test_several_may_wait_for_the_end(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """Two drains and a close are all woken by it."""
    async with open_callouts() as system, system.open_nursery() as nursery:
        t = nursery.start_later(0, log.work, "a", 10)
        await trio.sleep(1)
        async with trio.open_nursery() as waiters:
            waiters.start_soon(t.drain)
            waiters.start_soon(t.drain)
            await trio.testing.wait_all_tasks_blocked()
            await t.aclose()
        assert now() == 1


@pytest.mark.trio
async def test_a_wait_from_inside_is_an_error(autojump_clock: trio.testing.MockClock) -> None:
    """In its task, and in a task that it has to wait for; a task that it has only started may wait for it."""
    said: list[str] = []

    async def inside() -> None:
        for wait in (t.drain, t.aclose):
            with pytest.raises(SelfDrainError, match="waits for its own task, which would never end; use stop"):
                wait()
        said.append("inside")

    async def outside() -> None:
        await t.drain()
        said.append("outside")

    async def run() -> None:
        await inside()
        nursery.start_soon(outside)
        async with trio.open_nursery() as children:
            children.start_soon(inside)

    async with open_callouts() as system, system.open_nursery() as nursery:
        t = nursery.start_later(0, run)
        await trio.sleep(1)

    assert said == ["inside", "inside", "outside"]


@pytest.mark.trio
async def test_a_wait_that_is_not_awaited(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """It has no truth value, and its text names no twin that blocks, for there is none; nor with a lock held."""
    async with open_callouts(checking=True) as system, system.open_nursery() as nursery:
        t = nursery.task(log.work, "a", 1)
        waiting = t.drain()
        with pytest.raises(NotAwaitedError, match=r"write `await drain\(\.\.\.\)`$"):
            bool(waiting)
        await waiting
        with system.mutex("m"), pytest.raises(SleepError, match="drain: release"):
            t.drain()  # type: ignore[unused-coroutine]  # it raises


# -- where -------------------------------------------------------------------------------------------------------------


VALUE: ContextVar[str] = ContextVar("value", default="none")


@pytest.mark.trio
async def test_each_run_has_a_copy_of_the_context_of_the_making(autojump_clock: trio.testing.MockClock) -> None:
    """Not that of the arming; what one run sets the next does not see. start_soon() has its caller's."""
    seen: list[str] = []

    async def look() -> None:
        seen.append(VALUE.get())
        VALUE.set("of a run")
        assert current_system() is system

    async with open_callouts() as system, system.open_nursery() as nursery:
        VALUE.set("made")
        t = nursery.task(look)
        VALUE.set("armed")
        t.reset(1)
        await trio.sleep(2)
        t.reset(1)
        await trio.sleep(2)
        nursery.start_soon(look)
        await trio.sleep(1)

    assert seen == ["made", "made", "armed"]


@pytest.mark.trio
async def test_threads_may_do_all_but_wait() -> None:
    """Whatever thread arms, starts or cancels, the task runs on the loop that has opened the nursery."""
    threads: list[int] = []
    ends: list[trio.Event] = [trio.Event() for _ in range(4)]

    async def look(number: int) -> None:
        threads.append(get_ident())
        ends[number].set()
        if number == 3:
            await trio.sleep_forever()

    async with open_callouts() as system, system.open_nursery() as nursery:

        def thread() -> None:
            nursery.start_soon(look, 0)
            nursery.start_later(0, look, 1)
            t = nursery.task(look, 2)
            assert t.reset(1000) is ResetResult.ARMED
            assert t.stop() is StopResult.REMOVED
            assert t.reset(0) is ResetResult.ARMED
            held = nursery.start_every(1000, look, 3, first=0)
            trio.from_thread.run(ends[3].wait)
            assert held.cancel() is StopResult.BOTH
            trio.from_thread.run(held.drain)
            assert not held.running

        await trio.to_thread.run_sync(thread)
        for end in ends:
            await end.wait()

    assert threads == [get_ident()] * 4


@pytest.mark.trio
async def test_on_another_cpu() -> None:
    """A nursery that a task of CPU 1 has opened starts its tasks there."""
    async with open_callouts(cpus=2) as system:
        threads: list[int] = []
        done = Event()

        async def opened() -> None:
            threads.append(get_ident())
            looked = trio.Event()

            async def look() -> None:
                threads.append(get_ident())
                looked.set()

            async with system.open_nursery() as nursery:
                nursery.start_later(0, look)
                await looked.wait()
            done.set()

        system.cpu(1).start_soon(opened)
        await done.wait()

    assert threads == [threads[0]] * 2
    assert threads[0] != get_ident()


@pytest.mark.trio
async def test_elsewhere_it_cannot_be_opened(autojump_clock: trio.testing.MockClock) -> None:
    """On the loop of no CPU, in a system that is closed, or twice."""
    async with open_callouts() as system:

        async def main() -> None:
            async with system.open_nursery():
                pass

        def thread() -> None:
            with pytest.raises(LoopThreadError, match="open_nursery: its tasks run on the loop that opens it"):
                trio.run(main)

        await trio.to_thread.run_sync(thread)
        block = system.open_nursery()
        async with block:
            pass
        with pytest.raises(BusyError, match="open_nursery: what it has returned was entered before"):
            async with block:
                pass
    with pytest.raises(ClosedError, match="open_nursery"):
        await main()


# -- what is refused ---------------------------------------------------------------------------------------------------


def plain() -> None:
    """Be no async function."""


class Plain:
    """Is no async function either."""

    def __call__(self) -> None:
        """Do nothing."""


class Async:
    """Is one."""

    async def __call__(self) -> None:
        """Do nothing."""


def wrapped(log: Log) -> Callable[..., object]:
    """Return a plain function that says what async one it wraps."""

    @functools.wraps(log.work)
    def inner(name: str, seconds: float) -> object:
        return log.work(name, seconds)

    return inner


@pytest.mark.trio
async def test_a_plain_function_is_refused(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """By the call, which names what there is for plain ones; nothing is made."""
    async with open_callouts() as system, system.open_nursery() as nursery:
        for given in (plain, print, lambda: None, Plain(), functools.partial(plain), Plain, 5, None):
            for call, instead, make in (
                ("start_soon", "call_later", nursery.start_soon),
                ("start_later", "call_later", functools.partial(nursery.start_later, 1)),
                ("start_at", "call_at", functools.partial(nursery.start_at, 1)),
                ("start_every", "every", functools.partial(nursery.start_every, 1)),
                ("task", "callout", nursery.task),
            ):
                with pytest.raises(ArgumentTypeError, match=rf"^{call}: .*for a plain function use system.{instead}"):
                    make(given)  # type: ignore[arg-type]  # that is the point
        with pytest.raises(ArgumentTypeError, match=r"start_soon: give the function and its arguments, \(f, x\)"):
            nursery.start_soon(log.work("a", 1))  # type: ignore[arg-type]  # that is the point
        assert repr(nursery) == "<TimedNursery, open: 0 running, 0 scheduled>"
        for made in (Async(), functools.partial(log.work, "a", 1), nursery.task(log.work, "c", 1).aclose):
            nursery.start_soon(made)
        nursery.start_soon(wrapped(log), "b", 1)  # type: ignore[arg-type]  # what it returns is awaited
        await trio.sleep(2)
        assert {what for what, _ in log.events if what.endswith("ends")} == {"a ends", "b ends"}


@pytest.mark.trio
async def test_what_returns_nothing_to_be_awaited(autojump_clock: trio.testing.MockClock) -> None:
    """Of what is not written in Python one learns that only then: the error leaves through the block."""
    got: list[int] = []
    async with open_callouts() as system:
        with pytest.RaisesGroup(pytest.RaisesExc(ArgumentTypeError, match="is no async function: it returned None")):
            async with system.open_nursery() as nursery:
                nursery.start_later(1, got.append, 1)  # type: ignore[arg-type]  # that is the point
                await trio.sleep_forever()
    assert got == [1]


@pytest.mark.trio
async def test_wrong_arguments_change_nothing(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    """Each error names the call, and what was scheduled before still is."""
    async with open_callouts() as system, system.open_nursery() as nursery:
        t = nursery.start_later(5, log.work, "a", 1)
        mistakes: list[tuple[type[Exception], str, Callable[[], object]]] = [
            (ArgumentValueError, "start_later: seconds", lambda: nursery.start_later(-1, log.work, "a", 1)),
            (ArgumentTypeError, "start_later: name", lambda: nursery.start_later(1, log.work, "a", 1, name=5)),  # type: ignore[arg-type]  # that is the point
            (ArgumentTypeError, "start_at: deadline", lambda: nursery.start_at("1", log.work, "a", 1)),  # type: ignore[arg-type]  # as above
            (
                ArgumentValueError,
                "start_every: seconds must be above 0",
                lambda: nursery.start_every(0, log.work, "a", 1),
            ),
            (ArgumentValueError, "start_every: first", lambda: nursery.start_every(1, log.work, "a", 1, first=-1)),
            (ArgumentValueError, "reset: seconds", lambda: t.reset(math.nan)),
            (ArgumentTypeError, "reset: seconds", lambda: t.reset("5")),  # type: ignore[arg-type]  # as above
            (ArgumentValueError, "reset_at: deadline", lambda: t.reset_at(math.inf)),
        ]
        for kind, text, mistake in mistakes:
            with pytest.raises(kind, match=f"^{text}"):
                mistake()

        assert t.deadline == 5
        assert repr(nursery) == "<TimedNursery, open: 0 running, 1 scheduled>"
