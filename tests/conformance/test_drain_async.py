"""callout_drain_async(): stop, and be told when the callout may be freed; and FreeBSD 13's callout_async_drain()."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from callout import (
    C_DIRECT_EXEC,
    CALLOUT_RETURNUNLOCKED,
    CALLOUT_SHAREDLOCK,
    SBT_1MS,
    Callout,
    LockNotHeldError,
    Mtx,
    callout_active,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_reset_sbt_on,
    callout_stop,
    curcpu,
)
from callout.freebsd13 import callout_async_drain

from .world import LOCKED, Stage

OWN = ("mtx", "spin", "rw", "rm")


class Completion:
    """A completion function that notes what it finds."""

    def __init__(self, s: Stage, c: Callout) -> None:
        self._s = s
        self._c = c
        self.args: list[object] = []
        self.cpus: list[int] = []
        self.returned: list[list[object]] = []  # the halted callbacks that had returned by then
        self.pending: list[int] = []

    def __call__(self, arg: object) -> None:
        """Note it."""
        self.args.append(arg)
        self.cpus.append(curcpu())
        self.returned.append(list(self._s.returned))
        self.pending.append(callout_pending(self._c))


def test_idle(s: Stage) -> None:
    """Nothing is outstanding of a callout that was never set: 0, and the completion is never called."""
    c = s.callout()
    done = Completion(s, c)

    assert s.do(callout_drain_async, c, done, "x") == 0

    s.tick(3)

    assert done.args == []


def test_served(s: Stage) -> None:
    """Nothing is outstanding of a callout whose run is over: 0, and the completion is never called."""
    c = s.callout()
    done = Completion(s, c)
    s.do(callout_reset, c, 1, s.seen, "c")
    s.tick()

    assert s.do(callout_drain_async, c, done, "x") == 0

    s.tick(3)

    assert done.args == []


def test_pending(s: Stage) -> None:
    """A pending callout is stopped on the spot: 0, no run, no completion, and the callout may be used anew at once."""
    c = s.callout()
    done = Completion(s, c)
    s.do(callout_reset, c, 1, s.seen, "c")

    assert s.do(callout_drain_async, c, done, "x") == 0
    assert (callout_pending(c), callout_active(c)) == (0, 0)

    s.do(callout_init, c, 1)
    s.tick(3)

    assert (s.ran, done.args) == ([], [])


def test_due_but_not_begun(s: Stage) -> None:
    """A callout that is due behind another callback is stopped on the spot, too: 0, no run."""
    c, d = s.callout(), s.callout()
    done = Completion(s, d)
    s.do(callout_reset, c, 1, s.halt, "busy")
    s.do(callout_reset, d, 1, s.seen, "d")
    s.tick(2)

    assert s.do(callout_drain_async, d, done, "x") == 0

    s.open("busy")

    assert (s.ran, done.args) == (["busy"], [])


@pytest.mark.parametrize("kind", LOCKED)
def test_waiting_for_the_lock_that_the_caller_holds(s: Stage, kind: str) -> None:
    """A run that stands at the caller's lock is cancelled: 1, no call, and one completion when the lock was
    released.
    """
    lock = s.lock(kind)
    c = s.callout(lock)
    done = Completion(s, c)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.holding(lock):
        s.tick()

        assert s.do(callout_drain_async, c, done, "x") == 1
        assert done.args == []

    assert s.ran == []
    assert done.args == ["x"]


def test_cancelled_and_still_standing(s: Stage) -> None:
    """A run that was stopped with 1 but stands at the lock is outstanding: 1, and the completion tells when it left."""
    lock = s.mtx()
    c = s.callout(lock)
    done = Completion(s, c)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.holding(lock):
        s.tick()

        assert s.do(callout_stop, c) == 1
        assert s.do(callout_drain_async, c, done, "x") == 1
        assert done.args == []

    assert (s.ran, done.args) == ([], ["x"])


def test_replaced_and_still_standing(s: Stage) -> None:
    """A waiting run that was replaced by a reset: 1, the new run is gone, the old one does not come, one completion."""
    lock = s.mtx()
    c = s.callout(lock)
    done = Completion(s, c)
    s.do(callout_reset, c, 1, s.seen, "old")
    with s.t0.holding(lock):
        s.tick()
        s.do(callout_reset, c, 1, s.seen, "new")

        assert s.do(callout_drain_async, c, done, "x") == 1

    s.tick(3)

    assert (s.ran, done.args) == ([], ["x"])


@pytest.mark.parametrize("cpu", ["first", "last"])
def test_running(s: Stage, cpu: str) -> None:
    """Of a running callout: 1, and one completion, after the callback returned, on the CPU that ran it."""
    number = 0 if cpu == "first" else s.last
    c = s.callout()
    done = Completion(s, c)
    s.do(callout_reset_on, c, 1, s.halt, "run", number)
    s.tick()

    assert s.do(callout_drain_async, c, done, "x") == 1
    assert done.args == []
    assert not callout_active(c)

    s.open("run")
    s.tick(2)

    assert done.args == ["x"]
    assert done.cpus == [number]
    assert done.returned == [["run"]]


def test_running_and_armed_again(s: Stage) -> None:
    """Of a running callout that was armed again: 1, the next run is gone at once, one completion."""
    c = s.callout()
    done = Completion(s, c)
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset, c, 1, s.seen, "next")

    assert s.do(callout_drain_async, c, done, "x") == 1
    assert not callout_pending(c)

    s.tick(2)
    s.open("run")
    s.tick(2)

    assert (s.ran, done.args) == (["run"], ["x"])


def test_running_with_a_deferred_migration(s2: Stage) -> None:
    """Of a running callout that is to move: 1, the move is gone at once, one completion on the CPU of the run."""
    s = s2
    c = s.callout()
    done = Completion(s, c)
    s.do(callout_reset_on, c, 1, s.halt, "run", 1)
    s.tick()
    s.do(callout_reset_on, c, 1, s.seen, "moved", 0)

    assert s.do(callout_drain_async, c, done, "x") == 1
    assert not callout_pending(c)

    s.open("run")
    s.tick(3)

    assert (s.ran, done.args, done.cpus) == (["run"], ["x"], [1])


@pytest.mark.parametrize("cpu", ["first", "last"])
def test_running_directly(s: Stage, cpu: str) -> None:
    """Of a direct callout that runs under its spin mutex: 1, and the completion comes in the interrupt of that CPU."""
    number = 0 if cpu == "first" else s.last
    lock = s.lock("spin")
    c = s.callout(lock, CALLOUT_RETURNUNLOCKED)
    done = Completion(s, c)

    def run(gate: str) -> None:
        lock.__exit__()
        s.halt(gate)

    s.do(callout_reset_sbt_on, c, SBT_1MS, 0, run, "run", number, C_DIRECT_EXEC)
    s.tick()
    with s.t0.holding(lock):
        assert s.do(callout_drain_async, c, done, "x") == 1
    s.open("run")

    assert (done.args, done.cpus, done.returned) == (["x"], [number], [["run"]])


def test_running_under_giant_without_giant(s: Stage) -> None:
    """Of a Giant callout that waits for Giant while another thread has it: 1; it runs, then comes the completion."""
    giant = s.lock("Giant")
    c = s.callout(giant)
    done = Completion(s, c)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t1.holding(giant):
        s.tick()

        assert s.do(callout_drain_async, c, done, "x") == 1

    assert (s.ran, done.args) == (["c"], ["x"])


@pytest.mark.parametrize("kind", LOCKED)
def test_no_lock_is_held_at_the_completion(s: Stage, kind: str) -> None:
    """The completion finds the callout's lock free, and may take it itself."""
    lock = s.lock(kind)
    c = s.callout(lock)
    found: list[bool] = []

    def run(gate: str) -> None:
        callout_drain_async(c, done, None)
        s.halt(gate)

    def done(arg: object) -> None:
        found.append(lock.holds())
        with lock:
            found.append(lock.owned())

    s.do(callout_reset, c, 1, run, "run")
    s.tick()
    s.open("run")

    assert found == [False, True]


