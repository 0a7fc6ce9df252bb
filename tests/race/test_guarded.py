"""Every call, in every situation of its callout, writes what a CPU's lock guards under that lock: the oracle of
``lockset.py`` looks at each store. And what another thread does between a look and the lock, staged without a search.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import pytest

from callout import (
    BusyError,
    Callout,
    CalloutError,
    ClosedError,
    Mtx,
    callout_arm_curcpu,
    callout_barrier,
    callout_deactivate,
    callout_dequeue,
    callout_drain,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_reset_on,
    callout_stop,
    callout_terminate,
    freebsd13,
    ticks,
)
from callout._core.calls import cross_call
from callout._core.invariants import check_cpu
from callout._core.lifecycle import close, end_calls, enter, quiesce
from callout._core.phases import CLOSED_TEXT, Phase
from callout._core.refusal import Refusal
from callout._worlds.virtual.locks import CpuLock
from callout._worlds.virtual.platform import VirtualPlatform
from callout.testing import VirtualSMP

HOUR: Final = 3_600_000  # ticks

Operation = Callable[[VirtualSMP, Callout], object]


def ignore(_: object) -> None:
    """Be a callback."""


def task(wait: Callable[[Callout], Coroutine[Any, Any, int]]) -> Operation:
    """Return the operation of a task of CPU 0 that waits."""

    def operation(vm: VirtualSMP, c: Callout) -> None:
        async def waits() -> None:
            await wait(c)

        vm.spawn(waits, cpu=0)

    return operation


OPERATIONS: Final[dict[str, Operation]] = {
    "initialise": lambda vm, c: callout_init(c, 1),
    "reset": lambda vm, c: callout_reset(c, 1, ignore, None),
    "reset for later": lambda vm, c: callout_reset(c, 2 * HOUR, ignore, None),
    "reset on CPU 0": lambda vm, c: callout_reset_on(c, 1, ignore, None, 0),
    "reset on CPU 1": lambda vm, c: callout_reset_on(c, 1, ignore, None, 1),
    "arm for a tick": lambda vm, c: callout_arm_curcpu(c, ticks() + 2 * HOUR, ignore, None),
    "stop": lambda vm, c: callout_stop(c),
    "dequeue": lambda vm, c: callout_dequeue(c),
    "dequeue for good": lambda vm, c: callout_dequeue(c, close=True),
    "deactivate": lambda vm, c: callout_deactivate(c),
    "drain_async": lambda vm, c: callout_drain_async(c, ignore, None),
    "async_drain": lambda vm, c: freebsd13.callout_async_drain(c, ignore),
    "drain": task(callout_drain),
    "terminate": task(callout_terminate),
    "barrier": task(callout_barrier),
}
SITUATIONS: Final = ("idle", "pending", "pending on CPU 1", "idle on CPU 1", "at its lock", "at its lock, and moving")


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_store_is_made_under_the_lock_that_guards_it(name: str, situation: str, paths: str) -> None:
    """Whatever a callout is at: the call, what follows from it and the close store nothing without the lock for it."""
    with VirtualSMP(2, free_clock=False, short_paths=paths == "short") as vm:
        c, mtx = Callout(), Mtx("m")
        if situation.startswith("at its lock"):
            callout_init_mtx(c, mtx)
            callout_reset(c, 1, ignore, None)
            with mtx:
                vm.tick()
                if situation.endswith("moving"):
                    callout_reset_on(c, 1, ignore, None, 1)
                with suppress(CalloutError):
                    OPERATIONS[name](vm, c)
                vm.settle()
        else:
            callout_init(c, 1)
            if situation != "idle":
                callout_reset_on(c, HOUR, ignore, None, int(situation.endswith("1")))
            if situation.startswith("idle"):
                callout_stop(c)
            with suppress(CalloutError):
                OPERATIONS[name](vm, c)
        vm.tick(2)
        vm.check()


def test_a_system_is_taken_down_under_the_locks(paths: str) -> None:
    """Nor does the close, which meets a callout that is pending, one that is due, and one that is at its lock and is to
    move then.
    """
    with VirtualSMP(2, free_clock=False, short_paths=paths == "short") as vm:
        pending, due, moving, mtx = Callout(), Callout(), Callout(), Mtx("m")
        callout_init_mtx(moving, mtx)
        callout_reset(moving, 1, ignore, None)
        for c in (pending, due):
            callout_init(c, 1)
        callout_reset(due, 1, ignore, None)
        callout_reset(pending, HOUR, ignore, None)

        async def leave() -> None:
            enter(vm.machine, Phase.CANCELLING)
            await quiesce(vm.machine)
            await close(vm.machine)

        with mtx:
            vm.tick()
            callout_reset_on(moving, 1, ignore, None, 1)
            vm.spawn(leave, cpu=0)
            vm.settle()
        vm.check()

        with pytest.raises(ClosedError):
            callout_reset(pending, 1, ignore, None)


# -- what happens between a look and the lock --------------------------------------------------------------------------


class Contended(CpuLock):
    """The lock of a CPU, for which the next call waits while another thread does something."""

    __slots__ = ("meanwhile",)

    def __init__(self, platform: VirtualPlatform, name: str) -> None:
        super().__init__(platform, name)
        self.meanwhile: Callable[[], object] | None = None

    def acquire(self, blocking: bool = True, /) -> bool:
        """Let the other one do it, and acquire the lock."""
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().acquire(blocking)


def contended(vm: VirtualSMP, cpu: int) -> Contended:
    """Give a CPU such a lock."""
    lock = Contended(vm.platform, f"cpu {cpu}")
    object.__setattr__(vm.machine.cpus[cpu], "lock", lock)  # the oracle says that it is not held
    return lock


@pytest.mark.parametrize("armed", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_callout_that_moves_away_before_its_lock_is_acquired(name: str, armed: bool, paths: str) -> None:
    """A call that finds its callout on another CPU, once it has the lock, starts again there."""
    with VirtualSMP(2, free_clock=False, short_paths=paths == "short") as vm:
        c = Callout()
        callout_init(c, 1)
        callout_reset(c, HOUR, ignore, None)

        def move() -> None:
            callout_reset_on(c, HOUR, ignore, None, 1)
            if not armed:
                callout_stop(c)

        if not armed:
            callout_stop(c)
        lock = contended(vm, 0)
        lock.meanwhile = move
        with suppress(BusyError):
            OPERATIONS[name](vm, c)
        vm.settle()
        vm.check()

        assert lock.meanwhile is None
        for cpu in vm.machine.cpus:
            assert not cpu.lock._is_owned()

            cpu.wheel.check()
            check_cpu(cpu)


@pytest.mark.parametrize("where", [0, 1])
def test_two_cpus_are_locked_in_the_order_of_their_numbers(where: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever CPU a callout is on and whichever it goes to, so that two that change places do not deadlock."""
    with VirtualSMP(2, free_clock=False) as vm:
        c, order = Callout(), list[str]()
        callout_init(c, 1)
        callout_reset_on(c, HOUR, ignore, None, where)
        acquire = CpuLock.acquire

        def acquire_and_note(lock: CpuLock, blocking: bool = True, /) -> bool:
            order.append(lock.name)
            return acquire(lock, blocking)

        monkeypatch.setattr(CpuLock, "acquire", acquire_and_note)
        callout_reset_on(c, HOUR, ignore, None, 1 - where)
        monkeypatch.undo()

        assert order == [cpu.lock.name for cpu in vm.machine.cpus if isinstance(cpu.lock, CpuLock)]


def test_a_lock_that_was_replaced_is_not_kept() -> None:
    """A call that waits for a CPU's lock while the system is closed is refused, and does not hold the old lock then."""
    with VirtualSMP(1, free_clock=False) as vm:
        c, cpu = Callout(), vm.machine.cpus[0]
        callout_init(c, 1)
        lock = contended(vm, 0)

        def closes() -> None:
            cpu.lock = Refusal(ClosedError, CLOSED_TEXT)

        lock.meanwhile = closes
        with pytest.raises(ClosedError):
            callout_deactivate(c)

        assert lock.holder is None

        cpu.lock = lock


def test_a_call_to_a_cpu_that_is_closing_is_run() -> None:
    """What a thread calls just before a CPU takes no more calls is run by it, and what that calls is refused."""
    with VirtualSMP(1, free_clock=False) as vm:
        (cpu,) = vm.machine.cpus
        ran: list[str] = []

        def called() -> None:
            ran.append("the call")
            with pytest.raises(ClosedError):
                cross_call(cpu, called)

        contended(vm, 0).meanwhile = lambda: cross_call(cpu, called)
        end_calls(cpu)

        assert ran == ["the call"]
