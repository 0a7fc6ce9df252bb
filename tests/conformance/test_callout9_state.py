"""callout(9), DESCRIPTION and AVOIDING RACE CONDITIONS: pending, active, deactivate, and what they are for."""

from __future__ import annotations

import pytest

from callout import (
    Callout,
    Mtx,
    callout_active,
    callout_deactivate,
    callout_drain_sync,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_schedule,
    callout_stop,
)

from .world import LOCKED, Stage


def flags(c: Callout) -> tuple[int, int]:
    """Return pending and active."""
    return callout_pending(c), callout_active(c)


def test_a_fresh_callout_is_neither(s: Stage) -> None:
    """A callout that was initialised and never set is neither pending nor active."""
    assert flags(s.callout()) == (0, 0)


def test_arming_sets_both(s: Stage) -> None:
    """From its arming until its time a callout is pending and active."""
    c = s.callout()
    s.do(callout_reset, c, 3, s.seen, "c")

    assert flags(c) == (1, 1)

    s.tick(2)

    assert flags(c) == (1, 1)


def test_pending_ends_before_the_callback_begins(s: Stage) -> None:
    """Inside its own callback a callout is no longer pending, but active."""
    c = s.callout()
    seen: list[tuple[int, int]] = []
    s.do(callout_reset, c, 1, lambda arg: seen.append(flags(c)), None)
    s.tick()

    assert seen == [(0, 1)]


@pytest.mark.parametrize("kind", LOCKED)
def test_pending_ends_when_softclock_turns_to_the_callout(s: Stage, kind: str) -> None:
    """A callout whose run stands at its lock is not pending, though its function has not been called."""
    lock = s.lock(kind)
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.holding(lock):
        s.tick()

        assert flags(c) == (0, 1)
        assert s.ran == []


def test_a_due_callout_behind_another_is_still_pending(s: Stage) -> None:
    """A callout whose time has come stays pending until its CPU's softclock turns to it."""
    c, d = s.callout(), s.callout()
    s.do(callout_reset, c, 1, s.halt, "busy")
    s.do(callout_reset, d, 1, s.seen, "d")
    s.tick(3)

    assert flags(c) == (0, 1)
    assert flags(d) == (1, 1)


def test_a_run_does_not_clear_active(s: Stage) -> None:
    """A callout that has run by itself is still active, until somebody clears that."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")
    s.tick(3)

    assert flags(c) == (0, 1)


def test_deactivate_clears_active_and_nothing_else(s: Stage) -> None:
    """callout_deactivate() leaves a pending callout pending: it runs."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")
    s.do(callout_deactivate, c)

    assert flags(c) == (1, 0)

    s.tick()

    assert s.ran == ["c"]
    assert flags(c) == (0, 0)


def test_stop_and_drain_of_an_armed_callout_clear_both(s: Stage) -> None:
    """After a stop or drain that removed a pending call the callout is neither pending nor active."""
    c, d = s.callout(), s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")
    s.do(callout_reset, d, 1, s.seen, "d")
    s.do(callout_stop, c)
    s.do(callout_drain_sync, d)

    assert (flags(c), flags(d)) == ((0, 0), (0, 0))


def test_arming_during_the_run_sets_both_again(s: Stage) -> None:
    """A callout that was deactivated and armed again during its run is pending and active."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_deactivate, c)

    assert flags(c) == (0, 0)

    s.do(callout_schedule, c, 1)

    assert flags(c) == (1, 1)


def test_a_deferred_migration_is_pending_and_active(s2: Stage) -> None:
    """A callout that was reset onto another CPU during its run is pending and active at once."""
    s = s2
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_deactivate, c)
    s.do(callout_reset_on, c, 5, s.seen, "moved", 1)

    assert flags(c) == (1, 1)

    s.open("run")

    assert flags(c) == (1, 1)


def careful(s: Stage, c: Callout, lock: Mtx) -> None:
    """Be the callback that callout(9) recommends: acquire the lock, look at both flags, clear active, work."""
    with lock:
        if callout_pending(c):  # it was reset meanwhile
            return
        if not callout_active(c):  # it was stopped meanwhile
            return
        callout_deactivate(c)
        s.seen("work")


def test_the_protocol_of_flags_works_once_armed(s: Stage) -> None:
    """Without any race a callback that looks at both flags first does its work, and leaves them clear."""
    lock = s.mtx()
    c = s.callout()
    s.do(callout_reset, c, 1, lambda arg: careful(s, c, arg), lock)
    s.tick()

    assert s.ran == ["work"]
    assert flags(c) == (0, 0)


def test_the_protocol_of_flags_sees_a_reset(s: Stage) -> None:
    """A callback that waits for a lock of its own is pending if it was reset meanwhile: one run does the work."""
    lock = s.mtx()
    c = s.callout()
    s.do(callout_reset, c, 1, lambda arg: careful(s, c, arg), lock)
    with s.t0.holding(lock):
        s.tick()

        assert s.do(callout_schedule, c, 2) == 0

    assert s.ran == []

    s.tick(2)

    assert s.ran == ["work"]


def test_the_protocol_of_flags_sees_a_stop(s: Stage) -> None:
    """A callback that waits for a lock of its own is inactive if it was stopped meanwhile, and does nothing."""
    lock = s.mtx()
    c = s.callout()
    s.do(callout_reset, c, 1, lambda arg: careful(s, c, arg), lock)
    with s.t0.holding(lock):
        s.tick()

        assert s.do(callout_stop, c) == 0

    s.tick(3)

    assert s.ran == []


def test_the_protocol_of_results(s: Stage) -> None:
    """A reference that each armed call holds is dropped by the code that stopped it or by the callback, never
    by both.
    """
    callouts = [s.callout() for _ in range(3)]
    references = [1, 1, 1]

    def drop(number: int) -> None:
        references[number] -= 1

    def drop_late(number: int) -> None:
        s.halt(f"gate {number}")
        drop(number)

    s.do(callout_reset, callouts[0], 1, drop_late, 0)
    s.do(callout_reset, callouts[1], 9, drop, 1)
    s.do(callout_reset, callouts[2], 1, drop, 2)
    s.tick()
    for number, c in enumerate(callouts):
        if s.do(callout_stop, c) == 1:
            drop(number)
    s.open("gate 0")
    s.tick(10)

    assert references == [0, 0, 0]
