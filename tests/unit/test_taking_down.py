"""Bringing a machine up and taking it down, step by step: what each of the steps promises to the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext, suppress

import pytest

from callout import (
    Callout,
    CalloutError,
    ClosedError,
    ForkedError,
    Mtx,
    ReentrantCallError,
    callout_active,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_stop,
)
from callout._core import phases
from callout._core.lifecycle import abandon, boot, close, end_calls, enter, fork, quiesce, stop_all
from callout._core.machine import Machine
from callout._core.phases import LEAVING_TEXT, Phase, Use, admit
from callout._core.state import Func
from callout._worlds.virtual.platform import VirtualPlatform
from callout._worlds.virtual.waiters import TaskWaiter
from callout.testing import VirtualSMP


def ignore(_: object) -> None:
    """Be a callback."""


@pytest.fixture
def vm() -> Iterator[VirtualSMP]:
    """Two virtual CPUs whose clock stands still."""
    with VirtualSMP(2, free_clock=False) as vm:
        yield vm


class AtItsLock:
    """A callout on CPU 0 whose run stands at its lock, in a ``with`` block that holds that."""

    def __init__(self, vm: VirtualSMP) -> None:
        self.vm = vm
        self.c, self.mtx = Callout(), Mtx("m")

    def __enter__(self) -> Callout:
        callout_init_mtx(self.c, self.mtx)
        callout_reset(self.c, 1, ignore, None)
        self.mtx.__enter__()
        self.vm.tick()
        return self.c

    def __exit__(self, *_: object) -> None:
        with suppress(ForkedError):
            if self.mtx.owned():
                self.mtx.__exit__()


# -- up ----------------------------------------------------------------------------------------------------------------


def test_who_wants_to_know_of_expensive_callbacks_is_told() -> None:
    """``boot()`` gives the machine what is called for a callback that took long."""
    told: list[tuple[Func, int]] = []

    def tell(func: Func, ns: int) -> None:
        told.append((func, ns))

    machine = boot(VirtualPlatform(), kind=Callout, cpus=1, hz=1000, alloweddeviation=0, checking=False, expensive=tell)
    machine.expensive(ignore, 5)

    assert told == [(ignore, 5)]


# -- phases ------------------------------------------------------------------------------------------------------------


@pytest.mark.pure
def test_a_phase_is_entered_under_the_locks_of_all_cpus(vm: VirtualSMP, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder of any one CPU's lock may rely on the phase that it reads: it does not change meanwhile."""
    held: list[tuple[Phase, list[bool]]] = []

    def set_and_look(machine: Machine, name: str, value: object) -> None:
        if isinstance(value, Phase):
            held.append((value, [cpu.busy and cpu.lock._is_owned() for cpu in machine.cpus]))
        object.__setattr__(machine, name, value)

    monkeypatch.setattr(Machine, "__setattr__", set_and_look)
    for phase in (Phase.LEAVING, Phase.CANCELLING, Phase.QUIESCING):
        enter(vm.machine, phase)

    assert held == [(phase, [True, True]) for phase in (Phase.LEAVING, Phase.CANCELLING, Phase.QUIESCING)]
    assert not any(cpu.busy or cpu.lock._is_owned() for cpu in vm.machine.cpus)


def test_a_phase_that_cannot_be_entered_changes_nothing(vm: VirtualSMP) -> None:
    """If the work of one CPU's lock was interrupted it goes on undisturbed, and the others are free."""
    first, second = vm.machine.cpus
    second.lock.acquire()
    second.busy = True
    with pytest.raises(ReentrantCallError):
        enter(vm.machine, Phase.LEAVING)

    assert vm.machine.phase is Phase.OPEN
    assert not first.busy
    assert not first.lock._is_owned()
    assert second.busy
    assert second.lock._is_owned()

    second.busy = False
    second.lock.release()


def test_while_a_block_is_left_no_task_is_started_and_the_error_says_so(vm: VirtualSMP) -> None:
    """It does not say that the system is closed, which it is not: its callouts run."""
    enter(vm.machine, Phase.CANCELLING)
    with pytest.raises(ClosedError, match="no more tasks are started") as caught:
        admit("start_soon", vm.machine, Use.START)

    assert LEAVING_TEXT in str(caught.value)


# -- down --------------------------------------------------------------------------------------------------------------


def test_a_deferred_migration_is_stopped_with_what_is_pending(vm: VirtualSMP) -> None:
    """It is one of those that were stopped, and neither pending nor active from then on, though its run goes on."""
    with AtItsLock(vm) as c:
        callout_reset_on(c, 1, ignore, None, 1)

        assert callout_pending(c)
        assert stop_all(vm.machine.cpus[0]) == [c]
        assert (callout_pending(c), callout_active(c)) == (0, 0)


def test_an_event_timer_that_expires_after_the_close_is_for_nobody(vm: VirtualSMP) -> None:
    """No CPU of a closed system still waits for its event timer, though that may have been set before."""
    c = Callout()
    callout_init(c, 1)
    callout_reset(c, 3, ignore, None)

    async def leave() -> None:
        enter(vm.machine, Phase.CANCELLING)
        await quiesce(vm.machine)
        await close(vm.machine)

    vm.spawn(leave, cpu=0)
    vm.tick(5)
    vm.check()

    assert vm.machine.phase is Phase.CLOSED