def test_from_the_callback_itself(s: Stage) -> None:
    """A callback may ask for its own callout: 1, and the completion comes when it has returned."""
    c = s.callout()
    done = Completion(s, c)
    results: list[int] = []

    def run(gate: str) -> None:
        results.append(callout_drain_async(c, done, "x"))
        s.halt(gate)

    s.do(callout_reset, c, 1, run, "run")
    s.tick()

    assert (results, done.args) == ([1], [])

    s.open("run")

    assert (done.args, done.returned) == (["x"], [["run"]])


@pytest.mark.parametrize("kind", OWN)
def test_the_callouts_lock_must_be_held(s: Stage, kind: str) -> None:
    """Without the callout's lock it is an error, as it is for a stop, and changes nothing."""
    c = s.callout(s.lock(kind))
    done = Completion(s, c)
    s.do(callout_reset, c, 1, s.seen, "c")

    with pytest.raises(LockNotHeldError, match=kind):
        s.do(callout_drain_async, c, done, "x")
    s.tick()

    assert (s.ran, done.args) == (["c"], [])


def test_nobody_arms_it_while_it_is_outstanding(s: Stage) -> None:
    """Until the run has ended every arming returns 0 and arms nothing, one by the callback included."""
    c = s.callout()
    done = Completion(s, c)
    results: list[int] = []

    def run(gate: str) -> None:
        s.halt(gate)
        results.append(callout_reset(c, 1, run, gate))

    s.do(callout_reset, c, 1, run, "run")
    s.tick()
    s.do(callout_drain_async, c, done, "x")

    assert s.do(callout_reset, c, 1, s.seen, "refused") == 0
    assert s.do(callout_reset_on, c, 1, s.seen, "refused", s.last) == 0
    assert s.do(callout_reset_sbt, c, SBT_1MS, 0, s.seen, "refused", C_DIRECT_EXEC) == 0
    assert not callout_pending(c)

    s.open("run")
    s.tick(3)

    assert results == [0]
    assert (s.ran, done.args) == (["run"], ["x"])


