"""What the matrix (``test_matrix.py``) has not: a callout that returns to CPU 0, one that is initialised anew, and one
that softclock has taken up while another thread holds its lock.
"""

from __future__ import annotations

from functools import partial

import pytest

from callout import (
    C_DIRECT_EXEC,
    MTX_SPIN,
    SBT_1MS,
    BusyError,
    Callout,
    Mtx,
    callout_active,
    callout_drain,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_stop,
)
from callout._core.state import DIRECT
from callout.explore import explore
from callout.explore._sequential import MOVE_DRAINED
from callout.testing import VirtualSMP
from tests.race.history import BACK, DRAIN, ELSEWHERE, MPSAFE, RESET, STOP, race, undisturbed


@pytest.mark.parametrize(
    ("ops", "callback"),
    [
        *(((BACK,), callback) for callback in ("", BACK, RESET)),
        ((BACK, ELSEWHERE), ""),
        *((ops, callback) for ops in ((BACK, STOP), (BACK, DRAIN)) for callback in ("", BACK)),
    ],
)
def test_a_callout_that_comes_back_from_another_cpu(ops: tuple[str, ...], callback: str) -> None:
    """No schedule with one preemption breaks an invariant when a callout of CPU 1 is moved to CPU 0."""
    certificate = explore(race(MPSAFE, *ops, callback=callback, first=ELSEWHERE), bound=1, cells_only=True)

    assert certificate.exhausted
    assert certificate.schedules >= 16


def initialised_anew(vm: VirtualSMP, cpu: int) -> None:
    """Initialise a callout while softclock of *cpu* takes it up and runs it."""
    c, ran = Callout(), []
    callout_init(c, 1)

    def callback(_: None) -> None:
        vm.platform.point()
        ran.append("callback")

    callout_reset_on(c, 1, callback, None, cpu)

    def thread() -> None:
        try:
            callout_init(c, 1)
        except BusyError:
            return
        ran.append("initialised")
        callout_reset(c, 1, callback, None)

    vm.spawn(thread)
    vm.settle()

    assert ran in (["callback"], ["callback", "initialised", "callback"])


