"""``Event``: set once, from anywhere; waited for by tasks and threads, for a time, or until the system is closed."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio
import trio.testing

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    Callout,
    ClosedError,
    Event,
    SleepError,
    callout_init,
    callout_reset_on,
    open_callouts,
)
from callout.testing import VirtualSMP

from .world import Stage

HOUR = 3600.0


def test_a_thread_that_waits_is_woken(s: Stage) -> None:
    """A set() from a callback of any CPU ends the waits of threads, which return True; later ones return at once."""
    event = s.do(Event)
    waits = [actor.begin(event.wait_sync) for actor in (s.t1, s.t2)]
    c = s.callout()
    s.do(callout_reset_on, c, 1, lambda arg: event.set(), None, s.last)

    assert all(wait.blocked for wait in waits)

    s.tick()

    assert [wait.result() for wait in waits] == [True, True]
    assert s.do(event.wait_sync) is True


def test_a_wait_ends_after_its_timeout(s: Stage) -> None:
    """A wait with a timeout returns False at that time of the system's clock, not before; another one goes on."""
    event = s.do(Event)
    short, long = s.t1.begin(event.wait_sync, 0.003), s.t2.begin(event.wait_sync, HOUR)
    s.tick(2)

    assert short.blocked

    s.tick()

    assert short.result() is False
    assert long.blocked

    s.do(event.set)

    assert long.result() is True
    assert not s.world.machine.sleepers


@pytest.mark.trio
async def test_a_task_waits_for_a_time(autojump_clock: trio.testing.MockClock) -> None:
    """A task's wait follows the clock of the system: an hour under a mock clock is over at once."""
    async with open_callouts():
        event = Event()

        assert await event.wait(timeout=HOUR) is False
        assert trio.current_time() >= HOUR

        event.set()

        assert await event.wait(timeout=HOUR) is True
        assert await event.wait(timeout=0) is True
        assert trio.current_time() < 2 * HOUR


@pytest.mark.trio
@pytest.mark.parametrize("limit", [None, HOUR])
@pytest.mark.parametrize("cpus", [1, 2])
async def test_the_close_ends_every_wait(limit: float | None, cpus: int) -> None:
    """Tasks of any loop, and threads, that still wait when the system is closed get a ClosedError."""
    outcomes: list[str] = []
    waiting = threading.Semaphore(0)
    async with trio.open_nursery() as nursery:
        async with open_callouts(cpus) as system:
            event = Event()

            async def task() -> None:
                try:
                    await event.wait(limit)
                except ClosedError as error:
                    outcomes.append(str(error))

            def thread() -> None:
                try:
                    waiting.release()
                    event.wait_sync(limit)
                except ClosedError as error:
                    outcomes.append(str(error))

            def other_loop() -> None:
                waiting.release()
                trio.run(task)

            nursery.start_soon(task)
            threads = [threading.Thread(target=target) for target in (thread, other_loop)]
            for t in threads:
                t.start()
                await trio.to_thread.run_sync(waiting.acquire)
            await trio.testing.wait_all_tasks_blocked()
        for t in threads:
            await trio.to_thread.run_sync(t.join)

    assert len(outcomes) == 3
    assert all("was closed" in text for text in outcomes)
    assert not system._machine.sleepers


@pytest.mark.trio
async def test_a_cancelled_wait_is_forgotten() -> None:
    """A wait that is cancelled leaves nothing behind, and the event still wakes the others."""
    async with open_callouts() as system:
        event = Event()
        with trio.CancelScope() as scope:
            scope.cancel()
            await event.wait(HOUR)

        assert scope.cancelled_caught
        assert not system._machine.sleepers
        assert not event._sleepers

        async with trio.open_nursery() as nursery:
            nursery.start_soon(event.wait)
            await trio.testing.wait_all_tasks_blocked()
            event.set()


@pytest.mark.trio
@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (-1, ArgumentValueError),
        (float("nan"), ArgumentValueError),
        ("1", ArgumentTypeError),
        (True, ArgumentTypeError),
    ],
)
async def test_a_timeout_that_is_none(timeout: Any, error: type[Exception]) -> None:  # noqa: ANN401, ASYNC109 - any mistake
    """A timeout that is no number of seconds from 0 up is an error, also if the event is set."""
    async with open_callouts():
        event = Event()
        event.set()
        with pytest.raises(error, match="timeout must be a number of seconds"):
            await event.wait(timeout)


@pytest.mark.trio
async def test_a_timeout_that_never_ends() -> None:
    """An infinite timeout, and one of more seconds than a clock can count, are as good as none."""
    async with open_callouts() as system:
        for timeout in (float("inf"), 1e300):
            event = Event()
            c = Callout()
            callout_init(c, 1)
            callout_reset_on(c, 1, lambda arg: arg.set(), event, 0)
            assert await event.wait(timeout)
        assert not system._machine.sleepers


def test_waiting_with_a_lock_held() -> None:
    """In checking mode a wait with a mutex held is an error, and nothing is left waiting."""
    with VirtualSMP(1) as vm:
        event = Event()
        with vm.machine.giant, pytest.raises(SleepError, match="Giant"):
            vm.run(event.wait)

        assert not vm.machine.sleepers
