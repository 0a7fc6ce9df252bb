"""A small preemption-bounded search: every schedule of a scenario with at most so many preemptions.

Stateless: a schedule is the list of its choices, and the scenario is run from the start for each. A choice costs a
preemption if it takes the turn away from a context that could have gone on; a timer's expiry is a choice like any
other.

That is sound only if the same choices lead to the same run. So each run is compared with the one whose choices it
repeats: up to each of them the same contexts do the same, switch point by switch point, with the same locks, callouts
and waits; there the same contexts can run; and the run does not end before. And some schedules are run twice, and those
runs compared as a whole: the first ``TWICE``, then every one whose number is a power of two, and at the end the first
once more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from .._core.checks import check_int
from .._core.describe import shown
from .._core.errors import ArgumentTypeError, ArgumentValueError, CalloutError
from .._core.lifecycle import MAX_CPUS, MAX_HZ
from .._worlds.virtual import records
from .._worlds.virtual.scheduler import Context, Trail
from .._worlds.virtual.vm import VirtualSMP, check_thread

Scenario = Callable[[VirtualSMP], object]

MAX_STEPS: Final = 20_000  # a run of more is a livelock
TWICE: Final = 16
MAX_BOUND: Final = MAX_STEPS
MAX_SCHEDULES: Final = 1 << 62


class Violation(CalloutError, AssertionError):  # noqa: N818 - the field's name for it
    """A schedule went wrong; ``__cause__`` says how. ``replay(scenario, violation.schedule)`` runs it again."""

    def __init__(self, schedule: str, number: int, lanes: list[str]) -> None:
        super().__init__(f"schedule {number} went wrong; replay it with {schedule!r}; order: {' '.join(lanes)}")
        self.schedule = schedule
        self._args = schedule, number, lanes

    def __reduce__(self) -> tuple[type[Violation], tuple[str, int, list[str]]]:
        return type(self), self._args  # it may be found in another process


class NondeterminismError(CalloutError, RuntimeError):
    """The scenario did something else when it was run again with the same choices, so nothing can be said of it.

    At some switch point another thread went on, or it did something else, or the same with another lock or callout.

    Mostly it keeps something from one run to the next: a global, a cache, a class attribute. Random numbers, real time,
    real threads and the order of a set of objects do the same.
    """


@dataclass(frozen=True)
class Certificate:
    """What was explored, with nothing found."""

    schedules: int
    longest: int  # switch points
    bound: int
    exhausted: bool


class Setting(NamedTuple):
    """All that a schedule's choices depend on, besides the scenario. Its text begins the schedule."""

    cpus: int
    hz: int
    bound: int
    short_paths: bool

    def __str__(self) -> str:
        paths = "short" if self.short_paths else "long"
        return f"{VERSION},cpus={self.cpus},hz={self.hz},bound={self.bound},paths={paths}"


VERSION: Final = "v3"

# The number of choices comes last, so that nothing can be cut off.
_SCHEDULE: Final = re.compile(
    rf"{VERSION},cpus=([0-9]{{1,9}}),hz=([0-9]{{1,9}}),bound=([0-9]{{1,9}}),paths=(short|long)"
    r":((?:[0-9]{1,9}(?:\.[0-9]{1,9})*)?),choices=([0-9]{1,9})",
    re.ASCII,
)
_OLDER: Final = re.compile(r"v[0-2],", re.ASCII)


def _write(setting: Setting, taken: Sequence[int]) -> str:
    """Return the schedule with these choices; the zeros at the end go without saying."""
    length = len(taken)
    while length and not taken[length - 1]:
        length -= 1
    return f"{setting}:{'.'.join(map(str, taken[:length]))},choices={length}"


def _parse(schedule: object) -> tuple[Setting, list[int]]:
    """Return what a schedule says, or raise."""
    if not isinstance(schedule, str):
        raise ArgumentTypeError(
            f"replay: a schedule is the string that a Violation names, not {shown(schedule)}", call="replay"
        )
    match = _SCHEDULE.fullmatch(schedule)
    if match is None:
        short = schedule if len(schedule) <= 80 else f"{schedule[:77]}..."
        if _OLDER.match(schedule):
            raise ArgumentValueError(
                f"replay: {short!r} is a schedule of an older version, which this one, {VERSION}, cannot replay; "
                "explore the scenario again",
                call="replay",
            )
        raise ArgumentValueError(
            f"replay: {short!r} is not a schedule; give the string that a Violation names, whole, which is like "
            f"{_write(Setting(2, 1000, 2, short_paths=True), [0, 0, 1])!r}",
            call="replay",
        )
    cpus, hz, bound, paths, choices, count = match.groups()
    setting = Setting(
        check_int("replay: the schedule", "cpus", int(cpus), 1, MAX_CPUS),
        check_int("replay: the schedule", "hz", int(hz), 1, MAX_HZ),
        check_int("replay: the schedule", "bound", int(bound), 0, MAX_BOUND),
        paths == "short",
    )
    taken = [int(choice) for choice in choices.split(".")] if choices else []
    if len(taken) != int(count):
        raise ArgumentValueError(
            f"replay: the schedule says that it has {int(count)} choices, and it has {len(taken)}: was a part of it "
            "cut out?",
            call="replay",
        )
    if taken and not taken[-1]:
        raise ArgumentValueError(
            "replay: a schedule does not end in choices of 0: was a part of it cut out?", call="replay"
        )
    return setting, taken


