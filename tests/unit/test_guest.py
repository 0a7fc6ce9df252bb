"""``callout.guest``: a system in a loop of asyncio. What waits, runs and fails on CPU 0 is asyncio code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from errno import EWOULDBLOCK
from pathlib import Path
from typing import Any, Final

import pytest
import sniffio
import trio

import callout.guest
from callout import (
    CallbackCancelledError,
    Callout,
    CalloutSystem,
    ClosedError,
    Cv,
    Event,
    GuestError,
    LockHeldError,
    LoopError,
    LoopThreadError,
    Mtx,
    SleepError,
    callout_barrier,
    callout_barrier_all,
    callout_drain,
    callout_drain_sync,
    callout_init,
    callout_pending,
    callout_quiesce,
    callout_reset,
    callout_reset_on,
    callout_running,
    callout_terminate,
    cv_signal,
    cv_timedwait,
    cv_wait,
    draining,
    giant,
    msleep,
    pause,
    tsleep,
    wakeup,
)

from .conftest import Run

HOUR: Final = 3_600_000  # ticks
DESCRIPTORS: Final = Path("/proc/self/fd")


def fresh() -> Callout:
    """Return a callout without a lock."""
    c = Callout()
    callout_init(c, 1)
    return c


def ignore(arg: object) -> None:
    """Be a callback that does nothing."""


def fail(arg: object) -> None:
    """Be a callback that fails."""
    raise ZeroDivisionError


class Stands:
    """A callback that stands, on CPU 1, until it is released."""

    def __init__(self) -> None:
        self.there = threading.Event()
        self.go = threading.Event()

    def __call__(self, arg: object) -> None:
        """Stand there."""
        self.there.set()
        self.go.wait()

    async def begun(self) -> Callout:
        """Return a callout whose callback this is, and stands."""
        c = fresh()
        callout_reset_on(c, 1, self, None, 1)
        await asyncio.to_thread(self.there.wait)
        return c


@asynccontextmanager
async def standing() -> AsyncIterator[tuple[Callout, threading.Event]]:
    """Open a system of two CPUs; give a callout whose callback stands, and what releases it."""
    stands = Stands()
    async with callout.guest.open_callouts(2):
        try:
            yield await stands.begun(), stands.go
        finally:
            stands.go.set()


async def turns(count: int) -> None:
    """Let the loop come round so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


# -- where code runs ---------------------------------------------------------------------------------------------------


def test_a_callback_is_a_callback_of_the_loop(run: Run) -> None:
    """A callback of CPU 0 runs in the loop's thread, outside of any task; it touches futures, sniffio says asyncio."""
    seen: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with callout.guest.open_callouts():
            future: asyncio.Future[str] = loop.create_future()

            def fire(arg: str) -> None:
                here = asyncio.get_running_loop() is loop, threading.current_thread() is threading.main_thread()
                seen.extend([*here, asyncio.current_task(), sniffio.current_async_library()])
                future.set_result(arg)

            callout_reset(fresh(), 1, fire, "fired")

            assert await future == "fired"

    run(main)

    assert seen == [True, True, None, "asyncio"]


def test_request_handlers_find_the_system(run: Run) -> None:
    """A task that was started before the block was entered finds the system of its loop as the current one."""

    async def main() -> None:
        opened = asyncio.Event()

        async def other() -> None:
            await opened.wait()
            assert await pause("test", 1) == EWOULDBLOCK

        task = asyncio.create_task(other())
        async with callout.guest.open_callouts():
            opened.set()
            await task

    run(main)


# -- waiting -----------------------------------------------------------------------------------------------------------

Wait = Callable[[Callout, Mtx, Cv], Awaitable[object]]

WAITS_FOR_RUN: Final[dict[str, Wait]] = {
    "callout_drain": lambda c, m, cv: callout_drain(c),
    "callout_barrier": lambda c, m, cv: callout_barrier(c),
    "callout_terminate": lambda c, m, cv: callout_terminate(c),
    "callout_quiesce": lambda c, m, cv: callout_quiesce(c),
    "callout_barrier_all": lambda c, m, cv: callout_barrier_all(),
    "draining": lambda c, m, cv: leave(c),
}


async def leave(c: Callout) -> None:
    """Enter and leave a block that drains."""
    async with draining(c):
        pass


@pytest.mark.parametrize("name", WAITS_FOR_RUN)
def test_a_task_waits_for_a_run(run: Run, name: str) -> None:
    """What waits for a callback of another CPU goes on when that has returned, and not before."""

    async def main() -> None:
        async with standing() as (c, go):
            waits = asyncio.ensure_future(WAITS_FOR_RUN[name](c, Mtx(), Cv()))
            await turns(20)

            assert not waits.done()

            go.set()
            await waits

            assert callout_running(c) == 0

    run(main)


WAITS_FOR_EVENT: Final[dict[str, Wait]] = {
    "tsleep": lambda c, m, cv: tsleep(c, 0, "test", 0),
    "msleep": lambda c, m, cv: msleep(c, m, 0, "test", 0),
    "cv_wait": lambda c, m, cv: cv_wait(cv, m),
    "cv_timedwait": lambda c, m, cv: cv_timedwait(cv, m, HOUR),
}


