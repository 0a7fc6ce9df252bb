"""callout(9), DESCRIPTION and RETURN VALUES: callout_drain()."""

from __future__ import annotations

import pytest

from callout import (
    CALLOUT_RETURNUNLOCKED,
    Callout,
    LockHeldError,
    LoopThreadError,
    Mtx,
    RwLock,
    SelfDrainError,
    callout_active,
    callout_drain,
    callout_drain_sync,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_stop,
)

from .test_callout9_arming import Reset
from .world import KINDS, Stage


def test_drain_of_a_pending_callout(s: Stage) -> None:
    """A drain returns 1 at once if the callout was pending; it will not run."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")

    assert s.do(callout_drain_sync, c) == 1
    assert (callout_pending(c), callout_active(c)) == (0, 0)

    s.tick(3)

    assert s.ran == []


@pytest.mark.parametrize("served", [False, True])
def test_drain_of_an_idle_callout(s: Stage, served: bool) -> None:
    """A drain returns -1 at once if the callout was never set or has been served."""
    c = s.callout()
    if served:
        s.do(callout_reset, c, 1, s.seen, "c")
        s.tick()

    assert s.do(callout_drain_sync, c) == -1
    assert callout_active(c) == served


@pytest.mark.parametrize("kind", KINDS)
def test_drain_waits_for_the_run_in_progress(s: Stage, kind: str) -> None:
    """A drain of a running callout returns when the callback has returned, with -1, and leaves active as it is."""
    c = s.callout() if kind == "mpsafe" else s.callout(s.lock(kind))
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    drain = s.t1.begin(callout_drain_sync, c)

    assert drain.blocked

    s.open("run")

    assert s.returned == ["run"]
    assert drain.result() == -1
    assert callout_active(c)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mpsafe"])
def test_drain_lets_a_run_that_waits_for_its_lock_take_place(s: Stage, kind: str) -> None:
    """Softclock has begun with a callout that stands at its lock: the function is called before the drain returns."""
    lock = s.lock(kind)
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t1.holding(lock):
        s.tick()
        drain = s.t0.begin(callout_drain_sync, c)

        assert drain.blocked
        assert s.ran == []

    assert s.ran == ["c"]
    assert drain.result() == -1


def test_after_a_drain_the_callout_is_fully_stopped(s: Stage) -> None:
    """When a drain has returned, neither a run in progress nor a next one is left, though one had been armed."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset, c, 1, s.seen, "next")
    drain = s.t1.begin(callout_drain_sync, c)
    s.open("run")

    assert drain.result() == 1
    assert (callout_pending(c), callout_active(c)) == (0, 0)

    s.tick(5)

    assert s.ran == ["run"]
    assert s.do(callout_stop, c) == -1


@pytest.mark.parametrize("how", [callout_reset, lambda c, n, f, a: callout_reset_on(c, n, f, a, 0)])
def test_a_callback_cannot_re_arm_a_callout_that_is_drained(s: Stage, how: Reset) -> None:
    """While a drain waits, an arming by the callback itself returns 0 and arms nothing."""
    c = s.callout()
    results: list[object] = []

    def again(gate: object) -> None:
        s.halt(str(gate))
        results.append(how(c, 1, again, gate))
        results.append(callout_pending(c))

    s.do(callout_reset, c, 1, again, "run")
    s.tick()
    drain = s.t1.begin(callout_drain_sync, c)
    s.open("run")

    assert results == [0, 0]
    assert drain.result() == -1

    s.tick(3)

    assert s.ran == ["run"]


