"""``open_nursery()`` in a loop of asyncio: when a run begins, what waits for its end, what cancels it, how all ends."""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

import pytest
import trio

import callout.guest
from callout import (
    CalloutSystem,
    ClosedError,
    Event,
    GuestError,
    LoopThreadError,
    ResetResult,
    SelfDrainError,
    StopResult,
    TimedNursery,
    TimeoutTask,
    current_system,
)

from .conftest import Main, Run


@pytest.fixture
def play(run: Run) -> Run:
    """Return what runs a program, and fails if a task is left, or asyncio has told its handler of an error."""

    def play_it(main: Main) -> None:
        told: list[dict[str, Any]] = []

        async def whole() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about))
            await main()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        run(whole)
        assert told == []

    return play_it


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[CalloutSystem, TimedNursery]]:
    """Open a system, and a nursery in it."""
    async with callout.guest.open_callouts() as system, system.open_nursery() as nursery:
        yield system, nursery


class Log:
    """Work, and what has become of it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.go = asyncio.Event()
        self._begun: asyncio.Queue[str] = asyncio.Queue()

    async def work(self, name: str) -> None:
        """Work until ``go`` is set."""
        self.said.append(f"{name} begins")
        self._begun.put_nowait(name)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.said.append(f"{name} is cancelled")
            raise
        self.said.append(f"{name} ends")

    async def begun(self, name: str) -> None:
        """Wait until it has begun."""
        assert await self._begun.get() == name


async def past(system: CalloutSystem) -> None:
    """Wait until whatever was due at once has fired: the callouts of a CPU fire in the order of their times."""
    fired = asyncio.Event()
    system.call_later(0, fired.set)
    await fired.wait()


async def forever() -> None:
    """Wait for nothing."""
    await asyncio.Event().wait()


def me() -> asyncio.Task[Any]:
    """Return the current task."""
    task = asyncio.current_task()
    assert task is not None
    return task


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_run_is_a_task_of_the_loop(play: Run) -> None:
    """It begins when its time has come, with its arguments, and is running until its task has ended."""
    seen: list[object] = []

    async def look(log: Log, system: CalloutSystem, word: str) -> None:
        seen.extend([word, asyncio.get_running_loop(), me().get_name(), system.current_time()])
        await log.work(word)

    async def main() -> None:
        log = Log()
        async with opened() as (system, nursery):
            t = nursery.start_later(0.001, look, log, system, "a", name="worker")
            deadline = t.deadline

            assert isinstance(nursery, TimedNursery)
            assert (t.pending, t.running, t.name) == (True, False, "worker")

            await log.begun("a")
            assert (t.pending, t.running, t.deadline, t.remaining()) == (False, True, math.inf, math.inf)
            assert repr(nursery) == "<TimedNursery, open: 1 running, 0 scheduled>"
            log.go.set()
            assert await t.drain() is False
            assert (t.pending, t.running, t.closed) == (False, False, False)

            nursery.start_at(system.current_time(), log.work, "b")
            await log.begun("b")

        word, loop, name, at = seen
        assert (word, loop, name) == ("a", asyncio.get_running_loop(), "worker")
        assert isinstance(at, float)
        assert at >= deadline

    play(main)


def test_a_task_that_is_not_armed_does_not_start(play: Run) -> None:
    """Until it is reset; 0 is not inside the call."""

    async def main() -> None:
        log = Log()
        async with opened() as (system, nursery):
            t = nursery.task(log.work, "a")
            await past(system)
            assert (t.pending, t.running) == (False, False)

            assert t.reset(0) is ResetResult.ARMED
            assert not t.running
            await log.begun("a")
            log.go.set()

    play(main)


def test_a_reset_during_a_run_is_for_the_next(play: Run) -> None:
    """One that is due before the end of the run comes at the end; it can be replaced and stopped until then."""

    async def main() -> None:
        log = Log()
        async with opened() as (system, nursery):
            t = nursery.start_later(0, log.work, "a")
            await log.begun("a")
            assert t.reset(0) is ResetResult.ARMED
            await past(system)
            assert (t.pending, t.running, t.remaining()) == (True, True, 0)
            assert repr(t) == f"<TimeoutTask at {id(t):#x} Log.work on cpu 0: running, due at its end>"
            assert t.stop() is StopResult.BOTH
            assert t.stop() is StopResult.RUNNING
            t.reset(0)
            await past(system)
            assert t.reset(1000) is ResetResult.REARMED
            assert t.reset(0) is ResetResult.REARMED
            await past(system)
            assert log.said == ["a begins"]

            log.go.set()
            await log.begun("a")
            await t.drain()
            assert log.said == ["a begins", "a ends"] * 2
            assert t.stop() is StopResult.IDLE

    play(main)


def test_periodic_runs_never_overlap(play: Run) -> None:
    """Each time of the grid is that of a start or a skipped period, and the skipped ones are counted."""
    period = 0.001

    async def main() -> None:
        running = runs = 0
        late = asyncio.Event()
        done = asyncio.Event()

        async def work() -> None:
            nonlocal running, runs
            runs += 1
            running += 1
            assert running == 1
            if runs == 1:  # it takes longer than a period
                system.call_at(t.deadline + 2.5 * period, late.set)
                await late.wait()
                assert t.missed >= 2
            assert round((t.deadline - first) / period) == runs + t.missed
            running -= 1
            if runs == 5:
                assert t.stop() is StopResult.BOTH
                done.set()

        async with opened() as (system, nursery):
            t = nursery.start_every(period, work, first=0)
            first = t.deadline
            await done.wait()
            await t.drain()
            await past(system)

        assert runs == 5
        assert t.reset(1) is ResetResult.REFUSED

    play(main)


def test_a_task_that_arms_itself_is_started_anew(play: Run) -> None:
    """After it has ended, as for a retry with back-off."""

    async def main() -> None:
        attempts: list[int] = []
        done = asyncio.Event()

        async def connect() -> None:
            attempts.append(len(attempts))
            if len(attempts) == 4:
                done.set()
            else:
                assert t.reset(0) is ResetResult.ARMED

        async with opened() as (_, nursery):
            t = nursery.task(connect)
            t.reset(0)
            await done.wait()

        assert attempts == [0, 1, 2, 3]

    play(main)


# -- the end of the nursery --------------------------------------------------------------------------------------------


def test_a_normal_end_stops_what_is_pending_and_awaits_what_runs(play: Run) -> None:
    """What is due at the end of a run counts as pending; from the end of the body on every arming is refused."""

    async def main() -> None:
        log = Log()

        async def release() -> None:
            assert running.reset(0) is ResetResult.REFUSED
            log.go.set()

        async with callout.guest.open_callouts() as system:
            async with system.open_nursery() as nursery:
                running = nursery.start_later(0, log.work, "a")
                pending = nursery.start_later(1000, log.work, "b")
                every = nursery.start_every(1000, log.work, "c")
                await log.begun("a")
                running.reset(0)
                await past(system)
                assert repr(nursery) == "<TimedNursery, open: 1 running, 3 scheduled>"
                nursery.start_soon(release)

            assert log.said == ["a begins", "a ends"]
            for t in (running, pending, every):
                assert t.reset(0) is ResetResult.REFUSED
                assert t.reset_at(0) is ResetResult.REFUSED
                assert (t.pending, t.running, t.stop(), t.cancel()) == (False, False, StopResult.IDLE, StopResult.IDLE)
                assert await t.drain() is False
            assert not nursery.start_later(0, log.work, "d").pending
            assert repr(nursery) == "<TimedNursery, ended: 0 running, 0 scheduled>"
            nursery.cancel()  # too late: nothing
            await past(system)

    play(main)


def test_start_soon_works_until_the_last_task_has_ended(play: Run) -> None:
    """A task may start others while the nursery waits for it, though no timer of it may be armed; then none may."""

    async def main() -> None:
        log = Log()

        async def first() -> None:
            await log.go.wait()
            assert t.reset(0) is ResetResult.REFUSED
            nursery.start_soon(log.work, "second", name="another")

        async with callout.guest.open_callouts() as system:
            async with system.open_nursery() as nursery:
                t = nursery.start_later(0, first)
                await past(system)
                asyncio.get_running_loop().call_soon(log.go.set)

            assert log.said == ["second begins", "second ends"]
            with pytest.raises(ClosedError, match="start_soon: this nursery has ended"):
                nursery.start_soon(log.work, "third")

    play(main)


def test_what_a_thread_hands_over_at_the_end_is_started_or_refused(play: Run) -> None:
    """Of the tasks that a thread starts while the body ends, and then, each that was accepted has run."""

    async def main() -> None:
        ran = accepted = 0
        begun = threading.Event()

        async def count() -> None:
            nonlocal ran
            ran += 1
            begun.set()

        def start() -> None:
            nonlocal accepted
            with suppress(ClosedError):
                for _ in range(1000):
                    nursery.start_soon(count)
                    accepted += 1

        async with callout.guest.open_callouts() as system:
            async with system.open_nursery() as nursery:
                starts = asyncio.create_task(asyncio.to_thread(start))
                await asyncio.to_thread(begun.wait)
            await starts

        assert ran == accepted > 0

    play(main)


def test_an_exception_of_the_body_cancels(play: Run) -> None:
    """What runs is cancelled and awaited, what is due is not started; both errors of a body and a task leave."""

    async def main() -> None:
        log = Log()

        async def fails() -> None:
            try:
                await log.work("b")
            finally:
                raise ValueError

        async with callout.guest.open_callouts() as system:
            with pytest.RaisesGroup(KeyError, ValueError):
                async with system.open_nursery() as nursery:
                    t = nursery.start_later(0, log.work, "a")
                    await log.begun("a")
                    t.reset(0)
                    await past(system)
                    nursery.start_soon(fails)
                    await log.begun("b")
                    nursery.start_soon(log.work, "c")
                    raise KeyError

            assert repr(nursery) == "<TimedNursery, ended: 0 running, 0 scheduled>"
            with pytest.raises(ClosedError, match="start_soon: this nursery has ended"):
                nursery.start_soon(log.work, "d")
            await past(system)

        assert sorted(log.said) == ["a begins", "a is cancelled", "b begins", "b is cancelled"]
        assert (t.pending, t.running) == (False, False)

    play(main)


@pytest.mark.parametrize("ended", [False, True])
def test_an_exception_of_a_task_leaves_through_the_nursery(play: Run, ended: bool) -> None:
    """Not through on_error; the body, if it has not ended, and the other tasks are cancelled, which is undone."""
    told: list[object] = []

    async def main() -> None:
        log = Log()

        async def bad() -> None:
            t.reset(0)
            await log.go.wait()
            raise KeyError

        async def idle() -> None:
            try:
                await forever()
            except asyncio.CancelledError:
                log.said.append("idle is cancelled")
                raise

        async with callout.guest.open_callouts(on_error=lambda error, c: told.append(error)) as system:
            with pytest.RaisesGroup(KeyError):
                async with system.open_nursery() as nursery:
                    nursery.start_later(0, idle)
                    t = nursery.start_later(0, bad)
                    await past(system)
                    asyncio.get_running_loop().call_soon(log.go.set)
                    if not ended:
                        await forever()

            assert me().cancelling() == 0
            await asyncio.sleep(0)

        assert log.said == ["idle is cancelled"]

    play(main)

    assert told == []


def test_its_system_does_not_keep_it(play: Run) -> None:
    """A server that opens one for each connection keeps those only that are open."""

    async def main() -> None:
        nurseries: weakref.WeakSet[TimedNursery] = weakref.WeakSet()
        async with callout.guest.open_callouts() as system:
            async with system.open_nursery() as nursery:
                nurseries.add(nursery)
                await nursery.start_later(0, forever).aclose()
            del nursery
            gc.collect()

            assert not nurseries

    play(main)


# -- cancel() ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", ["thread", "body", "task", "end"])
def test_cancel(play: Run, caller: str) -> None:
    """Body and tasks are cancelled, from wherever, what is scheduled is stopped, and the block swallows the
    cancellation; what is started meanwhile is not begun.
    """

    async def main() -> None:
        log = Log()
        reached = False
        thread: asyncio.Task[None] | None = None

        def cancel() -> None:
            nursery.cancel()
            nursery.cancel()
            if caller != "thread":  # for that it may have ended by now
                nursery.start_soon(log.work, "late")
            assert t.stop() is StopResult.IDLE
            assert t.reset(0) is ResetResult.REFUSED

        async def cancels() -> None:
            cancel()

        async with callout.guest.open_callouts() as system:
            async with system.open_nursery() as nursery:
                nursery.start_soon(log.work, "a")
                t = nursery.start_later(1000, log.work, "b")
                await log.begun("a")
                if caller == "thread":
                    thread = asyncio.create_task(asyncio.to_thread(cancel))
                    await asyncio.shield(thread)
                elif caller == "body":
                    cancel()
                elif caller == "task":
                    nursery.start_soon(cancels)
                else:
                    asyncio.get_running_loop().call_soon(cancel)
                if caller != "end":
                    await forever()
                    reached = True

            if thread is not None:
                await thread
            assert not reached
            assert log.said == ["a begins", "a is cancelled"]
            assert me().cancelling() == 0
            await asyncio.sleep(0)
            nursery.cancel()  # again, and too late: nothing
            await past(system)

    play(main)


def test_cancel_leaves_other_errors(play: Run) -> None:
    """What body and tasks raise when they are cancelled leaves the block."""

    async def main() -> None:
        log = Log()

        async def fails() -> None:
            try:
                await log.work("a")
            finally:
                raise ValueError

        with pytest.RaisesGroup(KeyError, ValueError):
            async with opened() as (_, nursery):
                nursery.start_soon(fails)
                await log.begun("a")
                nursery.cancel()
                try:
                    await forever()
                finally:
                    raise KeyError

        assert me().cancelling() == 0
        await asyncio.sleep(0)

    play(main)


# -- cancellation from outside -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize("ended", [False, True])
def test_a_cancellation_around_it(play: Run, ended: bool, times: int) -> None:
    """Whether it comes in the body or while the nursery waits, and however often: what runs is cancelled once, and
    awaited; one CancelledError leaves, and none is undone.
    """

    async def main() -> None:
        log = Log()
        waits = asyncio.Event()

        async def work() -> None:
            try:
                await log.work("a")
            finally:
                await log.go.wait()
                log.said.append("a has cleaned up")

        async def body() -> None:
            async with opened() as (_, nursery):
                nursery.start_later(0, work)
                await log.begun("a")
                asyncio.get_running_loop().call_soon(waits.set)  # it comes when this task waits
                if not ended:
                    await forever()

        task = asyncio.create_task(body())
        await waits.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert log.said == ["a begins", "a is cancelled"]
        assert not task.done()
        log.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert log.said[2:] == ["a has cleaned up"]
        assert task.cancelling() == times

    play(main)


@pytest.mark.parametrize("by_cancel", [False, True])
def test_a_timeout_around_it(play: Run, by_cancel: bool) -> None:
    """``asyncio.timeout()`` is a TimeoutError after the tasks have ended, also if the nursery is cancelled then."""

    async def main() -> None:
        log = Log()
        nurseries: list[TimedNursery] = []

        async def work() -> None:
            try:
                await log.work("a")
            finally:
                if by_cancel:
                    nurseries[0].cancel()

        async def body(system: CalloutSystem) -> None:
            async with asyncio.timeout(None) as timeout, system.open_nursery() as nursery:
                nurseries.append(nursery)
                nursery.start_soon(work)
                await log.begun("a")
                timeout.reschedule(0)
                await forever()

        async with callout.guest.open_callouts() as system:
            with pytest.raises(TimeoutError):
                await body(system)

            assert me().cancelling() == 0
            await asyncio.sleep(0)

        assert log.said == ["a begins", "a is cancelled"]

    play(main)


@pytest.mark.parametrize("order", ["nursery, task", "task, nursery", "nursery, later task", "task, later nursery"])
@pytest.mark.parametrize("ended", [False, True])
def test_both_are_cancelled(play: Run, order: str, ended: bool) -> None:
    """A nursery that is cancelled, and its task from outside, in either order, at once or while tasks clean up: one
    CancelledError leaves the block.
    """

    async def main() -> None:
        log = Log()
        waits, cancelled = asyncio.Event(), asyncio.Event()
        nurseries: list[TimedNursery] = []

        async def work() -> None:
            try:
                await log.work("a")
            finally:
                cancelled.set()
                await log.go.wait()

        async def body() -> None:
            async with callout.guest.open_callouts() as system:
                try:
                    async with system.open_nursery() as nursery:
                        nurseries.append(nursery)
                        nursery.start_soon(work)
                        await log.begun("a")
                        asyncio.get_running_loop().call_soon(waits.set)
                        if not ended:
                            await forever()
                finally:
                    await asyncio.sleep(0)  # nothing more comes
                    log.said.append("cleaned up")

        task = asyncio.create_task(body())
        await waits.wait()
        for word in order.split(", "):
            if "later" in word:
                await cancelled.wait()
            if "task" in word:
                task.cancel()
            else:
                nurseries[0].cancel()
        await cancelled.wait()
        log.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert log.said == ["a begins", "a is cancelled", "cleaned up"]
        assert task.cancelling() == 1

    play(main)


def test_cancel_in_what_cleans_up_after_a_cancellation(play: Run) -> None:
    """A task that was cancelled, and uses a nursery for its end, may cancel that: nothing more comes of it."""

    async def main() -> None:
        log = Log()

        async def body() -> None:
            async with callout.guest.open_callouts() as system:
                log.go.set()
                try:
                    await forever()
                finally:
                    async with system.open_nursery() as nursery:
                        nursery.start_soon(forever)
                        nursery.start_soon(bye, nursery)
                    await asyncio.sleep(0)
                    log.said.append("cleaned up")

        async def bye(nursery: TimedNursery) -> None:
            log.said.append("bye")
            nursery.cancel()

        task = asyncio.create_task(body())
        await log.go.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert log.said == ["bye", "cleaned up"]

    play(main)


# -- cancel, drain, close of one ---------------------------------------------------------------------------------------


def test_cancel_is_for_one_task(play: Run) -> None:
    """It stops the timer, and cancels the run in progress, once, however often it is called; to the nursery, the body
    and the next run nothing happens.
    """

    async def main() -> None:
        log = Log()
        clean = asyncio.Event()

        async def work() -> None:
            try:
                await log.work("a")
            finally:
                await clean.wait()
                log.said.append("a has cleaned up")

        async with callout.guest.open_callouts() as system:
            async with system.open_nursery() as nursery:
                t = nursery.start_later(1000, work)
                assert t.cancel() is StopResult.REMOVED
                nursery.start_soon(log.work, "b")
                await log.begun("b")
                t.reset(0)
                await log.begun("a")
                t.reset(1000)
                assert t.cancel() is StopResult.BOTH
                await past(system)
                assert t.cancel() is StopResult.RUNNING
                await past(system)
                assert log.said == ["b begins", "a begins", "a is cancelled"]
                assert t.running
                clean.set()
                await t.drain()
                assert log.said[3:] == ["a has cleaned up"]
                assert t.cancel() is StopResult.IDLE
                t.reset(0)
                await log.begun("a")
                log.go.set()

            assert me().cancelling() == 0
        assert sorted(log.said[5:]) == ["a ends", "a has cleaned up", "b ends"]

    play(main)


def test_a_run_that_is_cancelled_before_its_first_step(play: Run) -> None:
    """It ends without having begun, as a task of asyncio does, and another can be started."""

    async def main() -> None:
        log = Log()
        async with opened() as (system, nursery):
            t = nursery.task(log.work, "a")

            def fired() -> None:  # in the same turn of softclock
                assert t.running
                assert t.cancel() is StopResult.RUNNING

            t.reset(0)
            system.call_later(0, fired)
            await past(system)
            await t.drain()
            assert log.said == []
            t.reset(0)
            await log.begun("a")
            log.go.set()

    play(main)


def test_a_task_that_somebody_else_cancels_has_not_failed(play: Run) -> None:
    """Nor has one that raises CancelledError by itself: the nursery goes on."""

    async def main() -> None:
        tasks: list[asyncio.Task[Any]] = []
        log = Log()

        async def work() -> None:
            tasks.append(me())
            await log.work("a")

        async def stray() -> None:
            raise asyncio.CancelledError

        async with opened() as (_, nursery):
            t = nursery.start_later(0, work)
            await log.begun("a")
            tasks[0].cancel()
            await t.drain()
            t = nursery.start_later(0, stray)
            await asyncio.sleep(0)
            await t.drain()
            nursery.start_soon(log.work, "b")
            await log.begun("b")
            log.go.set()

        assert log.said == ["a begins", "a is cancelled", "b begins", "b ends"]
        assert me().cancelling() == 0

    play(main)


def test_drain_waits_for_the_task(play: Run) -> None:
    """It stops, waits, and is a checkpoint; armings are refused until the run has ended, and are welcome then, or when
    nobody waits any more.
    """

    async def main() -> None:
        log = Log()
        async with opened() as (_, nursery):
            t = nursery.start_later(1000, log.work, "a")
            turn: list[str] = []
            asyncio.get_running_loop().call_soon(turn.append, "of another")
            assert await t.drain() is True
            assert turn == ["of another"]
            t.reset(0)
            await log.begun("a")
            t.reset(1000)
            waits = asyncio.ensure_future(t.drain())
            await asyncio.sleep(0)
            assert t.reset(0) is ResetResult.REFUSED
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits
            assert (t.pending, t.running) == (False, True)
            assert t.reset(1000) is ResetResult.ARMED
            waits, others = asyncio.ensure_future(t.drain()), asyncio.ensure_future(t.drain())
            await asyncio.sleep(0)
            log.go.set()
            assert [await waits, await others] == [True, False]
            assert log.said == ["a begins", "a ends"]
            assert t.reset(1000) is ResetResult.ARMED

    play(main)


@pytest.mark.parametrize("times", [0, 1, 5])
def test_close_cancels_and_is_for_good(play: Run, times: int) -> None:
    """At the end of `async with` too, under any number of cancellations, of which one is raised then."""

    async def main() -> None:
        log = Log()
        cancelled = asyncio.Event()

        async def work() -> None:
            try:
                await log.work("a")
            finally:
                cancelled.set()
                await log.go.wait()
                log.said.append("a has cleaned up")

        async def closes(t: TimeoutTask) -> None:
            async with t:
                await log.begun("a")

        async with opened() as (system, nursery):
            t = nursery.start_later(0, work)
            task = asyncio.create_task(closes(t))
            await cancelled.wait()
            for _ in range(times):
                task.cancel()
                await past(system)
            assert not task.done()
            assert t.reset(0) is ResetResult.REFUSED
            log.go.set()
            if times:
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                await task

            assert log.said == ["a begins", "a is cancelled", "a has cleaned up"]
            assert task.cancelling() == times
            assert (t.closed, t.running, t.pending) == (True, False, False)
            assert repr(t) == f"<TimeoutTask at {id(t):#x} on cpu 0: closed>"
            with pytest.raises(StopIteration):
                t.aclose().send(None)  # it does not yield

    play(main)


def test_a_wait_from_inside_is_an_error(play: Run) -> None:
    """In its own task; a task that it has only started may wait for it."""

    async def main() -> None:
        said: list[str] = []
        ended = asyncio.Event()

        async def outside() -> None:
            await t.drain()
            said.append("outside")
            ended.set()

        async def work() -> None:
            for wait in (t.drain, t.aclose):
                with pytest.raises(SelfDrainError, match="waits for its own task, which would never end; use stop"):
                    wait()
            with pytest.raises(SelfDrainError, match="async with"):
                async with t:
                    pass
            nursery.start_soon(outside)
            said.append("inside")

        async with opened() as (_, nursery):
            t = nursery.start_later(0, work)
            await ended.wait()

        assert said == ["inside", "outside"]

    play(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are never eager there")
def test_eager_tasks() -> None:
    """A task factory that is eager begins them in no call of the user's, and with no lock held."""

    async def main() -> None:
        said: list[str] = []

        async def work() -> None:
            with pytest.raises(SelfDrainError):
                t.drain()  # type: ignore[unused-coroutine]  # it raises
            said.append("work begins")
            nursery.start_soon(other)
            t.reset(0)
            await asyncio.sleep(0)
            said.append("work ends")
            t.stop()
            raise KeyError

        async def other() -> None:
            said.append("other")

        async def at_once() -> None:
            nursery.cancel()

        asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - 3.11 has none
        async with callout.guest.open_callouts() as system:
            with pytest.RaisesGroup(KeyError):
                async with system.open_nursery() as nursery:
                    t = nursery.start_later(0, work)
                    nursery.start_soon(other)
                    assert said == []
                    await forever()
            async with system.open_nursery() as nursery:
                nursery.start_soon(forever)
                nursery.start_soon(at_once)
                await forever()
            assert me().cancelling() == 0

            async def in_callback() -> None:
                async with system.open_nursery() as nursery:
                    nursery.start_soon(other)

            tasks: list[asyncio.Task[None]] = []
            system.call_later(0, lambda: tasks.append(asyncio.create_task(in_callback())))
            await past(system)
            await tasks[0]

        assert said == ["other", "work begins", "other", "work ends", "other"]

    asyncio.run(main())  # not uvloop, which no eager factory works with


