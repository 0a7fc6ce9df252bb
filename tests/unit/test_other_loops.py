"""Tasks of asyncio use a system, whose trio is their loop's guest or runs in another thread: all but waiting works."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trio

from callout import (
    Callout,
    CalloutSystem,
    Cv,
    Event,
    LoopError,
    LoopThreadError,
    Mtx,
    callout_barrier,
    callout_barrier_all,
    callout_drain,
    callout_drain_sync,
    callout_init,
    callout_pending,
    callout_quiesce,
    callout_quiesce_sync,
    callout_reset,
    callout_reset_on,
    callout_running,
    callout_terminate,
    cv_destroy,
    cv_timedwait,
    cv_wait,
    draining,
    msleep,
    open_callouts,
    pause,
    tsleep,
)

HOUR: Final = 3_600_000  # ticks

Wait = Callable[[Callout, Mtx, Cv], Awaitable[object]]

WAITS: Final[dict[str, Wait]] = {
    "callout_drain": lambda c, m, cv: callout_drain(c),
    "callout_barrier": lambda c, m, cv: callout_barrier(c),
    "callout_terminate": lambda c, m, cv: callout_terminate(c),
    "callout_quiesce": lambda c, m, cv: callout_quiesce(c),
    "callout_barrier_all": lambda c, m, cv: callout_barrier_all(),
    "draining": lambda c, m, cv: draining(c).__aenter__(),
    "draining a fresh one": lambda c, m, cv: draining(Callout()).__aenter__(),
    "wait": lambda c, m, cv: Event().wait(),
    "wait for what is set": lambda c, m, cv: event_set().wait(),
    "pause": lambda c, m, cv: pause("test", 1),
    "tsleep": lambda c, m, cv: tsleep(c, 0, "test", 1),
    "msleep": lambda c, m, cv: msleep(c, m, 0, "test", 1),
    "cv_wait": lambda c, m, cv: cv_wait(cv, m),
    "cv_timedwait": lambda c, m, cv: cv_timedwait(cv, m, 1),
}
WITH_MUTEX: Final = {"msleep", "cv_wait", "cv_timedwait"}


def event_set() -> Event:
    """Return an event that was set."""
    event = Event()
    event.set()
    return event


def ignore(arg: object) -> None:
    """Be a callback that does nothing."""


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
        c = Callout()
        callout_init(c, 1)
        callout_reset_on(c, 1, self, None, 1)
        await asyncio.to_thread(self.there.wait)
        return c


@asynccontextmanager
async def opened(how: str) -> AsyncIterator[CalloutSystem]:
    """Have trio open a system of two CPUs, as a guest of this loop or in a thread of its own; bound here."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[CalloutSystem] = loop.create_future()
    done: asyncio.Future[Any] = loop.create_future()  # Any: an outcome, which has no name to import
    leave: list[Callable[[], object]] = []

    async def owner() -> None:
        async with open_callouts(2) as system:
            over, token = trio.Event(), trio.lowlevel.current_trio_token()
            leave.append(lambda: token.run_sync_soon(over.set))
            loop.call_soon_threadsafe(ready.set_result, system)
            await over.wait()

    def run() -> None:
        trio.run(owner)
        loop.call_soon_threadsafe(done.set_result, None)

    if how == "thread":
        threading.Thread(target=run).start()
    else:
        trio.lowlevel.start_guest_run(
            owner,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
    system = await ready
    try:
        with system.bound():
            yield system
    finally:
        leave[0]()
        result = await done
        if result is not None:
            result.unwrap()


@pytest.mark.parametrize("how", ["guest", "thread"])
@pytest.mark.parametrize("name", WAITS)
def test_a_task_of_asyncio_cannot_wait(how: str, name: str) -> None:
    """The wait is refused by the call, or as the block is entered, and nothing has changed: the mutex is held, the
    callout can be armed, nobody waits for the condition variable.
    """
    call = name.partition(" ")[0]

    async def main() -> None:
        async with opened(how):
            stands = Stands()
            c, m, cv = await stands.begun(), Mtx(), Cv()
            try:
                if name in WITH_MUTEX:
                    m.lock()
                with pytest.raises(LoopError, match=f"^{call}: this is no task of trio.*start_soon") as caught:
                    await WAITS[name](c, m, cv)

                assert caught.value.call == call
                assert m.owned() == (name in WITH_MUTEX)
                assert (callout_reset(c, HOUR, ignore, None), callout_pending(c)) == (0, 1)

                cv_destroy(cv)
                if m.owned():
                    m.unlock()
            finally:
                stands.go.set()

    asyncio.run(main())


@pytest.mark.parametrize("how", ["guest", "thread"])
def test_a_task_of_trio_waits_for_it(how: str) -> None:
    """What the error advises works: a task of asyncio starts a task of trio, which waits, and is told by that."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        drained: asyncio.Future[int] = loop.create_future()
        async with opened(how) as system:
            stands = Stands()
            c = await stands.begun()

            async def drains() -> None:
                loop.call_soon_threadsafe(drained.set_result, await callout_drain(c))

            system.cpu(0).start_soon(drains)
            stands.go.set()

            assert await drained == -1
            assert callout_running(c) == 0

    asyncio.run(main())


@pytest.mark.parametrize("wait", [callout_drain_sync, callout_quiesce_sync])
def test_a_task_of_asyncio_must_not_block(wait: Callable[[Callout], int]) -> None:
    """The twin that blocks the thread is refused for being that, by its own name."""

    async def main() -> None:
        async with opened("guest"):
            c = Callout()
            callout_init(c, 1)
            with pytest.raises(LoopThreadError, match=f"^{wait.__name__}: "):
                wait(c)

    asyncio.run(main())


@pytest.mark.trio
async def test_without_a_task_nothing_is_begun() -> None:
    """A drain that a plain thread runs by hand is refused before it leaves anything behind: arming is not refused."""
    async with open_callouts(2) as system:
        there, go = trio.Event(), threading.Event()
        token = trio.lowlevel.current_trio_token()
        c = Callout()
        callout_init(c, 1)

        def stand(arg: object) -> None:
            token.run_sync_soon(there.set)
            go.wait()

        callout_reset_on(c, 1, stand, None, 1)
        await there.wait()

        def by_hand() -> None:
            with system.bound(), pytest.raises(LoopError, match="no task of trio"):
                callout_drain(c).send(None)

        thread = threading.Thread(target=by_hand)
        thread.start()
        await trio.to_thread.run_sync(thread.join)

        assert (callout_reset(c, HOUR, ignore, None), callout_pending(c)) == (0, 1)

        go.set()
