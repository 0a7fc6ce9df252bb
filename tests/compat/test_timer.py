"""``callout_linux.timer`` where no recording looks: identical and odd times, calls while a migration is deferred,
flags.

On virtual CPUs and on real ones. The clock is moved by hand, so what is asserted has happened when it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    BusyError,
    LoopThreadError,
    NotInitializedError,
    curcpu,
    open_callouts,
)
from callout_linux.timer import (
    DEFINE_TIMER,
    MAX_SCHEDULE_TIMEOUT,
    TIMER_DEFERRABLE,
    TIMER_IRQSAFE,
    TIMER_PINNED,
    add_timer,
    add_timer_global,
    add_timer_local,
    add_timer_on,
    del_timer,
    del_timer_sync,
    del_timer_sync_blocking,
    destroy_timer_on_stack,
    get_jiffies_64,
    jiffies,
    mod_timer,
    mod_timer_pending,
    schedule_timeout,
    schedule_timeout_blocking,
    timer_delete,
    timer_delete_sync,
    timer_delete_sync_blocking,
    timer_list,
    timer_pending,
    timer_reduce,
    timer_setup,
    timer_setup_on_stack,
    timer_shutdown,
    timer_shutdown_sync_blocking,
    try_to_del_timer_sync,
)
from tests.conformance.world import Call, Stage


class Timers:
    """Timers on a stage: each notes when and where it runs, and stands at the gate of its name if there is one."""

    def __init__(self, s: Stage) -> None:
        self.s = s
        self.ran: list[tuple[str, int, int]] = []  # name, jiffies since the start, CPU
        self.gates: dict[str, str] = {}
        self.body: dict[str, Callable[[timer_list], object]] = {}
        self.start = s.do(jiffies)

    def make(self, name: str, gate: str = "", flags: int = 0) -> timer_list:
        """Return a new timer; with a gate its first run stands there."""
        timer = timer_list()
        if gate:
            self.gates[name] = gate

        def function(t: timer_list) -> None:
            assert t is timer
            self.ran.append((name, jiffies() - self.start, curcpu()))
            if name in self.body:
                self.body[name](t)
            if name in self.gates:
                self.s.world.wait_at_gate(self.gates.pop(name), lambda: None)

        self.s.do(timer_setup, timer, function, flags)
        return timer

    def at(self, name: str) -> list[int]:
        """Return when the timer of that name has run."""
        return [when for who, when, _ in self.ran if who == name]

    def where(self, name: str) -> list[int]:
        """Return on which CPUs it has run."""
        return [cpu for who, _, cpu in self.ran if who == name]


# -- when ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [0, 1, 2, 62, 63, 64, 100, 503, 504])
def test_a_timer_runs_at_the_tick_after_its_expiry(s: Stage, delta: int) -> None:
    """A timer for *delta* jiffies from now runs in tick delta + 1 exactly, also where Linux rounds to its wheel."""
    timers = Timers(s)
    timer = timers.make("t")

    assert s.do(mod_timer, timer, timers.start + delta) == 0

    s.tick(delta)

    assert timers.at("t") == []

    s.tick()

    assert timers.at("t") == [delta + 1]


@pytest.mark.parametrize("delta", [-1, -5, -(1 << 40)])
def test_a_time_that_has_passed_means_the_next_tick(s: Stage, delta: int) -> None:
    """A timer for a time that has passed runs at the next tick, neither at once nor never."""
    timers = Timers(s)
    timer = timers.make("t")
    s.tick(3)

    s.do(mod_timer, timer, timers.start + 3 + delta)

    assert timers.at("t") == []

    s.tick()

    assert timers.at("t") == [4]


@pytest.mark.parametrize("delta", [0, -5])
def test_a_function_that_re_arms_for_the_past_runs_once_a_tick(s: Stage, delta: int) -> None:
    """A function that re-arms its timer for now or for the past runs at every tick, and once in each."""
    timers = Timers(s)
    timer = timers.make("t")
    timers.body["t"] = lambda t: mod_timer(t, jiffies + delta)
    s.do(mod_timer, timer, timers.start)
    s.tick(4)

    assert timers.at("t") == [1, 2, 3, 4]
    assert s.do(del_timer, timer) == 1


def test_an_unsigned_long_that_has_wrapped_lies_in_the_past(s: Stage) -> None:
    """``(jiffies - 2) & ULONG_MAX``, as C has it, runs at the next tick."""
    timers = Timers(s)
    timer = timers.make("t")
    s.do(mod_timer, timer, (timers.start - 2) & ((1 << 64) - 1))
    s.tick()

    assert timers.at("t") == [1]


def test_a_timer_for_the_far_future_stays_pending(s: Stage) -> None:
    """The largest time that a long holds is accepted, and the timer can be deleted."""
    timers = Timers(s)
    timer = timers.make("t")
    s.do(mod_timer, timer, (1 << 63) - 1)
    s.tick(2)

    assert timers.at("t") == []
    assert s.do(del_timer, timer) == 1


# -- the same time again ---------------------------------------------------------------------------------------------


def test_mod_to_the_identical_time_does_not_move_the_timer(s2: Stage) -> None:
    """mod_timer() to the time it has returns 1 and moves nothing; to another it brings the timer here."""
    timers = Timers(s2)
    same, other = timers.make("same"), timers.make("other")
    for timer in (same, other):
        s2.t0.do(mod_timer, timer, timers.start + 3)

    assert s2.t1.do(mod_timer, same, timers.start + 3) == 1
    assert s2.t1.do(mod_timer, other, timers.start + 4) == 1

    s2.tick(5)

    assert timers.where("same") == [0]
    assert timers.where("other") == [1]
    assert timers.at("same") == [4]


def test_mod_to_the_identical_time_leaves_a_timer_that_waits_for_its_turn(s2: Stage) -> None:
    """A timer that waits behind a stuck function stays there if it is set to the time it has."""
    timers = Timers(s2)
    stuck, due = timers.make("stuck", gate="g"), timers.make("due")
    s2.t0.do(mod_timer, stuck, timers.start)
    s2.t0.do(mod_timer, due, timers.start + 1)
    s2.tick(4)

    assert s2.t1.do(mod_timer, due, timers.start + 1) == 1

    s2.tick(2)

    assert timers.at("due") == []

    s2.open("g")

    assert timers.where("due") == [0]


def test_mod_to_another_time_takes_a_timer_away_from_a_stuck_cpu(s2: Stage) -> None:
    """The same timer set to another time by CPU 1 runs there, while CPU 0 is still stuck."""
    timers = Timers(s2)
    stuck, due = timers.make("stuck", gate="g"), timers.make("due")
    s2.t0.do(mod_timer, stuck, timers.start)
    s2.t0.do(mod_timer, due, timers.start + 1)
    s2.tick(4)

    assert s2.t1.do(mod_timer, due, timers.start + 5) == 1

    s2.tick(2)

    assert timers.where("due") == [1]

    s2.open("g")


def test_reduce_to_the_same_or_a_later_time_moves_nothing(s2: Stage) -> None:
    """timer_reduce() to a time that is not earlier returns 1 and moves nothing."""
    timers = Timers(s2)
    timer = timers.make("t")
    s2.t0.do(mod_timer, timer, timers.start + 5)

    assert s2.t1.do(timer_reduce, timer, timers.start + 5) == 1
    assert s2.t1.do(timer_reduce, timer, timers.start + 9) == 1
    assert timer.expires == timers.start + 5
    assert s2.t1.do(timer_reduce, timer, timers.start + 2) == 1

    s2.tick(10)

    assert timers.at("t") == [3]
    assert timers.where("t") == [1]


# -- while a migration is deferred -----------------------------------------------------------------------------


def deferred(s: Stage) -> tuple[Timers, timer_list]:
    """Return a timer that stands at gate ``g`` on CPU 0 and was added on CPU 1 meanwhile, for 5 jiffies later."""
    timers = Timers(s)
    timer = timers.make("t", gate="g")
    s.t0.do(mod_timer, timer, timers.start)
    s.tick()
    timer.expires = timers.start + 6
    s.t0.do(add_timer_on, timer, 1)
    assert s.do(timer_pending, timer) == 1
    return timers, timer


def test_add_timer_on_moves_a_timer_when_it_has_stopped_running(s2: Stage) -> None:
    """A timer that is added on another CPU while it runs never runs on two CPUs at once, as it may in Linux."""
    timers, _ = deferred(s2)
    s2.tick(10)

    assert timers.where("t") == [0]

    s2.open("g")
    s2.tick()

    assert timers.where("t") == [0, 1]


def test_mod_while_a_migration_is_deferred_cancels_the_move(s2: Stage) -> None:
    """mod_timer() takes the place of the move, and the timer stays on the CPU where it runs."""
    timers, timer = deferred(s2)

    assert s2.t1.do(mod_timer, timer, timers.start + 8) == 1
    assert timer.expires == timers.start + 8

    s2.open("g")
    s2.tick(10)

    assert timers.at("t") == [1, 9]
    assert timers.where("t") == [0, 0]


def test_mod_to_the_identical_time_leaves_a_deferred_migration(s2: Stage) -> None:
    """mod_timer() to the time of the move returns 1, and the timer still moves."""
    timers, timer = deferred(s2)

    assert s2.t0.do(mod_timer, timer, timers.start + 6) == 1

    s2.open("g")
    s2.tick(10)

    assert timers.at("t") == [1, 7]
    assert timers.where("t") == [0, 1]


def test_mod_pending_while_a_migration_is_deferred_takes_its_place(s2: Stage) -> None:
    """To mod_timer_pending() a timer with a deferred migration is pending."""
    timers, timer = deferred(s2)

    assert s2.t1.do(mod_timer_pending, timer, timers.start + 3) == 1

    s2.open("g")
    s2.tick(10)

    assert timers.at("t") == [1, 4]
    assert timers.where("t") == [0, 0]


@pytest.mark.parametrize(("later", "at", "where"), [(3, [1, 4], [0, 0]), (9, [1, 7], [0, 1])])
def test_reduce_while_a_migration_is_deferred_compares_with_its_time(
    s2: Stage, later: int, at: list[int], where: list[int]
) -> None:
    """timer_reduce() takes the place of a later move, and leaves an earlier one."""
    timers, timer = deferred(s2)

    assert s2.t1.do(timer_reduce, timer, timers.start + later) == 1

    s2.open("g")
    s2.tick(10)

    assert timers.at("t") == at
    assert timers.where("t") == where


@pytest.mark.parametrize("add", [add_timer, add_timer_local, add_timer_global, lambda t: add_timer_on(t, 0)])
def test_adding_while_a_migration_is_deferred_is_refused(s2: Stage, add: Callable[[timer_list], None]) -> None:
    """A timer with a deferred migration is pending, so it cannot be added; the move stays."""
    timers, timer = deferred(s2)
    with pytest.raises(RuntimeError, match="pending"):
        s2.t1.do(add, timer)
    s2.open("g")
    s2.tick(10)

    assert timers.at("t") == [1, 7]
    assert timers.where("t") == [0, 1]


@pytest.mark.parametrize(("delete", "again"), [(timer_delete, 0), (timer_shutdown, 0)])
def test_deleting_while_a_migration_is_deferred_removes_the_move(
    s2: Stage, delete: Callable[[timer_list], int], again: int
) -> None:
    """timer_delete() and timer_shutdown() of a running timer remove the deferred migration, return 1, and do
    not wait.
    """
    timers, timer = deferred(s2)

    assert s2.t1.do(delete, timer) == 1
    assert s2.t1.do(delete, timer) == again
    assert s2.do(timer_pending, timer) == 0

    s2.open("g")
    s2.tick(10)

    assert timers.at("t") == [1]


def test_try_to_del_while_a_migration_is_deferred_leaves_it(s2: Stage) -> None:
    """try_to_del_timer_sync() says -1 for a timer that runs, and leaves its deferred migration."""
    timers, timer = deferred(s2)

    assert s2.t1.do(try_to_del_timer_sync, timer) == -1

    s2.open("g")
    s2.tick(10)

    assert timers.where("t") == [0, 1]


@pytest.mark.parametrize("wait", [timer_delete_sync_blocking, timer_shutdown_sync_blocking])
def test_a_waiting_delete_removes_a_deferred_migration_at_the_end_of_the_run(
    s2: Stage, wait: Callable[[timer_list], int]
) -> None:
    """timer_delete_sync() and timer_shutdown_sync() wait for the run and return 1; the move is not carried out."""
    timers, timer = deferred(s2)
    call = s2.t1.begin(wait, timer)

    assert call.blocked
    assert s2.do(timer_pending, timer) == 1

    s2.open("g")

    assert call.result() == 1

    s2.tick(10)

    assert timers.at("t") == [1]


def test_of_two_waiters_one_is_told_that_it_removed_the_re_arming(s: Stage) -> None:
    """Two timer_delete_sync() of one run with one re-arming: one returns 1, the other 0."""
    timers = Timers(s)
    timer = timers.make("t", gate="g")
    timers.body["t"] = lambda t: mod_timer(t, jiffies + 1)
    s.do(mod_timer, timer, timers.start)
    s.tick()
    calls: list[Call[int]] = [actor.begin(timer_delete_sync_blocking, timer) for actor in (s.t1, s.t2)]
    s.open("g")

    assert sorted(call.result() for call in calls) == [0, 1]

    s.tick(5)

    assert timers.at("t") == [1]


# -- shut down -------------------------------------------------------------------------------------------------------


def test_arming_a_timer_that_was_shut_down_is_silently_ignored(s: Stage) -> None:
    """After timer_shutdown() every arming does nothing, returns 0 and raises nothing; the function is gone."""
    timers = Timers(s)
    timer = timers.make("t")

    assert s.do(timer_shutdown, timer) == 0
    assert timer.function is None

    for add in (add_timer, add_timer_local, add_timer_global):
        s.do(add, timer)
    s.do(add_timer_on, timer, 0)
    for mod in (mod_timer, mod_timer_pending, timer_reduce):
        assert s.do(mod, timer, timers.start + 1) == 0
    s.tick(5)

    assert timers.ran == []
    assert s.do(timer_shutdown, timer) == 0


def test_timer_setup_brings_a_timer_back_to_life(s: Stage) -> None:
    """A timer that was shut down can be set up and armed again."""
    timers = Timers(s)
    timer = timers.make("t")
    s.do(timer_shutdown, timer)
    seen: list[timer_list] = []
    s.do(timer_setup, timer, seen.append, 0)
    s.do(mod_timer, timer, timers.start)
    s.tick()

    assert seen == [timer]


# -- the record ------------------------------------------------------------------------------------------------------


def test_expires_is_what_was_written_or_armed_last(s: Stage) -> None:
    """``timer.expires`` can be written before add_timer(), and says afterwards for when the timer was armed."""
    timers = Timers(s)
    timer = timer_list()
    timer.expires = timers.start + 4
    s.do(timer_setup, timer, lambda t: timers.ran.append(("t", t.expires, 0)), 0)

    assert timer.expires == timers.start + 4

    s.do(add_timer, timer)

    assert timer.expires == timers.start + 4

    s.do(mod_timer, timer, timers.start + 2)

    assert timer.expires == timers.start + 2

    s.do(timer_reduce, timer, timers.start + 3)

    assert timer.expires == timers.start + 2

    s.tick(3)

    assert timers.ran == [("t", timers.start + 2, 0)]
    assert timer.expires == timers.start + 2


def test_a_function_re_arms_relative_to_its_own_expiry(s: Stage) -> None:
    """``mod_timer(t, t.expires + n)`` in the function gives a period of n jiffies, without drift."""
    timers = Timers(s)
    timer = timers.make("t")
    timers.body["t"] = lambda t: mod_timer(t, t.expires + 3)
    s.do(mod_timer, timer, timers.start + 1)
    s.tick(12)

    assert timers.at("t") == [2, 5, 8, 11]
    assert s.do(del_timer, timer) == 1


def test_the_function_can_be_replaced(s: Stage) -> None:
    """What is written to ``timer.function`` is what the next run calls, as in C."""
    timers = Timers(s)
    timer = timers.make("t")
    s.do(mod_timer, timer, timers.start + 1)
    seen: list[timer_list] = []
    timer.function = seen.append
    s.tick(2)

    assert timers.ran == []
    assert seen == [timer]


def test_flags_are_kept_and_the_pinning_calls_change_them(s: Stage) -> None:
    """timer_setup() keeps the flags; of these calls two set TIMER_PINNED, and add_timer_global() clears it."""
    timers = Timers(s)
    timer = timers.make("t", flags=TIMER_DEFERRABLE | TIMER_IRQSAFE)

    assert timer.flags == TIMER_DEFERRABLE | TIMER_IRQSAFE

    timer.expires = timers.start + 1
    s.do(add_timer_local, timer)

    assert timer.flags & TIMER_PINNED

    s.do(del_timer, timer)
    timer.expires = timers.start + 1
    s.do(add_timer_global, timer)

    assert not timer.flags & TIMER_PINNED

    s.do(del_timer, timer)
    timer.expires = timers.start + 1
    s.do(add_timer_on, timer, 0)

    assert timer.flags & TIMER_PINNED
    assert timer.flags & TIMER_DEFERRABLE


def test_define_timer_needs_no_setup(s: Stage) -> None:
    """DEFINE_TIMER() gives a timer that can be armed at once."""
    seen: list[timer_list] = []
    timer = s.do(DEFINE_TIMER, seen.append)
    s.do(mod_timer, timer, s.do(jiffies))
    s.tick()

    assert seen == [timer]


def test_the_older_names_are_the_same_functions() -> None:
    """del_timer() and del_timer_sync() are timer_delete() and timer_delete_sync()."""
    assert del_timer is timer_delete
    assert del_timer_sync is timer_delete_sync
    assert del_timer_sync_blocking is timer_delete_sync_blocking


def test_a_timer_says_what_it_is(s: Stage) -> None:
    """The repr of a timer names its function, its CPU, and what it is at; of one that was never set up, that."""
    timer = timer_list()
    who = f"<timer_list at {id(timer):#x}"
    assert repr(timer) == f"{who}: not set up>"

    s.do(lambda: timer_setup(timer, s.seen, 0))
    said = [repr(timer)]
    s.do(lambda: mod_timer(timer, jiffies() + 5))
    said.append(repr(timer))
    s.do(lambda: timer_shutdown(timer))
    said.append(repr(timer))

    armed = said.pop(1)
    assert said == [f"{who} Stage.seen on cpu 0: idle>", f"{who} Stage.seen on cpu 0: shut down>"]
    assert armed.startswith((f"{who} Stage.seen on cpu 0: due in ", f"{who} Stage.seen on cpu 0: pending"))


def test_mod_timer_to_the_time_of_the_run_in_progress_replaces_a_deferred_arming(s2: Stage) -> None:
    """While an add_timer_on() waits for the end of the run, mod_timer() to the time for which the timer runs is no
    no-op: the timer is armed for that time, on the CPU where it runs.
    """
    ran: list[int] = []
    answers: list[int] = []

    def function(t: timer_list) -> None:
        ran.append(t.expires)
        if len(ran) == 1:
            first = t.expires
            t.expires = first + 500
            add_timer_on(t, 1)
            answers.append(mod_timer(t, first))
            answers.append(t.expires - first)

    timer = s2.do(DEFINE_TIMER, function)
    first = s2.do(jiffies) + 1
    s2.do(mod_timer, timer, first)
    s2.tick(5)

    assert answers == [1, 0]
    assert ran == [first, first]
    assert s2.do(timer_pending, timer) == 0


def test_mod_timer_to_the_time_of_a_deferred_arming_changes_nothing(s2: Stage) -> None:
    """mod_timer() to the time for which an add_timer_on() waits leaves that where it is: on its CPU."""
    cpus: list[int] = []

    def function(t: timer_list) -> None:
        cpus.append(curcpu())
        if len(cpus) == 1:
            t.expires = later = t.expires + 3
            add_timer_on(t, 1)
            assert mod_timer(t, later) == 1

    timer = s2.do(DEFINE_TIMER, function)
    s2.do(mod_timer, timer, s2.do(jiffies) + 1)
    s2.tick(8)

    assert cpus == [0, 1]


# -- on the stack, and asleep -----------------------------------------------------------------------------------------


def test_a_timer_that_is_a_local_variable(s: Stage) -> None:
    """timer_setup_on_stack() sets up; destroy_timer_on_stack() is refused while the timer is in use, then undoes it."""
    ran: list[timer_list] = []
    timer = timer_list()
    s.do(timer_setup_on_stack, timer, ran.append, 0)
    s.do(mod_timer, timer, s.do(jiffies) + 1)
    with pytest.raises(BusyError, match=r"destroy_timer_on_stack: <timer_list .*list\.append.*> is in use"):
        s.do(destroy_timer_on_stack, timer)
    s.tick(2)

    assert ran == [timer]

    s.do(destroy_timer_on_stack, timer)
    for call in (timer_pending, timer_delete, destroy_timer_on_stack):
        with pytest.raises(NotInitializedError, match=r"timer_setup\(\)"):
            s.do(call, timer)
    s.do(timer_setup_on_stack, timer, ran.append, 0)

    assert s.do(timer_pending, timer) == 0


def test_a_running_timer_is_not_destroyed(s: Stage) -> None:
    """destroy_timer_on_stack() in the timer's own function is refused."""
    refused: list[BusyError] = []

    def function(t: timer_list) -> None:
        with pytest.raises(BusyError) as caught:
            destroy_timer_on_stack(t)
        refused.append(caught.value)

    timer = s.do(DEFINE_TIMER, function)
    s.do(mod_timer, timer, s.do(jiffies))
    s.tick()

    assert len(refused) == 1