def test_a_task_factory_that_fails(play: Run) -> None:
    """Its error leaves the block of the system, whose body is cancelled; the run has ended that has not begun."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def factory(*_: object, **__: object) -> asyncio.Task[Any]:
            loop.set_task_factory(None)
            raise ZeroDivisionError

        async def elsewhere() -> None:
            async with current_system().open_nursery() as nursery:
                loop.set_task_factory(factory)
                t = nursery.start_later(0, forever)
                await past(current_system())
                await t.drain()
                assert not t.running

        async def body() -> None:
            async with callout.guest.open_callouts():
                tasks.append(asyncio.create_task(elsewhere()))
                await forever()

        tasks: list[asyncio.Task[None]] = []
        with pytest.RaisesGroup(ZeroDivisionError):
            await body()
        await tasks[0]

    play(main)


# -- where -------------------------------------------------------------------------------------------------------------

VALUE: ContextVar[str] = ContextVar("value", default="none")


def test_each_run_has_a_copy_of_the_context_of_the_making(play: Run) -> None:
    """Not that of the arming; what one run sets the next does not see. start_soon() has its caller's."""

    async def main() -> None:
        seen: list[str] = []

        async def look() -> None:
            seen.append(VALUE.get())
            VALUE.set("of a run")
            assert current_system() is system

        async with opened() as (system, nursery):
            VALUE.set("made")
            t = nursery.task(look)
            VALUE.set("armed")
            for _ in range(2):
                t.reset(0)
                await past(system)
                await t.drain()
            nursery.start_soon(look)

        assert seen == ["made", "made", "armed"]

    play(main)


