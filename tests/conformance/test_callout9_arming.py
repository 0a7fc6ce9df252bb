"""callout(9), DESCRIPTION: scheduling a call, once, again, instead of another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from callout import (
    C_ABSOLUTE,
    SBT_1MS,
    Callout,
    NeverArmedError,
    NotInitializedError,
    callout_deactivate,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_pending,
    callout_reset,
    callout_reset_curcpu,
    callout_reset_on,
    callout_reset_sbt,
    callout_reset_sbt_curcpu,
    callout_reset_sbt_on,
    callout_schedule,
    callout_schedule_curcpu,
    callout_schedule_on,
    callout_schedule_sbt,
    callout_schedule_sbt_curcpu,
    callout_schedule_sbt_on,
    callout_stop,
    sbinuptime,
)
from callout.conformance import Scenario
from callout.conformance._worlds.world import World

from .conftest import play
from .world import Stage

Reset = Callable[[Callout, int, Callable[[object], object], object], int]
Schedule = Callable[[Callout, int], int]

# Each family as a function of ticks.
RESETS: dict[str, Reset] = {
    "reset": callout_reset,
    "reset_on": lambda c, ticks, func, arg: callout_reset_on(c, ticks, func, arg, 0),
    "reset_curcpu": callout_reset_curcpu,
    "reset_sbt": lambda c, ticks, func, arg: callout_reset_sbt(c, ticks * SBT_1MS, 0, func, arg),
    "reset_sbt_on": lambda c, ticks, func, arg: callout_reset_sbt_on(c, ticks * SBT_1MS, 0, func, arg, 0),
    "reset_sbt_curcpu": lambda c, ticks, func, arg: callout_reset_sbt_curcpu(c, ticks * SBT_1MS, 0, func, arg),
}
SCHEDULES: dict[str, Schedule] = {
    "schedule": callout_schedule,
    "schedule_on": lambda c, ticks: callout_schedule_on(c, ticks, 0),
    "schedule_curcpu": callout_schedule_curcpu,
    "schedule_sbt": lambda c, ticks: callout_schedule_sbt(c, ticks * SBT_1MS, 0),
    "schedule_sbt_on": lambda c, ticks: callout_schedule_sbt_on(c, ticks * SBT_1MS, 0, 0),
    "schedule_sbt_curcpu": lambda c, ticks: callout_schedule_sbt_curcpu(c, ticks * SBT_1MS, 0),
}


@pytest.fixture(params=list(itertools.product([1, 2], [False, True])), ids=lambda param: f"{param[0]}cpu-{param[1]}")
def s(request: pytest.FixtureRequest, make_world: Callable[[Scenario], World]) -> Iterator[Stage]:
    """Give the stage twice: arming has a short path and a long one, and checking mode takes the long one only."""
    cpus, origins = request.param
    yield from play(make_world, cpus, origins=origins)


each_reset = pytest.mark.parametrize("reset", RESETS.values(), ids=RESETS.keys())
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def ignore(arg: object) -> None:
    """Be a callback that does nothing."""


@each_reset
def test_func_is_called_with_arg_when_the_time_has_passed(s: Stage, reset: Reset) -> None:
    """What a reset arms for n ticks is called with its one argument at the n-th tick, and not before."""
    c = s.callout()
    s.do(reset, c, 3, s.seen, "arg")
    s.tick(2)

    assert s.ran == []

    s.tick()

    assert s.ran == ["arg"]


@each_schedule
def test_schedule_uses_function_and_argument_of_the_last_reset(s: Stage, schedule: Schedule) -> None:
    """A schedule arms for the function and argument that the callout was given by the reset before it."""
    c = s.callout()
    s.do(callout_reset, c, 1, ignore, "first")
    s.do(callout_reset, c, 1, s.seen, "last")
    s.tick()
    s.ran.clear()
    s.do(schedule, c, 3)
    s.tick(2)

    assert s.ran == []

    s.tick()

    assert s.ran == ["last"]


@each_schedule
def test_schedule_needs_a_reset_before_it(s: Stage, schedule: Schedule) -> None:
    """A schedule of a callout that has no function yet is an error at once, and arms nothing."""
    c = s.callout()

    with pytest.raises(NeverArmedError, match="callout_reset"):
        s.do(schedule, c, 1)
    assert not callout_pending(c)


@each_reset
def test_reset_returns_one_if_it_replaces_a_pending_call(s: Stage, reset: Reset) -> None:
    """A reset returns 1 and cancels the pending call if there is one, and 0 if there is none."""
    c = s.callout()

    assert s.do(reset, c, 2, s.seen, "old") == 0
    assert s.do(reset, c, 2, s.seen, "new") == 1

    s.tick(5)

    assert s.ran == ["new"]


@each_schedule
def test_schedule_returns_one_if_it_replaces_a_pending_call(s: Stage, schedule: Schedule) -> None:
    """A schedule returns 1 and moves the pending call if there is one, and 0 if there is none."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")

    assert s.do(schedule, c, 3) == 1

    s.tick(2)
    assert s.ran == []
    s.tick()

    assert s.ran == ["c"]
    assert s.do(schedule, c, 3) == 0


