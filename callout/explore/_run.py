"""One run of a scenario, under one schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from .._core.describe import counted
from .._core.errors import ArgumentValueError, LeakError
from .._core.machine import Machine
from .._worlds.virtual import records
from .._worlds.virtual.context import Context
from .._worlds.virtual.platform import VirtualPlatform
from .._worlds.virtual.scheduler import Chooser
from .._worlds.virtual.stacks import Stacks
from .._worlds.virtual.trail import Trail
from .._worlds.virtual.vm import VirtualSMP
from ..testing._slab import leaked
from ._results import Results
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
    ran: frozenset[str] = frozenset()  # the callbacks and completions that have begun


def run(scenario: Scenario, setting: Setting, chooser: Watcher, steps: int, stacks: Stacks | None = None) -> Run:
    """Run the scenario once, with at most so many *steps*. Only KeyboardInterrupt is raised; the rest is the result.

    Many runs are quicker with *stacks* that they share.
    """
    taken = 0
    try:
        with VirtualSMP(
            setting.cpus, hz=setting.hz, chooser=chooser, max_steps=steps, short_paths=setting.short_paths
        ) as vm:
            script = chooser if isinstance(chooser, Script) else None
            if script is not None:
                script.vm = vm
            platform = chooser.platform = vm.platform
            if stacks is not None:
                platform.stacks = stacks
            chooser.trail = platform.trail
            results = Results(vm.machine) if setting.results else None
            try:
                records.watch(vm.machine)
                main = vm.spawn(scenario, vm, name="main")
                with nullcontext() if results is None else results.watching():
                    vm.settle()
                if script is not None:
                    script.settled()
                vm.check()
                records.check_released(vm.machine)
                if setting.leaks:
                    _check_leaks(vm.machine)
                if results is not None:
                    results.check()
            finally:
                taken = platform.steps
            state = vm.final_state(main)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Run(error, taken, f"violation: {type(error).__name__}")
    return Run(None, taken, state, frozenset(vm.ran))


def _check_leaks(machine: Machine) -> None:
    """Raise LeakError if an object of a slab was allocated here and not freed."""
    left = leaked(machine)
    if left:
        more = f", and {counted(len(left) - 1, 'other')}" if left[1:] else ""
        raise LeakError(
            f"everything has ended, and {left[0]} was never freed{more}; if that is right, explore with leaks=False"
        )


class Moment(NamedTuple):
    """How far a run has come."""

    choices: int  # where there was one
    blocks: int
    preemptions: int
    steps: int


class Block(NamedTuple):
    """Steps of one context that follow one another."""

    name: str  # of the context
    steps: int | None  # None: until it cannot go on


def _order(runnable: Sequence[Context], current: Context | None) -> list[Context]:
    """Return what could run, the one that costs nothing first: a choice is a number in this."""
    order = list(runnable)
    if current is not None:
        order.remove(current)
        order.insert(0, current)
    return order


class Script:
    """A chooser that follows a schedule, choice by choice, then goes on with the current context, or the oldest.

    It notes what is chosen, and how far the run had come when each of its errors happened: what follows an error is
    the end of the run, and no part of its story.
    """

    tracks: Final = True

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = choices
        self.taken: list[int] = []
        self.lanes: list[str] = []
        self.blocks: list[Block] = []
        self.preemptions = 0
        self.steps = 0
        self.vm: VirtualSMP
        self.platform: VirtualPlatform
        self.trail = Trail()
        self._moments: dict[int, Moment] = {}  # by the id of the error, which the machine keeps

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Follow the schedule."""
        self.look()
        order = _order(runnable, current)
        chosen = order[0]
        if len(order) > 1:
            choice = self.choice(order)
            if choice >= len(order):
                raise ArgumentValueError(
                    f"replay: the schedule does not fit this scenario: its choice {len(self.taken)} is number "
                    f"{choice}, but only {len(order)} could run there: "
                    f"{', '.join(context.name for context in order)}; has the scenario changed, or the code?",
                    call="replay",
                )
            self.taken.append(choice)
            chosen = order[choice]
        self.steps += 1
        if self.lanes and self.lanes[-1] == chosen.name:
            steps = self.blocks[-1].steps
            assert steps is not None
            self.blocks[-1] = Block(chosen.name, steps + 1)
            return chosen
        if self.blocks and current is None:
            self.blocks[-1] = Block(self.lanes[-1], None)
        elif current is not None:
            self.preemptions += 1
        self.lanes.append(chosen.name)
        self.blocks.append(Block(chosen.name, 1))
        return chosen

    def choice(self, order: Sequence[Context]) -> int:
        """Return which of those it is to be, where there is a choice. The first costs no preemption."""
        at = len(self.taken)
        return self.choices[at] if at < len(self.choices) else 0

    def settled(self) -> None:
        """Be told that nothing can run any more. The contexts that wait still stand where they do."""

    def look(self) -> None:
        """Note what has gone wrong in the step before."""
        vm = self.vm
        for errors in (vm.platform.errors, vm.errors, vm.machine.faults or ()):
            for error in errors:
                if id(error) not in self._moments:
                    self._moments[id(error)] = self._now()

    @property
    def has_failed(self) -> bool:
        """Whether anything has gone wrong so far."""
        return bool(self._moments)

    def _now(self) -> Moment:
        return Moment(len(self.taken), len(self.blocks), self.preemptions, self.steps)

    def moment_of(self, problem: BaseException) -> Moment:
        """Return how far the run, which has ended in *problem*, had come when that happened."""
        return self._moments.get(id(problem)) or self._now()


class Follow(Script):
    """A chooser that follows a run of another chooser: which context ran from which switch point on."""

    def __init__(self, script: dict[int, str]) -> None:
        super().__init__(())
        self.script = script

    def choice(self, order: Sequence[Context]) -> int:
        """Do what was done at this switch point."""
        name = self.script.get(self.platform.steps)
        return next((n for n, context in enumerate(order) if context.name == name), 0)
