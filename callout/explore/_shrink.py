"""The shortest schedule that goes wrong: one with the fewest preemptions, then the fewest steps.

A schedule is seen as *blocks*, each some steps of one context. A block that was preempted has so many steps; each other
one goes on until its context cannot. So a block means the same when it is moved, and a switch that costs nothing is
no decision at all. Blocks are dropped, many at once and then one by one; a preempted context goes on instead; two
blocks of one context become one, before or after what was between them; neighbours change places. What is tried is run,
and kept if it *fails in the same way* and is shorter.

To fail in the same way is to end in an error of the same type: not one like it, nor with the same text. Two mistakes
of a program that both end in ``UseAfterFree`` are one for this module, and it keeps the one that is shorter. Only what
comes before the error counts, since the rest of a run is no part of its story.

That finds a schedule from which no single change leads to a shorter one. Whether there is one with fewer preemptions
all the same is for a search to say, of all schedules with one preemption less. If it finds one, that is the result, and
shrinking goes on from there. Of the steps nothing is shown.

Source: the moves are those of delta debugging: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing
Input, IEEE Transactions on Software Engineering 2002.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .._core.errors import LivelockError
from .._worlds.virtual.context import Context
from ._outcome import NondeterminismError
from ._run import Block, Follow, Moment, Scenario, Script, run
from ._schedule import Setting
from ._search import Failure, Found, Known, Search
from ._tree import Tree

RUNS: Final = 100  # for shrinking; the search for fewer preemptions comes on top
STEPS: Final = 100_000  # of these runs together: one that never ends has as many as a run may have
SCHEDULES: Final = 5_000  # for the searches together
SECONDS: Final = 20.0  # for all of it

Blocks = tuple[Block, ...]


@dataclass(frozen=True)
class Shrunk:
    """A short schedule, and what is known of it."""

    choices: list[int]
    lanes: list[str]  # whose turn it is, block by block
    preemptions: int
    steps: int  # until it goes wrong
    runs: int  # that shrinking took
    schedules: int  # that were run to see whether fewer preemptions do
    minimal: bool  # they do not: every schedule with fewer was run, but for equivalent ones


class _TooLong(Exception):  # noqa: N818 - no error
    """The run cannot become the shortest any more."""


class Plan(Script):
    """A chooser that follows blocks, as far as they can be followed."""

    def __init__(self, plan: Blocks, limit: tuple[int, int]) -> None:
        """*limit*: so many preemptions and steps are too many."""
        super().__init__(())
        self._plan = plan
        self._limit = limit
        self._at = 0
        self._done = 0  # steps of the block
        self._wanted = ""

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Follow the blocks; skip what cannot go on."""
        names = [context.name for context in runnable]
        self._wanted = ""
        while self._at < len(self._plan):
            name, steps = self._plan[self._at]
            if name in names and (steps is None or self._done < steps):
                self._wanted = name
                break
            self._at += 1
            self._done = 0
        chosen = super().choose(runnable, current)
        if chosen.name == self._wanted:
            self._done += 1
        if not self.has_failed and (self.preemptions, self.steps) > self._limit:
            self.platform.fail(_TooLong())
        return chosen

    def choice(self, order: Sequence[Context]) -> int:
        """Return the number of the context whose block it is."""
        return next((n for n, context in enumerate(order) if context.name == self._wanted), 0)


@dataclass(frozen=True)
class _Trial:
    """A run that went wrong."""

    blocks: Blocks
    choices: list[int]
    moment: Moment

    @property
    def length(self) -> tuple[int, int, int]:
        """What makes a schedule short, the most important first."""
        return self.moment.preemptions, self.moment.steps, self.moment.blocks


def joined(blocks: Blocks) -> Blocks:
    """Return the blocks with neighbours of one context made one."""
    out: list[Block] = []
    for block in blocks:
        if out and out[-1].name == block.name:
            before = out[-1].steps
            out[-1] = Block(block.name, None if before is None or block.steps is None else before + block.steps)
        else:
            out.append(block)
    return tuple(out)


