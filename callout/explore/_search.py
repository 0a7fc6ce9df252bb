"""The search itself: a run for each schedule, and a look at whether they are runs of one and the same program.

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

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from .._worlds.virtual.stacks import Stacks
from .._worlds.virtual.trail import Trail
from ._outcome import NondeterminismError
from ._reality import noticing
from ._run import Follow, Run, Scenario, Watcher, run
from ._sampling import Random
from ._schedule import Setting
from ._tree import Pruned, Tree, Walk

TWICE: Final = 4

DOES_IT: Final = "does it keep anything from one run to the next, or use the order of a set of objects?"


class Failure(NamedTuple):
    """A schedule that went wrong, and how: no more than has to be known, since the error itself keeps much alive."""

    script: dict[int, str]  # which context ran from which switch point on
    kind: type[BaseException]
    said: str

    def check(self, problem: BaseException | None) -> BaseException:
        """Return what another run of the schedule has ended in.

        Raises:
            NondeterminismError: it is no error of this kind.
        """
        if problem is not None and type(problem) is self.kind:
            return problem
        raise NondeterminismError(
            f"the scenario is not deterministic: a schedule ended in {self.said}, and run again it "
            f"{'went well' if problem is None else f'ended in {problem!r}'}; {DOES_IT}"
        ) from problem


class Found(Exception):  # noqa: N818 - it is not raised for the user
    """A schedule went wrong."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


class Told(NamedTuple):
    """What the runs of another process have come to: nothing in it need be known here to be unpickled."""

    schedules: int
    steps: int
    longest: int
    states: frozenset[str]
    ran: dict[str, int]
    script: dict[int, str]  # of the schedule that went wrong, if one did
    kind: str  # the name of its error's type
    said: str
    differs: str  # why they are no runs of one and the same program, if they are not


class Known(NamedTuple):
    """A run that went well."""

    script: list[tuple[int, str]]
    trail: Trail
    state: str
    number: int


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
        self.ran: Counter[str] = Counter()  # in how many schedules each callback has run
        self._first: Known | None = None
        self._inspected = False
        self._stacks: Stacks | None = None  # of the runs, while there are many

    def run(self, chooser: Watcher) -> Run:
        """Run a schedule. In the first it is noticed if the scenario uses what virtual CPUs do not have."""
        if self._inspected:
            return run(self._scenario, self._setting, chooser, self._max_steps, self._stacks)
        self._inspected = True
        with noticing(lambda error: chooser.platform.fail(error)):
            return run(self._scenario, self._setting, chooser, self._max_steps)

    def count(self, ended: Run) -> None:
        """Count a run."""
        self.schedules += 1
        self.longest = max(self.longest, ended.steps)
        self.states.add(ended.state)
        self.ran.update(ended.ran)

    def look_again(self, script: list[tuple[int, str]], trail: Trail, state: str) -> None:
        """Run some of the schedules twice: the first ones, then every one whose number is a power of two."""
        known = Known(script, trail, state, self.schedules)
        if self._first is None:
            self._first = known
        if self.schedules <= TWICE or not self.schedules & (self.schedules - 1):
            self._again(known)

    def look_at_the_first_again(self) -> None:
        """What any run has left behind shows now, if in no other."""
        if self._first is not None:
            self._again(self._first)

    def violation(self, script: list[tuple[int, str]], problem: BaseException) -> None:
        """Raise for a schedule that went wrong."""
        self.look_at_the_first_again()
        raise Found(Failure(dict(script), type(problem), repr(problem)))

    def told(self, failure: Failure | None, differs: str) -> Told:
        """Return what another process has to know of these runs."""
        script, kind, said = (
            ({}, "", "") if failure is None else (failure.script, failure.kind.__qualname__, failure.said)
        )
        states, ran = frozenset(self.states), dict(self.ran)
        return Told(self.schedules, self.steps, self.longest, states, ran, script, kind, said, differs)

    def add(self, told: Told) -> None:
        """Count the runs of another process, and raise what these have raised."""
        self.schedules += told.schedules
        self.steps += told.steps
        self.longest = max(self.longest, told.longest)
        self.states |= told.states
        self.ran.update(told.ran)
        if told.differs:
            raise NondeterminismError(told.differs)
        if told.kind:
            # The error has stayed there: not every one can be pickled.
            problem = run(self._scenario, self._setting, Follow(told.script), self._max_steps).problem
            same = problem is not None and type(problem).__qualname__ == told.kind
            failure = Failure(told.script, type(problem) if same and problem is not None else Found, told.said)
            failure.check(problem)
            raise Found(failure)

    def _again(self, known: Known) -> None:
        """Run a schedule that went well once more, and raise if the run is not the same."""
        follow = Follow(dict(known.script))
        ended = run(self._scenario, self._setting, follow, self._max_steps, self._stacks)
        if ended.problem is not None:
            raise NondeterminismError(
                f"the scenario is not deterministic: schedule {known.number} went well, and run again it ended in "
                f"{ended.problem!r}; {DOES_IT}"
            ) from ended.problem
        if follow.trail.points != known.trail.points:
            raise NondeterminismError(
                f"the scenario is not deterministic: {_differs_at(follow.trail, known.trail)}; {DOES_IT} It was "
                f"schedule {known.number}, run again."
            )
        if ended.state != known.state:
            raise NondeterminismError(
                f"the scenario is not deterministic: schedule {known.number} has ended with {_short(known.state)}, and "
                f"run again with {_short(ended.state)}; {DOES_IT}"
            )


