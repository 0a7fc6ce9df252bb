"""callout_barrier() and callout_terminate()."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from callout import (
    Callout,
    LockHeldError,
    Mtx,
    callout_active,
    callout_barrier,
    callout_barrier_sync,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_schedule,
    callout_stop,
    callout_terminate,
    callout_terminate_sync,
)

from .test_callout9_arming import RESETS, Reset
from .world import KINDS, Stage

Wait = Callable[[Callout], int]

# -- barrier -----------------------------------------------------------------------------------------------------------


def test_barrier_of_an_idle_callout(s: Stage) -> None:
    """With no run in progress a barrier returns 0 at once, and a pending call stays and takes place."""
    c = s.callout()

    assert s.do(callout_barrier_sync, c) == 0

    s.do(callout_reset, c, 1, s.seen, "c")

    assert s.do(callout_barrier_sync, c) == 0
    assert (callout_pending(c), callout_active(c)) == (1, 1)

    s.tick()

    assert s.ran == ["c"]
    assert s.do(callout_barrier_sync, c) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_barrier_waits_for_the_run_in_progress(s: Stage, kind: str) -> None:
    """A barrier returns 1 when the run in progress has ended."""
    c = s.callout() if kind == "mpsafe" else s.callout(s.lock(kind))
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    barrier = s.t1.begin(callout_barrier_sync, c)

    assert barrier.blocked

    s.open("run")

    assert s.returned == ["run"]
    assert barrier.result() == 1


def test_barrier_waits_for_a_run_at_its_lock(s: Stage) -> None:
    """A run that stands at its lock is in progress: it takes place before the barrier returns."""
    lock = s.mtx()
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t1.holding(lock):
        s.tick()
        barrier = s.t0.begin(callout_barrier_sync, c)

        assert barrier.blocked

    assert (s.ran, barrier.result()) == (["c"], 1)


def test_barrier_waits_for_a_cancelled_run_to_leave_the_lock(s: Stage) -> None:
    """A run that was cancelled but stands at its lock is waited for, too, though nothing is called."""
    lock = s.mtx()
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t1.holding(lock):
        s.tick()
        s.t1.do(callout_stop, c)
        barrier = s.t0.begin(callout_barrier_sync, c)

        assert barrier.blocked

    assert (s.ran, barrier.result()) == ([], 1)


def test_barrier_refuses_nothing(s: Stage) -> None:
    """While a barrier waits the callback may re-arm the callout, and the barrier does not wait for the next run."""
    c = s.callout()

    def again(gate: str) -> None:
        s.halt(gate)
        callout_reset(c, 1, s.seen, "next")

    s.do(callout_reset, c, 1, again, "run")
    s.tick()
    barrier = s.t1.begin(callout_barrier_sync, c)
    s.open("run")

    assert barrier.result() == 1
    assert callout_pending(c)

    s.tick()

    assert s.ran == ["run", "next"]


def test_barrier_leaves_a_deferred_migration_alone(s2: Stage) -> None:
    """A reset onto another CPU that was deferred is carried out when the run for which a barrier waits has ended."""
    s = s2
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset_on, c, 1, s.seen, "moved", 1)
    barrier = s.t1.begin(callout_barrier_sync, c)

    assert callout_pending(c)

    s.open("run")

    assert barrier.result() == 1

    s.tick()

    assert s.cpu_of["moved"] == 1


def test_any_number_may_wait_at_a_barrier(s: Stage) -> None:
    """Every one of several barriers of one run returns 1 when it has ended."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    barriers = [thread.begin(callout_barrier_sync, c) for thread in (s.t0, s.t1, s.t2)]
    s.open("run")

    assert [barrier.result() for barrier in barriers] == [1, 1, 1]


# -- terminate ---------------------------------------------------------------------------------------------------------


def test_terminate_of_a_pending_callout(s: Stage) -> None:
    """A terminate of a pending callout returns 1 at once; it does not run."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")

    assert s.do(callout_terminate_sync, c) == 1

    s.tick(2)

    assert s.ran == []


@pytest.mark.parametrize("reset", RESETS.values(), ids=RESETS.keys())
def test_nothing_arms_a_terminated_callout(s: Stage, reset: Reset) -> None:
    """After a terminate, which returned -1 for an idle callout, every kind of reset and schedule returns 0 in vain."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "before")
    s.tick()

    assert s.do(callout_terminate_sync, c) == -1
    assert s.do(reset, c, 1, s.seen, "refused") == 0
    assert s.do(callout_schedule, c, 1) == 0
    assert not callout_pending(c)

    s.tick(2)

    assert s.ran == ["before"]


