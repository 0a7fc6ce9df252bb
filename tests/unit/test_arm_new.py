"""Making and arming a callout in one step leaves what initialising and arming leave, and refuses what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from callout import (
    MTX_SPIN,
    RM_SLEEPABLE,
    ArgumentTypeError,
    ArgumentValueError,
    Callout,
    CalloutError,
    ClosedError,
    LockClassError,
    Mtx,
    ReentrantCallError,
    RmLock,
    RwLock,
    open_callouts,
)
from callout._core.arm import arm, default_precision, destination, initialize
from callout._core.deadline import FAR
from callout._core.invariants import check_cpu
from callout._core.levels import LEVELS
from callout._core.machine import Machine
from callout._core.phases import Phase
from callout._core.short import arm_new
from callout._core.state import FIELDS
from callout._locks.lock import Lock
from callout.testing import VirtualSMP

LOCKS: Final[dict[str, Callable[[Machine], Lock | None]]] = {
    "no lock": lambda machine: None,
    "a mutex": lambda machine: Mtx("m"),
    "a spin mutex": lambda machine: Mtx("m", MTX_SPIN),
    "Giant": lambda machine: machine.giant,
    "a read/write lock": lambda machine: RwLock("rw"),
}


def ignore(arg: object) -> None:
    """Do nothing."""


def known(c: Callout) -> dict[str, object]:
    """Return what the record says, but not how it is filed."""
    return {name: getattr(c, name) for name in FIELDS if name not in ("prev", "next", "seq", "filed")}


def both(machine: Machine, number: int, delay: int, lock: Lock | None) -> tuple[Callout, Callout]:
    """Return a callout that was made and armed in one step, and one in two."""
    cpu = machine.cpus[number]
    one = arm_new("call_later", cpu, delay, ignore, "arg", lock)
    two = Callout()
    initialize("call_later", machine, two, lock, 0)
    when = min(cpu.now() + delay, FAR)
    precision = 0 if machine.precexp == 63 else default_precision(machine, when)
    arm("call_later", two, when, precision, ignore, "arg", destination("call_later", two, cpu, direct=False))
    return one, two


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("deviation", [0, 5])
@pytest.mark.parametrize("checking", [False, True])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("kind", LOCKS)
def test_one_step_leaves_what_two_leave(
    kind: str, number: int, deviation: int, *, checking: bool, careful: bool
) -> None:
    """In every kind of system, for every kind of lock, whatever slot of the wheel is in use or not."""
    with VirtualSMP(2, checking=checking, alloweddeviation=deviation) as vm:
        machine = vm.machine
        machine.careful = careful
        lock = LOCKS[kind](machine)
        for delay in (0, 1, 1_000_000, *(3 << shift for shift in LEVELS[:-1]), FAR):
            for _ in range(2):
                one, two = both(machine, number, delay, lock)
                assert known(one) == known(two)
                assert type(one) is type(two)
                if machine.origins is not None:
                    assert machine.origins.get(one) is not None
        for cpu in machine.cpus:
            check_cpu(cpu)


@pytest.mark.trio
async def test_on_a_real_loop_it_is_a_plain_callout() -> None:
    """Of the very class, and it can be stopped, drained and made anew as any other."""
    async with open_callouts() as system:
        c = arm_new("call_later", system._machine.cpus[0], 1_000_000_000, ignore, None, None)

        assert type(c) is Callout
        assert c.run is None
        assert c.c_cpu is system._machine.cpus[0]


def test_the_callbacks_run_in_order_and_under_their_locks() -> None:
    """By time, and those of one time in the order in which they were armed, by whichever call."""
    with VirtualSMP(1) as vm:
        cpu = vm.machine.cpus[0]
        lock = Mtx("m")
        ran: list[str] = []

        def run(name: str) -> None:
            assert lock.owned() is name.startswith("locked")
            ran.append(name)

        arm_new("call_later", cpu, 3_000_000, run, "third", None)
        arm_new("call_later", cpu, 1_000_000, run, "locked, first", lock)
        arm_new("call_later", cpu, 2_000_000, run, "second", None)
        arm_new("call_later", cpu, 1_000_000, run, "first as well", None)
        vm.settle()

        assert ran == ["locked, first", "first as well", "second", "third"]


async def coroutine(arg: object) -> None:
    """Be what cannot be called back."""


@pytest.mark.parametrize("func", [coroutine, None, 3])
def test_what_cannot_be_called_is_refused(func: Any) -> None:  # noqa: ANN401 - a mistake of any kind
    """In the name of the call, and nothing is armed."""
    with VirtualSMP(1) as vm:
        with pytest.raises(ArgumentTypeError, match="call_later"):
            arm_new("call_later", vm.machine.cpus[0], 1, func, None, None)

        assert len(vm.machine.cpus[0].wheel) == 0


def destroyed(machine: Machine) -> Lock:
    """Return a mutex that was destroyed."""
    lock = Mtx("m")
    lock.destroy()
    return lock


def foreign(machine: Machine) -> Lock:
    """Return a mutex of another system."""
    with VirtualSMP(1):
        return Mtx("m")


MISTAKES: Final[dict[Callable[[Machine], Lock], type[CalloutError]]] = {
    destroyed: CalloutError,
    foreign: ArgumentValueError,
    lambda machine: RmLock("rm", RM_SLEEPABLE): LockClassError,
}


@pytest.mark.parametrize("make", MISTAKES)
def test_a_lock_that_cannot_be_a_callouts_is_refused(make: Callable[[Machine], Lock]) -> None:
    """As initialising with it would, in the name of the call."""
    with VirtualSMP(1) as vm:
        lock = make(vm.machine)
        with pytest.raises(MISTAKES[make], match="call_later"):
            arm_new("call_later", vm.machine.cpus[0], 1, ignore, None, lock)

        assert len(vm.machine.cpus[0].wheel) == 0


def test_nothing_is_armed_once_the_end_has_begun_to_stop_what_is_pending() -> None:
    """What is returned is idle then, as after arming one in two steps."""
    with VirtualSMP(1) as vm:
        cpu = vm.machine.cpus[0]
        vm.machine.phase = Phase.QUIESCING
        cpu.plain = None
        c = arm_new("call_later", cpu, 1, ignore, None, None)

        assert len(cpu.wheel) == 0
        assert c.prev is None
        cpu.plain = cpu
        vm.machine.phase = Phase.OPEN


@pytest.mark.trio
async def test_a_closed_system_refuses_it() -> None:
    """In the name of the call."""
    async with open_callouts() as system:
        cpu = system._machine.cpus[0]
    with pytest.raises(ClosedError, match="call_later"):
        arm_new("call_later", cpu, 1, ignore, None, None)


def test_while_another_call_is_half_done_it_is_refused() -> None:
    """As it would be from a finalizer that interrupts the engine."""
    with VirtualSMP(1) as vm:
        cpu = vm.machine.cpus[0]
        cpu.lock.acquire()
        cpu.busy = True
        try:
            with pytest.raises(ReentrantCallError, match="call_later"):
                arm_new("call_later", cpu, 1, ignore, None, None)
        finally:
            cpu.busy = False
            cpu.lock.release()

        assert len(cpu.wheel) == 0
