"""A small preemption-bounded search: every schedule of a scenario with at most so many preemptions.

Stateless: a schedule is the list of its choices, and the scenario is run from the start for each. A choice costs a
preemption if it takes the turn away from somebody who could have gone on; a timer's expiry is a choice like any
other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .._core.errors import ArgumentValueError, CalloutError
from .._worlds.virtual.scheduler import Context
from ..testing import VirtualSMP

Scenario = Callable[[VirtualSMP], object]


class Violation(CalloutError, AssertionError):  # noqa: N818 - the field's name for it
    """A schedule went wrong; ``__cause__`` says how. ``replay(scenario, violation.schedule)`` runs it again."""

    def __init__(self, schedule: str, number: int, lanes: list[str]) -> None:
        super().__init__(f"schedule {number} went wrong; replay it with {schedule!r}; who ran: {' '.join(lanes)}")
        self.schedule = schedule


class NondeterminismError(CalloutError, RuntimeError):
    """The scenario did something else when it was run again with the same choices."""


@dataclass(frozen=True)
class Certificate:
    """What was explored, with nothing found."""

    schedules: int
    longest: int  # switch points
    bound: int
    exhausted: bool


class _Search:
    """A chooser that follows a prefix of choices, then takes the first each time, and remembers the alternatives."""

    def __init__(self, prefix: Sequence[int], bound: int) -> None:
        self.prefix = prefix
        self.bound = bound
        self.taken: list[int] = []
        self.options: list[int] = []
        self.preemptions = 0
        self.lanes: list[str] = []

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Follow the prefix."""
        if len(runnable) == 1:
            return self._note(runnable[0])
        if current is None:
            order = list(runnable)
        elif self.preemptions >= self.bound:
            return self._note(current)
        else:
            order = [current, *(context for context in runnable if context is not current)]
        at = len(self.taken)
        choice = self.prefix[at] if at < len(self.prefix) else 0
        if choice >= len(order):
            raise NondeterminismError(
                f"choice {at} had more options when this schedule was found: is the scenario deterministic?"
            )
        self.taken.append(choice)
        self.options.append(len(order))
        if current is not None and choice:
            self.preemptions += 1
        return self._note(order[choice])

    def schedule(self) -> str:
        """Return the bound, which decides where there is a choice, and the choices without the zeros at the end."""
        taken = self.taken
        while taken and not taken[-1]:
            taken = taken[:-1]
        return f"{self.bound}:{'.'.join(map(str, taken))}"

    def _note(self, context: Context) -> Context:
        if not self.lanes or self.lanes[-1] != context.name:
            self.lanes.append(context.name)
        return context


def _run(scenario: Scenario, search: _Search, cpus: int, hz: int) -> int:
    with VirtualSMP(cpus, hz=hz, chooser=search, max_steps=20_000) as vm:
        vm.spawn(scenario, vm, name="main")
        vm.settle()
        vm.check()
        return vm.platform.steps


def explore(scenario: Scenario, *, cpus: int = 2, hz: int = 1000, bound: int = 2, most: int = 1_000_000) -> Certificate:
    """Run *scenario(vm)* under every schedule with at most *bound* preemptions. Blocks until done.

    The scenario is the main thread of a fresh ``VirtualSMP``; it may spawn others and ``vm.settle()``. Its
    exceptions, those of its threads and callbacks, deadlocks and livelocks are violations.

    Raises:
        Violation: for the first schedule that goes wrong.
    """
    prefix: list[int] = []
    schedules = longest = 0
    while schedules < most:
        search = _Search(prefix, bound)
        schedules += 1
        try:
            longest = max(longest, _run(scenario, search, cpus, hz))
        except NondeterminismError:
            raise
        except Exception as error:
            raise Violation(search.schedule(), schedules, search.lanes) from error
        prefix = search.taken
        while prefix and prefix[-1] + 1 >= search.options[len(prefix) - 1]:
            prefix.pop()
        if not prefix:
            return Certificate(schedules, longest, bound, exhausted=True)
        prefix[-1] += 1
    return Certificate(schedules, longest, bound, exhausted=False)


def replay(scenario: Scenario, schedule: str, *, cpus: int = 2, hz: int = 1000) -> None:
    """Run *scenario* once, under the schedule that a ``Violation`` names. Raises what went wrong."""
    bound, _, choices = schedule.partition(":")
    try:
        search = _Search([int(choice) for choice in choices.split(".") if choice], int(bound))
    except ValueError:
        raise ArgumentValueError(
            f"replay: {schedule!r} is not a schedule; give the string that a Violation names"
        ) from None
    _run(scenario, search, cpus, hz)
