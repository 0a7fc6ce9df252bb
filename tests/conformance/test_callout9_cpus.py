"""callout(9), DESCRIPTION: to which CPU a callout is assigned, and how it moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from callout import (
    SBT_1MS,
    Callout,
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
)

from .world import Stage

Func = Callable[[object], object]
ON: dict[str, Callable[[Callout, Func, int], int]] = {
    "reset_on": lambda c, f, cpu: callout_reset_on(c, 1, f, "c", cpu),
    "reset_sbt_on": lambda c, f, cpu: callout_reset_sbt_on(c, SBT_1MS, 0, f, "c", cpu),
    "schedule_on": lambda c, f, cpu: callout_schedule_on(c, 1, cpu),
    "schedule_sbt_on": lambda c, f, cpu: callout_schedule_sbt_on(c, SBT_1MS, 0, cpu),
}
CURCPU: dict[str, Callable[[Callout, Func], int]] = {
    "reset_curcpu": lambda c, f: callout_reset_curcpu(c, 1, f, "c"),
    "reset_sbt_curcpu": lambda c, f: callout_reset_sbt_curcpu(c, SBT_1MS, 0, f, "c"),
    "schedule_curcpu": lambda c, f: callout_schedule_curcpu(c, 1),
    "schedule_sbt_curcpu": lambda c, f: callout_schedule_sbt_curcpu(c, SBT_1MS, 0),
}
PLAIN: dict[str, Callable[[Callout, Func], int]] = {
    "reset": lambda c, f: callout_reset(c, 1, f, "c"),
    "reset_sbt": lambda c, f: callout_reset_sbt(c, SBT_1MS, 0, f, "c"),
    "schedule": lambda c, f: callout_schedule(c, 1),
    "schedule_sbt": lambda c, f: callout_schedule_sbt(c, SBT_1MS, 0),
}


def armed_once(s: Stage) -> Callout:
    """Return a callout that has a function and an argument, on CPU 0, but is idle."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")
    s.do(callout_stop, c)
    return c


@pytest.mark.parametrize("arm", PLAIN.values(), ids=PLAIN.keys())
def test_callouts_begin_on_cpu_0(s: Stage, arm: Callable[[Callout, Func], int]) -> None:
    """A callout that was never assigned runs on CPU 0, whichever CPU its caller is on."""
    c = armed_once(s)
    s.t1.do(arm, c, s.seen)
    s.tick()

    assert s.cpu_of == {"c": 0}


@pytest.mark.parametrize("arm", ON.values(), ids=ON.keys())
def test_on_assigns(s: Stage, arm: Callable[[Callout, Func, int], int]) -> None:
    """The _on calls have the callout run on the CPU that they name."""
    for cpu in (s.last, 0):
        s.do(arm, armed_once(s), s.seen, cpu)
        s.tick()

        assert s.cpu_of == {"c": cpu}


@pytest.mark.parametrize("arm", CURCPU.values(), ids=CURCPU.keys())
def test_curcpu_assigns_to_the_callers_cpu(s: Stage, arm: Callable[[Callout, Func], int]) -> None:
    """The _curcpu calls have the callout run on the CPU on which their caller is."""
    c = armed_once(s)
    s.t1.do(arm, c, s.seen)
    s.tick()

    assert s.cpu_of == {"c": s.last}

    s.t0.do(arm, c, s.seen)
    s.tick()

    assert s.cpu_of == {"c": 0}


@pytest.mark.parametrize("arm", CURCPU.values(), ids=CURCPU.keys())
def test_curcpu_in_a_callback_is_its_cpu(s: Stage, arm: Callable[[Callout, Func], int]) -> None:
    """A callback's own CPU is what the _curcpu calls take from it."""
    c, d = armed_once(s), s.callout()
    s.do(callout_reset_on, d, 1, lambda arg: arm(c, s.seen), None, s.last)
    s.tick(2)

    assert s.cpu_of == {"c": s.last}


@pytest.mark.parametrize("arm", PLAIN.values(), ids=PLAIN.keys())
def test_the_others_keep_the_cpu(s: Stage, arm: Callable[[Callout, Func], int]) -> None:
    """A plain reset or schedule has the callout run on the CPU to which it was assigned last."""
    c = s.callout()
    s.do(callout_reset_on, c, 1, s.seen, "c", s.last)
    s.tick()
    s.cpu_of.clear()
    s.do(arm, c, s.seen)
    s.tick()

    assert s.cpu_of == {"c": s.last}


def test_a_pending_callout_moves_at_once(s2: Stage) -> None:
    """A reset of a pending callout onto another CPU returns 1, and it runs there only."""
    s = s2
    c = s.callout()
    s.do(callout_reset_on, c, 2, s.seen, "old", 0)

    assert s.do(callout_reset_on, c, 2, s.seen, "new", 1) == 1

    s.tick(5)

    assert s.cpu_of == {"new": 1}