def test_nobody_arms_a_callout_that_is_drained(s: Stage) -> None:
    """While a drain waits every reset returns 0 and arms nothing; when it has returned, arming works again."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    drain = s.t1.begin(callout_drain_sync, c)

    assert s.do(callout_reset, c, 1, s.seen, "refused") == 0
    assert not callout_pending(c)

    s.open("run")

    assert drain.result() == -1
    assert s.do(callout_reset, c, 1, s.seen, "armed") == 0

    s.tick()

    assert s.ran == ["run", "armed"]


def test_the_next_run_of_a_drained_callout_cannot_be_pushed_out(s: Stage) -> None:
    """A reset of a callout that runs, is armed again and is drained returns 0: the drain removes what was armed."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset, c, 5, s.seen, "next")
    drain = s.t1.begin(callout_drain_sync, c)

    assert s.do(callout_reset, c, 9, s.seen, "refused") == 0

    s.open("run")

    assert drain.result() == 1

    s.tick(10)

    assert s.ran == ["run"]


def test_a_reset_under_a_drain_cancels_a_waiting_run(s: Stage) -> None:
    """A reset of a drained callout that waits for its lock returns 1: the run is cancelled, and nothing is armed."""
    lock = s.mtx()
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "old")
    with s.t1.holding(lock):
        s.tick()
        drain = s.t0.begin(callout_drain_sync, c)

        assert s.t1.do(callout_reset, c, 1, s.seen, "new") == 1
        assert not callout_pending(c)

    assert drain.result() == -1

    s.tick(3)

    assert s.ran == []


@pytest.mark.parametrize("state", ["idle", "pending", "waiting"])
def test_drain_with_the_callouts_own_lock_is_an_error(s: Stage, state: str) -> None:
    """A drain with the callout's lock held is an error in every state, and changes nothing."""
    lock = s.mtx()
    c = s.callout(lock)
    if state != "idle":
        s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.holding(lock):
        if state == "waiting":
            s.tick()
        with pytest.raises(LockHeldError, match="mtx"):
            s.do(callout_drain_sync, c)
    s.tick()

    assert s.ran == ([] if state == "idle" else ["c"])


@pytest.mark.parametrize("kind", ["rw", "rm"])
def test_drain_with_the_callouts_lock_held_for_reading_is_an_error(s: Stage, kind: str) -> None:
    """A callback wants the write lock, so a drain by a reader could never end."""
    lock = s.lock(kind)
    assert isinstance(lock, RwLock)
    c = s.callout(lock)

    with s.t0.reading(lock), pytest.raises(LockHeldError, match=kind):
        s.do(callout_drain_sync, c)


def test_drain_with_any_other_lock_is_an_error(s: Stage) -> None:
    """In checking mode a drain with a lock held that has nothing to do with the callout is an error, even if idle."""
    lock = s.mtx()

    with s.t0.holding(lock), pytest.raises(LockHeldError, match="sleep"):
        s.do(callout_drain_sync, s.callout())


@pytest.mark.parametrize("depth", [1, 3])
def test_drain_gives_giant_up_while_it_waits(s: Stage, depth: int) -> None:
    """A drain by a thread that holds Giant, however often, releases it while it waits, and holds it as often
    afterwards.
    """
    giant = s.lock("Giant")
    assert isinstance(giant, Mtx)
    c = s.callout(giant)
    s.do(callout_reset, c, 1, s.seen, "c")
    for _ in range(depth):
        s.t1.do(giant.lock)
    s.tick()

    assert s.ran == []
    assert s.t1.do(callout_drain_sync, c) == -1
    assert s.ran == ["c"]

    for _ in range(depth):
        assert s.t1.do(giant.owned)
        s.t1.do(giant.unlock)
    assert not s.t1.do(giant.owned)


def test_drain_waits_until_it_has_giant_back(s: Stage) -> None:
    """A drain that released Giant returns only when it has acquired it again, though somebody else has it meanwhile."""
    giant = s.lock("Giant")
    c = s.callout(giant, CALLOUT_RETURNUNLOCKED)

    def run(gate: str) -> None:
        giant.__exit__()
        s.halt(gate)

    s.do(callout_reset, c, 1, run, "run")
    s.t1.do(giant.__enter__)
    s.tick()
    drain = s.t1.begin(callout_drain_sync, c)

    assert drain.blocked
    assert s.ran == ["run"]

    with s.t0.holding(giant):
        s.open("run")

        assert drain.blocked

    assert drain.result() == -1
    s.t1.do(giant.__exit__)


