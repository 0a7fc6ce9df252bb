"""Timers that start tasks: what any thread does to one while it fires, runs, and as its task ends; and planted bugs are
found.

The runs are tasks of a virtual CPU, which let others have a turn in their middle; all else is what ships.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from callout import ResetResult, TimeoutTask
from callout._api.starting import Starts
from callout._core.platform import Waiter
from callout.explore import Violation, explore
from callout.testing import VirtualSMP

from .mutants import Mutant

Scenario = Callable[[VirtualSMP], object]


async def nothing() -> None:
    """Be what would be started; here ``Runs`` stands for it."""


class Run:
    """One run; *held*: it ends only when it is cancelled."""

    def __init__(self, vm: VirtualSMP, held: bool) -> None:
        self._held, self._platform = held, vm.platform
        self._cancelled: Waiter | None = None
        self._is_cancelled = False

    async def body(self) -> None:
        """Be its task."""
        if not self._held:
            await self._platform.checkpoint()
            return
        self._cancelled = self._platform.waiter()
        if not self._is_cancelled:
            await self._cancelled.wait()

    def cancel(self) -> None:
        """End it."""
        self._is_cancelled = True
        if self._cancelled is not None:
            self._cancelled.set()

    def inside(self) -> bool:
        """No run waits for itself here."""
        return False


class Runs:
    """Starts runs of one timer as tasks of CPU 0, and looks at them."""

    def __init__(self, vm: VirtualSMP, *, held: bool = False) -> None:
        self.vm = vm
        self.held = held
        self.starts = Starts(vm, 0, self._start)
        self.task = self.starts.new(nothing, (), None)
        self.armed = 0  # starts that were promised
        self.prevented = 0
        self.begun = 0
        self.ended = 0
        self.last = 0  # the number of the run that stops the timer
        self.over = False  # from now on none may begin

    def _start(self, task: TimeoutTask) -> Run:
        assert not self.over, "a run begins after the end"
        assert self.begun == self.ended, "two runs overlap"
        self.begun += 1
        run = Run(self.vm, self.held)
        self.vm.spawn(self._run, task, run, cpu=0, name="run")
        return run

    async def _run(self, task: TimeoutTask, run: Run) -> None:
        await run.body()
        if self.begun == self.last:
            task.stop()
        self.ended += 1
        task._ended()

    def reset(self) -> None:
        """Arm it."""
        result = self.task.reset(0.001)
        self.armed += result is ResetResult.ARMED  # else it is refused, or replaces one that was promised

    def stop(self) -> None:
        """Stop it."""
        self.prevented += bool(self.task.stop())

    def check(self) -> None:
        """Let all run, and look: every start that was promised was made, or prevented by one call."""
        self.vm.settle()
        assert self.begun == self.ended == self.armed - self.prevented
        self.check_idle()

    def check_idle(self) -> None:
        """Look: nothing is scheduled, and nothing runs."""
        assert not self.task.pending
        assert not self.task.running
        assert not self.starts.scheduled


def reset_and_reset(vm: VirtualSMP) -> str:
    """It is armed again while it fires or runs: one start for each arming that did not replace another."""
    runs = Runs(vm)
    with vm.setup():
        runs.reset()
    vm.spawn(runs.reset, name="feeder")
    runs.check()
    return f"{runs.begun} runs"


def due_and_reset(vm: VirtualSMP) -> str:
    """A start is due while a run is in progress; that ends while it is armed again, which replaces what is due."""
    runs = Runs(vm, held=True)
    with vm.setup():
        runs.reset()
    vm.settle()
    runs.held = False  # of those that follow
    runs.reset()
    vm.settle()
    assert runs.task.pending
    assert isinstance(runs.task._run, Run)
    vm.spawn(runs.task._run.cancel, name="ender")
    runs.reset()
    runs.check()
    return f"{runs.begun} runs"


def reset_reset_and_stop(vm: VirtualSMP) -> str:
    """A stop comes at any moment: what it says it has prevented does not happen, all else does."""
    runs = Runs(vm)
    with vm.setup():
        runs.reset()
    vm.spawn(runs.stop, name="stopper")
    runs.reset()
    runs.check()
    return f"{runs.begun} runs, {runs.prevented} prevented"


def drained(vm: VirtualSMP) -> str:
    """When the drain has returned nothing is scheduled and nothing runs."""
    runs = Runs(vm)
    with vm.setup():
        runs.reset()

    async def drain() -> None:
        runs.prevented += await runs.task._drain()
        assert runs.begun == runs.ended
        assert not runs.task.pending

    vm.spawn(drain, cpu=1)
    runs.check()
    return f"{runs.begun} runs"


def closed(vm: VirtualSMP) -> str:
    """After the close nothing runs, and nothing begins ever after; a run that was in progress was cancelled."""
    runs = Runs(vm, held=True)
    with vm.setup():
        runs.reset()

    async def close() -> None:
        await runs.task._aclose()
        runs.over = True
        assert runs.begun == runs.ended
        assert runs.task._async_fn is None

    vm.spawn(close, cpu=1)
    vm.spawn(runs.task.reset, 0.001, name="feeder")
    vm.settle()
    assert runs.over
    runs.check_idle()
    return f"{runs.begun} runs"


def ended(vm: VirtualSMP) -> str:
    """The nursery ends: nothing begins after that, whatever was scheduled, or due at the end of a run."""
    runs = Runs(vm)
    with vm.setup():
        runs.reset()

    def end() -> None:
        runs.starts.close()
        runs.over = True

    vm.spawn(end, name="end")
    runs.task.reset(0.001)
    vm.settle()
    assert runs.begun == runs.ended
    runs.check_idle()
    assert runs.task.reset(0) is ResetResult.REFUSED
    return f"{runs.begun} runs"


def periodic(vm: VirtualSMP) -> str:
    """A period that comes while its task runs is skipped, and counted; its own task ends it."""
    runs = Runs(vm)
    runs.last = 2
    with vm.setup():
        runs.task = runs.starts.every(0.001, None, nothing, (), None)
    vm.settle()
    assert runs.begun == runs.ended == 2
    runs.check_idle()
    return "skipped" if runs.task.missed else "all"


SCENARIOS: Final[dict[Scenario, int]] = {
    reset_and_reset: 2,
    due_and_reset: 1,
    reset_reset_and_stop: 1,
    drained: 2,
    closed: 1,
    ended: 1,
    periodic: 1,
}

# How each of them ends, in one schedule or another: so they are races.
ENDS: Final[dict[Scenario, set[str]]] = {
    reset_and_reset: {"1 runs", "2 runs"},
    due_and_reset: {"2 runs", "3 runs"},
    reset_reset_and_stop: {
        "0 runs, 1 prevented",
        "1 runs, 0 prevented",
        "1 runs, 1 prevented",
        "2 runs, 0 prevented",
    },
    drained: {"0 runs", "1 runs"},
    closed: {"0 runs", "1 runs"},
    ended: {"0 runs", "1 runs", "2 runs"},
    periodic: {"all", "skipped"},
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.__name__ for scenario in SCENARIOS])
def test_no_start_is_lost_or_made_twice(scenario: Scenario) -> None:
    """In every schedule, and each of the ends that the scenario can have comes about in one."""
    found = explore(scenario, bound=SCENARIOS[scenario])

    assert found.exhausted
    assert {state.partition(";")[0] for state in found.final_states} == {f"returned {end!r}" for end in ENDS[scenario]}


MUTANTS: Final = (
    (
        reset_and_reset,
        Mutant("a run begins while another is in progress", TimeoutTask._fire, "self._run is None", "True"),
    ),
    (
        reset_and_reset,
        Mutant("what is due is lost at the end of the run", TimeoutTask._ended, "self._due is not None", "False"),
    ),
    (
        due_and_reset,
        Mutant(
            "an arming that replaces what is due leaves it there", TimeoutTask._arm, "self._due is not None", "False"
        ),
    ),
    (
        reset_reset_and_stop,
        Mutant("a stop leaves what is due", TimeoutTask._unschedule, "self._due = None", "pass"),
    ),
    (
        reset_reset_and_stop,
        Mutant(
            "a stop does not tell that it has removed what was due",
            TimeoutTask._unschedule,
            "self._due is not None",
            "False",
        ),
    ),
    (drained, Mutant("a drain waits for nothing", TimeoutTask._drain, "self._run is None", "True")),
    (drained, Mutant("a drain stops nothing", TimeoutTask._drain, "self._unschedule()", "False")),
    (closed, Mutant("a close does not cancel", TimeoutTask._aclose, "run.cancel()", "pass")),
    (closed, Mutant("a close leaves it open", TimeoutTask._aclose, "self._closed = True", "pass")),
    (
        closed,
        Mutant("a close looks at the run without the lock", TimeoutTask._aclose, "self._starts.lock", "suppress()"),
    ),
    (
        ended,
        Mutant(
            "the end of the nursery goes past what is due",
            TimeoutTask._fire,
            "self._due = from_ns(c.time + starts.machine.epoch)",
            "self._due = 0.0; starts.scheduled.pop(self)",
        ),
    ),
    (ended, Mutant("the end of the nursery leaves it open", Starts.close, "self.open = False", "pass")),
    (ended, Mutant("an arming does not ask the nursery", TimeoutTask._arm, "not starts.open", "False")),
    (ended, Mutant("an arming acquires no lock", TimeoutTask._arm, "starts.lock", "suppress()")),
)


@pytest.mark.parametrize(("scenario", "mutant"), MUTANTS, ids=[str(mutant) for _, mutant in MUTANTS])
def test_a_planted_bug_is_found(scenario: Scenario, mutant: Mutant) -> None:
    """The search finds it, in a scenario in which it finds nothing above."""
    with mutant.planted(), pytest.raises(Violation):
        explore(scenario, bound=SCENARIOS[scenario], shrink=False)