def test_terminate_waits_for_the_run_in_progress(s: Stage) -> None:
    """A terminate of a running callout returns -1 when that has ended; it was closed for arming from the call on."""
    c = s.callout()
    results: list[int] = []

    def run(gate: str) -> None:
        s.halt(gate)
        results.append(callout_reset(c, 1, run, gate))

    s.do(callout_reset, c, 1, run, "run")
    s.tick()
    terminate = s.t1.begin(callout_terminate_sync, c)

    assert terminate.blocked
    assert s.do(callout_reset, c, 1, s.seen, "refused") == 0

    s.open("run")

    assert terminate.result() == -1
    assert results == [0]
    assert s.do(callout_reset, c, 1, s.seen, "refused") == 0

    s.tick(2)

    assert s.ran == ["run"]


def test_terminate_removes_the_next_run(s: Stage) -> None:
    """A terminate of a running callout that was armed again returns 1, and the next run does not take place."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset, c, 1, s.seen, "next")
    terminate = s.t1.begin(callout_terminate_sync, c)
    s.open("run")

    assert terminate.result() == 1

    s.tick(2)

    assert s.ran == ["run"]


def test_init_brings_a_terminated_callout_back(s: Stage) -> None:
    """callout_init() and its relatives make a terminated callout as good as new."""
    c = s.callout()
    s.do(callout_terminate_sync, c)
    s.do(callout_init, c, 1)
    s.do(callout_reset, c, 1, s.seen, "mpsafe")
    s.tick()
    s.do(callout_terminate_sync, c)
    s.do(callout_init_mtx, c, s.mtx())
    s.do(callout_reset, c, 1, s.seen, "mutex")
    s.tick()

    assert s.ran == ["mpsafe", "mutex"]


@pytest.mark.parametrize(
    "waits", [(callout_terminate_sync, callout_drain_sync), (callout_drain_sync, callout_terminate_sync)]
)
def test_a_drain_beside_a_terminate_does_not_reopen(s: Stage, waits: tuple[Wait, Wait]) -> None:
    """Of a drain and a terminate of one run both return, and the callout is closed, in whatever order they came."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    calls = [s.t0.begin(waits[0], c), s.t1.begin(waits[1], c)]
    s.open("run")

    assert [call.result() for call in calls] == [-1, -1]
    assert s.do(callout_reset, c, 1, s.seen, "refused") == 0

    s.tick(2)

    assert s.ran == ["run"]


# -- both --------------------------------------------------------------------------------------------------------------

WAITS = pytest.mark.parametrize("wait", [callout_barrier_sync, callout_terminate_sync])


@WAITS
@pytest.mark.parametrize("own", [True, False])
def test_no_lock_may_be_held(s: Stage, wait: Wait, own: bool) -> None:
    """Waiting with the callout's own lock held, or in checking mode with any other, is an error."""
    lock = s.mtx()
    c = s.callout(lock) if own else s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")

    with s.t0.holding(lock), pytest.raises(LockHeldError, match="release"):
        s.do(wait, c)
    s.tick()

    assert s.ran == ["c"]


@WAITS
def test_giant_is_released_while_waiting(s: Stage, wait: Wait) -> None:
    """Giant, held twice, is released while the run that wants it takes place, and held twice again afterwards."""
    giant = s.lock("Giant")
    assert isinstance(giant, Mtx)
    c = s.callout(giant)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t1.holding(giant), s.t1.holding(giant):
        s.tick()
        s.t1.do(wait, c)

        assert s.ran == ["c"]
        assert s.t1.do(giant.recursed)

    assert not s.t1.do(giant.owned)


def test_a_callback_cannot_wait_for_itself(s: Stage) -> None:
    """A barrier or terminate from the callout's own callback is an error, and does not close it."""
    c = s.callout()

    def run(arg: Callout) -> None:
        for wait in (callout_barrier, callout_terminate):
            with pytest.raises(RuntimeError, match="callout_drain_async"):
                wait(arg).send(None)

    s.do(callout_reset, c, 1, run, c)
    s.tick()
    s.do(callout_reset, c, 1, s.seen, "c")
    s.tick()

    assert s.ran == ["c"]