class Search(Runs):
    """A depth-first search of all schedules."""

    def __init__(self, scenario: Scenario, setting: Setting, steps: int, tree: Tree) -> None:
        super().__init__(scenario, setting, steps)
        self.tree = tree
        self.before: Trail | None = None  # of the run whose choices the next one repeats

    def go(self, most: int, is_over: Callable[[], bool]) -> bool:
        """Search until a schedule goes wrong, which raises; or all is done, and return whether it is."""
        fixed = self.on(0, lambda: self.schedules >= most or is_over())
        self.look_at_the_first_again()
        return not fixed

    def on(self, fixed: int, enough: Callable[[], bool]) -> int:
        """Search on from where so many choices are given, until *enough()*; return how many are then, 0 if all is done.

        It raises when a schedule goes wrong.
        """
        tree = self.tree
        with Stacks() as self._stacks:
            while True:
                walk = Walk(tree, fixed)
                ended = self._try(walk)
                tree.learn(walk)
                if ended is not None:
                    self.look_again(tree.script(), walk.trail, ended.state)
                fixed = tree.next()
                self.before = walk.trail
                if not fixed or enough():
                    return fixed

    def _try(self, walk: Walk) -> Run | None:
        """Run one schedule; return how it ended, None if it repeats another, or raise what is to be said of it."""
        ended = self.run(walk)
        self.steps += ended.steps
        complete = not isinstance(ended.problem, Pruned)
        if complete:
            self.count(ended)
            if walk.tracks:
                walk.harvest()
        differs = self._left_over(walk)
        problem = ended.problem if complete else None
        if differs:
            text = f"the scenario is not deterministic: {differs}; {DOES_IT}"
            raise NondeterminismError(text if problem is None else f"{text} It ended in {problem!r}") from problem
        if problem is not None:
            self.violation(self.tree.script(), problem)
        return ended if complete else None

    def _left_over(self, walk: Walk) -> str:
        """Return how this run differs from the one whose choices it repeats, if it does."""
        before = self.before
        if walk.differs or before is None:
            return walk.differs
        if walk.depth < walk.fixed:
            return f"it ended after {walk.depth} choices, and with the same choices it had {walk.fixed} or more before"
        points = self.tree.nodes[walk.fixed - 1].points if walk.fixed else 0
        if walk.trail.points[:points] != before.points[:points]:
            return _differs_at(walk.trail, before)
        return ""


class Sample(Runs):
    """Schedules that are picked by chance."""

    def on(self, make: Callable[[int, int], Random], enough: Callable[[], bool]) -> None:
        """Run schedules until *enough()*; *make* makes their choosers, of a number and the length of the longest run so
        far. It raises when a schedule goes wrong.
        """
        with Stacks() as self._stacks:
            while True:
                chooser = make(self.schedules, self.longest)
                ended = self.run(chooser)
                self.steps += ended.steps
                self.count(ended)
                if ended.problem is not None:
                    self.violation(chooser.script(), ended.problem)
                self.look_again(chooser.script(), chooser.trail, ended.state)
                if enough():
                    return


def _short(state: str) -> str:
    return state if len(state) <= 200 else f"{state[:200]} ..."


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