def test_drain_looks_again_when_it_has_giant_back(s: Stage) -> None:
    """A drain that had released Giant waits for a run, too, that was begun before it had Giant back."""
    giant = s.lock("Giant")
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "first")
    s.tick()
    s.t1.do(giant.__enter__)
    drain = s.t1.begin(callout_drain_sync, c)
    with s.t0.holding(giant):
        s.open("first")
        s.do(callout_reset, c, 1, s.halt, "second")
        s.tick()

    assert drain.blocked

    s.open("second")

    assert drain.result() == -1
    s.t1.do(giant.__exit__)


def test_any_number_may_drain(s: Stage) -> None:
    """Every one of several drains of one run returns when that has ended."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    drains = [thread.begin(callout_drain_sync, c) for thread in (s.t0, s.t1, s.t2)]

    assert all(drain.blocked for drain in drains)

    s.open("run")

    assert [drain.result() for drain in drains] == [-1, -1, -1]


def test_only_one_drainer_has_removed_the_next_run(s: Stage) -> None:
    """Of several drains of a run that was armed again, the first to ask is told that a scheduled run was removed."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset, c, 1, s.seen, "next")
    first = s.t0.begin(callout_drain_sync, c)
    second = s.t1.begin(callout_drain_sync, c)
    s.open("run")

    assert (first.result(), second.result()) == (1, -1)


def test_drain_waits_for_a_cancelled_run_to_leave_the_lock(s: Stage) -> None:
    """After a stop said 1, a drain still waits until softclock no longer stands at the lock, free to be destroyed."""
    lock = s.mtx()
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "c")
    s.t1.do(lock.lock)
    s.tick()

    assert s.t1.do(callout_stop, c) == 1

    drain = s.t0.begin(callout_drain_sync, c)

    assert drain.blocked

    s.t1.do(lock.unlock)

    assert drain.result() == -1
    assert s.ran == []
    s.do(lock.destroy)


def test_drain_removes_a_deferred_migration(s2: Stage) -> None:
    """A drain takes a reset onto another CPU that came during the run away at once, and returns -1 after the run."""
    s = s2
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset_on, c, 1, s.seen, "moved", 1)
    drain = s.t1.begin(callout_drain_sync, c)

    assert (callout_pending(c), callout_active(c)) == (0, 0)

    s.open("run")

    assert drain.result() == -1

    s.tick(3)

    assert s.ran == ["run"]


def test_a_callback_cannot_wait_for_itself(s: Stage) -> None:
    """A drain by the callout's own callback is an error, since it could never end; the run goes on."""
    c = s.callout()
    errors: list[BaseException] = []

    def run(arg: Callout) -> None:
        try:
            callout_drain(arg).send(None)
        except SelfDrainError as error:
            errors.append(error)
        try:
            callout_drain_sync(arg)
        except LoopThreadError as error:
            errors.append(error)

    s.do(callout_reset, c, 1, run, c)
    s.tick()

    assert [type(error) for error in errors] == [SelfDrainError, LoopThreadError]
    assert s.do(callout_drain_sync, c) == -1


def test_drain_does_not_wait_for_other_callouts(s: Stage) -> None:
    """A drain of an idle callout returns at once though another callout of its CPU and lock runs."""
    lock = s.mtx()
    c, d = s.callout(lock), s.callout(lock)
    s.do(callout_reset, c, 1, s.halt, "busy")
    s.tick()

    assert s.do(callout_drain_sync, d) == -1


def test_drain_of_a_call_that_is_due_but_has_not_begun(s: Stage) -> None:
    """A drain of a callout that is due behind another callback removes it and returns 1 at once."""
    c, d = s.callout(), s.callout()
    s.do(callout_reset, c, 1, s.halt, "busy")
    s.do(callout_reset, d, 1, s.seen, "d")
    s.tick(2)

    assert s.do(callout_drain_sync, d) == 1

    s.open("busy")

    assert s.ran == ["busy"]
