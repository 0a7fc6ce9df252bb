"""callout(9), DESCRIPTION: sbintime, precision, and the C_ flags; callout_when()."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from callout import (
    C_ABSOLUTE,
    C_DIRECT_EXEC,
    C_HARDCLOCK,
    C_PRECALC,
    C_PREL,
    SBT_1MS,
    SBT_1S,
    SBT_1US,
    SBT_MAX,
    Callout,
    callout_pending,
    callout_reset,
    callout_reset_sbt,
    callout_reset_sbt_on,
    callout_schedule_sbt,
    callout_schedule_sbt_on,
    callout_when,
    hz,
    mstosbt,
    sbinuptime,
    ticks,
)
from callout.conformance import Scenario
from callout.conformance._worlds.world import World

from .world import Stage

# A nanosecond in sbintime, rounded up: no time is more exact.
NS = 5


def now(s: Stage) -> int:
    """Return the time."""
    return s.do(sbinuptime)


@pytest.mark.parametrize(
    ("sbt", "due"), [(0, 1), (1, 1), (SBT_1US, 1), (SBT_1MS, 1), (mstosbt(1), 2), (SBT_1MS * 3 // 2, 2), (SBT_1S, 1000)]
)
def test_a_relative_time_is_late_never_early(s: Stage, sbt: int, due: int) -> None:
    """A relative time counts from the call, and a clock that has whole ticks fires at the first that is not early."""
    c = s.callout()
    s.do(callout_reset_sbt, c, sbt, 0, s.seen, "c")
    s.tick(due - 1)

    assert s.ran == []

    s.tick()

    assert s.ran == ["c"]


def test_an_absolute_time(s: Stage) -> None:
    """With C_ABSOLUTE the time is one of sbinuptime()'s, whenever the call is made."""
    c, d = s.callout(), s.callout()
    when = now(s) + 5 * SBT_1MS
    s.do(callout_reset_sbt, c, when, 0, s.seen, "c", C_ABSOLUTE)
    s.tick(3)
    s.do(callout_reset_sbt, d, when, 0, s.seen, "d", C_ABSOLUTE)
    s.tick()

    assert s.ran == []

    s.tick()

    assert s.ran == ["c", "d"]


def test_an_absolute_time_that_has_passed(s: Stage) -> None:
    """An absolute time in the past means as soon as possible: pending at first, it runs at the next interrupt."""
    c = s.callout()
    s.tick(5)

    assert s.do(callout_reset_sbt, c, now(s) - SBT_1MS, 0, s.seen, "c", C_ABSOLUTE) == 0
    assert s.ran == []

    s.tick()

    assert s.ran == ["c"]