def test_threads_may_do_all_but_wait(play: Run) -> None:
    """Whatever thread arms, starts or cancels, the tasks are tasks of the loop."""

    async def main() -> None:
        log = Log()
        loop = asyncio.get_running_loop()
        begun: set[str] = set()
        all_begun = threading.Event()

        async def look(name: str) -> None:
            assert asyncio.get_running_loop() is loop
            begun.add(name)
            if len(begun) == 4:
                all_begun.set()
            if name == "every":
                await log.work(name)

        def thread() -> None:
            nursery.start_soon(look, "soon")
            nursery.start_later(0, look, "later")
            nursery.start_at(0, look, "at")
            t = nursery.task(look, "task")
            assert t.reset(1000) is ResetResult.ARMED
            assert t.stop() is StopResult.REMOVED
            held = nursery.start_every(1000, look, "every", first=0)
            all_begun.wait()
            assert held.cancel() is StopResult.BOTH
            asyncio.run_coroutine_threadsafe(ended(held), loop).result()
            assert not held.running

        async def ended(t: TimeoutTask) -> None:
            await t.drain()

        async with opened() as (_, nursery):
            await asyncio.to_thread(thread)

        assert log.said == ["every begins", "every is cancelled"]

    play(main)


def test_on_another_cpu_it_is_one_of_trio(play: Run) -> None:
    """A nursery that a task of CPU 1 has opened starts tasks of trio; tasks of either loop may wait for the other's."""

    async def main() -> None:
        log = Log()

        async def on_trio(t: TimeoutTask) -> None:
            async with system.open_nursery() as nursery:
                u = nursery.start_later(0, look)
                timers.append(u)
                await looked.wait()
                await t.aclose()
                over.set()
                await u.drain()

        async def look() -> None:
            assert threading.get_ident() != here
            looked.set()
            await trio.sleep_forever()

        async with callout.guest.open_callouts(2) as system:
            here = threading.get_ident()
            timers: list[TimeoutTask] = []
            looked, over = Event(), Event()
            async with system.open_nursery() as nursery:
                t = nursery.start_later(0, log.work, "a")
                await log.begun("a")
                system.cpu(1).start_soon(on_trio, t)
                await over.wait()
                assert (t.closed, t.running, log.said[-1]) == (True, False, "a is cancelled")
                await timers[0].aclose()

    play(main)


