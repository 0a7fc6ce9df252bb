"""The three rules, row by row, as callout._core.rules has them: where a callout of each kind runs, and where it may
not.
"""

from __future__ import annotations

import pytest

from callout import (
    C_DIRECT_EXEC,
    CALLOUT_SHAREDLOCK,
    CALLOUT_TRYLOCK,
    SBT_1MS,
    Callout,
    LockClassError,
    Mtx,
    callout_active,
    callout_init,
    callout_pending,
    callout_reset,
    callout_reset_curcpu,
    callout_reset_on,
    callout_reset_sbt,
    callout_reset_sbt_curcpu,
    callout_reset_sbt_on,
    callout_schedule_on,
    callout_schedule_sbt,
    callout_stop,
    curcpu,
)
from callout.explore import explore
from callout.testing import VirtualSMP

from .world import Stage

ASSIGNED, CPU_0 = "the CPU it is assigned to", "CPU 0"

# (kind of lock, flags) -> where softclock runs it
PLAIN = {
    ("mpsafe", 0): ASSIGNED,
    ("mtx", 0): ASSIGNED,
    ("mtx", CALLOUT_SHAREDLOCK): ASSIGNED,
    ("spin", 0): ASSIGNED,
    ("spin", CALLOUT_SHAREDLOCK): ASSIGNED,
    ("Giant", 0): CPU_0,
    ("Giant", CALLOUT_SHAREDLOCK): CPU_0,
    ("Giant", CALLOUT_TRYLOCK): CPU_0,
    ("rw", 0): ASSIGNED,
    ("rm", 0): ASSIGNED,
    ("rw", CALLOUT_SHAREDLOCK): CPU_0,
    ("rm", CALLOUT_SHAREDLOCK): CPU_0,
}
# and with C_DIRECT_EXEC
DIRECT = {("mpsafe", 0): CPU_0, ("spin", 0): ASSIGNED, ("spin", CALLOUT_SHAREDLOCK): ASSIGNED}
REFUSED = [row for row in PLAIN if row not in DIRECT]


def make(s: Stage, kind: str, flags: int) -> Callout:
    """Return a callout of that row of the table."""
    return s.callout() if kind == "mpsafe" else s.callout(s.lock(kind), flags)


@pytest.mark.parametrize(("kind", "flags"), PLAIN)
def test_where_softclock_runs_it(s: Stage, kind: str, flags: int) -> None:
    """A callout that is armed for the last CPU runs there, or on CPU 0 if its row says so; asking is no error."""
    c = make(s, kind, flags)
    expected = s.last if PLAIN[kind, flags] == ASSIGNED else 0
    s.do(callout_reset_on, c, 1, s.seen, "reset_on", s.last)
    s.tick()
    s.do(callout_schedule_on, c, 1, s.last)
    s.tick()
    s.t1.do(callout_reset_curcpu, c, 1, s.seen, "reset_curcpu")
    s.tick()
    s.do(callout_reset_sbt_on, c, SBT_1MS, 0, s.seen, "reset_sbt_on", s.last)
    s.tick()

    assert s.ran == ["reset_on", "reset_on", "reset_curcpu", "reset_sbt_on"]
    assert set(s.cpu_of.values()) == {expected}


@pytest.mark.parametrize(("kind", "flags"), DIRECT)
def test_where_it_runs_directly(s: Stage, kind: str, flags: int) -> None:
    """A direct callout for the last CPU runs in that CPU's interrupt, or in CPU 0's if its row says so."""
    c = make(s, kind, flags)
    expected = s.last if DIRECT[kind, flags] == ASSIGNED else 0
    for cpu in {0, s.last}:
        s.do(callout_reset_on, s.callout(), 1, s.seen, f"plain {cpu}", cpu)
    s.do(callout_reset_sbt_on, c, SBT_1MS, 0, s.seen, "direct", s.last, C_DIRECT_EXEC)
    s.tick()

    assert s.cpu_of["direct"] == expected
    # In the interrupt: before what softclock was to do on that CPU at the same time.
    assert s.ran.index("direct") < s.ran.index(f"plain {expected}")

    s.t1.do(callout_reset_sbt_curcpu, c, SBT_1MS, 0, s.seen, "again", C_DIRECT_EXEC)
    s.tick()

    assert s.cpu_of["again"] == expected


