"""A system that is closed while a thread calls: the call is done, or refused, and nothing runs afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from callout import (
    Callout,
    ClosedError,
    Mtx,
    callout_dequeue,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_stop,
)
from callout._core.lifecycle import close, enter, quiesce
from callout._core.phases import Phase
from callout.explore import explore
from callout.testing import VirtualSMP
from tests.race.history import undisturbed

Operation = Callable[["Bench"], int]


class Bench:
    """A callout that is pending on CPU 1, and what was heard of it."""

    def __init__(self, vm: VirtualSMP, *, locked: bool, again: bool) -> None:
        self.vm = vm
        self.c = Callout()
        self.mtx = Mtx("m")
        self.again = again  # the callback arms it once more, on the other CPU
        self.closed = False
        self.armed = self.ran = self.completed = self.promised = 0
        if locked:
            callout_init_mtx(self.c, self.mtx)
        else:
            callout_init(self.c, 1)
        callout_reset_on(self.c, 1, self.run, None, vm.machine.cpus[-1].id)
        self.armed += 1

    def run(self, _: None) -> None:
        """Be the callback."""
        assert not self.closed, "a callback after the close"
        self.ran += 1
        if self.again:
            self.again = False
            self.armed += 1  # if it is not refused
            callout_reset_on(self.c, 1, self.run, None, 0)

    def complete(self, _: None) -> None:
        """Be told that a drain is done."""
        assert not self.closed, "a completion after the close"
        self.completed += 1

    async def leave(self) -> None:
        """Close the system, as the end of its block does."""
        machine = self.vm.machine
        enter(machine, Phase.CANCELLING)
        await quiesce(machine)
        await close(machine)
        self.closed = True


def reset(b: Bench) -> int:
    """Arm it."""
    b.armed += 1
    return callout_reset(b.c, 1, b.run, None)


def elsewhere(b: Bench) -> int:
    """Arm it on the other CPU."""
    b.armed += 1
    return callout_reset_on(b.c, 1, b.run, None, 0)


def stop(b: Bench) -> int:
    """Stop it."""
    return callout_stop(b.c)


def drain_async(b: Bench) -> int:
    """Be told when it is done."""
    result = callout_drain_async(b.c, b.complete, None)
    b.promised += result
    return result


def drain(b: Bench) -> int:
    """Wait until it is done."""
    return callout_drain_sync(b.c)


def dequeue(b: Bench) -> int:
    """Remove what is scheduled."""
    return callout_dequeue(b.c)


WITH_LOCK: Final = (stop, drain_async)


def closing(operation: Operation, *, locked: bool, again: bool) -> Callable[[VirtualSMP], None]:
    """Return the scenario: a thread operates on the callout while the system is closed."""

    def scenario(vm: VirtualSMP) -> None:
        b = Bench(vm, locked=locked, again=again)

        def act() -> None:
            try:
                if locked and operation in WITH_LOCK:
                    with b.mtx:
                        operation(b)
                else:
                    operation(b)
            except ClosedError:
                pass

        vm.spawn(b.leave, cpu=0, name="leave")
        vm.spawn(act, name="thread")
        vm.settle()

        assert b.closed
        assert callout_pending(b.c) == 0
        assert b.ran <= b.armed
        assert b.completed == b.promised
        with pytest.raises(ClosedError):
            callout_reset(b.c, 1, b.run, None)

    return scenario


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("operation", [reset, stop, drain_async, drain, dequeue])
def test_a_call_while_the_system_is_closed(operation: Operation, locked: bool, again: bool) -> None:
    """In no schedule is anything pending, run or completed after the close, or a promise not kept."""
    certificate = explore(closing(operation, locked=locked, again=again), cpus=1, bound=0)

    assert certificate.exhausted
    assert certificate.schedules >= 128


@pytest.mark.parametrize("operation", [reset, stop])
def test_a_call_that_the_close_cuts_off(operation: Operation) -> None:
    """Nor in one where either is interrupted once: the call is done or refused, and holds no lock afterwards."""
    certificate = explore(closing(operation, locked=False, again=False), cpus=1, bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 1236


def test_a_migration_while_the_system_is_closed() -> None:
    """Nor is a callout that moves to another CPU left pending there."""
    certificate = explore(closing(elsewhere, locked=False, again=False), cpus=2, bound=0)

    assert certificate.exhausted
    assert certificate.schedules >= 732


def moving_when_all_is_stopped(vm: VirtualSMP) -> None:
    """Have a callback arm its callout on the other CPU while what is pending is stopped, one CPU after the other."""
    c = Callout()
    quiet: list[bool] = []

    async def leave() -> None:
        enter(vm.machine, Phase.CANCELLING)
        await quiesce(vm.machine)
        quiet.append(True)

    def move(_: None) -> None:
        callout_reset_on(c, 1, run, None, 0)

    def run(_: None) -> None:
        assert not quiet, "a callback after all was stopped"

    with undisturbed(vm):
        callout_init(c, 1)
        callout_reset_on(c, 1, move, None, 1)
        vm.spawn(leave, cpu=0, name="leave")
    vm.settle()

    assert quiet
    assert not callout_pending(c)


def test_a_run_that_ends_while_all_is_stopped_moves_nothing() -> None:
    """No callout goes to a CPU on which what was pending has been stopped already."""
    certificate = explore(moving_when_all_is_stopped, cpus=2, bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 535


def call_and_close(vm: VirtualSMP) -> None:
    """Have a thread call a function on the loop of a CPU while the system is closed."""
    ran: list[bool] = []  # whether the system was closed then
    phases: list[str] = []

    async def leave() -> None:
        phases.append("closing")
        machine = vm.machine
        enter(machine, Phase.CANCELLING)
        await quiesce(machine)
        await close(machine)
        phases.append("closed")

    def act() -> None:
        try:
            vm.call(0, lambda: ran.append("closed" in phases))
        except ClosedError:
            assert phases, "refused, and nobody closes the system"
        else:
            phases.append("accepted")

    vm.spawn(leave, cpu=0, name="leave")
    vm.spawn(act, name="thread")
    vm.settle()

    assert ran == ([False] if "accepted" in phases else [])


def test_a_call_to_a_cpu_that_is_closed_is_run_or_refused() -> None:
    """A function that another CPU is to call runs before the close has returned, or else the call was refused."""
    certificate = explore(call_and_close, cpus=1, bound=3)

    assert certificate.exhausted
    assert certificate.schedules >= 188
