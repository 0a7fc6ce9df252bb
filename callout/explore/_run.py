"""One run of a scenario, under one schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from .._core.errors import ArgumentValueError
from .._worlds.virtual import records
from .._worlds.virtual.platform import VirtualPlatform
from .._worlds.virtual.scheduler import Chooser, Context, Trail
from .._worlds.virtual.vm import VirtualSMP
from ._schedule import Setting

Scenario = Callable[[VirtualSMP], object]

MAX_STEPS: Final = 20_000  # a run of more is a livelock


class Watcher(Chooser, Protocol):
    """A chooser that sees the platform."""

    platform: VirtualPlatform
    trail: Trail


@dataclass
class Run:
    """How it has ended."""

    problem: BaseException | None
    steps: int
    state: str


def run(scenario: Scenario, setting: Setting, chooser: Watcher, steps: int) -> Run:
    """Run the scenario once, with at most so many *steps*. Only KeyboardInterrupt is raised; the rest is the result."""
    taken = 0
    try:
        with VirtualSMP(
            setting.cpus, hz=setting.hz, chooser=chooser, max_steps=steps, short_paths=setting.short_paths
        ) as vm:
            platform = chooser.platform = vm.platform
            chooser.trail = platform.trail
            try:
                records.watch(vm.machine)
                main = vm.spawn(scenario, vm, name="main")
                vm.settle()
                vm.check()
                records.check_released(vm.machine)
            finally:
                taken = platform.steps
            state = vm.final_state(main)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Run(error, taken, f"violation: {type(error).__name__}")
    return Run(None, taken, state)


def _order(runnable: Sequence[Context], current: Context | None) -> list[Context]:
    """Return what could run, the one that costs nothing first: a choice is a number in this."""
    order = list(runnable)
    if current is not None:
        order.remove(current)
        order.insert(0, current)
    return order


class Script:
    """A chooser that follows a schedule, choice by choice, then goes on with the current context, or the oldest."""

    tracks: Final = True

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = choices
        self.taken: list[int] = []
        self.lanes: list[str] = []
        self.platform: VirtualPlatform
        self.trail = Trail()

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Follow the schedule."""
        order = _order(runnable, current)
        chosen = order[0]
        if len(order) > 1:
            at = len(self.taken)
            choice = self._choice(order)
            if choice >= len(order):
                raise ArgumentValueError(
                    f"replay: the schedule does not fit this scenario: its choice {at} is number {choice}, but only "
                    f"{len(order)} could run there: {', '.join(context.name for context in order)}; has the scenario "
                    "changed, or the code?",
                    call="replay",
                )
            self.taken.append(choice)
            chosen = order[choice]
        if not self.lanes or self.lanes[-1] != chosen.name:
            self.lanes.append(chosen.name)
        return chosen

    def _choice(self, order: list[Context]) -> int:
        at = len(self.taken)
        return self.choices[at] if at < len(self.choices) else 0


class Follow(Script):
    """A chooser that follows a run of another chooser: which context ran from which switch point on."""

    def __init__(self, script: dict[int, str]) -> None:
        super().__init__(())
        self.script = script

    def _choice(self, order: list[Context]) -> int:
        name = self.script.get(self.platform.steps)
        return next((number for number, context in enumerate(order) if context.name == name), 0)