def test_every_cpu_has_a_softclock_of_its_own(s2: Stage) -> None:
    """While a callback of one CPU goes on, the callouts of the other run."""
    s = s2
    c, d, e = s.callout(), s.callout(), s.callout()
    for halted, other in ((0, 1), (1, 0)):
        s.do(callout_reset_on, c, 1, s.halt, f"busy {halted}", halted)
        s.do(callout_reset_on, d, 2, s.seen, f"held up {halted}", halted)
        s.do(callout_reset_on, e, 2, s.seen, f"free {other}", other)
        s.tick(2)

        assert set(s.ran) == {f"busy {halted}", f"free {other}"}

        s.open(f"busy {halted}")
        s.ran.clear()


def test_a_reset_onto_another_cpu_during_the_run_is_deferred(s2: Stage) -> None:
    """A running callout moves when its run has ended, not before: never is it on two CPUs."""
    s = s2
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()

    assert s.do(callout_reset_on, c, 1, s.seen, "moved", 1) == 0

    s.tick(3)

    assert s.ran == ["run"]

    s.open("run")

    assert s.ran == ["run"]

    s.tick()

    assert s.ran == ["run", "moved"]
    assert s.cpu_of["moved"] == 1


def test_a_deferred_migration_keeps_its_time(s2: Stage) -> None:
    """A migration that was deferred runs at the time that was asked for, if that has not passed when the run ends."""
    s = s2
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset_on, c, 4, s.seen, "moved", 1)
    s.tick(2)
    s.open("run")
    s.tick()

    assert s.ran == ["run"]

    s.tick()

    assert s.ran == ["run", "moved"]


def test_the_last_of_several_deferred_migrations_wins(s2: Stage) -> None:
    """A second reset during a deferred migration returns 1 and replaces it, going back to the first CPU included."""
    s = s2
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset_on, c, 1, s.seen, "one", 1)

    assert s.do(callout_reset_on, c, 2, s.seen, "two", 1) == 1
    assert s.do(callout_reset_on, c, 3, s.seen, "back", 0) == 1

    s.open("run")
    s.tick(4)

    assert s.ran == ["run", "back"]
    assert s.cpu_of["back"] == 0


def test_stop_removes_a_deferred_migration(s2: Stage) -> None:
    """A stop during a deferred migration returns 0, and the moved call does not take place."""
    s = s2
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset_on, c, 1, s.seen, "moved", 1)

    assert s.do(callout_stop, c) == 0
    assert not callout_pending(c)

    s.open("run")
    s.tick(3)

    assert s.ran == ["run"]


def test_a_plain_reset_during_a_deferred_migration_stays_deferred(s2: Stage) -> None:
    """A plain reset during a deferred migration returns 1 and takes place on the CPU that the callout runs on now."""
    s = s2
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset_on, c, 1, s.seen, "moved", 1)

    assert s.do(callout_reset, c, 1, s.seen, "plain") == 1

    s.open("run")
    s.tick(2)

    assert s.ran == ["run", "plain"]
    assert s.cpu_of["plain"] == 0


def test_schedule_during_a_deferred_migration_repeats_the_run(s2: Stage) -> None:
    """callout_schedule() during a deferred migration takes function and argument of the run in progress."""
    s = s2
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset_on, c, 1, s.seen, "moved", 1)
    s.do(callout_schedule, c, 1)
    s.open("run")
    s.tick(2)

    assert s.ran == ["run", "run"]


def test_a_callback_may_move_its_own_callout(s2: Stage) -> None:
    """A callback that resets its callout onto the other CPU each time has it run there and back."""
    s = s2
    c = s.callout()
    cpus: list[int] = []

    def hop(to: int) -> None:
        s.seen(to)
        cpus.append(s.cpu_of[to])
        callout_reset_on(c, 1, hop, 1 - to, 1 - to)

    s.do(callout_reset_on, c, 1, hop, 0, 0)
    s.tick(4)

    assert cpus == [0, 1, 0, 1]


def test_a_waiting_run_that_is_moved_is_cancelled(s2: Stage) -> None:
    """A reset onto another CPU of a run that waits for its lock returns 1; only the new call takes place, there."""
    s = s2
    lock = s.mtx()
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "old")
    with s.t0.holding(lock):
        s.tick()

        assert s.do(callout_reset_on, c, 1, s.seen, "new", 1) == 1

    s.tick(2)

    assert s.cpu_of == {"new": 1}


def test_what_a_deferred_migration_replaced_does_not_come_up(s2: Stage) -> None:
    """A time that a deferred migration has replaced passes without a run, though the first CPU's interrupt
    comes then.
    """
    s = s2
    lock = s.mtx()
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "first")
    with s.t0.holding(lock):
        s.tick()
        s.do(callout_reset, c, 2, s.seen, "second")

        assert s.do(callout_reset_on, c, 9, s.seen, "moved", 1) == 1

        s.tick(4)

        assert callout_pending(c)

    s.tick(4)

    assert s.ran == []

    s.tick()

    assert s.cpu_of == {"moved": 1}