class Choice(NamedTuple):
    """A point at which several contexts could run."""

    step: int  # how many switch points came before
    names: tuple[str, ...]  # the options, the one that costs nothing first
    points: int  # how long the trail was


class _Search:
    """A chooser that follows a prefix of choices, then takes the first each time, and remembers the alternatives."""

    def __init__(self, setting: Setting, prefix: Sequence[int], before: _Search | None) -> None:
        """*before*: the run in which the prefix was found; None if that is not known."""
        self.setting = setting
        self.prefix = prefix
        self.before = before
        self.trail = Trail()
        self._compared = 0  # how much of the trail
        self.differs: str | None = None  # how this run is not the one that its prefix is of
        self.taken: list[int] = []
        self.seen: list[Choice] = []
        self.preemptions = 0
        self.stays = setting.bound == 0  # no preemption is left
        self.lanes: list[str] = []
        self.step: Callable[[], int] = int

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Follow the prefix."""
        if len(runnable) == 1:
            return self._note(runnable[0])
        if current is None:
            order = list(runnable)
        elif self.stays:
            return self._note(current)
        else:
            order = [current, *runnable]
            del order[order.index(current, 1)]
        at = len(self.taken)
        here = Choice(self.step(), tuple([context.name for context in order]), len(self.trail.points))
        choice = 0
        if at < len(self.prefix):
            choice = self.prefix[at]
            if self.before is not None:
                self.differs = self._compare(self.before, at, here)
                if self.differs is not None:
                    # Let it run on: what goes wrong in it may say why it differs.
                    self.prefix = ()
                    choice = 0
            if choice >= len(order):
                raise ArgumentValueError(
                    f"replay: the schedule does not fit this scenario: its choice {at} is number {choice}, but only "
                    f"{len(order)} could run there: {', '.join(here.names)}; has the scenario changed, or the code?",
                    call="replay",
                )
        self.taken.append(choice)
        self.seen.append(here)
        if current is not None and choice:
            self.preemptions += 1
            self.stays = self.preemptions == self.setting.bound
        return self._note(order[choice])

    def _compare(self, before: _Search, at: int, here: Choice) -> str | None:
        """Return how this run differs from the one before, up to a choice that it repeats."""
        there = before.seen[at]
        mine, its = self.trail.points, before.trail.points
        if mine[self._compared : here.points] != its[self._compared : there.points]:
            return self._differs_at(before)
        self._compared = here.points
        return None if here == there else _differs(at, there, here)

    def compare_to_end(self, before: _Search) -> str | None:
        """Return how this run, which has ended, differs from one that should be the same."""
        return None if self.trail.points == before.trail.points else self._differs_at(before)

    def _differs_at(self, before: _Search) -> str:
        """Say at which switch point this run is not the same for the first time."""
        mine, its = self.trail.points, before.trail.points
        step = next((step for step, pair in enumerate(zip(mine, its, strict=False)) if pair[0] != pair[1]), None)
        if step is None:
            step = min(len(mine), len(its))
        return (
            f"the scenario is not deterministic: at switch point {step} {self.trail.tell(step)}, and in the run that "
            f"made the same choices before, {before.trail.tell(step)}; {_DOES_IT}"
        )

    def left_over(self) -> str | None:
        """Return what is known of a run that has ended: how it differs from the one whose choices it repeats."""
        if self.differs is None and len(self.prefix) > len(self.taken):
            return (
                f"the scenario is not deterministic: it ended after {len(self.taken)} choices, and with the same "
                f"choices it had {len(self.prefix)} or more before; {_DOES_IT}"
            )
        return self.differs

    def schedule(self) -> str:
        """Return the string that replays it."""
        return _write(self.setting, self.taken)

    def _note(self, context: Context) -> Context:
        if not self.lanes or self.lanes[-1] != context.name:
            self.lanes.append(context.name)
        return context


_DOES_IT: Final = "does it keep anything from one run to the next, or use the order of a set of objects?"


def _differs(at: int, before: Choice, here: Choice) -> str:
    return (
        f"the scenario is not deterministic: at choice {at} {', '.join(here.names)} could run, after {here.step} "
        f"switch points, and with the same choices before it were {', '.join(before.names)}, after {before.step}; "
        f"{_DOES_IT}"
    )


def _run(scenario: Scenario, search: _Search) -> int:
    """Run the scenario once; return how many switch points it had."""
    setting = search.setting
    with VirtualSMP(
        setting.cpus, hz=setting.hz, chooser=search, max_steps=MAX_STEPS, short_paths=setting.short_paths
    ) as vm:
        records.watch(vm.machine)
        search.step = lambda: vm.platform.steps
        search.trail = vm.platform.trail
        vm.spawn(scenario, vm, name="main")
        vm.settle()
        vm.check()
        records.check_released(vm.machine)
        return vm.platform.steps


def _check_setting(call: str, scenario: object, cpus: int, hz: int, bound: int, short_paths: object) -> Setting:
    check_thread(call, scenario)
    check_int(call, "cpus", cpus, 1, MAX_CPUS)
    check_int(call, "hz", hz, 1, MAX_HZ)
    check_int(call, "bound", bound, 0, MAX_BOUND)
    if not isinstance(short_paths, bool):
        raise ArgumentTypeError(f"{call}: short_paths must be True or False, not {shown(short_paths)}", call=call)
    return Setting(cpus, hz, bound, short_paths)


def explore(
    scenario: Scenario,
    *,
    cpus: int = 2,
    hz: int = 1000,
    bound: int = 2,
    most: int = 1_000_000,
    short_paths: bool = True,
) -> Certificate:
    """Run *scenario(vm)* under every schedule with at most *bound* preemptions, *most* of them. Blocks until done.

    The scenario is the main thread of a fresh ``VirtualSMP``; it may spawn others and ``vm.settle()``. It may be a
    coroutine function, whose awaits must be callout's own. Violations are: what leaves it, one of its threads or a
    callback; what a ``Slab`` reported, also if that was caught; a thread or task that waits for what never comes, or
    has ended with a lock held; a run without end; a CPU that is not in order when its lock is released. Without
    *short_paths* every call takes the long way: a short one is a different program, so try both.

    Raises:
        Violation: for the first schedule that goes wrong.
        NondeterminismError: the same choices did not lead to the same run.
        ArgumentTypeError, ArgumentValueError: before anything is run.
        KeyboardInterrupt: Ctrl-C ends the search.
    """
    setting = _check_setting("explore", scenario, cpus, hz, bound, short_paths)
    check_int("explore", "most", most, 1, MAX_SCHEDULES)
    first = search = _Search(setting, [], None)
    schedules = 1
    longest = _try(scenario, search, schedules)
    _try_again(scenario, search, schedules)
    while (prefix := _next(search)) and schedules < most:
        search = _Search(setting, prefix, search)
        schedules += 1
        longest = max(longest, _try(scenario, search, schedules))
        if schedules <= TWICE or not schedules & (schedules - 1):
            _try_again(scenario, search, schedules)
    _try_again(scenario, first, 1)  # what any run has left behind shows now, if in no other
    return Certificate(schedules, longest, bound, exhausted=not prefix)


def _try(scenario: Scenario, search: _Search, number: int) -> int:
    """Run one schedule; return how many switch points it had, or raise what is to be said of it."""
    problem: BaseException | None = None
    steps = 0
    try:
        steps = _run(scenario, search)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        problem = error
    differs = search.left_over()
    search.before = None  # it has one, too
    if differs is not None:
        raise NondeterminismError(differs if problem is None else f"{differs} It ended in {problem!r}") from problem
    if problem is not None:
        raise Violation(search.schedule(), number, search.lanes) from problem
    return steps


def _try_again(scenario: Scenario, search: _Search, number: int) -> None:
    """Run a schedule that went well once more, and raise if the run is not the same."""
    again = _Search(search.setting, search.taken, search)
    try:
        _try(scenario, again, number)
    except Violation as violation:
        problem = violation.__cause__
        raise NondeterminismError(
            f"the scenario is not deterministic: schedule {number} went well, and run again it ended in {problem!r}; "
            f"{_DOES_IT}"
        ) from problem
    differs = again.compare_to_end(search)
    if differs is not None:
        raise NondeterminismError(f"{differs} It was schedule {number}, run again.")


def _next(search: _Search) -> list[int]:
    """Return the choices of the next schedule up to where it parts from the last one; empty if there is none."""
    prefix = list(search.taken)
    while prefix and prefix[-1] + 1 >= len(search.seen[len(prefix) - 1].names):
        prefix.pop()
    if prefix:
        prefix[-1] += 1
    return prefix


def replay(scenario: Scenario, schedule: str) -> None:
    """Run *scenario* once, under the schedule that a ``Violation`` names. Raises what went wrong.

    The schedule names the number of CPUs, and all else that ``explore()`` was told.

    Raises:
        ArgumentTypeError, ArgumentValueError: it is no schedule; or it fits another scenario than this.
    """
    check_thread("replay", scenario)
    setting, choices = _parse(schedule)
    search = _Search(setting, choices, None)
    _run(scenario, search)
    if len(choices) > len(search.taken):
        raise ArgumentValueError(
            f"replay: the schedule does not fit this scenario: it has {len(choices)} choices, and the run ended, with "
            f"nothing wrong, after {len(search.taken)}; has the scenario changed, or the code?",
            call="replay",
        )
