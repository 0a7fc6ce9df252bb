"""The oracle of results: what the calls for a callout return, and what of it runs, must fit some order of the calls.

The engine's calls and runs are watched from outside (``_profile``). So nothing in the engine knows of it, and what is
judged is what ships, on its short paths and on its long ones. ``_sequential`` says which results there can be. That one
call ended before another one began, or before a run did, is an order that matters: so this record is something that the
contexts share, and a part of the callout in footprints.

Not judged is a callout that is initialised anew, or used by what is not of callout(9): ``callout_dequeue()``,
``callout_arm_curcpu()``, the shim's timers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Final

from .._api.callout import Callout
from .._core import arm, cpu, drain, runs, short, stop
from .._core.describe import name_of
from .._core.errors import CalloutError, ResultError
from .._core.machine import Machine
from .._core.results import DRAIN_RESULT, RESET_RESULT, STOP_RESULT, WAITED_RESULT
from .._core.state import ACTIVE, DIRECT, FIELDS
from .._core.units import CALLOUT_TRYLOCK
from .._worlds.virtual.footprints import READS, RELEASES, TRIES, WRITES
from .._worlds.virtual.platform import VirtualPlatform
from .._worlds.virtual.shared import ENDS, RESULTS
from . import _sequential
from ._profile import watched
from ._sequential import Asked, Happened, History, explained

# Read in this way they are no switch points.
_cpu_of: Final = FIELDS["c_cpu"].__get__
_state_of: Final = FIELDS["state"].__get__

RUN: Final = "run"
OTHER: Final = "other"  # it makes a callout one that is not judged

# What is watched, and the results of what returns the facts.
_Watched = tuple[str, tuple[int, ...] | None]
_WATCHED: Final[Mapping[object, _Watched]] = {
    short.callout_reset: (_sequential.ARM, None),
    arm.arm: (_sequential.ARM, RESET_RESULT),
    short.callout_stop: (_sequential.STOP, None),
    stop.stop: (_sequential.STOP, STOP_RESULT),
    stop.deactivate: (_sequential.DEACTIVATE, None),
    drain.wait: (_sequential.DRAIN, DRAIN_RESULT),
    drain.drain_async: (_sequential.DRAIN_ASYNC, WAITED_RESULT),
    drain.async_drain: (_sequential.ASYNC_DRAIN, STOP_RESULT),
    runs.execute: (RUN, None),
    arm.initialize: (OTHER, None),
    stop.dequeue: (OTHER, None),
    short.callout_dequeue: (OTHER, None),
    short.callout_arm_curcpu: (OTHER, None),
    short.arm_at_tick: (OTHER, None),
}
_WAITS: Final = {cpu.DRAIN: _sequential.DRAIN, cpu.DRAIN | cpu.T_CLOSE: _sequential.TERMINATE}  # by what is asked for


class _Record:
    """What was seen of one callout."""

    def __init__(self, c: Callout, number: int) -> None:
        self.c = c
        self.locked = c.lock is not None and not c.flags & CALLOUT_TRYLOCK  # one that tries is never at its lock
        self.number = number
        self.calls: list[Asked] = []
        self.names: list[str] = []  # of the calls
        self.runs: list[Happened] = []
        self.time = 0
        self.judged = True
        self.labels: list[tuple[object, object]] = []

    def label(self, func: object, arg: object) -> int:
        """Return the number of that function and argument."""
        for label, (its_func, its_arg) in enumerate(self.labels):
            if func is its_func and arg is its_arg:
                return label
        self.labels.append((func, arg))
        return len(self.labels) - 1

    def history(self, machine: Machine) -> History:
        """Return all of it."""
        deactivated = any(call.kind == _sequential.DEACTIVATE for call in self.calls)
        moved = any(call.cpu is not None for call in self.calls)
        # A deferred migration makes it active when it is carried out, whether or not it was deactivated meanwhile.
        known = _cpu_of(self.c) in machine.cpus and not (deactivated and moved)
        return History(
            self.locked, tuple(self.calls), tuple(self.runs), bool(_state_of(self.c) & ACTIVE) if known else None
        )

    def __str__(self) -> str:
        said = [
            (call.begun, f"{name}() -> {call.result} ({call.begun} to {call.ended})")
            for name, call in zip(self.names, self.calls, strict=True)
        ]
        said += [
            (run.begun, f"{name_of(self.labels[run.label][0])} ran ({run.begun} to {run.ended})") for run in self.runs
        ]
        return ", ".join(text for _, text in sorted(said))


class Results:
    """What was seen of all callouts in one run."""

    def __init__(self, machine: Machine) -> None:
        assert isinstance(machine.platform, VirtualPlatform)
        self._machine = machine
        self._platform = machine.platform
        self._records: dict[int, _Record] = {}  # by the number of the callout
        self._begun: dict[FrameType, tuple[_Record, str, Asked]] = {}  # calls
        self._running: dict[FrameType, tuple[_Record, int]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """See what is called in the block."""
        # A planted bug may have replaced a function's code since.
        codes = {function.__code__: its for function, its in _WATCHED.items()}  # type: ignore[attr-defined]
        with watched(codes, self._begin, self._end):
            yield

    def check(self) -> None:
        """Raise ResultError if there is no order in which the results are right."""
        cut_off = {id(each[0]) for each in (*self._begun.values(), *self._running.values())}
        for record in self._records.values():
            if record.judged and id(record) not in cut_off and not explained(record.history(self._machine)):
                func = name_of(record.labels[0][0]) if record.labels else "no function"
                raise ResultError(
                    f"no order of the calls for the callout of {func} explains what they have returned: {record}"
                )

    # -- what happens ----------------------------------------------------------------------------------------------

    def _record_of(self, c: object) -> _Record | None:
        """Return the record of a callout of this system; None if it is none, or was freed: the call will say so."""
        if not isinstance(c, Callout) or _cpu_of(c) not in self._machine.cpus:
            return None
        number = self._platform.number_of(c)
        record = self._records.get(number)
        if record is None:
            record = self._records[number] = _Record(c, number)
        return record

    def _begin(self, frame: FrameType, it: _Watched) -> None:
        if self._platform.off or frame.f_back in self._begun:
            return  # the long way of a call that is known
        kind = it[0]
        its = frame.f_locals
        if kind == RUN:
            record = self._record_of(its["run"].callout)
            if record is not None:
                self._running[frame] = record, self._moment(record, run=True)
            return
        record = self._record_of(its["c"])
        if record is None:
            return
        if "asks" in its:
            if its["asks"] == cpu.BARRIER:
                return  # it changes nothing
            kind = _WAITS.get(its["asks"], OTHER)
        c = record.c
        to, func = its.get("to"), its.get("func")
        # Without a lock a direct callout stays where it is, whatever is asked for, as long as it is direct.
        stays = to is not None and _state_of(c) & DIRECT and c.lock is None and not its["direct"]
        if kind == OTHER or its.get("how") or stays:
            record.judged = False
            return
        arms = kind == _sequential.ARM
        name = str(its.get("call", frame.f_code.co_name))
        asked = Asked(
            kind,
            cpu=to.id if arms and to is not None else None,
            cancels=not arms and _holds(c),
            sleeps_again=kind in _sequential.WAITS and self._machine.giant.owned(),
            begun=self._moment(record),
            ended=0,
            result=0,
            completed=0,
            label=record.label(func, its["arg"]) if arms and func is not None else 0,
            keeps=arms and func is None,
        )
        self._begun[frame] = record, name, asked

    def _end(self, frame: FrameType, it: _Watched, value: object) -> None:
        if self._platform.off:
            return
        if frame in self._running:
            record, begun = self._running.pop(frame)
            run = frame.f_locals["run"]
            record.runs.append(Happened(record.label(run.func, run.arg), begun, self._moment(record, run=True)))
        elif frame in self._begun:
            record, name, asked = self._begun.pop(frame)
            if not isinstance(value, int):
                if asked.kind != _sequential.DEACTIVATE:
                    return  # an error, and nothing was done
                value = 0
            result = value if it[1] is None else it[1][value]
            record.calls.append(asked._replace(ended=self._moment(record, ended=True), result=result))
            record.names.append(name)

    def _moment(self, record: _Record, *, run: bool = False, ended: bool = False) -> int:
        """Return a moment later than all before: of the beginning of a call, or its end, or of a run."""
        touch = self._platform.touch
        touch(record.number + RESULTS, WRITES if run else READS)
        if ended:
            touch(record.number + ENDS, RELEASES)
        elif not run:
            touch(record.number + ENDS, READS | TRIES)
        record.time += 1
        return record.time


def _holds(c: Callout) -> bool:
    """Whether the caller holds the callout's lock."""
    try:
        return c.lock is not None and c.lock.owned()
    except CalloutError:  # it was freed or destroyed: the call will say so
        return False
