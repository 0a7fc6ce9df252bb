"""Searching the schedules of a scenario, and running one of them again.

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

import math
import time
from collections.abc import Callable
from typing import Final, NoReturn

from .._core.checks import check_int
from .._core.describe import shown
from .._core.errors import ArgumentTypeError, ArgumentValueError
from .._core.lifecycle import MAX_CPUS, MAX_HZ
from .._worlds.virtual.scheduler import Trail
from .._worlds.virtual.vm import check_thread
from ._outcome import Certificate, NondeterminismError, Violation
from ._run import MAX_STEPS, Follow, Run, Scenario, Script, run
from ._sampling import Pct, Random
from ._schedule import Setting, name_of, parse, write
from ._tree import Pruned, Tree, Walk

TWICE: Final = 4
MAX_BOUND: Final = 1 << 30
MAX_SCHEDULES: Final = 1 << 62
STRATEGIES: Final = ("dfs", "random", "pct")
MANY: Final = 1_000_000  # schedules of a search, unless told otherwise
SOME: Final = 1000  # and of what is left to chance
FIRST_GUESS: Final = 50  # how many switch points a run has, before any was run

_DOES_IT: Final = "does it keep anything from one run to the next, or use the order of a set of objects?"


class Runs:
    """The runs of a scenario, and what is known of them."""

    def __init__(self, scenario: Scenario, setting: Setting, steps: int) -> None:
        self._scenario = scenario
        self._setting = setting
        self._max_steps = steps
        self.schedules = 0
        self.steps = 0
        self.longest = 0
        self.states: set[str] = set()
        self._first: tuple[list[tuple[int, str]], Trail] | None = None

    def count(self, ended: Run) -> None:
        """Count a run."""
        self.schedules += 1
        self.longest = max(self.longest, ended.steps)
        self.states.add(ended.state)

    def look_again(self, script: list[tuple[int, str]], trail: Trail) -> None:
        """Run some of the schedules twice: the first ones, then every one whose number is a power of two."""
        if self._first is None:
            self._first = script, trail
        if self.schedules <= TWICE or not self.schedules & (self.schedules - 1):
            self._again(script, trail, self.schedules)

    def look_at_the_first_again(self) -> None:
        """What any run has left behind shows now, if in no other."""
        assert self._first is not None
        self._again(*self._first, 1)

    def violation(self, script: list[tuple[int, str]], problem: BaseException) -> NoReturn:
        """Raise for a schedule that went wrong."""
        follow = Follow(dict(script))
        run(self._scenario, self._setting, follow, self._max_steps)
        raise Violation(write(self._setting, follow.taken), self.schedules, follow.lanes) from problem

    def _again(self, script: list[tuple[int, str]], trail: Trail, number: int) -> None:
        """Run a schedule that went well once more, and raise if the run is not the same."""
        follow = Follow(dict(script))
        ended = run(self._scenario, self._setting, follow, self._max_steps)
        if ended.problem is not None:
            raise NondeterminismError(
                f"the scenario is not deterministic: schedule {number} went well, and run again it ended in "
                f"{ended.problem!r}; {_DOES_IT}"
            ) from ended.problem
        if follow.trail.points != trail.points:
            raise NondeterminismError(
                f"the scenario is not deterministic: {_differs_at(follow.trail, trail)}; {_DOES_IT} It was schedule "
                f"{number}, run again."
            )


class Search(Runs):
    """A depth-first search of all schedules."""

    def __init__(self, scenario: Scenario, setting: Setting, steps: int, tree: Tree) -> None:
        super().__init__(scenario, setting, steps)
        self._tree = tree
        self._before: Walk | None = None

    def go(self, most: int, end: float) -> bool:
        """Search until a schedule goes wrong, which raises; or all is done, and return whether it is."""
        tree = self._tree
        fixed = 0
        while True:
            walk = Walk(tree, fixed)
            complete = self._try(walk)
            tree.learn(walk)
            if complete:
                self.look_again(tree.script(), walk.trail)
            fixed = tree.next()
            if not fixed or self.schedules >= most or time.monotonic() > end:
                break
            self._before = walk
        self.look_at_the_first_again()
        return not fixed

    def _try(self, walk: Walk) -> bool:
        """Run one schedule; return whether it was no repetition of another, or raise what is to be said of it."""
        ended = run(self._scenario, self._setting, walk, self._max_steps)
        self.steps += ended.steps
        complete = not isinstance(ended.problem, Pruned)
        if complete:
            self.count(ended)
            if walk.tracks:
                walk.harvest()
        differs = self._left_over(walk)
        problem = ended.problem if complete else None
        if differs:
            text = f"the scenario is not deterministic: {differs}; {_DOES_IT}"
            raise NondeterminismError(text if problem is None else f"{text} It ended in {problem!r}") from problem
        if problem is not None:
            self.violation(self._tree.script(), problem)
        return complete

    def _left_over(self, walk: Walk) -> str:
        """Return how this run differs from the one whose choices it repeats, if it does."""
        before = self._before
        if walk.differs or before is None:
            return walk.differs
        if walk.depth < walk.fixed:
            return f"it ended after {walk.depth} choices, and with the same choices it had {walk.fixed} or more before"
        points = self._tree.nodes[walk.fixed - 1].points if walk.fixed else 0
        if walk.trail.points[:points] != before.trail.points[:points]:
            return _differs_at(walk.trail, before.trail)
        return ""


class Sample(Runs):
    """Schedules that are picked by chance."""

    def go(self, most: int, end: float, make: Callable[[int, int], Random]) -> None:
        """Run *most* schedules; *make* makes their choosers, of a number and the length of the longest run so far."""
        while self.schedules < most and not (self.schedules and time.monotonic() > end):
            chooser = make(self.schedules, self.longest)
            ended = run(self._scenario, self._setting, chooser, self._max_steps)
            self.steps += ended.steps
            self.count(ended)
            if ended.problem is not None:
                self.violation(chooser.script(), ended.problem)
            self.look_again(chooser.script(), chooser.trail)
        self.look_at_the_first_again()


def _differs_at(here: Trail, there: Trail) -> str:
    """Say at which switch point two runs are not the same for the first time."""
    mine, its = here.points, there.points
    step = next((step for step, pair in enumerate(zip(mine, its, strict=False)) if pair[0] != pair[1]), None)
    if step is None:
        step = min(len(mine), len(its))
    return (
        f"at switch point {step} {here.tell(step)}, and in the run that made the same choices before, "
        f"{there.tell(step)}"
    )


def explore(
    scenario: Scenario,
    *,
    cpus: int = 2,
    hz: int = 1000,
    bound: int | None = 3,
    strategy: str = "dfs",
    reduce: bool = True,
    cells_only: bool = False,
    depth: int = 4,
    seed: int = 0,
    schedules: int | None = None,
    seconds: float | None = None,
    steps: int = MAX_STEPS,
    short_paths: bool = True,
) -> Certificate:
    """Run *scenario(vm)* under every schedule with at most *bound* preemptions, or *schedules* of them. Blocks until
    done.

    The scenario is the main thread of a fresh ``VirtualSMP``; it may spawn others and ``vm.settle()``. It may be a
    coroutine function, whose awaits must be callout's own. Violations are: what leaves it, one of its threads or a
    callback; what a ``Slab`` reported, also if that was caught; a thread or task that waits for what never comes, or
    has ended with a lock held; a run without end; a CPU that is not in order when its lock is released. Without
    *short_paths* every call takes the long way: a short one is a different program, so try both.

    With *reduce*, of schedules that differ only in the order of steps which have nothing to do with each other, some
    are left out. *cells_only* says that threads and callbacks share nothing but locks, callouts, what these guard, and
    what ``vm.cell()`` and ``vm.struct()`` have made: then more are. *bound* None is no bound. The search ends after
    *schedules* (1,000,000 unless given) or *seconds*, too; a run of more than *steps* switch points is a livelock.

    *strategy* "random" lets any context go on at each switch point; "pct" has random priorities, for bugs that need
    *depth* steps in a certain order. Both run 1,000 *schedules* unless told otherwise, the same for the same *seed*.

    Raises:
        Violation: for the first schedule that goes wrong.
        NondeterminismError: the same choices did not lead to the same run.
        ArgumentTypeError, ArgumentValueError: before anything is run.
        KeyboardInterrupt: Ctrl-C ends the search.
    """
    check_thread("explore", scenario)
    check_int("explore", "cpus", cpus, 1, MAX_CPUS)
    check_int("explore", "hz", hz, 1, MAX_HZ)
    if bound is not None:
        check_int("explore", "bound", bound, 0, MAX_BOUND)
    if strategy not in STRATEGIES:
        raise ArgumentValueError(
            f"explore: strategy must be one of {', '.join(map(repr, STRATEGIES))}, not {shown(strategy)}",
            call="explore",
        )
    check_int("explore", "depth", depth, 1, MAX_BOUND)
    check_int("explore", "seed", seed, 0, MAX_SCHEDULES)
    if schedules is not None:
        check_int("explore", "schedules", schedules, 1, MAX_SCHEDULES)
    check_int("explore", "steps", steps, 1, MAX_SCHEDULES)
    for what, value in (("reduce", reduce), ("cells_only", cells_only), ("short_paths", short_paths)):
        if not isinstance(value, bool):
            raise ArgumentTypeError(f"explore: {what} must be True or False, not {shown(value)}", call="explore")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
        raise ArgumentTypeError(f"explore: seconds must be a number or None, not {shown(seconds)}", call="explore")
    if seconds is not None and not seconds > 0:
        raise ArgumentValueError(f"explore: seconds must be more than 0, not {seconds}", call="explore")
    setting = Setting(cpus, hz, short_paths, name_of(scenario))
    begun = time.monotonic()
    end = math.inf if seconds is None else begun + seconds
    exhausted = False
    runs: Search | Sample
    if strategy == "dfs":
        runs = Search(scenario, setting, steps, Tree(bound, reduces=reduce, world=not cells_only))
        exhausted = runs.go(schedules or MANY, end)
    else:
        runs = Sample(scenario, setting, steps)

        def chooser(number: int, longest: int) -> Random:
            if strategy == "random":
                return Random(seed + number, bound)
            return Pct(seed + number, depth, longest or FIRST_GUESS)

        runs.go(schedules or SOME, end, chooser)
    return Certificate(
        schedules=runs.schedules,
        longest=runs.longest,
        bound=None if strategy == "pct" else bound,
        exhausted=exhausted,
        strategy=strategy,
        reduced=reduce and strategy == "dfs",
        steps=runs.steps,
        seconds=time.monotonic() - begun,
        final_states=frozenset(runs.states),
        seed=None if strategy == "dfs" else seed,
    )


def replay(scenario: Scenario, schedule: str) -> None:
    """Run *scenario* once, under the schedule that a ``Violation`` names. Raises what went wrong.

    The schedule names the number of CPUs, and all else that ``explore()`` was told.

    Raises:
        ArgumentTypeError, ArgumentValueError: it is no schedule; or it fits another scenario than this.
    """
    check_thread("replay", scenario)
    setting, choices = parse(schedule)
    name = name_of(scenario)
    if setting.name != name:
        raise ArgumentValueError(
            f"replay: the schedule is one of the scenario {setting.name!r}, and this is {name!r}", call="replay"
        )
    script = Script(choices)
    ended: Run = run(scenario, setting, script, MAX_STEPS)
    if ended.problem is not None:
        raise ended.problem
    if len(choices) > len(script.taken):
        raise ArgumentValueError(
            f"replay: the schedule does not fit this scenario: it has {len(choices)} choices, and the run ended, with "
            f"nothing wrong, after {len(script.taken)}; has the scenario changed, or the code?",
            call="replay",
        )