@pytest.mark.parametrize(("kind", "flags"), REFUSED)
def test_what_may_not_run_directly(s: Stage, kind: str, flags: int) -> None:
    """C_DIRECT_EXEC with a lock that is not a spin mutex is an error that names the lock's kind and changes nothing."""
    c = make(s, kind, flags)
    s.do(callout_reset, c, 1, s.seen, "plain")

    with pytest.raises(LockClassError, match=r"spin mutex.*this one has"):
        s.do(callout_reset_sbt, c, SBT_1MS, 0, s.seen, "direct", C_DIRECT_EXEC)
    with pytest.raises(LockClassError, match="C_DIRECT_EXEC"):
        s.do(callout_reset_sbt_on, c, SBT_1MS, 0, s.seen, "direct", s.last, C_DIRECT_EXEC)
    with pytest.raises(LockClassError, match="C_DIRECT_EXEC"):
        s.do(callout_schedule_sbt, c, SBT_1MS, 0, C_DIRECT_EXEC)
    assert (callout_pending(c), callout_active(c)) == (1, 1)

    s.tick()

    assert s.ran == ["plain"]


def test_a_callout_that_becomes_direct_goes_to_cpu_0(s: Stage) -> None:
    """An mpsafe callout that is assigned elsewhere goes to CPU 0 when it is armed directly, with no CPU named."""
    c = s.callout()
    s.do(callout_reset_on, c, 1, s.seen, "plain", s.last)
    s.tick()
    s.do(callout_reset_sbt, c, SBT_1MS, 0, s.seen, "direct", C_DIRECT_EXEC)
    s.tick()

    assert s.cpu_of == {"plain": s.last, "direct": 0}


def test_a_direct_callout_stays_on_cpu_0(s: Stage) -> None:
    """Once direct, an mpsafe callout runs on CPU 0, though a plain reset asks for another CPU."""
    c = s.callout()
    s.do(callout_reset_sbt, c, SBT_1MS, 0, s.seen, "direct", C_DIRECT_EXEC)
    s.tick()
    s.do(callout_reset_on, c, 1, s.seen, "plain", s.last)
    s.tick()

    assert s.cpu_of == {"direct": 0, "plain": 0}


def test_becoming_direct_while_it_runs_elsewhere_is_deferred(s2: Stage) -> None:
    """An mpsafe callout that is armed directly while it runs on CPU 1 moves to CPU 0 when the run has ended."""
    s = s2
    c = s.callout()
    s.do(callout_reset_on, c, 1, s.halt, "run", 1)
    s.tick()

    assert s.do(callout_reset_sbt, c, SBT_1MS, 0, s.seen, "direct", C_DIRECT_EXEC) == 0

    s.tick()

    assert s.ran == ["run"]

    s.do(callout_reset, s.callout(), 1, s.seen, "plain")
    s.open("run")
    s.tick()

    assert s.cpu_of == {"run": 1, "direct": 0, "plain": 0}
    # In the interrupt, that is before what softclock was to do.
    assert s.ran == ["run", "direct", "plain"]


@pytest.mark.parametrize("kind", ["spin", "mpsafe"])
def test_direct_and_plain_may_be_mixed_during_a_run(s: Stage, kind: str) -> None:
    """A callout that is armed directly while softclock runs it, or the other way round, runs again after that run."""
    c = s.callout() if kind == "mpsafe" else s.callout(s.lock(kind))
    s.do(callout_reset, c, 1, s.halt, "plain")
    s.tick()

    assert s.do(callout_reset_sbt, c, SBT_1MS, 0, s.halt, "direct", C_DIRECT_EXEC) == 0

    s.tick(2)

    assert s.ran == ["plain"]

    s.open("plain")
    s.tick()

    assert s.ran == ["plain", "direct"]
    assert s.do(callout_reset, c, 1, s.seen, "plain again") == 0

    s.tick(2)

    assert s.ran == ["plain", "direct"]

    s.open("direct")
    s.tick()

    assert s.ran == ["plain", "direct", "plain again"]


# -- spin mutexes with direct execution ------------------------------------------------------------------------------


def spin(s: Stage) -> tuple[Mtx, Callout]:
    """Return a spin mutex and a callout that has it."""
    lock = s.lock("spin")
    assert isinstance(lock, Mtx)
    return lock, s.callout(lock)


def test_a_direct_callback_has_its_spin_mutex(s: Stage) -> None:
    """A direct callback runs with its spin mutex held, and afterwards that is free."""
    lock, c = spin(s)
    owned: list[bool] = []
    s.do(callout_reset_sbt, c, SBT_1MS, 0, lambda arg: owned.append(lock.owned()), None, C_DIRECT_EXEC)
    s.tick()

    assert owned == [True]
    with s.t0.holding(lock):
        pass