def test_elsewhere_it_cannot_be_opened(play: Run) -> None:
    """In another loop of asyncio, in a thread without a loop, in a callback of the loop, in a system that is closed."""

    async def main() -> None:
        async def opens(system: CalloutSystem) -> None:
            async with system.open_nursery():
                raise AssertionError

        def by_hand(system: CalloutSystem, error: type[Exception], match: str) -> None:
            with pytest.raises(error, match=match):
                opens(system).send(None)

        def other_loop(system: CalloutSystem, error: type[Exception], match: str) -> None:
            with pytest.raises(error, match=match):
                asyncio.run(opens(system))

        async def on_trio(match: str) -> None:
            async with callout.open_callouts() as system:
                await trio.to_thread.run_sync(other_loop, system, LoopThreadError, match)

        no_task = r"^open_nursery: its tasks run on the loop .*system\.cpu\(n\)\.start_soon"
        async with callout.guest.open_callouts() as system:
            await asyncio.to_thread(
                other_loop, system, GuestError, r"^open_nursery: this is another loop .*system\.cpu\(0\)\.start_soon"
            )
            await asyncio.to_thread(by_hand, system, LoopThreadError, no_task)
            done = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.call_soon(by_hand, system, LoopThreadError, no_task)
            loop.call_soon(done.set)
            await done.wait()
            await asyncio.to_thread(trio.run, on_trio, r"^open_nursery: .*with callout\.guest\.open_callouts\(\)$")
        with pytest.raises(ClosedError, match=r"^open_nursery"):
            await opens(system)

    play(main)