def test_the_completion_may_arm_it(s: Stage) -> None:
    """The refusal is lifted before the completion is called: a reset there arms the callout."""
    c = s.callout()
    results: list[int] = []

    def done(arg: str) -> None:
        results.append(callout_reset(c, 1, s.seen, arg))
        results.append(callout_pending(c))

    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_drain_async, c, done, "anew")
    s.open("run")

    assert results == [0, 1]

    s.tick()

    assert s.ran == ["run", "anew"]


def test_the_completion_may_initialise_it_anew(s: Stage) -> None:
    """At the completion the callout is nobody's: callout_init() takes it."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()

    def done(arg: Callout) -> None:
        callout_init(arg, 1)
        callout_reset(arg, 1, s.seen, "anew")

    s.do(callout_drain_async, c, done, c)
    s.open("run")
    s.tick()

    assert s.ran == ["run", "anew"]


def test_several_are_all_completed(s: Stage) -> None:
    """Every one of several asynchronous drains of one run is completed exactly once, in order."""
    c = s.callout()
    order: list[int] = []
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()

    assert [s.do(callout_drain_async, c, order.append, number) for number in range(4)] == [1] * 4

    s.open("run")
    s.tick(2)

    assert order == [0, 1, 2, 3]


def test_synchronous_and_asynchronous_drains_mixed(s: Stage) -> None:
    """Blocked drains, completions of both dialects: all are served by the end of one run."""
    c = s.callout()
    done, old = Completion(s, c), Completion(s, c)
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    first = s.t1.begin(callout_drain_sync, c)

    assert s.do(callout_drain_async, c, done, "new") == 1
    assert s.do(callout_async_drain, c, old) == 0

    second = s.t2.begin(callout_drain_sync, c)

    assert first.blocked
    assert second.blocked

    s.open("run")

    assert (first.result(), second.result()) == (-1, -1)
    assert (done.args, old.args) == (["new"], ["run"])


def test_a_completion_may_drain_another_callout(s: Stage) -> None:
    """The pattern of teardown: a completion that asks for the next callout's drain gets its own completion."""
    c, d = s.callout(), s.callout()
    done = Completion(s, d)
    s.do(callout_reset, c, 1, s.halt, "c")
    s.do(callout_reset_on, d, 1, s.halt, "d", s.last)
    s.tick()
    s.do(callout_drain_async, c, lambda arg: s.ran.append(callout_drain_async(d, done, arg)), "x")
    s.open("c")

    assert s.ran[-1] == (1 if s.cpus == 2 else 0)

    s.open("d")

    assert done.args == (["x"] if s.cpus == 2 else [])


def test_the_counted_teardown(s: Stage) -> None:
    """A count of callouts plus one, dropped by each 0 and each completion, reaches nought once, after all is over."""
    lock = s.mtx()
    callouts = [s.callout(lock) for _ in range(3)]
    count = [len(callouts) + 1]
    freed: list[list[object]] = []

    def drop(arg: object) -> None:
        count[0] -= 1
        if not count[0]:
            freed.append(list(s.ran))

    s.do(callout_reset, callouts[0], 1, s.seen, "served")
    s.tick()
    s.do(callout_reset, callouts[1], 1, s.seen, "waiting")
    s.do(callout_reset, callouts[2], 9, s.seen, "pending")
    with s.t0.holding(lock):
        s.tick()
        for c in callouts:
            if not s.do(callout_drain_async, c, drop, None):
                drop(None)
        drop(None)

        assert freed == []

    assert freed == [["served"]]


