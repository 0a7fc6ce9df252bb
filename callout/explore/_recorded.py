"""Reading the trace of a system: the file that ``system.tracing(path)`` has written."""

from __future__ import annotations

import json
import os
from typing import Any, Final, NamedTuple, NoReturn

from .._core.errors import TraceError
from .._core.lifecycle import MAX_CPUS, MAX_HZ
from .._core.trace import FORMAT, GIANT, MUTEX, RECURSIVE, RMLOCK, RWLOCK, SPIN, VERSION, TraceKind
from .._files import open_regular

LOCKS: Final = (GIANT, MUTEX, f"{RECURSIVE}{MUTEX}", SPIN, f"{RECURSIVE}{SPIN}", RWLOCK, RMLOCK)

MOST: Final = 1e18  # of any number

# Kinds of events that have the name of a call, and the calls: those that wait, and those that promise a completion.
CALLS: Final = frozenset({TraceKind.STOPPED, TraceKind.NOT_STOPPED, TraceKind.DRAINED, TraceKind.CLOSED})
WAITS: Final = frozenset({"callout_drain", "callout_terminate", "callout_quiesce", "callout_barrier"})
OF_SETS: Final = frozenset({"close_all_soon", "callout_drain_all_async"})
CLOSES: Final = frozenset({"close_soon", "close_all_soon"})
PROMISES: Final = OF_SETS | CLOSES | {"callout_drain_async", "callout_async_drain"}
NAMES: Final = WAITS | PROMISES | {"callout_stop", "callout_dequeue"}

_KINDS: Final = {kind.value: kind for kind in TraceKind}


class Recorded(NamedTuple):
    """An event, as it stands in the file."""

    cpu: int
    kind: TraceKind
    serial: int
    function: str
    thread: int
    time: float  # in seconds
    name: str | None = None
    lock: str | None = None
    lock_number: int | None = None
    lock_kind: str | None = None
    held: tuple[int, ...] = ()  # the numbers of the locks that the thread held
    section: int | None = None  # since when: another number each time that it held none before; None: not known
    flags: int = 0
    direct: bool = False
    detail: str | None = None
    where: str | None = None
    due_in: float | None = None


class Recording(NamedTuple):
    """A trace."""

    file: str
    cpus: int
    hz: int
    dropped: int
    loops: dict[int, int]  # thread -> CPU
    events: list[Recorded]


def read(path: str | os.PathLike[str]) -> Recording:
    """Read a trace.

    Raises:
        OSError: there is no such file, or it cannot be read.
        TraceError: it is no trace, of another version, or not whole.
    """
    file = os.fspath(path)
    try:
        with open_regular(file) as opened:
            whole = json.load(opened)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{file}: not JSON (is the file truncated?): {error}") from None
    about = whole.get("otherData") if isinstance(whole, dict) else None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise TraceError(f"{file}: this is no trace of callouts; give a file that system.tracing() has written")
    if about.get("version") != VERSION:
        raise TraceError(
            f"{file}: a trace of version {about.get('version')!r}, and this callout reads version {VERSION}; read it "
            "with the callout that has written it"
        )
    cpus, hz, dropped = (_number(file, about, name) for name in ("cpus", "hz", "dropped"))
    if not (1 <= cpus <= MAX_CPUS and 1 <= hz <= MAX_HZ):
        raise TraceError(f"{file}: there is no system with {cpus} CPUs and hz {hz}")
    loops = about.get("loops")
    if not isinstance(loops, list) or len(loops) != cpus or any(type(each) not in (int, type(None)) for each in loops):
        raise TraceError(f"{file}: loops must be the threads of {cpus} CPUs, not {loops!r}")
    rows = whole.get("traceEvents")
    events = [
        _event(file, number, row)
        for number, row in enumerate(rows if isinstance(rows, list) else ())
        if not (isinstance(row, dict) and row.get("ph") == "M")
    ]
    if len(events) != about.get("events"):
        raise TraceError(
            f"{file}: it says that it has {about.get('events')} events, and it has {len(events)}: was a part of it cut "
            "out?"
        )
    for number, event in enumerate(events):
        if not 0 <= event.cpu < cpus:
            raise TraceError(f"{file}: event {number}: there is no CPU {event.cpu}; it has {cpus}")
    return Recording(
        file, cpus, hz, dropped, {thread: cpu for cpu, thread in enumerate(loops) if thread is not None}, events
    )


def _number(file: str, about: dict[str, Any], name: str) -> int:  # Any: JSON
    value = about.get(name)
    if type(value) is not int or value < 0:
        raise TraceError(f"{file}: {name} must be a whole number, not {value!r}")
    return value


def _event(file: str, number: int, row: object) -> Recorded:
    """Return what a row says."""

    def wrong(what: str, value: object) -> NoReturn:
        raise TraceError(f"{file}: event {number}: {what} cannot be {value!r}")

    args = row.get("args") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(args, dict):
        wrong("an event", row)
    facts: dict[str, Any] = {"time": row.get("ts"), **args}  # Any: JSON, checked below
    for name in ("cpu", "serial", "thread"):
        if type(facts.get(name)) is not int:
            wrong(name, facts.get(name))
    for name in ("lock_number", "section", "flags"):
        if type(facts.get(name, 0)) is not int:
            wrong(name, facts[name])
    for name in ("time", "due_in"):
        value = facts.get(name, 0)
        if type(value) not in (int, float) or not -MOST <= value <= MOST:
            wrong(name, value)
    for name in ("name", "lock", "detail", "where"):
        if not isinstance(facts.get(name, ""), str):
            wrong(name, facts[name])
    if not isinstance(facts.get("direct", False), bool):
        wrong("direct", facts["direct"])
    if not isinstance(facts.get("function"), str):
        wrong("function", facts.get("function"))
    if facts.get("lock_kind", MUTEX) not in LOCKS:
        wrong("lock_kind", facts["lock_kind"])
    held = facts.get("held", [])
    if not isinstance(held, list) or any(type(each) is not int for each in held):
        wrong("held", held)
    kind = facts.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        wrong("kind", kind)
    if kind in CALLS and "detail" in facts and facts["detail"] not in NAMES:
        wrong("detail", facts["detail"])
    if kind == TraceKind.FREED.value and "detail" not in facts:
        wrong("detail", None)
    known = {name: fact for name, fact in facts.items() if name in Recorded._fields}
    known |= {"kind": _KINDS[kind], "held": tuple(held), "time": facts["time"] / 1e6}
    return Recorded(**known)
