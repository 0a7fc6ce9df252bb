"""An event that is set while threads and tasks come to wait for it: none is left behind, and planted bugs are found."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Final

import pytest

from callout import Event
from callout.explore import Violation, explore
from callout.testing import VirtualSMP

from .mutants import planted

Scenario = Callable[[VirtualSMP], object]


def a_thread(vm: VirtualSMP) -> None:
    """A thread waits, another sets it."""
    event = Event()
    vm.spawn(event.set, name="setter")
    assert event.wait_sync() is True


def a_task(vm: VirtualSMP) -> None:
    """A task of a CPU waits, a thread sets it."""
    event, went = Event(), list[bool]()

    async def waiter() -> None:
        went.append(await event.wait())

    vm.spawn(waiter, cpu=0)
    vm.spawn(event.set, name="setter")
    vm.settle()
    assert went == [True]


def two_waiters_and_two_setters(vm: VirtualSMP) -> None:
    """All that wait go on, however often it is set."""
    event, went = Event(), list[bool]()

    def waiter() -> None:
        went.append(event.wait_sync())

    vm.spawn(waiter, name="one")
    vm.spawn(waiter, name="other")
    vm.spawn(event.set, name="setter")
    event.set()
    vm.settle()
    assert went == [True, True]
    assert not event._sleepers


def with_a_limit(vm: VirtualSMP) -> list[bool]:
    """The time may be over first; what the wait returns is whether the event was set."""
    event = Event()
    vm.spawn(event.set, name="setter")
    went = event.wait_sync(0.01)
    vm.settle()
    assert event.is_set()
    assert not event._sleepers
    return [went]


SCENARIOS: Final[dict[Scenario, int]] = {a_thread: 3, a_task: 3, two_waiters_and_two_setters: 2, with_a_limit: 3}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.__name__ for scenario in SCENARIOS])
def test_none_is_left_behind(scenario: Scenario) -> None:
    """In every schedule."""
    assert explore(scenario, bound=SCENARIOS[scenario]).exhausted


def test_a_wait_with_a_limit_ends_in_both_ways() -> None:
    """So the scenario above is one in which the two race."""
    states = explore(with_a_limit, bound=3).final_states
    assert {state.partition(";")[0] for state in states} == {"returned [True]", "returned [False]"}


MUTANTS: Final[dict[str, tuple[Scenario, Callable[..., object], tuple[str, str]]]] = {
    "a thread does not look again once it has lined up": (
        a_thread,
        Event._wait,
        ("if self._look() and claim(machine, sleeper):", "False and claim(machine, sleeper)"),
    ),
    "a task does not look again once it has lined up": (
        a_task,
        Event._wait,
        ("if self._look() and claim(machine, sleeper):", "False and claim(machine, sleeper)"),
    ),
    "the flag is set after the waiters were woken": (
        two_waiters_and_two_setters,
        Event.set,
        ("self._is_set = True", "pass"),
    ),
    "what has lined up stays there when it need not wait": (
        two_waiters_and_two_setters,
        Event._forget,
        ("self._sleepers.remove(sleeper)", "pass"),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    """The search finds it, in a scenario in which it finds nothing above."""
    scenario, function, change = MUTANTS[name]
    function = getattr(function, "__wrapped__", function)
    assert isinstance(function, FunctionType)
    with planted(function, change), pytest.raises(Violation):
        explore(scenario, bound=2, shrink=False)
