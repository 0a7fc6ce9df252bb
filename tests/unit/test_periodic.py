"""Periodic callouts: a fixed grid, periods that are skipped and counted, and what ends the repetition."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    Periodic,
    ResetResult,
    StopResult,
    callout_reset,
    callout_schedule,
    open_callouts,
)
from callout.testing import VirtualSMP


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Give a clock that jumps at once."""
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.mark.trio
async def test_it_runs_on_its_grid(autojump_clock: trio.testing.MockClock) -> None:
    """At start + n periods, whatever its callback takes; `first` is the time to the first run."""
    async with open_callouts() as system:
        at: list[float] = []
        p = system.every(10, lambda: at.append(trio.current_time()), first=3)

        assert (p.period, p.missed, p.pending) == (10, 0, True)

        await trio.sleep(35)

        assert at == [3, 13, 23, 33]
        assert p.stop() is StopResult.REMOVED
        await trio.sleep(100)
        assert len(at) == 4


@pytest.mark.trio
async def test_missed_periods_are_skipped_and_counted() -> None:
    """A loop that was blocked for some periods runs one of them, and the next at its time of the grid."""
    clock = trio.testing.MockClock()
    async with open_callouts() as _:
        pass  # the clock of this test is the next one's

    def main_clock() -> None:
        trio.run(main, clock=clock)

    async def main() -> None:
        async with open_callouts() as system:
            at: list[float] = []
            p = system.every(10, lambda: at.append(trio.current_time()))
            clock.jump(45)
            await trio.testing.wait_all_tasks_blocked()
            assert (at, p.missed, p.deadline) == ([45], 3, 50)
            clock.jump(5)
            await trio.testing.wait_all_tasks_blocked()
            assert (at, p.missed, p.deadline) == ([45, 50], 3, 60)

    await trio.to_thread.run_sync(main_clock)


@pytest.mark.trio
async def test_reset_moves_the_grid(autojump_clock: trio.testing.MockClock) -> None:
    """The next run is so many seconds from now, and the others follow it; also after stop()."""
    async with open_callouts() as system:
        at: list[float] = []
        p = system.every(10, lambda: at.append(trio.current_time()))
        await trio.sleep(12)
        assert p.reset(1) is ResetResult.REARMED
        await trio.sleep(13)
        assert at == [10, 13, 23]
        assert p.stop()
        await trio.sleep(25)
        assert p.reset_at(60) is ResetResult.ARMED
        await trio.sleep(25)

        assert at == [10, 13, 23, 60, 70]


@pytest.mark.trio
async def test_stop_in_its_own_callback_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    """The next run is scheduled by then, and so is removed: BOTH."""
    async with open_callouts() as system:
        got: list[object] = []

        def tick(what: str) -> None:
            got.append((what, p.stop()))

        p = system.every(1, tick, "now")
        await trio.sleep(10)

        assert got == [("now", StopResult.BOTH)]


@pytest.mark.trio
async def test_with_on_error_the_next_period_comes(autojump_clock: trio.testing.MockClock) -> None:
    """An exception of its callback does not end it; without on_error it leaves through the block."""
    told: list[str] = []

    def bad() -> None:
        raise ValueError("bad")

    async with open_callouts(on_error=lambda error, c: told.append(str(error))) as system:
        system.every(1, bad)
        await trio.sleep(3.5)
    assert told == ["bad"] * 3

    async def without() -> None:
        async with open_callouts() as system:
            system.every(1, bad)
            await trio.sleep(3.5)

    with pytest.raises(ExceptionGroup) as caught:
        await without()
    assert [str(error) for error in caught.value.exceptions] == ["bad"]


@pytest.mark.trio
async def test_it_keeps_its_function(autojump_clock: trio.testing.MockClock) -> None:
    """Another one is refused, from C as well, and nothing changes; callout_schedule() asks for one run off the grid."""
    async with open_callouts() as system:
        at: list[float] = []
        p = system.every(10, lambda: at.append(trio.current_time()))
        for arm in (
            lambda: p.reset(1, print),
            lambda: p.reset_at(1, print),
            lambda: callout_reset(p, 1, print, None),
        ):
            with pytest.raises(ArgumentValueError, match=r"is periodic, and keeps the function .*make another"):
                arm()
        assert p.remaining() == 10
        assert callout_schedule(p, 4000) == 1
        await trio.sleep(25)

        assert at == [4, 10, 20]
        with pytest.raises(ArgumentValueError, match="every: seconds must be above 0"):
            system.every(0, print)


@pytest.mark.trio
async def test_closing_ends_it_for_good(autojump_clock: trio.testing.MockClock) -> None:
    """A closed one is refused, and forgets its function; what it counted is still there."""
    async with open_callouts() as system:
        at: list[float] = []
        async with system.every(10, lambda: at.append(trio.current_time()), name="poll") as p:
            await trio.sleep(25)

        assert p.reset(1) is ResetResult.REFUSED
        assert (p.period, p.missed, p.name, p.func, p.arg) == (10, 0, "poll", None, None)
        await trio.sleep(25)
        assert at == [10, 20]


def test_it_runs_under_its_lock_and_where_it_was_made() -> None:
    """On a virtual CPU, too, with its lock held at each run."""
    with VirtualSMP(cpus=2) as vm:
        lock = vm.mutex("m")
        seen: list[tuple[int, bool]] = []

        def tick() -> None:
            seen.append((vm.platform.current_cpu(), lock.owned()))
            if len(seen) == 3:
                assert p.stop()

        p = vm.every(0.001, tick, lock=lock, cpu=1)
        vm.settle()

        assert isinstance(p, Periodic)
        assert seen == [(1, True)] * 3


def test_it_is_made_by_every() -> None:
    """One that was made by hand would have no grid."""
    with pytest.raises(ArgumentTypeError, match=r"make it with system\.every\("):
        Periodic()