@pytest.mark.parametrize(("first", "second"), [(2, 6), (6, 2), (400, 3), (3, 400)])
def test_only_the_last_time_counts(s: Stage, first: int, second: int) -> None:
    """A reset of a pending callout moves its call to the new time, be that earlier or later."""
    c = s.callout()
    s.do(callout_reset, c, first, s.seen, "c")
    s.do(callout_reset, c, second, s.seen, "c")
    s.tick(second - 1)

    assert s.ran == []

    s.tick()

    assert s.ran == ["c"]


def test_a_callout_is_single_shot(s: Stage) -> None:
    """One arming gives one call, however long one waits."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")
    s.tick(20)

    assert s.ran == ["c"]


def test_a_callback_may_re_arm_its_own_callout(s: Stage) -> None:
    """A timer becomes periodic by arming itself anew from its own callback."""
    c = s.callout()

    def again(arg: str) -> None:
        s.seen(arg)
        callout_reset(c, 2, again, arg)

    s.do(callout_reset, c, 2, again, "beat")
    s.tick(7)

    assert s.ran == ["beat"] * 3


def test_a_callback_may_schedule_its_own_callout(s: Stage) -> None:
    """From its own callback callout_schedule() finds the function and argument of the call in progress."""
    c = s.callout()

    def again(arg: str) -> None:
        s.seen(arg)
        callout_schedule(c, 1)

    s.do(callout_reset, c, 1, again, "beat")
    s.tick(4)

    assert s.ran == ["beat"] * 4


def test_a_callout_may_be_used_again(s: Stage) -> None:
    """After its call a callout takes another function, argument and time."""
    c = s.callout()
    s.do(callout_reset, c, 1, ignore, "first")
    s.tick()
    s.do(callout_reset, c, 2, s.seen, "second")
    s.tick()

    assert s.ran == []

    s.tick()

    assert s.ran == ["second"]


def test_every_callout_stands_for_itself(s: Stage) -> None:
    """Of several pending callouts each has its own time, argument and fate."""
    callouts = [s.callout() for _ in range(5)]
    for number, c in enumerate(callouts):
        s.do(callout_reset, c, 5 - number, s.seen, number)
    s.do(callout_stop, callouts[2])
    s.tick(5)

    assert s.ran == [4, 3, 1, 0]


@pytest.mark.parametrize("ticks", [0, -1, -0x80000000])
def test_non_positive_ticks_are_one(s: Stage, ticks: int) -> None:
    """Zero or negative ticks mean the next tick; the same for schedule."""
    c = s.callout()
    s.do(callout_reset, c, ticks, s.seen, "c")

    assert s.ran == []

    s.tick()

    assert s.ran == ["c"]

    s.do(callout_schedule, c, ticks)
    s.tick()

    assert s.ran == ["c", "c"]


def test_ticks_count_from_the_call(s: Stage) -> None:
    """An arming for n ticks counts from the call, also from within a callback."""
    c, d = s.callout(), s.callout()

    def arm(arg: str) -> None:
        callout_reset(d, 3, s.seen, arg)

    s.tick(5)
    s.do(callout_reset, c, 2, arm, "d")
    s.tick(4)

    assert s.ran == []

    s.tick()

    assert s.ran == ["d"]


@pytest.mark.parametrize("kind", ["mpsafe", "mtx", "Giant"])
def test_a_reset_during_the_run_lets_it_go_on_and_follows_it(s: Stage, kind: str) -> None:
    """A reset of a running callout returns 0, leaves the run alone, and its own call takes place after it."""
    c = s.callout() if kind == "mpsafe" else s.callout(s.lock(kind))
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()

    assert s.do(callout_reset, c, 1, s.seen, "next") == 0

    s.tick(3)

    assert s.ran == ["run"]

    s.open("run")
    s.tick()

    assert s.returned == ["run"]
    assert s.ran == ["run", "next"]


def test_a_reset_returns_one_for_a_call_that_is_due_but_has_not_begun(s: Stage) -> None:
    """A callout that is due and waits behind another callback is still pending, and a reset takes it away."""
    c, d = s.callout(), s.callout()
    s.do(callout_reset, c, 1, s.halt, "busy")
    s.do(callout_reset, d, 2, s.seen, "old")
    s.tick(3)

    assert s.do(callout_reset, d, 2, s.seen, "new") == 1

    s.open("busy")

    assert s.ran == ["busy"]

    s.tick(2)

    assert s.ran == ["busy", "new"]


def test_callouts_that_wait_behind_another_callback_run_in_order_of_their_time(s: Stage) -> None:
    """Softclock runs what became due while it was busy in the order of the times, late but never dropped."""
    c = s.callout()
    late = [s.callout() for _ in range(3)]
    s.do(callout_reset, c, 1, s.halt, "busy")
    for number in (2, 0, 1):
        s.do(callout_reset, late[number], 2 + number, s.seen, number)
    s.tick(6)
    s.open("busy")

    assert s.ran == ["busy", 0, 1, 2]


def test_equal_times_run_in_order_of_arming(s: Stage) -> None:
    """Of callouts that are due at one time on one CPU the first armed runs first, by whatever call it was armed."""
    callouts = [s.callout() for _ in range(4)]
    when = s.do(_in_ticks, 3)
    s.do(callout_reset_sbt, callouts[2], when, 0, s.seen, 2, C_ABSOLUTE)
    s.do(callout_reset, callouts[0], 3, s.seen, 0)
    s.do(callout_reset_sbt, callouts[3], when, 0, s.seen, 3, C_ABSOLUTE)
    s.do(callout_reset, callouts[1], 3, s.seen, 1)
    s.tick(3)

    assert s.ran == [2, 0, 3, 1]


@pytest.mark.parametrize("away", [2, 300, None], ids=["same time", "later and back", "stopped"])
def test_arming_again_for_the_same_time_goes_to_the_end(s: Stage, away: int | None) -> None:
    """A callout that is armed anew for the time of others runs after them, whatever was done to it before."""
    c, d = s.callout(), s.callout()
    s.do(callout_reset, c, 2, s.seen, "c")
    s.do(callout_reset, d, 2, s.seen, "d")
    if away is None:
        s.do(callout_stop, c)
    else:
        s.do(callout_reset, c, away, s.seen, "c")
    s.do(callout_reset, c, 2, s.seen, "c")
    s.tick(2)

    assert s.ran == ["d", "c"]


def test_callouts_of_a_far_slot_run_in_order(s: Stage) -> None:
    """Order by time, then by arming, holds also for callouts that were armed long before they are due."""
    callouts = [s.callout() for _ in range(6)]
    for number, ticks in enumerate([270, 150, 270, 149, 600, 150]):
        s.do(callout_reset, callouts[number], ticks, s.seen, number)
    s.tick(600)

    assert s.ran == [3, 1, 5, 0, 2, 4]


def test_a_callback_may_arm_and_stop_other_callouts(s: Stage) -> None:
    """A callback may stop a callout that is due at the same time, which then does not run, and arm another."""
    c, d, e = s.callout(), s.callout(), s.callout()
    results: list[int] = []

    def manage(arg: object) -> None:
        s.seen(arg)
        results.append(callout_stop(d))
        results.append(callout_reset(e, 1, s.seen, "e"))

    s.do(callout_reset, c, 1, manage, "c")
    s.do(callout_reset, d, 1, s.seen, "d")
    s.tick(3)

    assert s.ran == ["c", "e"]
    assert results == [1, 0]


USES: dict[str, Callable[[Callout], object]] = {
    "reset": lambda c: callout_reset(c, 1, ignore, None),
    "reset_on": lambda c: callout_reset_on(c, 1, ignore, None, 0),
    "reset_curcpu": lambda c: callout_reset_curcpu(c, 1, ignore, None),
    "reset_sbt": lambda c: callout_reset_sbt(c, 1, 0, ignore, None),
    "reset_sbt_on": lambda c: callout_reset_sbt_on(c, 1, 0, ignore, None, 0),
    "reset_sbt_curcpu": lambda c: callout_reset_sbt_curcpu(c, 1, 0, ignore, None),
    "schedule": lambda c: callout_schedule(c, 1),
    "schedule_on": lambda c: callout_schedule_on(c, 1, 0),
    "schedule_sbt": lambda c: callout_schedule_sbt(c, 1, 0),
    "stop": callout_stop,
    "drain": callout_drain_sync,
    "drain_async": lambda c: callout_drain_async(c, ignore, None),
    "deactivate": callout_deactivate,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_callout_must_be_initialised_first(s: Stage, use: Callable[[Callout], object]) -> None:
    """No call takes a callout that was never initialised, and the error says what to call first."""
    with pytest.raises(NotInitializedError, match="callout_init"):
        s.do(use, Callout())


def _in_ticks(ticks: int) -> int:
    return sbinuptime() + ticks * SBT_1MS


@pytest.mark.parametrize("times", [1, 50])
def test_a_callout_that_is_pushed_out_again_and_again(s: Stage, times: int) -> None:
    """A pending callout that is reset to later and later runs once, with the last function and argument, in order."""
    c, d, e = s.callout(), s.callout(), s.callout()
    s.do(callout_reset, c, 1, ignore, "old")
    s.do(callout_reset, d, 200 + times, s.seen, "before")
    for step in range(times):
        assert s.do(callout_reset, c, 200 + step, ignore, "old") == 1
    assert s.do(callout_reset, c, 200 + times, s.seen, "new") == 1
    s.do(callout_reset, e, 200 + times, s.seen, "after")
    s.tick(199 + times)

    assert s.ran == []

    s.tick()

    assert s.ran == ["before", "new", "after"]


def test_init_forgets_function_and_argument(s: Stage) -> None:
    """A callout that was initialised anew has no function to schedule, as if it had never been armed."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "old")
    s.tick()
    s.do(callout_init, c, 1)

    with pytest.raises(NeverArmedError, match="callout_reset"):
        s.do(callout_schedule, c, 1)


def test_init_forgets_the_cpu_and_its_wheel(s: Stage) -> None:
    """A callout that was stopped on one CPU and initialised anew runs on CPU 0 at its new time, later than the old."""
    c = s.callout()
    s.do(callout_reset_on, c, 2, s.seen, "old", s.last)
    s.do(callout_stop, c)
    s.do(callout_init, c, 1)
    s.do(callout_reset, c, 4, s.seen, "new")
    s.tick(3)

    assert s.ran == []

    s.tick()

    assert s.cpu_of == {"new": 0}
