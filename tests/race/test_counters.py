"""What is counted and what is traced, under every schedule: both tell of the same armings, stops and runs.

That ``pending`` is counted rightly is an invariant (``_core.invariants``), which every exploration looks at.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from callout import (
    Callout,
    Mtx,
    callout_dequeue,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_reset_on,
    callout_stop,
    callout_terminate_sync,
)
from callout._core.counters import stats
from callout._core.lifecycle import trace_with
from callout._core.trace import TraceKind
from callout.explore import explore
from callout.testing import VirtualSMP

if TYPE_CHECKING:
    from callout._core.cpu import Cpu
    from callout._core.state import Func


class Tally:
    """Counts events. It shares nothing that a schedule could depend on."""

    def __init__(self) -> None:
        self.events: Counter[TraceKind] = Counter()

    def note(
        self, kind: TraceKind, cpu: Cpu, c: Callout, func: Func | None, when: int | None, detail: str | None
    ) -> None:
        """Count it."""
        self.events[kind] += 1


def ignore(arg: object) -> None:
    """Be a callback that does nothing."""


@pytest.mark.parametrize("kind", ["no lock", "a mutex"])
def test_counters_and_events_agree(kind: str) -> None:
    """Arming, moving and stopping from two threads, while it falls due: each is counted once and told of once."""

    def scenario(vm: VirtualSMP) -> None:
        c, lock, tally = Callout(), Mtx("m"), Tally()
        if kind == "no lock":
            callout_init(c, 1)
        else:
            callout_init_mtx(c, lock)
        trace_with(vm.machine, tally)
        callout_reset(c, 1, ignore, None)

        def move() -> None:
            callout_reset_on(c, 2, ignore, None, 1)

        def stop() -> None:
            with lock:
                callout_stop(c)

        vm.spawn(move)
        vm.spawn(stop)
        vm.settle()
        total, events = stats(vm.machine).total, tally.events

        assert total.armed + total.rearmed == events[TraceKind.ARMED] + events[TraceKind.REARMED]
        assert total.migrated == events[TraceKind.MIGRATED]
        assert total.fired == events[TraceKind.STARTED] == events[TraceKind.FINISHED]
        assert events[TraceKind.STOPPED] <= total.stopped <= events[TraceKind.STOPPED] + 1
        assert events[TraceKind.STOPPED] + events[TraceKind.NOT_STOPPED] == 1
        assert total.pending == 0

    explore(scenario, cpus=2, bound=2)


def test_a_drain_is_counted_once() -> None:
    """Whether it finds the callout pending, running or idle, it is one drain; one that closes is one close, too."""

    def scenario(vm: VirtualSMP) -> None:
        c = Callout()
        callout_init(c, 1)
        callout_reset(c, 1, ignore, None)
        vm.spawn(lambda: callout_drain_sync(c))
        vm.spawn(lambda: callout_terminate_sync(c))
        vm.settle()
        total = stats(vm.machine).total

        assert (total.drained, total.closed, total.pending) == (2, 1, 0)
        assert total.fired + total.stopped == 1

    explore(scenario, cpus=2, bound=2)


def test_a_completion_that_was_promised_is_told_of() -> None:
    """Traced or not, it is called once; traced, there are two events of it."""

    def scenario(vm: VirtualSMP) -> None:
        c, other, tally = Callout(), Callout(), Tally()
        callout_init(c, 1)
        callout_init(other, 1)
        trace_with(vm.machine, tally)
        callout_reset(c, 1, ignore, None)
        calls = Counter[str]()

        def completed(which: str) -> None:
            calls[which] += 1

        def stop() -> None:
            callout_dequeue(other)
            promised = callout_drain_async(c, completed, "drained")
            vm.settle()
            assert calls["drained"] == promised

        assert other.close_soon(completed, "closed")
        vm.spawn(stop)
        vm.settle()
        events = tally.events

        assert calls["closed"] == 1
        assert events[TraceKind.COMPLETING] == events[TraceKind.COMPLETED] == calls.total()
        assert events[TraceKind.DRAINED] == events[TraceKind.CLOSED] == events[TraceKind.NOT_STOPPED] == 1

    explore(scenario, cpus=2, bound=2)
