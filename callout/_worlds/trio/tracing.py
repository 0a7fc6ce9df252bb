"""A trace: what has happened to each callout, written down for a file or handed to a function.

The engine tells of an event under the lock of a CPU, or on its loop. So that is noted here, in a deque, and nothing of
the user's runs. CPU 0's loop hands over what was noted; a file is written when all is over.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from ..._core.checks import check_bool, check_func, check_takes
from ..._core.describe import name_of, shown
from ..._core.errors import ArgumentTypeError, ArgumentValueError, BusyError, CalloutError
from ..._core.frames import place_of, spot
from ..._core.guard import protected
from ..._core.lifecycle import trace_with
from ..._core.phases import Use, admit
from ..._core.rules import LockClass
from ..._core.seconds import from_ns
from ..._core.serials import Serials
from ..._core.state import DIRECT, FIELDS
from ..._core.trace import FORMAT, GIANT, MUTEX, RECURSIVE, RMLOCK, RWLOCK, SPIN, VERSION, TraceKind
from ..._locks.mutex import Mtx
from ..._locks.rwlock import RmLock

if TYPE_CHECKING:
    from ..._api.callout import Callout
    from ..._core.cpu import Cpu
    from ..._core.machine import Machine
    from ..._core.state import Func
    from ..._locks.lock import Lock
    from .platform import Loop

MOST: Final = 2**17  # events that are kept

Sink = str | os.PathLike[str] | Callable[["TraceEvent"], object]

# What a caller does, as opposed to a loop.
_CALLED: Final = frozenset(
    {
        TraceKind.ARMED,
        TraceKind.REARMED,
        TraceKind.STOPPED,
        TraceKind.NOT_STOPPED,
        TraceKind.DRAINED,
        TraceKind.CLOSED,
        TraceKind.REFUSED,
        TraceKind.MIGRATED,
        TraceKind.FREED,
    }
)


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """Something that has happened to a callout. It keeps nothing alive."""

    time: float
    """When, in seconds of ``system.current_time()``."""
    cpu: int
    """On which CPU."""
    thread: int
    """In which thread, as ``threading.get_ident()`` numbers them."""
    kind: TraceKind
    """What."""
    serial: int
    """The number of the callout, as in ``system.callouts()``."""
    name: str | None
    """What its maker called it."""
    function: str
    """What it calls."""
    lock: str | None
    """The name of its lock."""
    where: str | None
    """File, line and function of the caller, if that was asked for."""
    deadline: float | None
    """Of an arming, for when, in seconds of ``system.current_time()``."""
    detail: str | None = None
    """Of a call that stops, drains or closes, its name in C; of an error, its type; of what was freed, the object."""


class _More(NamedTuple):
    """What only a file has of an event: all that it takes to do the same again."""

    flags: int  # of the callout
    direct: bool
    lock: int | None  # the number of its lock
    lock_kind: str | None
    held: tuple[int, ...]  # the numbers of the locks that the thread held
    section: int | None  # and since when: another number each time that it held none before


class Trace:
    """A trace that is being made: what ``with system.tracing(sink) as trace:`` gives."""

    def __init__(
        self, machine: Machine, loop: Loop, hand_over: Callable[[TraceEvent], object] | None, where: bool
    ) -> None:
        self._machine = machine
        self._loop = loop
        self._hand_over = hand_over
        self._where = where
        self._noted: deque[tuple[TraceEvent, _More | None]] = deque(maxlen=MOST)
        self._locks: Serials[Lock] = Serials()
        self._numbering = threading.RLock()  # recursive: a finalizer may stop a callout
        self._sections: dict[int, tuple[list[Lock], int]] = {}  # thread -> what it holds, and the number of that
        self._counts: dict[int, int] = {}  # thread -> events; each counts its own, so that no lock is wanted
        self._handed = 0
        self._posted = False
        self._failed = False

    def __repr__(self) -> str:
        return f"<Trace of {self.events} events, {self.dropped} dropped>"

    @property
    def events(self) -> int:
        """How many events there were so far."""
        return sum(list(self._counts.values()))

    @property
    def dropped(self) -> int:
        """How many of them were dropped, because there were too many, or the function has failed."""
        return max(self.events - self._handed - len(self._noted), 0)

    def stop(self) -> None:
        """Trace no more. Leaving the block does that, too. From any thread. Never blocks."""
        if self._machine.trace is self:
            try:
                trace_with(self._machine, None)
            except CalloutError:  # the system was closed: nothing happens there any more
                self._machine.trace = None

    # -- what the engine tells -------------------------------------------------------------------------------------

    @protected
    def note(
        self, kind: TraceKind, cpu: Cpu, c: Callout, func: Func | None, when: int | None, detail: str | None
    ) -> None:
        """See ``Tracer``. Never raises."""
        me = threading.get_ident()
        self._counts[me] = self._counts.get(me, 0) + 1
        try:
            more = self._more(cpu, c) if self._hand_over is None else None
            self._noted.append((self._event(kind, cpu, c, func, when, detail), more))
        except Exception:  # of a callout that was freed meanwhile: it is dropped
            return
        if self._hand_over is not None and not self._posted:
            self._posted = True
            self._loop.post(self._pump)

    def _event(
        self, kind: TraceKind, cpu: Cpu, c: Callout, func: Func | None, when: int | None, detail: str | None
    ) -> TraceEvent:
        machine = self._machine
        extra = machine.extras.get(c)
        place = spot(2) if self._where and kind in _CALLED else None
        thread = cpu.current_thread()
        return TraceEvent(
            time=from_ns(cpu.now() + machine.epoch),
            cpu=cpu.id,
            thread=thread if isinstance(thread, int) else 0,
            kind=kind,
            serial=machine.serials.of(c),
            name=None if extra is None else extra.name,
            function=name_of(func),
            lock=None if c.lock is None else c.lock.name,
            where=None if place is None else place_of(*place),
            deadline=None if when is None else from_ns(when + machine.epoch),
            detail=detail,
        )

    def _more(self, cpu: Cpu, c: Callout) -> _More:
        lock = c.lock
        return _More(
            c.flags,
            bool(FIELDS["state"].__get__(c) & DIRECT),
            None if lock is None else self._number_of(lock),
            None if lock is None else _kind_of(lock),
            *self._held(cpu, lock),
        )

    def _held(self, cpu: Cpu, lock: Lock | None) -> tuple[tuple[int, ...], int | None]:
        """Return the numbers of the locks that this thread holds, and that of the section. Without checking mode only
        the callout's own lock is known of.
        """
        if cpu.machine.held is None:
            return (self._number_of(lock),) if lock is not None and lock.holds() else (), None
        me = threading.get_ident()
        held = cpu.machine.held.get(cpu.current_thread())
        if not held:
            return (), None
        known = self._sections.get(me)
        if known is None or known[0] is not held:  # the list is another one when it was empty meanwhile
            known = self._sections[me] = held, 0 if known is None else known[1] + 1
        return tuple([self._number_of(each) for each in held]), known[1]

    def _number_of(self, lock: Lock) -> int:
        with self._numbering:
            return self._locks.of(lock)

    # -- handing it over -------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Hand over what was noted. On the loop of CPU 0."""
        self._posted = False
        self._loop.run_calls(self.flush)

    def flush(self) -> None:
        """Hand over what was noted so far: what the function itself causes comes next time, when the loop's tasks have
        had their turn. If the function fails that is reported as a callback's error, and it is over.
        """
        hand_over = self._hand_over
        for _ in range(len(self._noted)):
            if hand_over is None or self._failed:
                break
            try:
                event, _ = self._noted.popleft()
            except IndexError:
                return
            self._handed += 1
            try:
                self._machine.call(hand_over, event)
            except BaseException as error:
                self._failed = True
                self._machine.report(error, None)
                self.stop()
        if self._failed:
            self._noted.clear()

    def write(self, file: IO[str]) -> None:
        """Write what was noted into *file*, for Perfetto."""
        noted = list(self._noted)
        self._handed = len(noted)
        about = {
            "format": FORMAT,
            "version": VERSION,
            "cpus": len(self._machine.cpus),
            "hz": self._machine.hz,
            "loops": [cpu.thread for cpu in self._machine.cpus],  # the thread of each, if anything ran there
            "events": len(noted),
            "dropped": self.events - len(noted),
        }
        json.dump({"displayTimeUnit": "ns", "otherData": about, "traceEvents": list(chrome(noted))}, file)
        self._noted.clear()


