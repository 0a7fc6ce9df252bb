"""What was done by whom in a recording: which thread, task, callback or completion has made each call.

Of the recording a *part* is taken: the events of the callouts that share the lock of the one that it is about, or were
freed with it, from where none of them was running until it went wrong. A trace has no tasks: what a loop's thread does
outside of callbacks is taken for one task, as long as that does not wait.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Final, NamedTuple

from .._core.describe import counted
from .._core.errors import ArgumentValueError
from .._core.trace import GIANT, WITH_LOCK, TraceKind
from ._recorded import CLOSES, OF_SETS, PROMISES, WAITS, Recorded, Recording

MOST: Final = 300  # events of a part: a scenario of more is no test

FARTHEST: Final = 2**31 - 1  # ticks

ARMS: Final = frozenset({TraceKind.ARMED, TraceKind.REARMED, TraceKind.REFUSED})
OF_RUNS: Final = frozenset(
    {TraceKind.DEQUEUED, TraceKind.WAITING, TraceKind.STARTED, TraceKind.FINISHED, TraceKind.COMPLETING}
)
BEGINS: Final = frozenset({TraceKind.STARTED, TraceKind.COMPLETING})
ENDS: Final = frozenset({TraceKind.FINISHED, TraceKind.COMPLETED})
LET_ON: Final = frozenset({TraceKind.STARTED, TraceKind.WAITING, TraceKind.FINISHED, TraceKind.ERROR})

ARM: Final = "callout_reset_on"
FREE: Final = "free"


class Made(NamedTuple):
    """An event, and the context that has made it."""

    at: int  # its number
    owner: str  # the context


class Call(NamedTuple):
    """A call of one of the functions of the package, or that an object was freed."""

    at: int  # the number of its first event
    name: str
    serials: tuple[int, ...]  # of the callouts
    event: Recorded


class Body:
    """What one thread, task, run or completion has done."""

    def __init__(self, name: str, cpu: int | None = None, held: tuple[int, ...] = ()) -> None:
        self.name = name
        self.cpu = cpu  # of a task
        self.held = held  # the locks that are held all the time
        self.begin = self.end = -1  # of a run or completion, the numbers of its first event and its last
        self.calls: list[Call] = []


class Runs:
    """Which callouts are running, as far as the events tell."""

    def __init__(self) -> None:
        self._taken: set[int] = set()  # softclock has taken it, and not called its function yet: that can be cancelled
        self._called: set[int] = set()
        self._completing: set[int] = set()
        self.held_up: set[int] = set()  # CPUs whose softclock has taken a callout and neither called nor waited for it

    def __bool__(self) -> bool:
        """Whether any is, or a completion."""
        return bool(self._taken or self._called or self._completing)

    def any_of(self, serials: Iterable[int]) -> bool:
        """Whether one of these is."""
        return any(serial in self._taken or serial in self._called for serial in serials)

    def follow(self, event: Recorded) -> None:
        """Note what an event says."""
        serial = event.serial
        match event.kind:
            case TraceKind.DEQUEUED:
                self._taken.add(serial)
                if event.lock_kind is not None:
                    self.held_up.add(event.cpu)
            case TraceKind.STARTED:
                self._taken.discard(serial)
                self._called.add(serial)
            case TraceKind.STOPPED | TraceKind.REARMED:
                self._taken.discard(serial)
            case TraceKind.FINISHED | TraceKind.ERROR:
                self._taken.discard(serial)
                self._called.discard(serial)
            case TraceKind.COMPLETING:
                self._completing.add(serial)
            case TraceKind.COMPLETED:
                self._completing.discard(serial)
            case _:
                pass  # of no run
        if event.kind in LET_ON:
            self.held_up.discard(event.cpu)


class Actors:
    """The part of a recording, and who has made it."""

    def __init__(self, recording: Recording, serial: int | None, before: int) -> None:
        self.recording = recording
        self.events = recording.events
        self.about: dict[int, Recorded] = {}  # an event of each callout, that has its lock if any does
        self._functions: dict[int, str] = {}  # the last that each had
        for event in self.events:
            if event.function != "None":
                self._functions[event.serial] = event.function
            known = self.about.get(event.serial)
            if known is None or (known.lock_kind is None and event.lock_kind is not None):
                self.about[event.serial] = event
        self._loops = recording.loops
        self._focus, self.end = self._find(serial)
        self.group = self._related()
        self._latest = self._find_latest(before)
        self.begin = self._idle_before(self._latest)
        self.bodies: list[Body] = []
        self.runs: dict[int, list[Body]] = {}
        self.completions: dict[int, Body] = {}  # by the number of the event of the call that has promised it
        self.made: list[Made] = []
        while self._sort():
            pass
        self.serials = sorted({event.serial for _, event in self.part()})
        if not self.made:
            raise ArgumentValueError(
                f"incident: nothing that a scenario could do belongs to callout {self._focus} at the end of "
                f"{recording.file}; begin earlier: before=",
                call="incident",
            )
        if len(self.made) > MOST:
            raise ArgumentValueError(
                f"incident: {counted(len(self.made), 'event')} of {counted(len(self.serials), 'callout')} belong to "
                f"it, and {MOST} is the most that a scenario can have; take fewer before, or another callout",
                call="incident",
            )

    @property
    def title(self) -> str:
        """What it is about, in words."""
        last = self.events[self.end]
        function = self.function_of(self._focus)
        what = f"{last.detail} of {function}" if last.kind is TraceKind.ERROR else function
        return f"{what}, callout {self._focus} in {PurePath(self.recording.file).name}"

    def function_of(self, serial: int) -> str:
        """Return the name of the function of a callout: the last that it had."""
        return self._functions.get(serial, "callout")

    def part(self) -> Iterator[tuple[int, Recorded]]:
        """Yield its events, with their numbers."""
        for at in range(self.begin, self.end + 1):
            if self.events[at].serial in self.group:
                yield at, self.events[at]

    # -- which part ------------------------------------------------------------------------------------------------

    def _find(self, serial: int | None) -> tuple[int, int]:
        """Return the number of the callout that it is about, and that of its last event."""
        file = self.recording.file
        for at, event in enumerate(self.events):
            if event.kind is TraceKind.ERROR and serial in (None, event.serial):
                return event.serial, at
        if serial is None:
            raise ArgumentValueError(
                f"incident: nothing went wrong with any callout in {file}; say which one it is about: serial=, its "
                "number in the trace",
                call="incident",
            )
        if serial not in self.about:
            raise ArgumentValueError(f"incident: nothing has happened to a callout {serial} in {file}", call="incident")
        return serial, max(at for at, event in enumerate(self.events) if event.serial == serial)

    def _related(self) -> set[int]:
        """Return the callouts that share its lock, or were freed with it, and so on. Giant makes no relation."""
        sets: dict[object, set[int]] = defaultdict(set)
        for event in self.events:
            if event.kind is TraceKind.FREED:
                sets[freed_of(event)].add(event.serial)
            if event.lock_number is not None and event.lock_kind != GIANT:
                sets[event.lock_number].add(event.serial)
        group: set[int] = set()
        more = {self._focus}
        while more:
            group |= more
            more = {serial for related in sets.values() if related & more for serial in related} - group
        return group

    def _find_latest(self, before: int) -> int:
        """Return the number of the event that the part has to have, with all that follow."""
        mine = [at for at in range(self.end + 1) if self.events[at].serial in self.group]
        runs = [
            at for at in mine if self.events[at].serial == self._focus and self.events[at].kind is TraceKind.DEQUEUED
        ]
        wrong = self.events[self.end].kind is TraceKind.ERROR
        return mine[max(mine.index(runs[-1] if runs and wrong else self.end) - before, 0)]

    def _idle_before(self, latest: int) -> int:
        """Return the number of the last event, not after *latest*, before which none of the callouts was running."""
        runs = Runs()
        begin = None
        for at in range(latest + 1):
            if self.events[at].serial in self.group:
                if begin is None or not runs:
                    begin = at
                runs.follow(self.events[at])
        assert begin is not None
        return begin

    def pending(self) -> dict[int, tuple[int, float]]:
        """Return which callouts were pending when it begins: on which CPU, and how long before they were due, in s."""
        pending: dict[int, tuple[int, float]] = {}
        now = self.events[self.begin].time
        seen: set[int] = set()
        for event in self.events[: self.begin]:
            if event.serial in self.group:
                seen.add(event.serial)
                if event.kind in (TraceKind.ARMED, TraceKind.REARMED):
                    pending[event.serial] = event.cpu, event.time + (event.due_in or 0) - now
                elif event.kind in (TraceKind.DEQUEUED, TraceKind.STOPPED):
                    pending.pop(event.serial, None)
        for _, event in self.part():
            if event.serial not in seen and event.kind is not TraceKind.MIGRATED:
                seen.add(event.serial)
                if event.kind in (TraceKind.REARMED, TraceKind.DEQUEUED, TraceKind.STOPPED):
                    pending[event.serial] = event.cpu, 0  # it was armed before the trace begins
        return pending

    def closed(self) -> list[int]:
        """Return which callouts were closed when it begins, as far as is known."""
        closed = {event.serial for event in self.events[: self.begin] if event.kind is TraceKind.CLOSED}
        first = {event.serial: event.kind for event in reversed(self.events)}
        return [serial for serial in self.serials if serial in closed or first[serial] is TraceKind.REFUSED]

    # -- who -------------------------------------------------------------------------------------------------------

    def _sort(self) -> bool:
        """Find out who has made each event; return whether a callback was found that belongs to it, too."""
        self.bodies = []
        self.runs = defaultdict(list)
        self.completions = {}
        self.made = []
        inside: dict[int, list[tuple[int, Body]]] = defaultdict(list)  # the runs and completions in each thread
        promises: list[Call] = []
        current: dict[int, Body] = {}  # the thread or task in each thread
        runs = Runs()
        for at in range(self.end + 1):
            event = self.events[at]
            mine = at >= self.begin and event.serial in self.group
            stack = inside[event.thread]
            name = _called(event)
            if event.kind in BEGINS:
                body = Body(f"run_{at}", held=event.held)
                body.begin = at
                stack.append((event.serial, body))
                if at < self.begin:
                    pass  # of another callout, but it may do something to one of these later
                elif event.kind is TraceKind.STARTED:
                    self.runs[event.serial].append(body)
                else:
                    promise = next((each for each in promises if event.serial in each.serials), None)
                    if promise is not None:
                        promises.remove(promise)
                        self.completions[promise.at] = body
                        body.name = f"completed_{len(self.completions)}"
            owner = f"cpu{event.cpu}.interrupt" if event.direct else f"cpu{event.cpu}"
            if mine and name:
                if stack:
                    serial, body = stack[-1]
                    if serial not in self.group:
                        self.group.add(serial)
                        self.begin = self._idle_before(self._latest)
                        return True
                    loop = self._loops.get(event.thread, event.cpu)
                    owner = f"cpu{loop}.interrupt" if self.about[serial].direct else f"cpu{loop}"
                else:
                    body = self._actor(event, current, runs)
                    owner = body.name
                call = self._add(body, at, name, event)
                if name in CLOSES or (name in PROMISES and runs.any_of(call.serials)):
                    promises = [each for each in promises if each.at != call.at] + [call]
            if event.kind in ENDS and stack:
                stack.pop()[1].end = at
            if mine:
                runs.follow(event)
                if name or event.kind not in (TraceKind.STOPPED, TraceKind.CLOSED, TraceKind.MIGRATED):
                    self.made.append(Made(at, owner))
        return False

    def _actor(self, event: Recorded, current: dict[int, Body], runs: Runs) -> Body:
        """Return the thread or task that has made an event."""
        body = current.get(event.thread)
        cpu = self._loops.get(event.thread)
        if body is not None and cpu is not None and body.calls:
            last = body.calls[-1]
            if last.name in WAITS and runs.any_of((last.event.serial,)):
                body = None  # it waits still: this is another task
        if body is None:
            what = "thread" if cpu is None else f"task_on_cpu_{cpu}"
            number = sum(each.name.startswith(what) for each in self.bodies)
            body = current[event.thread] = Body(f"{what}_{number + 1}" if number else what, cpu)
            self.bodies.append(body)
        if cpu in runs.held_up:
            body.cpu = None  # something has held softclock up where it never awaits: only a thread comes in between
        return body

    def _add(self, body: Body, at: int, name: str, event: Recorded) -> Call:
        """Add a call to what *body* has done. One call for several callouts is several events."""
        last = body.calls[-1] if body.calls else None
        if (
            last is not None
            and name in (*OF_SETS, FREE)
            and (last.name, freed_of(last.event), last.event.where) == (name, freed_of(event), event.where)
            and event.serial not in last.serials
            and all(each.kind is event.kind for each in self.events[last.at : at] if each.thread == event.thread)
        ):
            body.calls[-1] = last._replace(serials=(*last.serials, event.serial))
        else:
            body.calls.append(Call(at, name, (event.serial,), event))
        return body.calls[-1]

    def holder(self, number: int) -> str | None:
        """Return the context that held the lock for which the run of event *number* of these waited, if that is known:
        it has made a call with the lock before the run went on.
        """
        waiting = self.events[self.made[number].at]
        for at, owner in self.made[number + 1 :]:
            event = self.events[at]
            if waiting.lock_number in event.held:
                return None if event.serial == waiting.serial and event.kind is TraceKind.STARTED else owner
        return None

    def released_between(self, lock: int, first: Call, second: Call) -> bool:
        """Whether a thread has released a lock between two calls, as far as is known."""
        thread = first.event.thread
        if None not in (first.event.section, second.event.section):
            return first.event.section != second.event.section
        between = self.events[first.at : second.at]
        return any(lock in each.held and (each.thread != thread or each.kind in OF_RUNS) for each in between)

    def others_between(self, first: int, second: int) -> bool:
        """Whether another thread has done something between two events of one thread that belong to it."""
        thread = self.events[first].thread
        return any(each.thread != thread and each.serial in self.group for each in self.events[first:second])

    def awaits_between(self, first: Call, second: Call) -> bool:
        """Whether the loop of a task has run something else between two of its calls."""
        thread = first.event.thread
        return any(each.kind in OF_RUNS and each.thread == thread for each in self.events[first.at : second.at])

    def ticks(self, seconds: float) -> int:
        """Return a time in ticks, at least one, and no more than can be armed."""
        return min(max(math.ceil(seconds * self.recording.hz - 1e-6), 1), FARTHEST)


def freed_of(event: Recorded) -> str:
    """Return what is known of a call or a free: of what was freed, which object."""
    return (event.detail or "").removesuffix(WITH_LOCK)


def _called(event: Recorded) -> str:
    """Return what was called to make an event; "" if the engine has made it by itself."""
    if event.kind in ARMS:
        return ARM
    if event.kind is TraceKind.FREED:
        return FREE
    return event.detail or "" if event.kind is not TraceKind.ERROR else ""
