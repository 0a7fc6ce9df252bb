"""Cross-CPU calls, back to back and from several CPUs at once: the race in smp_call_function_many() that Anton
Blanchard reported to linux-kernel on 23 March 2010.

The kernel of 2010 had one record a CPU for its calls and used it again as soon as the last target had counted itself
out, while another target could still be looking at it. Here each call is a record of its own, so what must hold is
that each target runs each call once, with its own argument, and that who waits is woken after the last has returned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from callout._core import calls
from callout.explore import Violation, explore
from callout.testing import VirtualSMP
from callout_linux.smp import (
    _Calls,
    on_each_cpu,
    smp_call_function,
    smp_call_function_many,
    smp_call_function_single,
    smp_processor_id,
)
from tests.race.linux_history import undisturbed
from tests.race.mutants import planted

Scenario = Callable[[VirtualSMP], None]


class Calls:
    """What ran where."""

    def __init__(self, vm: VirtualSMP) -> None:
        self.vm = vm
        self.ran: list[tuple[int, str]] = []

    def func(self, info: str) -> None:
        """Be the function that is called."""
        self.vm.platform.point()
        self.ran.append((smp_processor_id(), info))

    def count(self, info: str) -> dict[int, int]:
        """Return how often the call of that name ran on each CPU."""
        cpus = [cpu for cpu, name in self.ran if name == info]
        return {cpu: cpus.count(cpu) for cpu in sorted(cpus)}


def back_to_back(vm: VirtualSMP) -> None:
    """A thread of CPU 0 makes two calls to CPU 1, one after the other, and then one that it does not wait for."""
    calls = Calls(vm)

    def send() -> None:
        for info in ("first", "second"):
            assert smp_call_function_single(1, calls.func, info, wait=True).wait_blocking() == 0
            assert calls.count(info) == {1: 1}
        smp_call_function_single(1, calls.func, "third", wait=False)

    with undisturbed(vm):
        vm.spawn(send)
    vm.settle()
    assert calls.ran == [(1, "first"), (1, "second"), (1, "third")]


def from_two_cpus(vm: VirtualSMP) -> None:
    """A thread of each CPU calls all others, and all, at the same time."""
    calls = Calls(vm)

    def send(me: int) -> None:
        other = 1 - me
        many = smp_call_function_many([0, 1], calls.func, f"many {me}", wait=True)
        every = on_each_cpu(calls.func, f"every {me}", wait=True)
        many.wait_blocking()
        assert calls.count(f"many {me}") == {other: 1}
        every.wait_blocking()
        assert calls.count(f"every {me}") == {0: 1, 1: 1}

    with undisturbed(vm):
        for cpu in (0, 1):
            vm.spawn(send, cpu, name=f"sender {cpu}", bound=cpu)
    vm.settle()
    assert len(calls.ran) == 6


def from_loops(vm: VirtualSMP) -> None:
    """A task on the loop of each CPU calls the other one, and is called meanwhile."""
    calls = Calls(vm)
    back: list[int] = []

    async def send(me: int) -> None:
        await smp_call_function(calls.func, f"from {me}", wait=True)
        assert calls.count(f"from {me}") == {1 - me: 1}
        back.append(me)

    with undisturbed(vm):
        for cpu in (0, 1):
            vm.spawn(lambda cpu=cpu: vm.run(lambda: send(cpu)), name=f"task {cpu}", cpu=cpu)
    vm.settle()
    assert sorted(back) == [0, 1]


def unawaited(vm: VirtualSMP) -> None:
    """Two threads make calls to CPU 1 that nobody waits for, in the same moment."""
    calls = Calls(vm)
    with undisturbed(vm):
        for name in ("one", "two"):
            vm.spawn(smp_call_function_single, 1, calls.func, name, False, name=name)
    vm.settle()
    assert sorted(calls.ran) == [(1, "one"), (1, "two")]


SCENARIOS: Final[dict[Scenario, tuple[int, int]]] = {
    back_to_back: (3, 30),
    from_two_cpus: (1, 100),
    from_loops: (2, 50),
    unawaited: (3, 50),
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.__name__ for scenario in SCENARIOS])
def test_each_target_runs_each_call_once(scenario: Scenario) -> None:
    """In no schedule is a call lost, run twice, run with another's argument, or said to be done before it is."""
    bound, least = SCENARIOS[scenario]
    # Where all that two CPUs do conflicts, there is little to leave out, and a plain search is quicker.
    certificate = explore(scenario, bound=bound, reduce=scenario is not from_two_cpus)

    assert certificate.exhausted
    assert certificate.schedules >= least


Mutant = tuple[Scenario, Callable[..., Any], tuple[tuple[str, str], ...]]  # Any: every function

MUTANTS: Final[dict[str, Mutant]] = {
    "the target is interrupted before the call is queued": (
        unawaited,
        calls.send,
        (
            ("cpu.machine.platform.interrupt(cpu.id)", "pass"),
            ("cpu.calls.append(thunk)", "cpu.machine.platform.interrupt(cpu.id); cpu.calls.append(thunk)"),
        ),
    ),
    "the target is not interrupted": (
        back_to_back,
        calls.send,
        (("cpu.machine.platform.interrupt(cpu.id)", "pass"),),
    ),
    "an interrupt for two calls runs one": (
        unawaited,
        calls.run_calls,
        (("range(len(cpu.calls))", "range(min(1, len(cpu.calls)))"),),
    ),
    "a call is looked at and taken in two steps": (
        back_to_back,
        calls.run_calls,
        (("thunk = cpu.calls.popleft()", "thunk = cpu.calls[0]"),),
    ),
    "a target counts itself out before it has run the function": (
        back_to_back,
        _Calls.run,
        (
            (
                "run_function(func, info)",
                "self.left and self._one_less(); run_function(func, info); self.left.append(None)",
            ),
        ),
    ),
    "the first target to return wakes the caller, which waits for all": (
        from_two_cpus,
        _Calls._one_less,
        (("not self.left", "True"),),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    """The search finds the bug."""
    scenario, function, changes = MUTANTS[name]
    with planted(function, *changes), pytest.raises(Violation):
        explore(scenario, bound=2, schedules=5_000)
