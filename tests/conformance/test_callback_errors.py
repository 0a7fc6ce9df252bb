"""An exception in a callback or completion leaves the engine in order, and is not lost."""

from __future__ import annotations

import pytest

from callout import (
    C_DIRECT_EXEC,
    CALLOUT_RETURNUNLOCKED,
    CALLOUT_SHAREDLOCK,
    SBT_1MS,
    LockDestroyedError,
    callout_drain_async,
    callout_drain_sync,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_stop,
)

from .world import KINDS, LOCKED, Stage


def fail(arg: str) -> None:
    """Be a callback that fails."""
    raise ValueError(arg)


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_callout_runs(s: Stage, kind: str) -> None:
    """After a callback that failed the callouts behind it run, and its own may be armed anew."""
    c = s.callout() if kind == "mpsafe" else s.callout(s.lock(kind))
    s.do(callout_reset, c, 1, fail, "oops")
    s.do(callout_reset, s.callout(), 1, s.seen, "next")
    s.tick()

    assert s.ran == ["next"]
    error = s.error()
    assert isinstance(error, ValueError)
    assert error.args == ("oops",)

    s.do(callout_reset, c, 1, s.seen, "anew")
    s.tick()

    assert s.ran == ["next", "anew"]


@pytest.mark.parametrize("kind", LOCKED)
def test_the_lock_is_released(s: Stage, kind: str) -> None:
    """The lock of a callback that failed is free afterwards."""
    lock = s.lock(kind)
    c = s.callout(lock)
    s.do(callout_reset, c, 1, fail, "oops")
    s.tick()
    with s.t0.holding(lock):
        pass

    assert isinstance(s.error(), ValueError)


@pytest.mark.parametrize("kind", ["rw", "rm"])
def test_the_read_lock_is_released(s: Stage, kind: str) -> None:
    """The read lock of a CALLOUT_SHAREDLOCK callback that failed is released: a writer gets it."""
    lock = s.lock(kind)
    c = s.callout(lock, CALLOUT_SHAREDLOCK)
    s.do(callout_reset, c, 1, fail, "oops")
    s.tick()
    with s.t0.holding(lock):
        pass

    assert isinstance(s.error(), ValueError)


@pytest.mark.parametrize("kind", LOCKED)
def test_a_failed_returnunlocked_callback_reports_both(s: Stage, kind: str) -> None:
    """A CALLOUT_RETURNUNLOCKED callback that fails with the lock held reports both, and the lock is released for it."""
    lock = s.lock(kind)
    c = s.callout(lock, CALLOUT_RETURNUNLOCKED)
    s.do(callout_reset, c, 1, fail, "oops")
    s.tick()
    with s.t0.holding(lock):
        pass

    assert [type(error).__name__ for error in s.errors] == ["ValueError", "CallbackLockError"]
    s.errors.clear()


def test_drainers_are_woken(s: Stage) -> None:
    """Drains and completions of a run that fails are served as of any other."""
    c = s.callout()
    done: list[str] = []

    def run(gate: str) -> None:
        s.halt(gate)
        fail("oops")

    s.do(callout_reset_on, c, 1, run, "run", s.last)
    s.tick()
    drain = s.t1.begin(callout_drain_sync, c)
    s.do(callout_drain_async, c, done.append, "done")
    s.open("run")

    assert drain.result() == -1
    assert done == ["done"]
    assert isinstance(s.error(), ValueError)


def test_what_it_had_armed_stays_armed(s: Stage) -> None:
    """What a callback armed before it failed takes place: itself again, or onto another CPU."""
    c = s.callout()

    def run(arg: str) -> None:
        callout_reset_on(c, 1, s.seen, arg, s.last)
        fail("oops")

    s.do(callout_reset, c, 1, run, "next")
    s.tick(2)

    assert s.cpu_of == {"next": s.last}
    assert isinstance(s.error(), ValueError)


@pytest.mark.parametrize("kind", ["mpsafe", "spin"])
def test_a_direct_callback_that_fails(s: Stage, kind: str) -> None:
    """The interrupt goes on after a direct callback that failed, its lock is free, and softclock has its turn."""
    lock = s.lock("spin")
    c = s.callout() if kind == "mpsafe" else s.callout(lock)
    s.do(callout_reset_sbt, c, SBT_1MS, 0, fail, "oops", C_DIRECT_EXEC)
    s.do(callout_reset_sbt, s.callout(), SBT_1MS, 0, s.seen, "direct", C_DIRECT_EXEC)
    s.do(callout_reset, s.callout(), 1, s.seen, "plain")
    s.tick()

    assert s.ran == ["direct", "plain"]
    with s.t0.holding(lock):
        assert s.do(callout_stop, c) == -1
    assert isinstance(s.error(), ValueError)


def test_a_completion_that_fails(s: Stage) -> None:
    """The completions behind one that failed are called, blocked drains return, and the error is reported."""
    c = s.callout()
    done: list[str] = []
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_drain_async, c, fail, "oops")
    s.do(callout_drain_async, c, done.append, "done")
    drain = s.t1.begin(callout_drain_sync, c)
    s.open("run")

    assert done == ["done"]
    assert drain.result() == -1
    assert isinstance(s.error(), ValueError)


def test_a_function_that_does_not_fit(s: Stage) -> None:
    """A function that cannot take one argument is found out at its time, and reported as any other error."""

    def takes_none() -> None:
        s.seen("never")

    s.do(callout_reset, s.callout(), 1, takes_none, "arg")  # type: ignore[arg-type]  # the error is the test
    s.tick()

    assert isinstance(s.error(), TypeError)
    assert s.ran == []


@pytest.mark.parametrize(
    ("kind", "direct"), [("mtx", False), ("spin", False), ("spin", True), ("rw", False), ("rm", False)]
)
def test_a_lock_that_was_destroyed(s: Stage, kind: str, direct: bool) -> None:
    """A callout whose lock was destroyed does not run: that is reported, drainers are served, and its CPU goes on."""
    lock = s.lock(kind)
    c = s.callout(lock)
    s.do(callout_reset_sbt, c, SBT_1MS, 0, s.seen, "never", C_DIRECT_EXEC if direct else 0)
    s.do(callout_reset, s.callout(), 2, s.seen, "next")
    s.do(lock.destroy)
    s.tick(2)

    assert s.ran == ["next"]
    assert isinstance(s.error(), LockDestroyedError)
    assert s.do(callout_drain_sync, c) == -1