@pytest.mark.parametrize("name", WAITS_FOR_EVENT)
def test_a_task_sleeps(run: Run, name: str) -> None:
    """What sleeps on a channel or a condition variable is woken by a callback, and holds its mutex again."""

    async def main() -> None:
        async with callout.guest.open_callouts():
            c, m, cv = fresh(), Mtx(), Cv()

            def wake(arg: object) -> None:
                with m:
                    wakeup(c)
                    cv_signal(cv)

            with_mutex = name != "tsleep"
            if with_mutex:
                m.lock()
            callout_reset(c, 1, wake, None)

            assert not await WAITS_FOR_EVENT[name](c, m, cv)
            assert m.owned() == with_mutex

            if with_mutex:
                m.unlock()

    run(main)


def test_a_drain_of_what_is_idle_lets_others_have_a_turn(run: Run) -> None:
    """It need not wait, and is a checkpoint all the same: it can be cancelled there, and has stopped the callout."""

    async def main() -> None:
        async with callout.guest.open_callouts() as system:
            c = system.call_later(1000, ignore, None)
            drains = asyncio.ensure_future(c.drain())
            await turns(1)

            assert not c.pending
            assert not drains.done()

            drains.cancel()
            with pytest.raises(asyncio.CancelledError):
                await drains

    run(main)


def test_an_event_is_for_tasks_of_both_kinds_and_for_threads(run: Run) -> None:
    """A callback sets an event for which a task of asyncio, a task of CPU 1 and a thread wait."""
    woken: list[str] = []

    async def main() -> None:
        async with callout.guest.open_callouts(2) as system:
            event = Event()

            async def waits(name: str) -> None:
                assert await event.wait()
                woken.append(name)

            system.cpu(0).start_soon(waits, "asyncio")
            system.cpu(1).start_soon(waits, "trio")
            thread = asyncio.to_thread(event.wait_sync)
            callout_reset(fresh(), 1, lambda _: event.set(), None)

            assert await thread
            assert await event.wait(timeout=0)

    run(main)

    assert sorted(woken) == ["asyncio", "trio"]


def test_threads_arm_and_drain(run: Run) -> None:
    """A thread without a loop arms callouts of CPU 0 and drains them, blocking; a task must not block."""

    async def main() -> None:
        async with callout.guest.open_callouts():
            c = fresh()
            fired = threading.Event()

            def use() -> None:
                callout_reset(c, 1, lambda _: fired.set(), None)
                fired.wait()
                callout_drain_sync(c)

            await asyncio.to_thread(use)
            with pytest.raises(LoopThreadError, match=r"^callout_drain_sync: "):
                callout_drain_sync(c)

            assert callout_running(c) == 0

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are never eager there")
def test_an_eager_task_waits_in_asyncio() -> None:
    """A task that an eager factory begins in a callback, inside a step of trio, waits as a task of asyncio."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - a name that 3.11 has not
        async with callout.guest.open_callouts() as system:
            event, tasks = Event(), list[asyncio.Task[bool]]()
            began = asyncio.Event()

            def begin(arg: object) -> None:
                tasks.append(loop.create_task(event.wait()))
                began.set()

            callout_reset(fresh(), 1, begin, None)
            system.cpu(0).start_soon(pause, "test", 1)
            await began.wait()
            event.set()

            assert await tasks[0]

    asyncio.run(main())  # not uvloop, which no eager factory works with


def test_a_task_factory_that_fails(run: Run) -> None:
    """The error of a task factory leaves the block in a group, and the end does not wait for what was never started."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def factory(*_: object, **__: object) -> asyncio.Task[Any]:
            raise ZeroDivisionError

        async def body() -> None:
            async with callout.guest.open_callouts() as system:
                loop.set_task_factory(factory)
                system.cpu(0).start_soon(pause, "test", 1)
                await asyncio.Event().wait()

        with pytest.raises(ExceptionGroup) as caught:
            await body()

        loop.set_task_factory(None)
        assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]

    run(main)