def test_left_in_another_task(play: Run) -> None:
    """That is an error, as for a group of tasks; what runs is cancelled, and awaited."""

    async def main() -> None:
        log = Log()
        async with callout.guest.open_callouts() as system:
            block = system.open_nursery()

            async def enter() -> None:
                nursery = await block.__aenter__()
                nursery.start_soon(log.work, "a")
                await log.begun("a")

            await asyncio.create_task(enter())
            with pytest.RaisesGroup(pytest.RaisesExc(GuestError, match="^open_nursery: leave the block in the task")):
                await block.__aexit__(None, None, None)

        assert log.said == ["a begins", "a is cancelled"]

    play(main)


def test_a_system_that_closes_refuses_and_starts_nothing(play: Run) -> None:
    """A nursery that outlives its system: what is pending is stopped, what is due is not started, what runs goes on."""

    async def main() -> None:
        log = Log()
        ready, over = asyncio.Event(), asyncio.Event()

        async def elsewhere() -> None:
            async with current_system().open_nursery() as nursery:
                t = nursery.start_later(0, log.work, "a")
                pending = nursery.start_later(1000, log.work, "b")
                await log.begun("a")
                t.reset(0)
                await past(current_system())
                ready.set()
                await over.wait()
                for timer in (t, pending):
                    with pytest.raises(ClosedError):
                        timer.reset(0)
                log.go.set()

        async with callout.guest.open_callouts():
            task = asyncio.create_task(elsewhere())
            await ready.wait()
        over.set()
        await task

        assert log.said == ["a begins", "a ends"]

    play(main)