@pytest.mark.parametrize("cpu", [0, 1])
def test_a_callout_is_initialised_anew_only_when_it_is_idle(cpu: int) -> None:
    """No schedule has callout_init() accept a callout between being pending and being run, or while it runs."""
    certificate = explore(partial(initialised_anew, cpu=cpu), bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 40


def stopped_without_giant(vm: VirtualSMP) -> None:
    """Stop a callout while softclock stands at Giant, which another thread has."""
    c, seen = Callout(), list[object]()
    with undisturbed(vm):
        callout_init(c, 0)
    with vm.machine.giant:
        callout_reset(c, 1, seen.append, "ran")
        vm.settle()
        vm.spawn(lambda: seen.append(callout_stop(c)))
        vm.settle()
    vm.settle()

    assert seen == [0, "ran"]


def test_a_run_that_stands_at_giant_is_stopped_by_its_owner_only() -> None:
    """A stop without Giant does not cancel the run, and says that it goes on."""
    certificate = explore(stopped_without_giant, bound=3)

    assert certificate.exhausted
    assert certificate.schedules >= 3


def drained_while_it_moves(vm: VirtualSMP) -> None:
    """Drain a callout that is to go to another CPU when softclock, which stands at its lock, is done with it."""
    c, mtx = Callout(), Mtx("m")
    seen: list[object] = []
    with undisturbed(vm):
        callout_init_mtx(c, mtx)
    with mtx:
        callout_reset(c, 1, seen.append, "ran")
        vm.settle()
        callout_reset_on(c, 1, seen.append, "ran", 1)
        vm.spawn(lambda: seen.append(callout_drain_sync(c)))
        vm.settle()

        assert not callout_pending(c), "what the drain removes is pending while it waits"
        assert not callout_active(c)
        assert not seen, "it has not waited"
    vm.settle()

    assert seen == [MOVE_DRAINED]


def test_a_drain_removes_a_deferred_migration_when_it_begins() -> None:
    """A callout that was to move is neither pending nor active while a drain waits for softclock, nor does it run."""
    certificate = explore(drained_while_it_moves, bound=3)

    assert certificate.exhausted
    assert certificate.schedules >= 3


def made_direct(vm: VirtualSMP) -> None:
    """Make a callout direct while softclock stands at its lock with the run that this cancels."""
    c, mtx = Callout(), Mtx("m", MTX_SPIN)
    ran: list[str] = []
    with undisturbed(vm):
        callout_init_mtx(c, mtx)
    with mtx:
        callout_reset(c, 1, ran.append, "plain")
        vm.settle()
        callout_reset_sbt(c, SBT_1MS, 0, ran.append, "direct", C_DIRECT_EXEC)
        vm.settle()

        assert not ran
    vm.settle()

    assert ran == ["direct"]


def test_the_interrupt_runs_nothing_that_softclock_has_in_hand() -> None:
    """A direct callout that is due while softclock is at its lock still is run by softclock, when that is done."""
    certificate = explore(made_direct, bound=3)

    assert certificate.exhausted
    assert certificate.schedules >= 3


def becoming_direct(vm: VirtualSMP) -> None:
    """A thread makes a callout without a lock direct, and another one sends it to CPU 1."""
    c = Callout()
    ran: list[tuple[bool, int]] = []

    def run(_: None) -> None:
        ran.append((bool(c.state & DIRECT), vm.platform.current_cpu()))

    with undisturbed(vm):
        callout_init(c, 1)
        vm.spawn(lambda: callout_reset_sbt(c, SBT_1MS, 0, run, None, C_DIRECT_EXEC))
    callout_reset_on(c, 1, run, None, 1)
    vm.settle()

    assert ran
    assert (True, 1) not in ran, "direct without a lock, and not on CPU 0"


def test_a_callout_without_a_lock_that_becomes_direct_is_on_cpu_0() -> None:
    """Also when it becomes direct while another thread, that saw it before, sends it elsewhere."""
    certificate = explore(becoming_direct, bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 376


def armed_by_a_completion(vm: VirtualSMP) -> None:
    """Wait for a run, at the end of which a completion arms the callout anew before the waiting thread is back."""
    c, mtx = Callout(), Mtx("m")
    seen: list[object] = []
    with undisturbed(vm):
        callout_init_mtx(c, mtx)
    with mtx:
        callout_reset(c, 1, seen.append, "cancelled")
        vm.settle()
        vm.spawn(lambda: seen.append(callout_drain_sync(c)))
        vm.settle()
        callout_drain_async(c, lambda _: callout_reset(c, 1, seen.append, "ran"), None)
    vm.settle()

    assert sorted(map(str, seen)) == ["-1", "ran"]


def test_a_drain_leaves_alone_what_is_armed_after_the_run() -> None:
    """It waits for the run that it has found, and not for what comes before its thread goes on."""
    certificate = explore(armed_by_a_completion, bound=3)

    assert certificate.exhausted
    assert certificate.schedules >= 43


def drained_by_a_task(vm: VirtualSMP) -> None:
    """A task of the CPU waits for a callout that softclock, on the same loop, has taken up and not called yet."""
    c, mtx = Callout(), Mtx("m")
    results: list[int] = []

    async def task() -> None:
        results.append(await callout_drain(c))

    with undisturbed(vm):
        callout_init_mtx(c, mtx)
    with mtx:
        callout_reset(c, 1, results.append, 1)
        vm.settle()
        vm.spawn(task, cpu=0, name="task")
        vm.settle()
    vm.settle()

    assert results == [1, MOVE_DRAINED]


def test_a_task_is_not_taken_for_the_callback_of_its_loop() -> None:
    """It may wait for a run that softclock has begun, while that yields the loop at the callout's lock."""
    certificate = explore(drained_by_a_task, bound=3)

    assert certificate.exhausted
    assert certificate.schedules >= 3