def test_starting_leaves_the_loop_its_turns(run: Run) -> None:
    """A task that is to be started while another one is comes when the loop's callbacks have had their turns."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        started: list[str] = []
        over = asyncio.Event()

        async def task() -> None:
            pass

        async with callout.guest.open_callouts() as system:

            def factory(
                loop: asyncio.AbstractEventLoop,
                coroutine: Any,  # noqa: ANN401 - of either kind
                **given: object,
            ) -> asyncio.Task[Any]:
                started.append("a task")
                if started[-3:] == ["a task"] * 3:
                    loop.set_task_factory(None)
                    loop.call_soon(over.set)
                else:
                    system.cpu(0).start_soon(task)
                    loop.call_soon(started.append, "the loop")
                return asyncio.Task(coroutine, loop=loop, **given)  # type: ignore[arg-type]  # it is passed on

            loop.set_task_factory(factory)
            system.cpu(0).start_soon(task)
            await turns(20)

            assert not over.is_set()
            assert started.count("the loop") > 3
            loop.set_task_factory(None)

    run(main)


# -- cancellation ------------------------------------------------------------------------------------------------------


def test_a_drain_is_cancelled(run: Run) -> None:
    """A drain that is cancelled has stopped the callout, whose callback is perhaps still running."""

    async def main() -> None:
        async with standing() as (c, go):
            callout_reset(c, HOUR, ignore, None)
            drains = asyncio.ensure_future(callout_drain(c))
            await turns(1)
            drains.cancel()
            with pytest.raises(asyncio.CancelledError):
                await drains

            assert callout_running(c) == 1

            go.set()
            await callout_barrier(c)

            assert (callout_pending(c), callout_running(c)) == (0, 0)

    run(main)


@pytest.mark.parametrize("times", [1, 5])
def test_a_shielded_wait_withstands_any_number_of_cancellations(run: Run, times: int) -> None:
    """``draining()`` waits on, and raises one CancelledError when all is drained; no cancellation is undone."""

    async def main() -> None:
        async with standing() as (c, go):
            other = fresh()

            async def body() -> None:
                async with draining(c, other):
                    pass

            task = asyncio.create_task(body())
            for _ in range(times):
                await turns(3)
                task.cancel()
            await turns(3)

            assert not task.done()

            go.set()
            with pytest.raises(asyncio.CancelledError):
                await task

            assert (callout_running(c), task.cancelling()) == (0, times)

    run(main)


def test_a_cancellation_has_the_error_as_its_context(run: Run) -> None:
    """A block that drains, is left by an error, and is cancelled then, raises the cancellation, with that error as its
    context.
    """

    async def main() -> None:
        async with standing() as (c, go):

            async def fails() -> None:
                async with draining(c):
                    raise ZeroDivisionError

            async def body() -> BaseException | None:
                with pytest.raises(asyncio.CancelledError) as caught:
                    await fails()
                return caught.value.__context__

            task = asyncio.create_task(body())
            await turns(3)
            task.cancel()
            await turns(3)
            go.set()

            assert isinstance(await task, ZeroDivisionError)

    run(main)


def test_a_timeout_around_a_shielded_wait(run: Run) -> None:
    """``asyncio.timeout()`` that expires in a shielded wait is a TimeoutError after it; the task is not cancelled."""

    async def main() -> None:
        async with standing() as (c, go):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0), draining(c):
                    asyncio.get_running_loop().call_later(0, go.set)

            me = asyncio.current_task()
            assert me is not None
            assert (callout_running(c), me.cancelling()) == (0, 0)

    run(main)


def test_a_task_group_around_a_shielded_wait(run: Run) -> None:
    """A task that is drained under a group whose other task has failed ends first; then the group raises that error."""

    async def main() -> None:
        async with standing() as (c, go):

            async def fails() -> None:
                asyncio.get_running_loop().call_soon(go.set)
                raise ZeroDivisionError

            async def body() -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(leave(c))
                    await turns(3)
                    group.create_task(fails())

            with pytest.raises(ExceptionGroup) as caught:
                await body()

            assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
            assert callout_running(c) == 0

    run(main)


def test_giant_is_acquired_again_by_what_was_cancelled(run: Run) -> None:
    """A drain that has released Giant and is cancelled holds it again when it raises, though a thread had it."""

    async def main() -> None:
        async with standing() as (c, go):
            has_it, release = threading.Event(), threading.Event()
            mutex = giant()

            async def body() -> None:
                with mutex:
                    with pytest.raises(asyncio.CancelledError):
                        await callout_drain(c)
                    assert mutex.owned()

            def hold() -> None:
                with mutex:
                    has_it.set()
                    release.wait()

            task = asyncio.create_task(body())
            await turns(3)
            holder = asyncio.ensure_future(asyncio.to_thread(hold))
            await asyncio.to_thread(has_it.wait)
            for _ in range(3):
                task.cancel()
                await turns(3)

            assert not task.done()

            release.set()
            await asyncio.gather(task, holder)
            go.set()

    run(main)


@pytest.mark.parametrize("steps", range(12))
def test_cancelled_while_the_block_is_entered(run: Run, steps: int) -> None:
    """Whenever the task is cancelled nothing is left of the system: another can be opened, no thread is left."""

    async def main() -> None:
        async def body() -> None:
            async with callout.guest.open_callouts(2):
                await asyncio.Event().wait()

        task = asyncio.create_task(body())
        await turns(steps)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with callout.guest.open_callouts():
            pass

        assert not [thread for thread in threading.enumerate() if thread.name.startswith("callout-cpu")]

    run(main)


@pytest.mark.parametrize("times", [1, 5])
def test_cancelled_while_the_block_is_left(run: Run, times: int) -> None:
    """What the end waits for is cancelled as well then; the rest of the end is carried out."""
    ended: list[str] = []

    async def main() -> None:
        left = asyncio.Event()

        async def endless() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await turns(5)
                ended.append("endless")

        async def body() -> None:
            async with callout.guest.open_callouts(2) as system:
                system.cpu(0).start_soon(endless)
                left.set()

        task = asyncio.create_task(body())
        await left.wait()
        await turns(5)
        for _ in range(times):
            task.cancel()
            await turns(1)
        with pytest.raises(asyncio.CancelledError):
            await task

        assert task.cancelling() == times

    run(main)

    assert ended == ["endless"]


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_callback_that_fails_cancels_the_body(run: Run) -> None:
    """The task that has entered is cancelled, which is undone when the block raises the error in a group."""
    seen: list[str] = []

    async def main() -> None:
        async def body() -> None:
            async with callout.guest.open_callouts():
                callout_reset(fresh(), 1, fail, None)
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    seen.append("cancelled")
                    raise

        with pytest.raises(ExceptionGroup) as caught:
            await body()

        assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
        me = asyncio.current_task()
        assert me is not None
        assert me.cancelling() == 0
        await turns(3)

    run(main)

    assert seen == ["cancelled"]


def test_the_bodys_own_error_goes_with_it(run: Run) -> None:
    """What the body raises when it is cancelled is in the group, too; alone it is raised as it is."""

    async def main() -> None:
        async def body() -> None:
            async with callout.guest.open_callouts():
                callout_reset(fresh(), 1, fail, None)
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise KeyError from None

        with pytest.raises(ExceptionGroup) as caught:
            await body()

        assert [type(error) for error in caught.value.exceptions] == [KeyError, ZeroDivisionError]

        error = KeyError()
        with pytest.raises(KeyError) as alone:
            async with callout.guest.open_callouts(2):
                raise error

        assert alone.value is error

    run(main)


def test_a_callback_that_fails_when_the_body_ends(run: Run) -> None:
    """An error that comes at the very end of the body leaves the block, and no cancellation is left behind."""

    async def main() -> None:
        fired = asyncio.Event()

        def fire(arg: object) -> None:
            fired.set()
            raise ZeroDivisionError

        async def body() -> None:
            async with callout.guest.open_callouts():
                callout_reset(fresh(), 1, fire, None)
                try:
                    await fired.wait()
                except asyncio.CancelledError:
                    pass

        with pytest.raises(ExceptionGroup):
            await body()
        await turns(3)

    run(main)


def test_on_error_keeps_the_block(run: Run) -> None:
    """With ``on_error`` the body goes on."""

    async def main() -> None:
        errors: asyncio.Queue[Exception] = asyncio.Queue()
        async with callout.guest.open_callouts(on_error=lambda error, _: errors.put_nowait(error)):
            callout_reset(fresh(), 1, fail, None)

            assert isinstance(await errors.get(), ZeroDivisionError)

    run(main)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_callback_that_raises_a_cancellation(run: Run, grouped: bool) -> None:
    """CancelledError, for example of a future that was cancelled, does not pass for a cancellation of the block."""

    def stray(arg: object) -> None:
        error = asyncio.CancelledError()
        raise BaseExceptionGroup("several", [error]) if grouped else error

    async def main() -> None:
        errors: asyncio.Queue[Exception] = asyncio.Queue()
        async with callout.guest.open_callouts(on_error=lambda error, _: errors.put_nowait(error)):
            callout_reset(fresh(), 1, stray, None)
            error = await errors.get()

            assert isinstance(error, CallbackCancelledError)
            assert "asyncio.CancelledError" in str(error)

    run(main)


def test_an_await_with_a_mutex_held_is_named(run: Run) -> None:
    """In checking mode a task of asyncio that awaits with a mutex held is an error that says so."""

    async def main() -> None:
        async def body() -> None:
            async with callout.guest.open_callouts(checking=True) as system:
                with Mtx("held"):
                    system.cpu(0).call(ignore, None)
                    await asyncio.Event().wait()

        with pytest.raises(ExceptionGroup) as caught:
            await body()

        (error,) = caught.value.exceptions
        assert isinstance(error, SleepError)
        assert "a task of asyncio awaited with <Mtx 'held'" in str(error)

    run(main)


# -- tasks of CPU 0 ----------------------------------------------------------------------------------------------------


def test_start_soon_starts_tasks_of_asyncio(run: Run) -> None:
    """They are tasks of the loop, find the system, and are awaited, with those that they start, at a normal end."""
    ended: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with callout.guest.open_callouts(2) as system:

            async def child() -> None:
                await pause("test", 1)
                ended.append("child")

            async def parent(name: str) -> None:
                task = asyncio.current_task()
                assert task is not None
                await turns(3)
                system.cpu(0).start_soon(child)
                ended.append((name, task.get_loop() is loop))

            await asyncio.to_thread(system.cpu(0).start_soon, parent, "parent")

    run(main)

    assert ended == [("parent", True), "child"]


def test_start_soon_cancels_when_the_body_fails(run: Run) -> None:
    """Tasks are cancelled when the block is left by an exception, also those that have just begun, and are awaited."""
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await turns(3)
            ended.append("endless")

    async def main() -> None:
        async def body() -> None:
            async with callout.guest.open_callouts() as system:
                system.cpu(0).start_soon(endless)
                await turns(3)
                system.cpu(0).start_soon(endless)
                raise KeyError

        with pytest.raises(KeyError):
            await body()

    run(main)

    assert ended == ["endless", "endless"]


def test_a_task_that_fails(run: Run) -> None:
    """Its error leaves the block in a group, the body and the other tasks are cancelled. To be cancelled by somebody is
    no failure.
    """
    tasks: list[asyncio.Task[Any] | None] = []

    async def endless() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.Event().wait()

    async def fails() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async def body() -> None:
            async with callout.guest.open_callouts() as system:
                system.cpu(0).start_soon(endless)
                await turns(3)
                (task,) = tasks
                assert task is not None
                task.cancel()
                system.cpu(0).start_soon(endless)
                await turns(3)
                system.cpu(0).start_soon(fails)
                await asyncio.Event().wait()

        with pytest.raises(ExceptionGroup) as caught:
            await body()

        assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
        assert all(task is not None and task.cancelled() for task in tasks)

    run(main)


# -- the life of the block ---------------------------------------------------------------------------------------------


def test_left_in_another_task(run: Run) -> None:
    """One task enters, another leaves, as fixtures do; in between the system is the loop's."""

    async def main() -> None:
        block = callout.guest.open_callouts(2)
        await asyncio.create_task(enter(block))
        c = fresh()

        async def leave_it() -> None:
            await block.__aexit__(None, None, None)

        await asyncio.create_task(leave_it())
        with pytest.raises(ClosedError, match="block has been left"):
            callout_reset(c, 1, ignore, None)

    run(main)