def test_a_direct_callback_spins(s: Stage) -> None:
    """The interrupt waits on the spot for a spin mutex that is held, and nothing else runs on that CPU meanwhile."""
    lock, c = spin(s)
    s.do(callout_reset_sbt_on, c, SBT_1MS, 0, s.seen, "direct", s.last, C_DIRECT_EXEC)
    s.do(callout_reset_on, s.callout(), 1, s.seen, "plain", s.last)
    with s.t0.holding(lock):
        s.tick()
        s.call(s.last, lambda: s.seen("call"))

        assert s.ran == []
        assert not callout_pending(c)

    assert s.ran[0] == "direct"
    assert set(s.ran) == {"direct", "call", "plain"}


def test_another_cpu_goes_on_while_one_spins(s2: Stage) -> None:
    """While the interrupt of one CPU waits for a spin mutex the callouts of the other run."""
    s = s2
    lock, c = spin(s)
    s.do(callout_reset_sbt_on, c, SBT_1MS, 0, s.seen, "direct", 1, C_DIRECT_EXEC)
    s.do(callout_reset_on, s.callout(), 1, s.seen, "other", 0)
    with s.t0.holding(lock):
        s.tick()

        assert s.ran == ["other"]


@pytest.mark.parametrize("how", ["stop", "reset"])
def test_a_direct_run_that_spins_can_be_cancelled(s: Stage, how: str) -> None:
    """A thread that holds the spin mutex for which a direct run waits can stop or replace it: 1, and it does not take
    place.
    """
    lock, c = spin(s)
    s.do(callout_reset_sbt, c, SBT_1MS, 0, s.seen, "old", C_DIRECT_EXEC)
    with s.t0.holding(lock):
        s.tick()

        if how == "stop":
            assert s.do(callout_stop, c) == 1
            assert s.do(callout_stop, c) == 0
        else:
            assert s.do(callout_reset_sbt, c, SBT_1MS, 0, s.seen, "new", C_DIRECT_EXEC) == 1

    assert s.ran == []

    s.tick(2)

    assert s.ran == ([] if how == "stop" else ["new"])
    with s.t0.holding(lock):
        assert s.do(callout_stop, c) == -1


def test_direct_callouts_move_between_cpus_under_a_spin_mutex(s2: Stage) -> None:
    """A direct callout with a spin mutex may re-arm itself on the other CPU: the move waits until it has returned."""
    s = s2
    _, c = spin(s)
    cpus: list[int] = []

    def hop(to: int) -> None:
        cpus.append(curcpu())
        callout_reset_sbt_on(c, SBT_1MS, 0, hop, 1 - to, 1 - to, C_DIRECT_EXEC)

    s.do(callout_reset_sbt_on, c, SBT_1MS, 0, hop, 1, 1, C_DIRECT_EXEC)
    s.tick(4)

    assert cpus == [1, 0, 1, 0]


def test_a_direct_trylock_callout_does_not_spin(s: Stage) -> None:
    """With CALLOUT_TRYLOCK the interrupt does not wait for a spin mutex: it tries again a tick later."""
    lock = s.lock("spin")
    c = s.callout(lock, CALLOUT_TRYLOCK)
    s.do(callout_reset_sbt, c, SBT_1MS, 0, s.seen, "direct", C_DIRECT_EXEC)
    s.do(callout_reset, s.callout(), 1, s.seen, "plain")
    with s.t0.holding(lock):
        s.tick(2)

        assert s.ran == ["plain"]
        assert callout_pending(c)

    s.tick()

    assert s.ran == ["plain", "direct"]


def test_becoming_direct_while_somebody_assigns_it_elsewhere() -> None:
    """However a direct arming and one for CPU 1 of an mpsafe callout interleave, it is never direct on CPU 1."""

    def scenario(vm: VirtualSMP) -> None:
        c = Callout()
        callout_init(c, 1)
        ran: list[tuple[str, int]] = []

        def seen(arg: str) -> None:
            ran.append((arg, curcpu()))

        vm.spawn(callout_reset_sbt, c, SBT_1MS, 0, seen, "direct", C_DIRECT_EXEC)
        vm.spawn(callout_reset_on, c, 1, seen, "plain", 1)
        vm.settle()
        # Once direct, always direct: so from now on it runs on CPU 0, whichever of the two came last.
        callout_reset(c, 1, seen, "after")
        vm.settle()

        assert ("direct", 1) not in ran
        assert ran[-1] == ("after", 0)

    assert explore(scenario, cpus=2, bound=1).exhausted
