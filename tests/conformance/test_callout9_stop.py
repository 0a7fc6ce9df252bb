"""callout(9), DESCRIPTION and RETURN VALUES: callout_stop()."""

from __future__ import annotations

import pytest

from callout import (
    C_DIRECT_EXEC,
    SBT_1MS,
    LockNotHeldError,
    RwLock,
    callout_active,
    callout_pending,
    callout_reset,
    callout_reset_sbt,
    callout_stop,
)

from .world import LOCKED, Stage

# The locks that a caller of callout_stop() must hold. Giant's callouts may be stopped without it.
OWN = ("mtx", "spin", "rw", "rm")


def test_stop_cancels_a_pending_call(s: Stage) -> None:
    """The stop of a pending callout returns 1, and its function is not called."""
    c = s.callout()
    s.do(callout_reset, c, 2, s.seen, "c")
    s.tick()

    assert s.do(callout_stop, c) == 1
    assert (callout_pending(c), callout_active(c)) == (0, 0)

    s.tick(5)

    assert s.ran == []


def test_stop_of_what_was_never_set(s: Stage) -> None:
    """The stop of a callout that nobody has armed returns -1."""
    assert s.do(callout_stop, s.callout()) == -1


def test_stop_of_what_has_been_served(s: Stage) -> None:
    """The stop of a callout whose call is over returns -1, and does not touch the active flag."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")
    s.tick()

    assert s.do(callout_stop, c) == -1
    assert callout_active(c)


def test_the_second_stop_finds_nothing(s: Stage) -> None:
    """After a stop that returned 1 the next one returns -1."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")

    assert s.do(callout_stop, c) == 1
    assert s.do(callout_stop, c) == -1


def test_a_running_callout_cannot_be_stopped(s: Stage) -> None:
    """The stop of a running callout returns 0 without waiting, clears the active flag, and the run goes on."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()

    assert s.do(callout_stop, c) == 0
    assert s.returned == []
    assert not callout_active(c)

    s.open("run")

    assert s.returned == ["run"]


def test_stop_takes_the_next_run_of_a_running_callout_away(s: Stage) -> None:
    """The stop of a callout that runs and is armed again returns 0, and the next run does not take place."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset, c, 1, s.seen, "next")

    assert s.do(callout_stop, c) == 0
    assert not callout_pending(c)

    s.open("run")
    s.tick(3)

    assert s.ran == ["run"]


def test_stop_from_the_callback_itself(s: Stage) -> None:
    """A callback that stops its own callout gets 0, and what it had armed before is gone."""
    c = s.callout()
    results: list[int] = []

    def run(arg: object) -> None:
        s.seen(arg)
        callout_reset(c, 1, s.seen, "next")
        results.append(callout_stop(c))

    s.do(callout_reset, c, 1, run, "c")
    s.tick(3)

    assert results == [0]
    assert s.ran == ["c"]


def test_stop_of_a_call_that_is_due_but_has_not_begun(s: Stage) -> None:
    """A callout that is due but waits behind another callback can still be stopped."""
    c, d = s.callout(), s.callout()
    s.do(callout_reset, c, 1, s.halt, "busy")
    s.do(callout_reset, d, 1, s.seen, "d")
    s.tick(2)

    assert s.do(callout_stop, d) == 1

    s.open("busy")

    assert s.ran == ["busy"]


@pytest.mark.parametrize("kind", OWN)
def test_stop_wants_the_callouts_lock(s: Stage, kind: str) -> None:
    """The stop of a callout that has a lock is an error if the caller does not hold it, and changes nothing."""
    lock = s.lock(kind)
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "c")

    with pytest.raises(LockNotHeldError, match=kind):
        s.do(callout_stop, c)
    with s.t1.holding(lock), pytest.raises(LockNotHeldError, match=kind):
        s.do(callout_stop, c)

    s.tick()

    assert s.ran == ["c"]


@pytest.mark.parametrize("kind", ["rw", "rm"])
def test_stop_wants_the_lock_for_writing(s: Stage, kind: str) -> None:
    """Holding the callout's lock for reading is not enough for a stop."""
    lock = s.lock(kind)
    assert isinstance(lock, RwLock)
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "c")

    with s.t0.reading(lock), pytest.raises(LockNotHeldError, match=kind):
        s.do(callout_stop, c)
    assert callout_pending(c)