async def enter(block: AbstractAsyncContextManager[CalloutSystem, bool | None]) -> CalloutSystem:
    """Enter it, and do not leave."""
    return await block.__aenter__()


def test_a_loop_that_pauses(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A loop that runs, stops and runs again, as those of test runners do, keeps its system."""
    loop = new_loop()
    block = callout.guest.open_callouts(2)

    async def use() -> None:
        assert await pause("test", 1) == EWOULDBLOCK

    async def leave_it() -> None:
        await block.__aexit__(None, None, None)

    loop.run_until_complete(enter(block))
    for _ in range(3):
        loop.run_until_complete(use())
    loop.run_until_complete(leave_it())
    loop.close()


def test_a_runner_leaves_what_the_program_has_not(run: Run) -> None:
    """``asyncio.run()`` leaves a block that was entered by hand and forgotten."""
    systems: list[CalloutSystem] = []
    block = callout.guest.open_callouts(2)

    async def main() -> None:
        systems.append(await enter(block))

    run(main)

    assert repr(systems[0]) == "<CalloutSystem of 2 cpus, closed>"


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="descriptors cannot be counted here")
def test_opened_and_left_a_hundred_times(run: Run) -> None:
    """No descriptor and no thread is left."""

    async def main() -> None:
        def held() -> tuple[int, int]:
            gc.collect()
            return len(list(DESCRIPTORS.iterdir())), threading.active_count()

        async with callout.guest.open_callouts(2):
            pass
        before = held()
        for _ in range(100):
            async with callout.guest.open_callouts(2):
                pass

        assert held() == before

    run(main)


# -- where it cannot be ------------------------------------------------------------------------------------------------


def test_outside_asyncio() -> None:
    """Without a loop, and in a task of trio, it is refused, and says what to use there."""

    async def main() -> None:
        async with callout.guest.open_callouts():
            raise AssertionError

    with pytest.raises(
        GuestError, match=r"^open_callouts: there is no loop of asyncio.*callout\.open_callouts"
    ) as none:
        main().send(None)
    with pytest.raises(GuestError, match=r"^open_callouts: there is no loop of asyncio"):
        trio.run(main)

    assert none.value.call == "open_callouts"


def test_twice_in_a_loop(run: Run) -> None:
    """The second is refused, whatever task asks; when the first was left there can be another."""

    async def twice() -> None:
        with pytest.raises(GuestError, match=r"^open_callouts: this loop has .*current_system\(\)"):
            async with callout.guest.open_callouts():
                raise AssertionError

    async def main() -> None:
        for _ in range(2):
            async with callout.guest.open_callouts():
                await twice()
                await asyncio.create_task(twice())

    run(main)


def test_in_a_task_of_a_guest(run: Run) -> None:
    """Where the application has trio as a guest already, it says which open_callouts() to use, and where."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()  # Any: an outcome, which has no name to import
        go = trio.Event()

        async def in_trio() -> None:
            with pytest.raises(GuestError, match=r"^open_callouts: .*a task of trio.*use callout\.open_callouts\(\)"):
                async with callout.guest.open_callouts():
                    raise AssertionError
            await go.wait()

        trio.lowlevel.start_guest_run(
            in_trio,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            host_uses_signal_set_wakeup_fd=True,
            done_callback=done.set_result,
        )
        with pytest.raises(GuestError, match=r"^open_callouts: trio is a guest .*callout\.open_callouts\(\)"):
            async with callout.guest.open_callouts():
                raise AssertionError
        go.set()
        (await done).unwrap()

    run(main)


def test_in_a_callback_of_the_loop(run: Run) -> None:
    """A coroutine that is driven by hand in a callback is no task."""

    async def main() -> None:
        refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def by_hand() -> None:
            try:
                callout.guest.open_callouts().__aenter__().send(None)
            except GuestError as error:
                refused.set_result(str(error))

        asyncio.get_running_loop().call_soon(by_hand)

        assert "no task of asyncio, but a callback" in await refused

    run(main)


@pytest.mark.parametrize("when", ["entering", "open"])
def test_no_thread_is_left(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A guest that cannot have the thread in which it waits fails, and with it the block; it does not hang."""
    raised: list[BaseException] = []

    def fails(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        if when == "entering":
            monkeypatch.setattr("trio._core._run.start_thread_soon", fails)
        async with callout.guest.open_callouts(2) as system:
            if when == "open":
                monkeypatch.setattr("trio._core._run.start_thread_soon", fails)
                system.cpu(0).call(ignore, None)
            await asyncio.Event().wait()

    def of_its_own() -> None:  # trio has no other run in this thread then
        try:
            asyncio.run(main())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=of_its_own)
    thread.start()
    thread.join()

    (error,) = raised
    if isinstance(error, ExceptionGroup):  # the system was up before the guest had to wait
        (error,) = error.exceptions
    assert "can't start new thread" in str(error)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("callout-cpu")]


def test_no_descriptor_is_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the guest cannot be started nothing has changed: another block can be opened."""

    async def main() -> None:
        def fails(*_: object, **__: object) -> None:
            raise OSError("no descriptor")

        with monkeypatch.context() as patch:
            patch.setattr(trio.lowlevel, "start_guest_run", fails)
            with pytest.raises(OSError, match="no descriptor"):
                async with callout.guest.open_callouts():
                    raise AssertionError
        async with callout.guest.open_callouts():
            pass

    run(main)


def test_a_scope_of_anyio(run: Run) -> None:
    """A scope of anyio, which cancels again and again, ends when the shielded wait in it has ended."""
    anyio = pytest.importorskip("anyio")

    async def main() -> None:
        async with standing() as (c, go):
            with anyio.CancelScope() as scope:
                async with draining(c):
                    scope.cancel()
                    asyncio.get_running_loop().call_later(0, go.set)
                raise AssertionError

            assert (scope.cancelled_caught, callout_running(c)) == (True, 0)

    run(main)


def test_another_loop_cannot_wait(run: Run) -> None:
    """A task of another loop may arm, but not wait; a thread without a loop that drives a wait by hand is told of the
    twin that blocks. A loop in another thread may have a system of its own.
    """

    async def main() -> None:
        async with callout.guest.open_callouts() as system:
            event = Event()

            async def other() -> None:
                with system.bound():
                    callout_reset(fresh(), HOUR, ignore, None)
                    with pytest.raises(GuestError, match=r"^wait: this is another loop.*start_soon"):
                        await event.wait()
                async with callout.guest.open_callouts():
                    assert await pause("test", 1) == EWOULDBLOCK

            def by_hand() -> None:
                with pytest.raises(LoopError, match="_sync"):
                    event.wait().send(None)

            await asyncio.to_thread(asyncio.run, other())
            await asyncio.to_thread(by_hand)

    run(main)


def test_two_loops_of_a_thread() -> None:
    """While a loop that has a system pauses, another of the same thread cannot have one."""
    one, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    block = callout.guest.open_callouts()

    async def leave_it() -> None:
        await block.__aexit__(None, None, None)

    async def has_no_system() -> bool:
        async with callout.guest.open_callouts():
            return True

    one.run_until_complete(enter(block))
    with pytest.raises(GuestError, match=r"^open_callouts: another loop of this thread"):
        other.run_until_complete(enter(callout.guest.open_callouts()))
    with pytest.raises(GuestError, match=r"^open_callouts: leave the block in a task of the loop"):
        other.run_until_complete(leave_it())
    other.close()
    # What was refused has changed nothing.
    one.run_until_complete(leave_it())
    assert one.run_until_complete(has_no_system())
    one.close()


def test_open_callouts_of_trio_names_this(run: Run) -> None:
    """``callout.open_callouts()`` in a task of asyncio says which to use."""

    async def main() -> None:
        with pytest.raises(LoopError, match=r"callout\.guest\.open_callouts\(\)"):
            async with callout.open_callouts():
                raise AssertionError

    run(main)


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals are the main thread's")
def test_ctrl_c_under_a_runner(run: Run) -> None:
    """Under ``asyncio.run()`` Ctrl-C in a callback cancels the main task, which leaves the block."""
    systems: list[CalloutSystem] = []

    async def main() -> None:
        async with callout.guest.open_callouts(2) as system:
            systems.append(system)
            callout_reset(fresh(), 1, lambda _: signal.raise_signal(signal.SIGINT), None)
            await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run(main)

    assert "closed" in repr(systems[0])


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals are the main thread's")
def test_ctrl_c_under_pythons_own_handler(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Where SIGINT has Python's own handler, Ctrl-C stops the loop, which can go on; the handler is restored then."""
    loop = new_loop()

    async def main() -> None:
        async with callout.guest.open_callouts(2):
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
            await asyncio.Event().wait()

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals are the main thread's")
def test_ctrl_c_inside_the_engine_is_held_back(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Where SIGINT has Python's own handler, an interrupt in the middle of a protected function comes after it."""
    loop = new_loop()
    order: list[str] = []

    @callout._core.guard.protected
    def inside(arg: object) -> None:
        signal.raise_signal(signal.SIGINT)
        order.append("the function has ended")

    async def main() -> None:
        async with callout.guest.open_callouts(2):
            asyncio.get_running_loop().call_soon(inside, None)
            await asyncio.Event().wait()

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)

    assert order == ["the function has ended"]

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


# -- a loop that ends before the block ---------------------------------------------------------------------------------

LOST: Final = """
    import asyncio, gc, sys, threading
    import callout, callout.guest

    new_loop = asyncio.new_event_loop
    if sys.argv[1] == "uvloop":
        import uvloop
        new_loop = uvloop.new_event_loop
    block = callout.guest.open_callouts(2)
    loop = new_loop()
    c = callout.Callout()

    async def enter():
        system = await block.__aenter__()
        system.cpu(0).start_soon(asyncio.sleep, 3600)
        callout.callout_init(c, 1)
        await asyncio.sleep(0)

    def arm():
        try:
            callout.callout_reset(c, 1, print, None)
        except callout.ClosedError as error:
            print(error)

    def cpus():
        print([thread.name for thread in threading.enumerate() if thread.name.startswith("callout")])

    async def again():
        async with callout.guest.open_callouts(2):
            await callout.pause("test", 1)
        print("again")

    def quiet():
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # asyncio's own words on that are not the matter here
"""
CLOSED: Final = (
    "callout_reset: the callout system was closed: its asyncio loop has ended before its "
    "`async with callout.guest.open_callouts()` block was left"
)

ENDS: Final[dict[str, tuple[str, list[str]]]] = {
    "it is closed": (
        """
        loop.run_until_complete(enter())
        quiet()
        loop.close()
        arm()
        cpus()
        asyncio.run(again())
        """,
        [CLOSED, "[]", "again"],
    ),
    "it is closed by other means": (
        """
        loop.run_until_complete(enter())
        quiet()
        type(loop).close(loop)
        asyncio.run(again())
        arm()
        cpus()
        """,
        ["again", CLOSED, "[]"],
    ),
    "its thread has ended": (
        """
        thread = threading.Thread(target=lambda: loop.run_until_complete(enter()))
        thread.start()
        thread.join()
        quiet()
        loop.close()
        arm()
        cpus()
        asyncio.run(again())
        """,
        [CLOSED, "[]", "again"],
    ),
    "the process ends": (
        """
        loop.run_until_complete(enter())
        quiet()
        """,
        [],
    ),
    "the body is garbage": (
        """
        async def body():
            async with block:
                loop.stop()
                await asyncio.sleep(3600)

        task = loop.create_task(body())
        loop.run_forever()
        quiet()
        loop.close()
        del task
        gc.collect()
        cpus()
        asyncio.run(again())
        """,
        ["[]", "again"],
    ),
    "a nursery is open": (
        """
        timers = []

        async def body():
            async with block as system, system.open_nursery() as nursery:
                begun = callout.Event()
                timers.append(nursery.start_later(0, stays, begun))
                timers.append(nursery.start_every(3600, asyncio.sleep, 1))
                timers.append(nursery.task(stays))
                system.cpu(1).start_soon(closes, begun)
                await asyncio.sleep(3600)

        async def stays(begun=None):
            if begun is None:
                timers[2].reset(0)
                system = callout.current_system()
                system.call_later(0, system.call_later, 0, loop.stop)
            else:
                begun.set()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                timers[2].reset(0)
                await asyncio.sleep(3600)

        async def closes(begun):
            await begun.wait()
            for t in timers:
                await t.aclose()
            print("closed")

        task = loop.create_task(body())
        loop.run_forever()
        quiet()
        type(loop).close(loop)
        print(timers[0].cancel().name, timers[2].pending)
        asyncio.run(again())
        del task
        gc.collect()
        cpus()
        """,
        ["RUNNING True", "closed", "again", "[]"],
    ),
    "it was being entered": (
        """
        task = loop.create_task(enter())
        for _ in range(2):
            loop.call_soon(loop.stop)
            loop.run_forever()
        quiet()
        loop.close()
        del task
        gc.collect()
        cpus()
        asyncio.run(again())
        """,
        ["[]", "again"],
    ),
}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("how", ENDS)
def test_a_loop_that_ends_before_the_block(loop: str, how: str) -> None:
    """One warning says so, the threads of the CPUs end, later calls are a ClosedError that says so, another system can
    be opened, and nothing else is heard of the lost one.
    """
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    program, expected = ENDS[how]
    code = textwrap.dedent(LOST) + textwrap.dedent(program)
    done = subprocess.run([sys.executable, "-c", code, loop], capture_output=True, text=True, check=False)

    (warning,) = done.stderr.splitlines()
    assert "event='callout.abandoned'" in warning
    assert (done.stdout.splitlines(), done.returncode) == (expected, 0)


FORKS: Final = """
    import asyncio, os, sys
    import callout, callout.guest

    def status(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    async def main():
        async with callout.guest.open_callouts(2):
            forked = asyncio.get_running_loop().create_future()
            c = callout.Callout()
            callout.callout_init(c, 1)
            callout.callout_reset(c, 1, lambda _: forked.set_result(os.fork()), None)
            print("callback", status(await forked))
            pid = os.fork()
            if not pid:
                try:
                    callout.callout_reset(c, 1, print, None)
                except callout.ForkedError:
                    sys.exit(7)  # through the block
            print("task", status(pid))
            await callout.pause("test", 1)

    asyncio.run(main())
    loop = asyncio.new_event_loop()
    block = callout.guest.open_callouts()
    loop.run_until_complete(block.__aenter__())
    pid = os.fork()
    if not pid:
        sys.exit(3)
    print("paused", status(pid))
    loop.run_until_complete(block.__aexit__(None, None, None))
    loop.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_child_ends_and_the_parent_goes_on() -> None:
    """A child ends where its callback returns, or where it leaves the block; at its exit it waits for nothing of the
    parent's.
    """
    code = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORKS)]
    done = subprocess.run(code, capture_output=True, text=True, check=False)

    assert (done.stdout.splitlines(), done.returncode) == (["callback 1", "task 7", "paused 3"], 0), done.stderr


# -- servers -----------------------------------------------------------------------------------------------------------


def listener() -> socket.socket:
    """Return a socket that listens on a port of its own."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(1000)
    return sock


def test_two_hundred_connections_with_idle_timeouts(run: Run) -> None:
    """Each connection that is silent is closed by its callout, each that has ended has drained it."""
    ended: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        idle = fresh()
        async with draining(idle):
            callout_reset(idle, HOUR, lambda _: writer.close(), None)
            ended.append(await reader.readline())
            callout_reset(idle, 1, lambda _: writer.close(), None)
            await reader.read()
        assert callout_pending(idle) == callout_running(idle) == 0
        writer.close()

    async def connect(number: int, port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"%d\n" % number)
        rest = await reader.read()
        writer.close()
        return rest

    async def main() -> None:
        sock = listener()
        async with callout.guest.open_callouts():
            server = await asyncio.start_server(serve, sock=sock)
            rests = await asyncio.gather(*(connect(number, sock.getsockname()[1]) for number in range(200)))
            server.close()

        assert rests == [b""] * 200

    run(main)

    assert sorted(map(int, ended)) == list(range(200))


def test_a_lifespan_under_uvicorn(run: Run) -> None:
    """A FastAPI application opens a system in its lifespan; request handlers arm and await; the shutdown leaves it."""
    fastapi = pytest.importorskip("fastapi")
    uvicorn = pytest.importorskip("uvicorn")
    httpx = pytest.importorskip("httpx")
    systems: list[CalloutSystem] = []

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        async with callout.guest.open_callouts() as system:
            systems.append(system)
            yield

    async def wait(number: int) -> dict[str, int]:
        event, fired = Event(), list[int]()

        def fire(arg: int) -> None:
            fired.append(arg)
            event.set()

        async with draining(c := fresh()):
            callout_reset(c, 1, fire, number)
            await event.wait()
        return {"fired": fired[0]}

    async def main() -> None:
        app = fastapi.FastAPI(lifespan=lifespan)
        app.get("/wait/{number}")(wait)
        up = asyncio.Event()

        class Server(uvicorn.Server):  # type: ignore[name-defined, misc]  # the extra may be missing
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                up.set()

        sock = listener()
        server = Server(uvicorn.Config(app, lifespan="on", ws="none", log_level="error"))
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        await up.wait()
        async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{sock.getsockname()[1]}") as client:
            replies = await asyncio.gather(*(client.get(f"/wait/{number}") for number in range(20)))
        server.should_exit = True
        await serving

        assert [reply.json() for reply in replies] == [{"fired": number} for number in range(20)]

    run(main)

    assert repr(systems[0]) == "<CalloutSystem of 1 cpus, closed>"


@pytest.mark.parametrize("cpu", [0, 1])
def test_a_lock_that_is_held_at_the_end_does_not_hang_it(run: Run, cpu: int) -> None:
    """As on trio: the run that waits for it fails, with what to do."""

    async def main() -> None:
        loop, waits = asyncio.get_running_loop(), asyncio.Event()
        async with callout.guest.open_callouts(2, checking=False) as system:
            lock = system.mutex("held")
            with system.tracing(lambda event: event.kind == "waiting" and loop.call_soon_threadsafe(waits.set)):
                system.call_later(0, ignore, None, lock=lock, cpu=cpu)
                lock.lock()
                await waits.wait()

    with pytest.raises(ExceptionGroup) as caught:
        run(main)

    assert caught.group_contains(LockHeldError, match="the block has ended with lock 'held' held")