def test_schedule_timeout_sleeps_no_less_than_told(s: Stage) -> None:
    """schedule_timeout() of n jiffies comes back with 0 when n have passed and one more has begun, not sooner."""
    call = s.t1.begin(schedule_timeout_blocking, 3)
    s.tick(3)

    assert call.blocked

    s.tick(1)

    assert call.result() == 0


@pytest.mark.trio
async def test_schedule_timeout_in_a_task() -> None:
    """It is awaited; without an end it can be cancelled; what is no number of jiffies is refused by the call."""
    async with open_callouts():
        before = get_jiffies_64()

        assert await schedule_timeout(5) == 0
        assert get_jiffies_64() - before >= 5

        with trio.move_on_after(0.01) as scope:
            await schedule_timeout(MAX_SCHEDULE_TIMEOUT)

        assert scope.cancelled_caught

        refused: list[tuple[Any, type[Exception]]] = [  # Any: the wrong types are what is tested
            (-1, ArgumentValueError),
            (MAX_SCHEDULE_TIMEOUT + 1, ArgumentValueError),
            (1.5, ArgumentTypeError),
        ]
        calls: list[Callable[[int], object]] = [schedule_timeout, schedule_timeout_blocking]
        for wrong, error in refused:
            for call in calls:
                with pytest.raises(error, match=r"schedule_timeout.*: timeout must be"):
                    call(wrong)
        with pytest.raises(LoopThreadError):
            schedule_timeout_blocking(1)
