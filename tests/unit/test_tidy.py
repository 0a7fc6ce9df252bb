"""A slot of the wheel is forgotten with its last callout, whichever call takes that out: nothing is swept."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest

from callout import (
    Callout,
    Mtx,
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
)
from callout.testing import VirtualSMP

FAR: Final = 3_600_000  # ticks: nothing else is in that slot


def ignore(_: object) -> None:
    """Be a callback."""


def drain(vm: VirtualSMP, c: Callout) -> None:
    """Drain it."""
    vm.run(lambda: callout_drain(c))


def terminate(vm: VirtualSMP, c: Callout) -> None:
    """Drain it for good."""
    vm.run(lambda: callout_terminate(c))


WAYS: Final[dict[str, Callable[[VirtualSMP, Callout], object]]] = {
    "stop": lambda vm, c: callout_stop(c),
    "dequeue": lambda vm, c: callout_dequeue(c),
    "dequeue for good": lambda vm, c: callout_dequeue(c, close=True),
    "drain": drain,
    "terminate": terminate,
    "drain_async": lambda vm, c: callout_drain_async(c, ignore, None),
    "async_drain": lambda vm, c: freebsd13.callout_async_drain(c, ignore),
    "reset to a near time": lambda vm, c: callout_reset(c, 1, ignore, None),
    "reset on another CPU": lambda vm, c: callout_reset_on(c, 1, ignore, None, 1),
}


def slots(vm: VirtualSMP) -> int:
    """Return how many slots CPU 0 knows."""
    wheel = vm.machine.cpus[0].wheel
    assert len(wheel._buckets) == len(wheel._keys)
    return len(wheel._buckets)


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_the_slot_of_what_is_removed_is_forgotten(way: str, short: bool) -> None:
    """Every call that takes a pending callout out of its slot forgets the slot, by the short path and the long way."""
    with VirtualSMP(2, free_clock=False, short_paths=short) as vm:
        c = Callout()
        callout_init(c, 1)
        callout_reset(c, FAR, ignore, None)
        assert slots(vm) == 1

        WAYS[way](vm, c)

        assert slots(vm) == 0


@pytest.mark.parametrize("way", ["stop", "dequeue", "drain_async", "async_drain", "reset on another CPU"])
def test_the_slot_of_a_next_run_is_forgotten(way: str) -> None:
    """The same for the next run of a callout that armed itself, called in its callback."""
    with VirtualSMP(2, free_clock=False) as vm:
        c = Callout()
        callout_init(c, 1)
        before: list[int] = []

        def again(_: None) -> None:
            callout_reset(c, FAR, ignore, None)
            before.append(slots(vm))
            WAYS[way](vm, c)
            before.append(slots(vm))

        callout_reset(c, 1, again, None)
        vm.tick()

        assert before == [1, 0]


@pytest.mark.parametrize("wait", [callout_drain, callout_terminate])
def test_the_slot_of_what_a_drain_removes_is_forgotten(wait: Callable[[Callout], Coroutine[Any, Any, int]]) -> None:
    """A next run that the end of a drained run removes leaves no slot."""
    with VirtualSMP(1, free_clock=False) as vm:
        c, mtx = Callout(), Mtx("m")
        callout_init_mtx(c, mtx)
        results: list[int] = []

        async def waits() -> None:
            results.append(await wait(c))

        with mtx:
            callout_reset(c, 1, ignore, None)
            vm.tick()  # softclock waits for the mutex
            callout_reset(c, FAR, ignore, None)
            vm.spawn(waits)
            vm.settle()
            assert slots(vm) == 1
            assert results == []
        vm.check()

        assert results == [1]
        assert slots(vm) == 0
