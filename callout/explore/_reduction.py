"""Partial-order reduction: which other schedules are worth running, learned from one that was run.

Two steps of different contexts *conflict* if they use the same thing and not both read it. Schedules that order all
conflicting steps alike are equivalent: they lead to the same state, and one of them is enough. So after a run each pair
of conflicting steps that nothing else has ordered, a *race*, is looked at, and a branch is added where the later
context can go first. What disables a context, because it acquires its lock, has its loop or stops its timer, is a race
as well, though that context may never use the thing.

Without a bound this is the source-set algorithm with sleep sets, and no two runs are equivalent as long as nothing is
disabled. With a bound on preemptions an equivalent schedule may cost more than the one that is looked for. So a branch
is also added where the turn was last passed on, where it costs nothing, and there are no sleep sets.

Source: Flanagan and Godefroid, Dynamic Partial-Order Reduction, POPL 2005; Abdulla, Aronis, Jonsson and Sagonas,
Optimal Dynamic Partial Order Reduction, POPL 2014; Coons, Musuvathi and McKinley, Bounded Partial-Order Reduction,
OOPSLA 2013.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from .._worlds.virtual.footprints import QUIET, READS, RELEASES, TRIES, WRITES, Footprint

USES: Final = READS | WRITES
NONE: Final[list[int]] = []  # stays empty

# Steps, the last one first, each with those before it: what it was before a step costs nothing to keep.
Steps = tuple[int, "Steps"] | tuple[()]


def _late(steps: Steps, who: list[int], clock: list[int]) -> list[int]:
    """Return those of *steps* that do not come before *clock*."""
    late = []
    while steps:
        step, steps = steps
        if clock[who[step]] < step:
            late.append(step)
    return late


def conflict(one: Footprint, other: Footprint) -> bool:
    """Return whether the order of two steps may matter."""
    if len(other) < len(one):
        one, other = other, one
    for thing, how in one.items():
        too = other.get(thing)
        if too is not None and (how | too) & (WRITES | RELEASES) and not how == too == RELEASES:
            return True
    return QUIET in one or QUIET in other


class _Thing:
    """What has used a thing so far."""

    __slots__ = ("reads", "releases", "wrote")

    def __init__(self) -> None:
        self.wrote = -1  # the step that wrote it last
        self.reads: Steps = ()  # the steps that have read it since
        self.releases: Steps = ()  # and those that have released it


def _join(clock: list[int], other: list[int]) -> None:
    """Have *clock* come after *other*."""
    for at, latest in enumerate(other):
        if latest > clock[at]:  # noqa: PLR1730 - max() would take twice the time
            clock[at] = latest


class Order:
    """The happens-before relation of a run, as vector clocks; it grows step by step."""

    def __init__(self) -> None:
        self.who: list[int] = []  # which context has made each step, by number
        self.contexts: list[str] = []  # their names
        self.nth: list[int] = []  # which of its context's steps each is
        self.races: list[list[int]] = []  # for each step, those that it races with, all earlier
        # For each step, the releases without which it could not have come there. To come sooner means to wait for them,
        # and that costs no preemption.
        self.waits: list[list[int]] = []
        self.digest = 0  # of the relation so far: the same for equivalent runs, in whatever process
        self._numbers: dict[str, int] = {}
        self._sums: list[int] = []  # of the contexts' names; hash() of a str is another one in each process
        self._clocks: list[list[int]] = []  # after each step: the last step of each context that comes before, or is it
        self._now: list[list[int]] = []  # of each context; one that it has not heard of is missing at the end
        self._last: list[list[int]] = []  # the steps of each context
        self._marks: list[int] = []  # what each step adds to the digest
        self._things: dict[int, _Thing] = {}
        self._undo: list[list[tuple[_Thing, int, Steps, Steps]]] = []  # what the things were before each step

    def cut(self, length: int) -> None:
        """Forget all but the first *length* steps."""
        while len(self.who) > length:
            me = self.who.pop()
            for thing, wrote, reads, releases in self._undo.pop():
                thing.wrote, thing.reads, thing.releases = wrote, reads, releases
            nth = self.nth.pop()
            self.races.pop()
            self.waits.pop()
            self._clocks.pop()
            self.digest = (self.digest - self._marks.pop()) & 0xFFFF_FFFF_FFFF_FFFF
            latest = self._last[me]
            latest.pop()
            assert len(latest) == nth
            self._now[me] = self._clocks[latest[-1]] if latest else [-1] * len(self.contexts)

    def add(self, name: str, foot: Footprint) -> None:
        """Add a step of that context."""
        me = self._numbers.get(name)
        if me is None:
            me = self._numbers[name] = len(self.contexts)
            self.contexts.append(name)
            self._sums.append(crc32(name.encode()))
            self._now.append([-1] * (me + 1))
            self._last.append([])
        step = len(self.who)
        who, clocks, things = self.who, self._clocks, self._things
        who.append(me)
        mine = self._now[me]
        clock = mine + [-1] * (len(self.contexts) - len(mine))
        if QUIET in foot:
            for its in self._now:
                _join(clock, its)
        undo: list[tuple[_Thing, int, Steps, Steps]] = []
        found: set[int] = set()
        soft: set[int] = set()
        for number, how in foot.items():
            thing = things.get(number)
            if thing is None:
                things[number] = thing = _Thing()
            wrote, reads, releases = thing.wrote, thing.reads, thing.releases
            undo.append((thing, wrote, reads, releases))
            # In the order in which the step came to the things: what it acquires first orders the rest.
            rivals: list[int] = []
            if reads and how & (WRITES | RELEASES):
                rivals += _late(reads, who, clock)
            if wrote >= 0 and how & USES and clock[who[wrote]] < wrote:
                rivals.append(wrote)
            if rivals:
                found.update(rivals)
            if releases and how & USES:
                late = _late(releases, who, clock)
                (found if how & TRIES else soft).update(late)
                rivals += late
            for rival in rivals:
                if clock[who[rival]] < rival:
                    _join(clock, clocks[rival])
            if how & WRITES:
                thing.wrote = step
                thing.reads = thing.releases = ()
            elif how & RELEASES:
                thing.releases = step, releases
                thing.reads = ()
            else:
                thing.reads = step, reads
        steps = self._last[me]
        nth = len(steps)
        steps.append(step)
        self.nth.append(nth)
        self._undo.append(undo)
        clock[me] = step
        clocks.append(clock)
        self._now[me] = clock
        self.races.append(sorted(found) if found else NONE)
        self.waits.append(sorted(soft - found) if soft else NONE)
        # What comes before a step, besides through its own context, is told by the last step of each other one.
        marks = self._marks
        heard = sorted([marks[latest] for at, latest in enumerate(clock) if latest >= 0 and at != me])
        mark = hash((self._sums[me], nth, *heard))
        marks.append(mark)
        self.digest = (self.digest + mark) & 0xFFFF_FFFF_FFFF_FFFF

    def before(self, one: int, other: int) -> bool:
        """Whether step *one* happens before the later step *other*."""
        clock = self._clocks[other]
        who = self.who[one]
        return who < len(clock) and clock[who] >= one

    def first_of(self, rival: int, step: int) -> list[str]:
        """Return the contexts that can begin a run in which *step* comes before its *rival*."""
        who, clocks = self.who, self._clocks
        first: dict[int, int] = {}
        out = []
        for each in (*(n for n in range(rival + 1, step) if not self.before(rival, n)), step):
            me = who[each]
            if me not in first:
                clock = clocks[each]
                if not any(other < len(clock) and clock[other] >= begun for other, begun in first.items()):
                    out.append(self.contexts[me])
                first[me] = each
        return out