# -- FreeBSD 11 to 13 ------------------------------------------------------------------------------------------------


def test_13_idle_and_pending(s: Stage) -> None:
    """callout_async_drain() returns what stop does, -1 idle and 1 pending, and then never calls the drain function."""
    c = s.callout()
    done = Completion(s, c)

    assert s.do(callout_async_drain, c, done) == -1

    s.do(callout_reset, c, 1, s.seen, "c")

    assert s.do(callout_async_drain, c, done) == 1

    s.tick(3)

    assert (s.ran, done.args) == ([], [])


def test_13_running(s: Stage) -> None:
    """Of a running callout: 0, and the drain function gets the run's own argument, after it, on its CPU."""
    c = s.callout()
    done = Completion(s, c)
    s.do(callout_reset_on, c, 1, s.halt, "run", s.last)
    s.tick()
    s.do(callout_reset, c, 1, s.seen, "next")

    assert s.do(callout_async_drain, c, done) == 0

    s.open("run")
    s.tick(2)

    assert (s.ran, done.args, done.cpus, done.returned) == (["run"], ["run"], [s.last], [["run"]])


@pytest.mark.parametrize("kind", LOCKED)
def test_13_lets_a_waiting_run_take_place(s: Stage, kind: str) -> None:
    """A run that stands at the caller's lock is not cancelled, as stop would: it runs, then the drain function."""
    lock = s.lock(kind)
    c = s.callout(lock)
    done = Completion(s, c)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.holding(lock):
        s.tick()

        assert s.do(callout_async_drain, c, done) == 0

    assert (s.ran, done.args) == (["c"], ["c"])


def test_13_of_a_cancelled_run(s: Stage) -> None:
    """Of a run that was cancelled but stands at its lock: 0, and the drain function is called without a run."""
    lock = s.mtx()
    c = s.callout(lock)
    done = Completion(s, c)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.holding(lock):
        s.tick()
        s.do(callout_stop, c)

        assert s.do(callout_async_drain, c, done) == 0

    assert (s.ran, done.args) == ([], ["c"])


def test_13_of_several_callouts_with_one_lock(s: Stage) -> None:
    """With one lock for several callouts, each that returns 0 has its own call of the drain function."""
    lock = s.mtx()
    callouts = [s.callout(lock), s.callout(lock)]
    drained: list[object] = []
    for number, c in enumerate(callouts):
        s.do(callout_reset_on, c, 1, s.seen, number, number % s.cpus)
    with s.t0.holding(lock):
        s.tick()
        results = [s.do(callout_async_drain, c, drained.append) for c in callouts]

    # With one CPU the second has not begun, and is stopped.
    assert results == ([0, 1] if s.cpus == 1 else [0, 0])
    assert sorted(map(str, drained)) == ["0", "1"][: results.count(0)]


@pytest.mark.parametrize("drain", [callout_async_drain, lambda c, done: callout_drain_async(c, done, "run")])
def test_refusal_ends_with_the_run(s: Stage, drain: Callable[[Callout, Completion], int]) -> None:
    """In both dialects arming is refused during the drained run only: afterwards it works."""
    c = s.callout()
    done = Completion(s, c)
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(drain, c, done)
    s.do(callout_reset, c, 1, s.seen, "refused")
    s.open("run")
    s.do(callout_reset, c, 1, s.seen, "armed")
    s.tick()

    assert (s.ran, done.args, done.pending) == (["run", "armed"], ["run"], [0])


@pytest.mark.parametrize("kind", ["rw", "rm"])
def test_a_shared_run_cannot_be_cancelled_by_its_own_callback(s: Stage, kind: str) -> None:
    """A callback with a read lock does not hold the callout's lock as a stop wants it: an error; the run goes on."""
    c = s.callout(s.lock(kind), CALLOUT_SHAREDLOCK)
    done = Completion(s, c)
    s.do(callout_reset, c, 1, lambda arg: callout_drain_async(c, done, arg), "x")
    s.tick()

    assert isinstance(s.error(), LockNotHeldError)
    assert done.args == []


def test_giant_recursively_held(s: Stage) -> None:
    """A caller that holds Giant twice cancels a waiting run all the same, and keeps Giant: it does not sleep."""
    giant = s.lock("Giant")
    assert isinstance(giant, Mtx)
    c = s.callout(giant)
    done = Completion(s, c)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.holding(giant), s.t0.holding(giant):
        s.tick()

        assert s.do(callout_drain_async, c, done, "x") == 1
        assert s.do(giant.recursed)
        assert done.args == []

    assert (s.ran, done.args) == ([], ["x"])
