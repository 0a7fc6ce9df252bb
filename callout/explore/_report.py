"""The diagram of a run that went wrong: one column a thread or CPU, time downwards, as on kernel mailing lists.

In each lane stand the functions and lines of the user's code at which its context is, and below each line what it does
there. A loop that does the same again and again is told once. What went wrong comes last, in the lane where it
happened. Below the lanes stand the rest of the error's text, the string that replays the run, and what was searched.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Final

from .._core.describe import counted
from .._core.errors import DeadlockError
from ._diagram import ACT, CODE, FOLD, FUNCTION, STEP, WRONG, Diagram, Row
from ._shrink import Shrunk
from ._story import QUIET, Event, Place, Story

PERIOD: Final = 64  # steps: a loop of more is not recognised
REPEATS: Final = 2  # what is there so often besides the first time is folded
MAX_ROWS: Final = 400
MAX_LANES: Final = 8  # what more contexts do is told in one lane

_ADDRESS: Final = re.compile(r"\bat 0x([0-9A-Fa-f]{6,})\b")  # as in the repr of what has no other name


# -- loops -------------------------------------------------------------------------------------------------------------


def folded(events: Sequence[Event], *, values: bool = True) -> list[Event]:
    """Return the events with what is there again and again told once; without *values*, whatever was read then."""
    numbers: dict[object, int] = {}
    keys = [
        numbers.setdefault(event if values or event.wrong else event._replace(value=""), len(numbers))
        for event in events
    ]
    out: list[Event] = []
    at = 0
    while at < len(keys):
        period, times = _loop(keys, at)
        out += events[at : at + period]
        at += period
        if times:
            first, last = events[at - period], events[at - 1]
            one_lane = all(event.lane == first.lane for event in events[at - period : at])
            out.append(
                Event(
                    last.lane if one_lane else "",
                    last.place,
                    f"… {times:,} more times{'' if period == 1 else f', from {_begin(first)} on'}",
                    fold=True,
                )
            )
            at += period * times
    return out


def _begin(event: Event) -> str:
    """Say where a loop begins."""
    return f"'{event.lane} {event.text}'" if event.place is None else f"line {event.place.line}"


def _loop(keys: Sequence[int], at: int) -> tuple[int, int]:
    """Return how long what begins there is that follows again at once, and how often it does; (1, 0) if nothing is."""
    for period in range(1, min(PERIOD, (len(keys) - at) // (REPEATS + 1)) + 1):
        if keys[at] != keys[at + period]:
            continue
        body = keys[at : at + period]
        times = 0
        while keys[at + period * (times + 1) : at + period * (times + 2)] == body:
            times += 1
        if times >= REPEATS:
            return period, times
    return 1, 0


# -- rows --------------------------------------------------------------------------------------------------------------


def without_waits_for_the_end(events: Sequence[Event]) -> list[Event]:
    """Return what is worth telling: to wait, in ``vm.settle()``, until all is over is not."""
    waits = {event[:2] for event in events if event.text == QUIET}
    return [event for event in events if event.wrong or event[:2] not in waits]


def rows_of(events: Sequence[Event], lanes: Sequence[str]) -> Iterator[Row]:
    """Yield the rows: a place is told when its lane comes to it."""
    numbers = {name: number for number, name in enumerate(lanes)}
    stands: list[Place | None] = [None for _ in lanes]
    for event in events:
        lane = numbers.get(event.lane, -1)
        place = event.place
        if lane >= 0 and not event.fold:
            before, stands[lane] = stands[lane], place
            if place is not None and place != before:
                if before is None or (before.file, before.function) != (place.file, place.function):
                    yield Row(lane, FUNCTION, f"{PurePath(place.file).name}, {place.function}():")
                yield Row(lane, CODE, _line_of(place))
        if event.text:
            text = f"{event.text} {event.value}".rstrip()
            kind = WRONG if event.wrong else FOLD if event.fold else STEP if place is not None else ACT
            yield Row(lane, kind, text)


def drawn(story: Story, notes: Sequence[str]) -> Diagram:
    """Return the diagram of a story, with what is to stand below it."""
    events = without_waits_for_the_end(story.events)
    lanes = list(dict.fromkeys(event.lane for event in events if event.lane))  # as they appear
    if len(lanes) > MAX_LANES:
        events = _in_fewer_lanes(events, lanes)
    rows = list(rows_of(folded(events), lanes))
    if len(rows) > MAX_ROWS:
        rows = list(rows_of(folded(events, values=False), lanes))
    if len(rows) > MAX_ROWS:
        left = len(rows) - MAX_ROWS
        rows[MAX_ROWS // 2 : -MAX_ROWS // 2] = [Row(-1, FOLD, f"… {left:,} lines left out")]
    name = Names()
    return Diagram(
        tuple(story.headings.get(each, each) for each in lanes),
        tuple(replace(row, text=name(row.text)) for row in rows),
        tuple(map(name, notes)),
    )


class Names:
    """Gives what is called by its address in memory a number, in the order of the texts: so a report is the same in any
    process.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, text: str) -> str:
        return _ADDRESS.sub(lambda at: f"at #{self._numbers.setdefault(at[1], len(self._numbers) + 1)}", text)


def _in_fewer_lanes(events: Sequence[Event], lanes: list[str]) -> list[Event]:
    """Return the events with those of most lanes in one, and replace *lanes* by those that there are then."""
    wrong = dict.fromkeys(event.lane for event in reversed(events) if event.wrong and event.lane)
    keep = set([*wrong, *(name for name in lanes if name not in wrong)][: MAX_LANES - 1])
    rest = f"{len(lanes) - len(keep):,} others"
    lanes[:] = [*(name for name in lanes if name in keep), rest]
    return [
        event
        if event.lane in keep or not event.lane
        else event._replace(lane=rest, place=None, text=f"{event.lane}: {event.text or _line_of(event.place)}")
        for event in events
    ]


def _line_of(place: Place | None) -> str:
    return "" if place is None else f"{place.line}: {linecache.getline(place.file, place.line).strip()}".rstrip()


def notes_of(problem: BaseException, schedule: str, shrunk: Shrunk, number: int) -> Iterator[str]:
    """Yield what stands below: the rest of the error's text, the schedule, and what was done to find it."""
    if isinstance(problem, DeadlockError) or "\n" in str(problem):
        yield from str(problem).splitlines()
    yield f"replay: {schedule}"
    yield (
        f"{counted(shrunk.preemptions, 'preemption')}, {counted(shrunk.steps, 'step')}; schedule {number} went wrong, "
        f"and was shrunk in {counted(shrunk.runs, 'run')}"
    )
    kind = type(problem).__name__
    fewer = f"with fewer preemptions ends in {kind}"
    searched = counted(shrunk.schedules, "schedule")
    if not shrunk.preemptions:
        yield "minimal: it takes no preemption"
    elif shrunk.minimal:
        yield f"minimal: no schedule {fewer}; that search was exhausted after {searched}"
    else:
        yield f"not shown to be minimal: the search for one {fewer} ended after {searched}"
