"""Under trio's mock clock CPU 0 follows it: an hour is over at once, and times finer than a tick can be looked at."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from callout import (
    C_ABSOLUTE,
    C_DIRECT_EXEC,
    C_HARDCLOCK,
    C_PRECALC,
    C_PREL,
    SBT_1MS,
    SBT_1S,
    SBT_1US,
    Callout,
    CalloutSystem,
    ClockError,
    callout_init,
    callout_pending,
    callout_reset,
    callout_reset_sbt,
    callout_schedule,
    callout_when,
    open_callouts,
    sbinuptime,
    ticks,
)
from callout._worlds.trio.event_timer import to_ns, to_seconds

from .loops import Tell

HOUR = 3_600_000  # ticks


def fresh() -> Callout:
    """Return an mpsafe callout of the current system."""
    c = Callout()
    callout_init(c, 1)
    return c


class Times:
    """A callback that notes its argument and the time."""

    def __init__(self) -> None:
        self.args: list[object] = []
        self.times: list[int] = []
        self.last = trio.Event()

    def __call__(self, arg: object) -> None:
        """Note it."""
        self.args.append(arg)
        self.times.append(sbinuptime())
        if arg == "last":
            self.last.set()


@pytest.mark.trio
async def test_an_hour_is_over_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """With autojump callouts of an hour, a minute and a second run at once, in order, each exactly at its time."""
    async with open_callouts():
        begun, seen = sbinuptime(), Times()
        for name, due in (("last", HOUR), ("minute", 60_000), ("second", 1000), ("tick", 1)):
            callout_reset(fresh(), due, seen, name)
        await seen.last.wait()

    assert seen.args == ["tick", "second", "minute", "last"]
    assert [(time - begun + SBT_1MS // 2) * 1000 >> 32 for time in seen.times] == [1, 1000, 60_000, HOUR]
    assert trio.current_time() >= 3600


@pytest.mark.trio
async def test_callouts_and_tasks_share_the_clock(autojump_clock: trio.testing.MockClock) -> None:
    """Callouts and the timeouts of tasks take turns in the order of their times."""
    async with open_callouts() as system:
        order: list[str] = []
        done = trio.Event()

        async def task() -> None:
            with trio.move_on_after(90):
                await trio.sleep_forever()
            order.append("task")

        system.cpu(0).start_soon(task)
        callout_reset(fresh(), 60_000, order.append, "callout 1")
        callout_reset(fresh(), 120_000, order.append, "callout 2")
        callout_reset(fresh(), 120_001, lambda arg: done.set(), None)
        await done.wait()

    assert order == ["callout 1", "task", "callout 2"]


@pytest.mark.trio
async def test_a_periodic_callout_keeps_time(autojump_clock: trio.testing.MockClock) -> None:
    """A callout that re-arms itself each minute runs sixty times in an hour."""
    async with open_callouts():
        c, beats, done = fresh(), Times(), trio.Event()

        def beat(arg: object) -> None:
            beats(arg)
            callout_schedule(c, 60_000)

        callout_reset(c, 60_000, beat, "beat")
        callout_reset(fresh(), HOUR + 1, lambda arg: done.set(), None)
        await done.wait()

    assert len(beats.args) == 60


@pytest.mark.trio
async def test_the_clock_does_not_jump_too_far(autojump_clock: trio.testing.MockClock) -> None:
    """The clock stops at the deadline of a task, though a callout is pending for later and had been for much later."""
    async with open_callouts():
        c = fresh()
        callout_reset(c, HOUR, print, None)
        callout_reset(c, 1000, print, None)
        before = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = before + 0.25
            nursery.start_soon(trio.sleep_forever)

        assert callout_pending(c)
        assert 0.25 <= trio.current_time() - before < 0.5


@pytest.mark.trio
@pytest.mark.parametrize(
    ("sbt", "flags"),
    [
        (SBT_1US, 0),
        (SBT_1MS // 3, 0),
        (SBT_1MS, 0),
        (7 * SBT_1MS // 2, 0),
        (SBT_1S + SBT_1US, C_DIRECT_EXEC),
        (SBT_1S, C_PREL(1)),
    ],
)
async def test_times_are_exact(autojump_clock: trio.testing.MockClock, sbt: int, flags: int) -> None:
    """A relative time is from now, exactly: neither early nor aligned to a tick, and not moved within its window."""
    async with open_callouts():
        seen, other = Times(), Times()
        # The call comes at no tick's boundary.
        callout_reset_sbt(fresh(), SBT_1MS // 7, 0, other, "last")
        await other.last.wait()
        asked = sbinuptime() + sbt
        callout_reset_sbt(fresh(), sbt, 0, seen, "last", flags)
        await seen.last.wait()

    assert 0 <= seen.times[0] - asked <= SBT_1US


@pytest.mark.trio
async def test_hardclock_aligns_upwards(autojump_clock: trio.testing.MockClock) -> None:
    """With C_HARDCLOCK callouts that are due between two ticks run together, at the first tick that is not early."""
    async with open_callouts(hz=100) as system:
        opened, seen, other = sbinuptime(), Times(), Times()
        for microseconds, name in ((2_000, "a"), (9_000, "b"), (10_500, "c"), (19_000, "last")):
            callout_reset_sbt(fresh(), microseconds * SBT_1US, 0, seen, name, C_HARDCLOCK)
        await seen.last.wait()
        callout_reset_sbt(fresh(), 3 * SBT_1MS, 0, other, "last")
        await other.last.wait()
        off_tick = sbinuptime()
        when, _ = callout_when(10 * SBT_1MS, 0, C_HARDCLOCK)

        assert system.ticks() == ticks() == 2

    tick = SBT_1S // 100
    assert [round((time - opened) / tick, 3) for time in seen.times] == [1, 1, 2, 2]
    assert seen.args == ["a", "b", "c", "last"]
    assert off_tick - opened > 2 * tick
    assert round((when - opened) / tick, 3) == 4


@pytest.mark.trio
async def test_an_absolute_time_in_the_past(autojump_clock: trio.testing.MockClock) -> None:
    """An absolute time that has passed means at once; it does not run inside the call."""
    async with open_callouts():
        seen = Times()
        callout_reset(fresh(), 1000, seen, "last")
        await seen.last.wait()
        late = Times()
        now = sbinuptime()
        callout_reset_sbt(fresh(), now - SBT_1S // 2, 0, late, "last", C_ABSOLUTE)

        assert late.args == []

        await late.last.wait()

        assert late.times[0] - now <= SBT_1US


@pytest.mark.trio
async def test_precalculated_times_meet(autojump_clock: trio.testing.MockClock) -> None:
    """What callout_when() said is when callouts run that are armed with it and C_PRECALC, some time later."""
    async with open_callouts():
        seen, other = Times(), Times()
        when, precision = callout_when(SBT_1S, 0, C_PREL(4))
        callout_reset_sbt(fresh(), when, precision, seen, "first", C_PRECALC)
        callout_reset(fresh(), 500, other, "last")
        await other.last.wait()
        callout_reset_sbt(fresh(), when, precision, seen, "last", C_PRECALC)
        await seen.last.wait()

    assert seen.args == ["first", "last"]
    assert all(0 <= time - when <= SBT_1US for time in seen.times)


@pytest.mark.trio
async def test_a_clock_that_stands_still(mock_clock: trio.testing.MockClock) -> None:
    """Under a mock clock that is moved by hand nothing runs until it is moved, and then what is due."""
    async with open_callouts():
        one, two = Tell(), Tell()
        callout_reset(fresh(), 1000, one, 1)
        callout_reset(fresh(), 2000, two, 2)
        mock_clock.jump(0.999)
        await trio.testing.wait_all_tasks_blocked()

        assert one.args == []

        mock_clock.jump(0.002)
        await one.ran.wait()

        assert two.args == []

        mock_clock.jump(5)
        await two.ran.wait()

    assert (one.args, two.args) == ([1], [2])


@pytest.mark.trio
async def test_one_cpu_only(autojump_clock: trio.testing.MockClock) -> None:
    """A mock clock drives one loop: more than one CPU is an error that says so."""

    async def body() -> CalloutSystem:
        async with open_callouts(2) as system:
            return system

    with pytest.raises(ClockError, match="cpus=1"):
        await body()


@pytest.mark.trio
@pytest.mark.parametrize("days", [1, 120, 3650])
async def test_a_callout_that_is_far_ahead_fires(days: int, autojump_clock: trio.testing.MockClock) -> None:
    """However coarse seconds are as floats at that time, the loop neither spins nor wakes before the callout is due."""
    for odd in range(40):
        async with open_callouts(hz=100):
            seen = Times()
            callout_reset_sbt(fresh(), days * 86400 * SBT_1S + odd * 7919, 0, seen, "last")
            with trio.fail_after(2 * (days + 1) * 86400):
                await seen.last.wait()


@pytest.mark.parametrize("when", [0, 1, 999_999_999, 10**16 + 1, 2**53 + 1, 2**61 + 12345, 2**62 - 1])
def test_a_deadline_is_not_before_its_time(when: int) -> None:
    """The seconds at which the loop is woken have reached the nanoseconds that are asked for, by the same rounding."""
    seconds = to_seconds(when)

    assert to_ns(seconds) >= when
    assert seconds <= math.nextafter(math.nextafter(when / 10**9, math.inf), math.inf)