@contextmanager
def tracing(machine: Machine, loop: Loop, sink: Sink, where: bool) -> Iterator[Trace]:
    """See ``CalloutSystem.tracing``."""
    admit("tracing", machine, Use.CURRENT)
    check_bool("tracing", "where", where)
    file: IO[str] | None = None
    if isinstance(sink, str | os.PathLike):
        _refuse_second(machine)
        if "\0" in (name := os.fsdecode(sink)):
            raise ArgumentValueError(f"tracing: no file can be called {shown(name)}", call="tracing")
        file = open(sink, "w", encoding="ascii")  # noqa: PTH123, SIM115 - a str, or any path-like; _end() closes it
        trace = Trace(machine, loop, None, where)
    elif callable(sink):
        check_func("tracing", sink, "sink must be a path or a plain function")
        check_takes("tracing", "sink", sink, "an event")
        _refuse_second(machine)
        trace = Trace(machine, loop, sink, where)
    else:
        raise ArgumentTypeError(f"tracing: sink must be a path or a plain function, not {shown(sink)}", call="tracing")
    trace_with(machine, trace)
    try:
        yield trace
    except BaseException as error:
        try:
            _end(trace, file)
        except OSError as failed:  # that must not take its place
            error.add_note(f"tracing: {failed}")
        raise
    _end(trace, file)


