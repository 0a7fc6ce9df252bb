"""How a run ends: what is wrong then, whatever the scenario makes of it; and that it does end."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from callout import LeakError, LivelockError, LockError, LockNotHeldError, UseAfterFree
from callout.explore import NondeterminismError, Violation, explore, replay
from callout.testing import Slab, VirtualSMP

from .test_reduction import Scenario


def cause(scenario: Scenario, *, steps: int = 1000) -> BaseException | None:
    """Return what goes wrong with a scenario."""
    with pytest.raises(Violation) as caught:
        explore(scenario, cpus=1, steps=steps)
    return caught.value.__cause__


# -- what is never returned --------------------------------------------------------------------------------------------


class Thing:
    """An object of a slab."""


def leaks(vm: VirtualSMP) -> None:
    """Allocate two objects and free one."""
    slab: Slab[Thing] = Slab("thing")
    slab.alloc(Thing)
    slab.free(slab.alloc(Thing))


def test_a_leak_is_an_error() -> None:
    """Unless it was said that it is none; and the same when the schedule is replayed."""
    with pytest.raises(Violation) as caught:
        explore(leaks)
    assert isinstance(caught.value.__cause__, LeakError)
    assert "thing 1, generation 1 (Thing), allocated by thread 'main'" in str(caught.value.__cause__)
    assert explore(leaks, leaks=False).exhausted

    with pytest.raises(LeakError):
        replay(leaks, caught.value.schedule)
    replay(leaks, caught.value.schedule, leaks=False)


def test_what_other_systems_have_allocated_is_no_leak() -> None:
    """Nor what was allocated without one."""
    slab: Slab[Thing] = Slab("thing")
    kept = slab.alloc(Thing)

    assert explore(lambda vm: vm.point()).exhausted
    slab.free(kept)


def test_a_spin_lock_that_is_never_released_is_an_error() -> None:
    """The thread that holds it has ended."""

    def scenario(vm: VirtualSMP) -> None:
        lock = vm.lock("l")
        vm.spawn(lock.acquire, name="holder")
        vm.settle()

    error = cause(scenario)
    assert isinstance(error, LockError)
    assert "holder has ended, and still holds <SpinLock 'l'" in str(error)


# -- what is caught ----------------------------------------------------------------------------------------------------


def test_a_use_without_the_lock_is_an_error_also_if_it_is_caught() -> None:
    """The cell's oracle, as the slab's."""

    def scenario(vm: VirtualSMP) -> None:
        cell = vm.cell(0, "x", guarded_by=vm.lock("l"))
        with contextlib.suppress(Exception):
            cell.value = 1

    assert isinstance(cause(scenario), LockNotHeldError)


def test_a_use_of_what_was_freed_is_an_error_also_if_it_is_caught() -> None:
    """A structure."""

    def scenario(vm: VirtualSMP) -> None:
        s = vm.struct("s", x=0)
        vm.free(s)
        with contextlib.suppress(Exception):
            s.x = 1

    assert isinstance(cause(scenario), UseAfterFree)


def test_a_thread_that_catches_everything_is_ended() -> None:
    """Also where what it calls is one of the machine's own functions."""

    def scenario(vm: VirtualSMP) -> None:
        def stubborn() -> None:
            while True:
                with contextlib.suppress(BaseException):
                    vm.point()

        vm.spawn(stubborn)

    assert isinstance(cause(scenario, steps=200), LivelockError)


# -- what a run leaves for the next ------------------------------------------------------------------------------------


def test_another_result_is_noticed() -> None:
    """The same steps, and not the same end."""
    number = itertools.count()

    with pytest.raises(NondeterminismError, match="has ended with returned 0, and run again with returned 1"):
        explore(lambda vm: next(number), cpus=1)


def test_a_failure_that_is_left_from_earlier_runs_is_no_violation() -> None:
    """What fails from the third run on fails with the first schedule as well."""
    number = itertools.count()

    def scenario(vm: VirtualSMP) -> None:
        cell = vm.cell(0, "cell")

        def thread() -> None:
            cell.value = 1

        vm.spawn(thread)
        cell.value = 2
        assert next(number) < 2

    with pytest.raises(NondeterminismError):
        explore(scenario, cpus=1)


def test_the_address_of_a_result_is_none_of_its_ends() -> None:
    """What a scenario returns by the way may be an object, with another address in each run."""
    assert explore(lambda vm: object(), cpus=1).final_states == {"returned <object object>"}