class Shrinker:
    """Tries one schedule after the other, and keeps the shortest that fails in the same way."""

    def __init__(
        self, scenario: Scenario, setting: Setting, max_steps: int, kind: type[BaseException], end: float = math.inf
    ) -> None:
        """*end*: until when there is time, by ``time.monotonic()``."""
        self._scenario = scenario
        self._setting = setting
        self._max_steps = max_steps
        self._kind = kind
        self._end = end
        self._tried: set[Blocks] = set()
        self._steps = 0
        self.runs = 0
        self.best: _Trial

    def start(self, failure: Failure) -> None:
        """Begin with that schedule.

        Raises:
            NondeterminismError: run again it does not go wrong in that way.
        """
        trial, problem = self._run(Follow(failure.script))
        if trial is None:
            failure.check(problem)
        assert trial is not None
        self.best = trial

    def shrink(self) -> None:
        """Make the best one shorter, as long as that can be done and there are runs left."""
        before = None
        while self.best is not before and self._has_runs() and self._may_be_shorter():
            before = self.best
            self._drop()
            self._run_on()
            self._move()

    def _has_runs(self) -> bool:
        return self.runs < RUNS and self._steps < STEPS and time.monotonic() < self._end

    def _may_be_shorter(self) -> bool:
        """Whether there can be a better one: each run without end is as long as a run may be."""
        return self.best.moment.preemptions > 0 or not issubclass(self._kind, LivelockError)

    def _run(self, script: Script) -> tuple[_Trial | None, BaseException | None]:
        ended = run(self._scenario, self._setting, script, self._max_steps)
        self.runs += 1
        self._steps += ended.steps
        problem = ended.problem
        if type(problem) is not self._kind:
            return None, problem
        assert problem is not None
        moment = script.moment_of(problem)
        blocks = script.blocks[: moment.blocks]
        if blocks:
            blocks[-1] = Block(blocks[-1].name, None)
        return _Trial(tuple(blocks), script.taken[: moment.choices], moment), None

    def _try(self, blocks: Blocks) -> bool:
        """Run what these blocks say; return whether that is better, and so the best now."""
        blocks = joined(blocks)
        if blocks in self._tried or not self._has_runs():
            return False
        self._tried.add(blocks)
        trial, _ = self._run(Plan(blocks, self.best.length[:2]))
        if trial is None or trial.length >= self.best.length:
            return False
        self.best = trial
        self._tried.add(trial.blocks)
        return True

    def _drop(self) -> None:
        """Leave blocks out: all of them, then half of them, and so on."""
        size = len(self.best.blocks)
        while size:
            at = len(self.best.blocks) - size
            while at >= 0:
                blocks = self.best.blocks
                self._try(blocks[:at] + blocks[at + size :])
                at = min(at, len(self.best.blocks)) - size
            size //= 2

    def _run_on(self) -> None:
        """Let what is preempted go on as long as it can."""
        at = len(self.best.blocks) - 1
        while at >= 0:
            blocks = self.best.blocks
            block = blocks[at]
            if block.steps is not None:
                self._try((*blocks[:at], Block(block.name, None), *blocks[at + 1 :]))
            at = min(at, len(self.best.blocks)) - 1

    def _move(self) -> None:
        """Move a block to the next one of its context, or that to it; or exchange neighbours."""
        at = 0
        while at < len(self.best.blocks) - 1:
            blocks = self.best.blocks
            block, after = blocks[at], blocks[at + 1 :]
            others = next((n for n, each in enumerate(after) if each.name == block.name), None)
            moved = False
            if others is not None:
                between, its, rest = after[:others], after[others], after[others + 1 :]
                moved = self._try((*blocks[:at], block, its, *between, *rest)) or self._try(
                    (*blocks[:at], *between, block, its, *rest)
                )
            moved = moved or self._try((*blocks[:at], after[0], block, *after[1:]))
            at = 0 if moved else at + 1


class _Fewer(Search):
    """A search for schedules that fail in one way."""

    def __init__(self, scenario: Scenario, setting: Setting, steps: int, tree: Tree, kind: type[BaseException]) -> None:
        super().__init__(scenario, setting, steps, tree)
        self._kind = kind
        self._inspected = True  # when it was found

    def violation(self, script: list[tuple[int, str]], problem: BaseException) -> None:
        """Go on if it is another error than what is looked for."""
        if type(problem) is self._kind:
            super().violation(script, problem)

    def _again(self, known: Known) -> None:
        """Leave that out: whether runs are repeatable was looked at when the first was found."""


def shortest(
    scenario: Scenario,
    setting: Setting,
    failure: Failure,
    *,
    steps: int,
    reduces: bool,
    world: bool,
    seconds: float | None,
) -> Shrunk:
    """Return the shortest schedule that ends in an error of the same type as one that is known.

    *reduces* and *world* are what the tree of a search takes, and
    *seconds* is how long it may take, with what a single run takes on top.

    Raises:
        NondeterminismError: the schedule did not end in such an error when it was run again.
    """
    kind = failure.kind
    end = time.monotonic() + min(SECONDS, SECONDS if seconds is None else seconds)
    shrinker = Shrinker(scenario, setting, steps, kind, end)
    shrinker.start(failure)
    shrinker.shrink()
    schedules = 0
    minimal = False
    while shrinker.best.moment.preemptions:
        if time.monotonic() > end or schedules >= SCHEDULES:
            break
        tree = Tree(shrinker.best.moment.preemptions - 1, reduces=reduces, world=world)
        search = _Fewer(scenario, setting, steps, tree, kind)
        better: Failure | None = None
        try:
            minimal = search.go(SCHEDULES - schedules, lambda: time.monotonic() > end)
        except Found as found:
            better = found.failure
        except NondeterminismError:
            break
        finally:
            schedules += search.schedules
        if better is None:
            break
        shrinker.start(better)
        shrinker.shrink()
    best = shrinker.best
    return Shrunk(
        choices=best.choices,
        lanes=[block.name for block in best.blocks],
        preemptions=best.moment.preemptions,
        steps=best.moment.steps,
        runs=shrinker.runs,
        schedules=schedules,
        minimal=minimal or not best.moment.preemptions,
    )
