"""Schedules that are picked by chance: at random, or by random priorities.

A random schedule lets any context go on at each switch point. PCT, probabilistic concurrency testing, gives each
context a random priority, lets the highest go on, and lowers the priority of the running one at ``depth - 1`` random
points: a bug that needs ``depth`` steps in a certain order is found with a probability that is known. The interrupt and
the softclock of a CPU have one priority: what one of them begins the other one carries on.

Source: Burckhardt, Kothari, Musuvathi and Nagarakatte, A Randomized Scheduler with Probabilistic Guarantees of Finding
Bugs, ASPLOS 2010.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .._worlds.virtual.context import INTERRUPT, SOFTCLOCK, Context
from .._worlds.virtual.platform import VirtualPlatform
from .._worlds.virtual.trail import Trail

FIRST_GUESS: Final = 50  # how many switch points a run has, before any was run


class Random:
    """A chooser that lets any context go on, with at most so many preemptions."""

    tracks = False
    stays = False

    def __init__(self, seed: int, bound: int | None) -> None:
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._left = bound
        self.taken: list[tuple[int, str]] = []
        self.platform: VirtualPlatform
        self.trail = Trail()

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Pick one."""
        if len(runnable) == 1:
            return runnable[0]
        chosen = self._pick(runnable, current)
        if self._left is not None and current is not None and chosen is not current:
            self._left -= 1
            self.stays = not self._left
        self.taken.append((self.platform.steps, chosen.name))
        return chosen

    def _pick(self, runnable: Sequence[Context], current: Context | None) -> Context:
        if self._left == 0 and current is not None:
            return current
        return runnable[self._random.randrange(len(runnable))]

    def script(self) -> list[tuple[int, str]]:
        """Return which context went on, at each switch point where several could."""
        return self.taken


class Pct(Random):
    """A chooser that lets the context with the highest priority go on."""

    def __init__(self, seed: int, depth: int, length: int) -> None:
        """*length*: how many switch points a run may have."""
        super().__init__(seed, None)
        self._priorities: dict[str, float] = {}
        points = sorted(self._random.randrange(1, max(length, 2)) for _ in range(depth - 1))
        self._changes = [(at, -1 - number) for number, at in enumerate(points)]

    def _pick(self, runnable: Sequence[Context], current: Context | None) -> Context:
        while self._changes and self.platform.steps >= self._changes[0][0]:
            _, low = self._changes.pop(0)
            if current is not None:
                self._priorities[_lane(current)] = low
        return max(runnable, key=self._priority)

    def _priority(self, context: Context) -> float:
        lane = _lane(context)
        if lane not in self._priorities:
            self._priorities[lane] = self._random.random()
        return self._priorities[lane]


@dataclass(frozen=True)
class Choosers:
    """What makes the choosers of a sample."""

    strategy: str
    seed: int
    bound: int | None
    depth: int

    @property
    def looks_at_length(self) -> bool:
        """Whether it matters how long the longest run was."""
        return self.strategy == "pct"

    def __call__(self, number: int, longest: int) -> Random:
        """Make that of one schedule; *longest* is how long the longest run was so far."""
        if self.strategy == "random":
            return Random(self.seed + number, self.bound)
        return Pct(self.seed + number, self.depth, longest or FIRST_GUESS)


def _lane(context: Context) -> str:
    """Return what has a priority: a thread, or what a CPU does by itself."""
    return f"cpu {context.cpu}" if context.kind in (INTERRUPT, SOFTCLOCK) else context.name