@pytest.mark.parametrize("kind", LOCKED)
def test_stop_with_the_lock_held_cancels_a_run_that_waits_for_it(s: Stage, kind: str) -> None:
    """A thread that holds the callout's lock stops a run that waits for it: 1, no call, and the lock is free
    afterwards.
    """
    lock = s.lock(kind)
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.holding(lock):
        s.tick()

        assert not callout_pending(c)
        assert s.do(callout_stop, c) == 1
        assert not callout_active(c)

    assert s.ran == []
    with s.t1.holding(lock):
        pass
    s.tick(3)
    assert s.ran == []


@pytest.mark.parametrize("kind", LOCKED)
def test_a_run_can_be_cancelled_once(s: Stage, kind: str) -> None:
    """While a cancelled run still stands at the lock a further stop returns 0, and there is no call."""
    lock = s.lock(kind)
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.holding(lock):
        s.tick()
        s.do(callout_stop, c)

        assert s.do(callout_stop, c) == 0

    with s.t0.holding(lock):
        assert s.do(callout_stop, c) == -1
    assert s.ran == []


def test_a_cancelled_run_may_be_armed_anew(s: Stage) -> None:
    """A reset after the cancel of a waiting run returns 0, and only its own call takes place."""
    lock = s.mtx()
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "old")
    with s.t0.holding(lock):
        s.tick()
        s.do(callout_stop, c)

        assert s.do(callout_reset, c, 1, s.seen, "new") == 0

    s.tick(3)

    assert s.ran == ["new"]


def test_stop_after_a_replaced_run(s: Stage) -> None:
    """A stop after a reset has replaced a waiting run returns 0 and takes the new time away; nothing runs."""
    lock = s.mtx()
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "old")
    with s.t0.holding(lock):
        s.tick()

        assert s.do(callout_reset, c, 1, s.seen, "new") == 1
        assert s.do(callout_stop, c) == 0

    s.tick(3)

    assert s.ran == []


@pytest.mark.parametrize("held", [True, False], ids=["lock held", "lock not held"])
def test_a_reset_aborts_the_run_that_waits_for_the_lock(s: Stage, held: bool) -> None:
    """A reset returns 1 for a run that waits for its lock, whichever thread holds that, and only the new call takes
    place.
    """
    lock = s.mtx()
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "old")
    with s.t1.holding(lock):
        s.tick()

        assert (s.t1 if held else s.t0).do(callout_reset, c, 1, s.seen, "new") == 1

    assert s.ran == []

    s.tick()

    assert s.ran == ["new"]


def test_a_giant_callout_is_stopped_without_giant(s: Stage) -> None:
    """A pending callout that is not mpsafe can be stopped without Giant."""
    c = s.callout(s.lock("Giant"))
    s.do(callout_reset, c, 1, s.seen, "c")

    assert s.do(callout_stop, c) == 1

    s.tick(2)

    assert s.ran == []


def test_without_giant_a_waiting_run_is_not_cancelled(s: Stage) -> None:
    """A stop without Giant of a run that waits for Giant returns 0, and the run takes place."""
    giant = s.lock("Giant")
    c = s.callout(giant)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t1.holding(giant):
        s.tick()

        assert s.do(callout_stop, c) == 0

    assert s.ran == ["c"]


def test_stop_tells_of_one_callout_only(s: Stage) -> None:
    """With one mutex for several callouts, the stop of one leaves the others as they are."""
    lock = s.mtx()
    c, d = s.callout(lock), s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "c")
    s.do(callout_reset, d, 1, s.seen, "d")
    with s.t0.holding(lock):
        assert s.do(callout_stop, c) == 1
    s.tick()

    assert s.ran == ["d"]


def test_stop_of_a_direct_callout(s: Stage) -> None:
    """A stop returns for a direct callout what it returns for any other: 1 pending, 0 running, -1 served."""
    c = s.callout()
    s.do(callout_reset_sbt, c, SBT_1MS, 0, s.halt, "run", C_DIRECT_EXEC)

    assert s.do(callout_stop, c) == 1

    s.do(callout_reset_sbt, c, SBT_1MS, 0, s.halt, "run", C_DIRECT_EXEC)
    s.tick()

    assert s.do(callout_stop, c) == 0

    s.open("run")

    assert s.do(callout_stop, c) == -1