def test_a_run_in_progress_is_left_alone(vm: VirtualSMP) -> None:
    """What runs, and is not to run again, was not stopped, and stays active."""
    with AtItsLock(vm) as c:
        assert stop_all(vm.machine.cpus[0]) == []
        assert callout_active(c)


def test_nothing_is_quiescent_while_a_completion_runs(vm: VirtualSMP) -> None:
    """The completions that the last runs have promised have returned, on every CPU, before anything is closed."""
    c, gate = Callout(), Mtx("gate")
    done: list[str] = []

    def completion(_: object) -> None:
        with gate:
            done.append("completed")

    async def leave() -> None:
        await quiesce(vm.machine)
        done.append("quiescent")

    callout_init(c, 1)
    callout_reset_on(c, 1, lambda _: callout_drain_async(c, completion, None), None, 1)
    with gate:
        vm.tick()
        enter(vm.machine, Phase.CANCELLING)
        vm.spawn(leave, cpu=0)
        vm.settle()

        assert done == []
    vm.settle()

    assert done == ["completed", "quiescent"]


def test_softclock_is_told_of_the_end_though_a_call_is_cut_short(vm: VirtualSMP) -> None:
    """An exception of a signal handler that comes in one of the last calls does not leave softclock waiting."""
    cpu = vm.machine.cpus[1]
    idle = cpu.idle

    def report(error: BaseException, c: Callout | None) -> None:
        raise error

    def cut_short() -> None:
        raise CalloutError("what a signal handler raises")

    vm.machine.report = report
    cpu.calls.append(cut_short)
    with pytest.raises(CalloutError, match="signal handler"):
        end_calls(cpu)

    assert isinstance(idle, TaskWaiter)
    assert idle.ready()


@pytest.mark.parametrize("held", [False, True])
def test_there_is_nothing_to_stop_in_a_system_that_was_closed(vm: VirtualSMP, held: bool) -> None:
    """Stopping a callout says that the system is closed, and not that a lock is missing which would not help."""
    c, mtx = Callout(), Mtx("m")
    callout_init_mtx(c, mtx)
    for phase in (Phase.CANCELLING, Phase.QUIESCING, Phase.CLOSED):
        enter(vm.machine, phase)
    with mtx if held else nullcontext(), pytest.raises(ClosedError):
        callout_stop(c)


# -- the end of a service ----------------------------------------------------------------------------------------------


def test_a_run_that_is_abandoned_has_released_its_lock_when_it_ends(vm: VirtualSMP) -> None:
    """The completions of a run whose softclock has died are called without its lock, as those of any other."""
    owned: list[bool] = []
    with AtItsLock(vm) as c:
        mtx = c.lock
        assert mtx is not None

        callout_drain_async(c, lambda _: owned.append(mtx.owned()), None)
        abandon(vm.machine.cpus[0].softclock)

        assert owned == [False]
        assert c.run is None


def test_a_run_without_a_lock_is_abandoned(vm: VirtualSMP) -> None:
    """It ends, and its callout can be armed again."""
    c = Callout()
    ended: list[bool] = []

    def callback(_: object) -> None:
        abandon(vm.machine.cpus[0].softclock)
        ended.append(c.run is None)

    callout_init(c, 1)
    callout_reset(c, 1, callback, None)
    vm.tick()

    assert ended == [True]
    assert callout_reset(c, 1, ignore, None) == 0


def test_a_run_whose_lock_was_destroyed_is_abandoned(vm: VirtualSMP, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the lock says to that is reported, and the run ends all the same."""
    error = CalloutError("destroyed")
    reported: list[tuple[BaseException, Callout | None]] = []
    vm.machine.report = lambda error, c: reported.append((error, c))

    def refuse(lock: Mtx) -> int:
        raise error

    with AtItsLock(vm) as c:
        monkeypatch.setattr(Mtx, "drop_all", refuse)
        abandon(vm.machine.cpus[0].softclock)

        assert reported == [(error, c)]
        assert c.run is None


# -- what is left of a machine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pending soon", "pending late", "running"])
def test_a_callout_of_the_parent_may_be_used_anew_in_a_forked_child(
    vm: VirtualSMP, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it was at when the process was forked: initialised in a system of the child it is armed, and runs."""
    monkeypatch.setattr(phases, "IN_CHILD", False)  # and put back afterwards
    ran: list[str] = []
    with AtItsLock(vm) as running:
        c = running if how == "running" else Callout()
        if how != "running":
            callout_init(c, 1)
            callout_reset(c, 1 if how == "pending soon" else 3_600_000, ignore, None)
        assert callout_pending(c) == (how != "running")

        fork(vm.machine)
        for cpu in vm.machine.cpus:
            assert not cpu.open
        with VirtualSMP(1, free_clock=False) as own:
            callout_init(c, 1)

            assert (callout_pending(c), callout_active(c), c.run) == (0, 0, None)

            callout_reset(c, 1, ran.append, "in the child")
            own.tick()

    assert ran == ["in the child"]


def test_a_callout_of_another_system_is_initialised_without_asking_this_one(vm: VirtualSMP) -> None:
    """Of the new system nothing is locked: two that exchange callouts do not wait for each other."""
    c = Callout()
    callout_init(c, 1)
    with VirtualSMP(1, free_clock=False) as other:
        (cpu,) = other.machine.cpus
        cpu.lock.acquire()
        cpu.busy = True  # somebody is at work there
        callout_init(c, 1)
        cpu.busy = False
        cpu.lock.release()

        assert c.c_cpu is cpu