def test_callout_schedule_sbt_takes_absolute_times(s: Stage) -> None:
    """callout_schedule_sbt() and its _on form know the same flags as callout_reset_sbt()."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")
    s.tick()
    s.do(callout_schedule_sbt, c, now(s) + 2 * SBT_1MS, 0, C_ABSOLUTE)
    s.tick()
    assert s.ran == ["c"]
    s.tick()
    assert s.ran == ["c", "c"]
    s.do(callout_schedule_sbt_on, c, now(s) + 2 * SBT_1MS, 0, s.last, C_ABSOLUTE)
    s.tick()
    assert s.ran == ["c", "c"]
    s.tick()

    assert s.ran == ["c", "c", "c"]
    assert s.cpu_of["c"] == s.last


@pytest.mark.parametrize("flags", [0, C_ABSOLUTE, C_PREL(3), C_HARDCLOCK])
def test_the_longest_time_is_far_away(s: Stage, flags: int) -> None:
    """SBT_MAX, relative or absolute, is a time that does not come: the callout stays pending."""
    c = s.callout()
    s.do(callout_reset_sbt, c, SBT_MAX, 0, s.seen, "c", flags)
    s.tick(200)

    assert s.ran == []
    assert callout_pending(c)


def test_when_tells_a_relative_time(s: Stage) -> None:
    """callout_when() without flags returns the present plus the time, at most a nanosecond late, and the precision."""
    s.tick(7)
    when, precision = s.do(callout_when, 10 * SBT_1MS, SBT_1MS)

    assert 0 <= when - (now(s) + 10 * SBT_1MS) <= NS
    assert 0 <= precision - SBT_1MS <= NS


@pytest.mark.parametrize("flags", [C_ABSOLUTE, C_PRECALC, C_ABSOLUTE | C_PREL(1), C_ABSOLUTE | C_HARDCLOCK])
def test_when_leaves_absolute_times_alone(s: Stage, flags: int) -> None:
    """An absolute or precalculated time and its precision come out of callout_when() as they went in."""
    when, precision = s.do(callout_when, 12_345 * SBT_1S, 7 * SBT_1MS, flags)

    assert 0 <= when - 12_345 * SBT_1S <= NS
    assert 0 <= precision - 7 * SBT_1MS <= NS


@pytest.mark.parametrize(("x", "share"), [(0, 1), (1, 2), (2, 4), (5, 32)])
def test_prel_is_a_share_of_the_interval(s: Stage, x: int, share: int) -> None:
    """C_PREL(x) allows a callout to be late by its interval divided by 2**x."""
    _, precision = s.do(callout_when, SBT_1S, 0, C_PREL(x))

    assert 0 <= precision - SBT_1S // share <= NS


def test_the_larger_precision_counts(s: Stage) -> None:
    """Of the precision and what C_PREL() allows, the larger is taken."""
    _, given = s.do(callout_when, SBT_1S, SBT_1S // 2, C_PREL(2))
    _, relative = s.do(callout_when, SBT_1S, SBT_1S // 8, C_PREL(2))

    assert 0 <= given - SBT_1S // 2 <= NS
    assert 0 <= relative - SBT_1S // 4 <= NS


def test_precalculated_values_are_not_adjusted_again(s: Stage) -> None:
    """With C_PRECALC what callout_when() returned is used as it is, some ticks later and beside C_PREL()."""
    c, d = s.callout(), s.callout()
    when, precision = s.do(callout_when, 5 * SBT_1MS, 0, C_PREL(4))
    s.do(callout_reset_sbt, c, when, precision, s.seen, "c", C_PRECALC)
    s.tick(3)
    s.do(callout_reset_sbt, d, when, precision, s.seen, "d", C_PRECALC | C_PREL(1))

    assert s.do(callout_when, when, precision, C_PRECALC | C_PREL(1)) == (when, precision)

    s.tick()

    assert s.ran == []

    s.tick()

    assert s.ran == ["c", "d"]


@pytest.mark.parametrize(
    ("sbt", "whole"),
    [(0, 1), (1, 1), (SBT_1MS // 2, 1), (SBT_1MS, 1), (3 * SBT_1MS // 2, 2), (10 * SBT_1MS + SBT_1US, 11)],
)
def test_hardclock_rounds_up_to_a_tick(s: Stage, sbt: int, whole: int) -> None:
    """With C_HARDCLOCK the time is that of a tick: the first that is not early, and at least one from now."""
    s.tick(3)
    when, _ = s.do(callout_when, sbt, 0, C_HARDCLOCK)

    assert 0 <= when - (now(s) + whole * SBT_1MS) <= NS + whole


def test_hardclock_callouts_run_at_their_tick(s: Stage) -> None:
    """A callout that was armed with C_HARDCLOCK runs at the tick that callout_when() tells for it."""
    c = s.callout()
    s.do(callout_reset_sbt, c, 5 * SBT_1MS // 2, 0, s.seen, "c", C_HARDCLOCK)
    s.tick(2)

    assert s.ran == []

    s.tick()

    assert s.ran == ["c"]


@pytest.mark.parametrize("percent", [0, 5, 25, 100])
def test_alloweddeviation_is_the_default_precision(make_world: Callable[[Scenario], World], percent: int) -> None:
    """The system's alloweddeviation gives every relative time a precision of about that share, and 0 gives none."""
    s = Stage(make_world, 1, percent)
    _, precision = s.do(callout_when, SBT_1S, 0)
    _, larger = s.do(callout_when, SBT_1S, 2 * SBT_1S)
    _, absolute = s.do(callout_when, SBT_1S, 0, C_ABSOLUTE)
    _, explicit = s.do(callout_when, SBT_1S, 0, C_PREL(8))
    s.leave()

    # The kernel rounds the share to a power of two: 5 % is 1/16, 25 % is 1/4, 100 % is all of it.
    assert 0 <= precision - {0: 0, 5: SBT_1S // 16, 25: SBT_1S // 4, 100: SBT_1S}[percent] <= NS
    assert 0 <= larger - 2 * SBT_1S <= NS
    assert absolute == 0
    assert 0 <= explicit - SBT_1S // 256 <= NS


@pytest.mark.parametrize("percent", [0, 100])
def test_a_reset_takes_the_default_precision(make_world: Callable[[Scenario], World], percent: int) -> None:
    """An idle callout that is reset has the precision of the system's alloweddeviation, and one that is pushed out."""
    s = Stage(make_world, 1, percent)
    c = s.callout()
    s.do(callout_reset, c, 8, s.seen, "c")
    armed = c.precision
    s.do(callout_reset, c, 160, s.seen, "c")
    pushed_out = c.precision
    s.leave()

    if percent:
        assert 7 * 10**6 < armed <= 8 * 10**6
        assert 159 * 10**6 < pushed_out <= 160 * 10**6
    else:
        assert armed == pushed_out == 0


def test_a_precision_never_makes_a_callout_early(s: Stage) -> None:
    """A callout with a wide window does not run before the window begins, and runs before it has ended."""
    c = s.callout()
    s.do(callout_reset_sbt, c, 5 * SBT_1MS, 5 * SBT_1MS, s.seen, "c")
    s.tick(4)

    assert s.ran == []

    s.tick(6)

    assert s.ran == ["c"]


def test_direct_callouts_run_before_others_of_the_same_time(s: Stage) -> None:
    """A direct callout runs in the interrupt, so before the ordinary ones of its time, though they were armed first."""
    c, d, e = s.callout(), s.callout(), s.callout()
    s.do(callout_reset, c, 2, s.seen, "plain")
    s.do(callout_reset_sbt, d, 2 * SBT_1MS, 0, s.seen, "direct 1", C_DIRECT_EXEC)
    s.do(callout_reset_sbt, e, 2 * SBT_1MS, 0, s.seen, "direct 2", C_DIRECT_EXEC)
    s.tick(2)

    assert s.ran == ["direct 1", "direct 2", "plain"]


def test_once_direct_always_direct(s: Stage) -> None:
    """A callout that was armed with C_DIRECT_EXEC once runs directly after a plain reset, too."""
    c, d = s.callout(), s.callout()
    s.do(callout_reset_sbt, c, SBT_1MS, 0, s.seen, "c", C_DIRECT_EXEC)
    s.tick()
    s.do(callout_reset, d, 1, s.seen, "plain")
    s.do(callout_reset, c, 1, s.seen, "direct")
    s.tick()

    assert s.ran == ["c", "direct", "plain"]


def test_a_direct_callout_runs_while_softclock_waits_for_a_lock(s: Stage) -> None:
    """Softclock that stands at a lock does not hold the interrupt up: direct callouts of its CPU run."""
    lock = s.mtx()
    c, d = s.callout(lock), s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")
    s.do(callout_reset_sbt, d, 2 * SBT_1MS, 0, s.seen, "direct", C_DIRECT_EXEC)
    with s.t0.holding(lock):
        s.tick(2)

        assert s.ran == ["direct"]


def test_a_direct_callout_never_interrupts_a_callback(s: Stage) -> None:
    """A direct callout that is due while a callback of its CPU runs takes place when that has returned."""
    c, d = s.callout(), s.callout()
    s.do(callout_reset, c, 1, s.halt, "busy")
    s.do(callout_reset_sbt, d, 2 * SBT_1MS, 0, s.seen, "direct", C_DIRECT_EXEC)
    s.tick(3)

    assert s.ran == ["busy"]

    s.open("busy")

    assert s.ran == ["busy", "direct"]


def test_times_of_different_cpus_are_one_time(s2: Stage) -> None:
    """One absolute time on two CPUs is the same tick."""
    s = s2
    c, d = s.callout(), s.callout()
    when = now(s) + 3 * SBT_1MS
    s.do(callout_reset_sbt_on, c, when, 0, s.seen, "c", 0, C_ABSOLUTE)
    s.do(callout_reset_sbt_on, d, when, 0, s.seen, "d", 1, C_ABSOLUTE)
    s.tick(2)

    assert s.ran == []

    s.tick()

    assert s.cpu_of == {"c": 0, "d": 1}


def test_ticks_and_sbinuptime_count_together(s: Stage) -> None:
    """ticks() counts the clock ticks since the system was opened, hz() of them in a second of sbinuptime()."""
    begun, then = s.do(ticks), now(s)
    s.tick(250)

    assert s.do(ticks) == begun + 250
    assert s.do(hz) == 1000
    assert now(s) - then == SBT_1S // 4


def test_a_time_can_be_read_in_advance_and_shared(s: Stage) -> None:
    """Callouts that are armed with one result of callout_when() run in one tick, though armed in different ones."""
    callouts = [s.callout() for _ in range(3)]
    when, precision = s.do(callout_when, 4 * SBT_1MS, 0)
    for number, c in enumerate(callouts):
        _arm(s, c, when, precision, number)
        s.tick()
    assert s.ran == []
    s.tick()

    assert s.ran == [0, 1, 2]


def _arm(s: Stage, c: Callout, when: int, precision: int, number: int) -> None:
    s.do(callout_reset_sbt, c, when, precision, s.seen, number, C_PRECALC)