def _end(trace: Trace, file: IO[str] | None) -> None:
    """Hand over or write what was noted. Raises OSError, with the name of the file."""
    trace.stop()
    if file is None:
        trace.flush()
        return
    try:
        with file:
            trace.write(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, file.name) from None


def _refuse_second(machine: Machine) -> None:
    if machine.trace is not None:
        raise BusyError(
            "tracing: this system is traced already; leave that block, or stop() that trace", call="tracing"
        )


# -- Chrome's format ---------------------------------------------------------------------------------------------------


def _kind_of(lock: Lock) -> str:
    """Return what a file calls a lock like that."""
    if lock is lock.machine.giant:
        return GIANT
    if isinstance(lock, Mtx):
        kind = SPIN if lock.lock_class is LockClass.SPIN else MUTEX
        return f"{RECURSIVE}{kind}" if lock._recurse else kind
    return RMLOCK if isinstance(lock, RmLock) else RWLOCK


def chrome(events: Iterable[tuple[TraceEvent, _More | None]]) -> Iterator[dict[str, Any]]:  # Any: JSON
    """Yield *events* as Chrome's trace format has them: a track for each CPU, on it a slice for each run."""
    # A viewer tells tracks apart by numbers of threads, of which 0 is none: Perfetto takes it for that of the process.
    process = os.getpid()
    known: set[int] = set()
    open_: set[int] = set()
    yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": "callout"}}
    for event, more in events:
        if event.cpu not in known:
            known.add(event.cpu)
            yield {
                "ph": "M",
                "pid": process,
                "tid": process + event.cpu,
                "name": "thread_name",
                "args": {"name": f"cpu {event.cpu}"},
            }
        at = {"pid": process, "tid": process + event.cpu, "ts": event.time * 1e6}
        title = event.function if event.name is None else f"{event.name} ({event.function})"
        given: dict[str, object] = {
            "kind": event.kind.value,
            "cpu": event.cpu,
            "serial": event.serial,
            "name": event.name,
            "function": event.function,
            "lock": event.lock,
            "where": event.where,
            "thread": event.thread,
            "detail": event.detail,
        }
        if event.deadline is not None:
            given["due_in"] = event.deadline - event.time
        if more is not None:
            given |= {
                "flags": more.flags or None,
                "direct": more.direct or None,
                "lock_number": more.lock,
                "lock_kind": more.lock_kind,
                "held": more.held or None,
                "section": more.section,
            }
        facts = {name: fact for name, fact in given.items() if fact is not None}
        if event.kind is TraceKind.STARTED:
            open_.add(event.cpu)
            yield at | {"ph": "B", "name": title, "cat": "run", "args": facts}
        elif event.kind is TraceKind.FINISHED and event.cpu in open_:  # else the trace has no beginning of that run
            open_.remove(event.cpu)
            yield at | {"ph": "E", "args": facts}
        else:
            name = f"{event.kind.value} {title}"
            yield at | {"ph": "i", "s": "t", "name": name, "cat": event.kind.value, "args": facts}


__all__ = ["Sink", "Trace", "TraceEvent", "tracing"]
