"""What is known of an object of a slab: what allocated and freed it, and where; and the report of a use after that."""

from __future__ import annotations

import sys
import threading
import weakref
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Final, Generic, NoReturn, TypeVar, cast

import trio

from .._core import frames, softclock
from .._core.cpu import Lane, NoCpu, Run
from .._core.errors import NoSystemError, UseAfterFree
from .._core.machine import CURRENT, FINDERS, Machine
from .._core.rawlock import RawLock
from .._core.refusal import Refusal

if TYPE_CHECKING:
    from ._slab import Slab

T = TypeVar("T")

CALLERS: Final = 2  # how many are noted with a place


# -- who, and where ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Where:
    """A place in the code, and who was there."""

    who: str  # a task, a thread, or softclock of a CPU
    file: str
    line: int
    function: str
    callers: tuple[str, ...]  # the functions that called it, the nearest first: two at most

    def __str__(self) -> str:
        chain = " <- ".join(f"{name}()" for name in (self.function, *self.callers))
        return f"{self.who} at {self.file}:{self.line} in {chain}"


def look() -> tuple[Where, Run | None]:
    """Return who called, and the run of softclock or of the clock interrupt that this happens in, if it does."""
    frame: FrameType | None = sys._getframe(1)
    at = frame
    users: list[FrameType] = []
    lane: Lane | None = None
    while frame is not None:
        at = frame
        if not frames.is_own(frame):
            if frame.f_globals.get("__name__") != "contextlib":  # it leaves the user's `async with draining(c):`
                users.append(frame)
        elif frame.f_globals is vars(softclock):
            # What runs callouts keeps the run or the lane in its local variables, whatever its name is.
            kept = next((value for value in frame.f_locals.values() if isinstance(value, Run | Lane)), None)
            if kept is not None:
                lane = kept.lane if isinstance(kept, Run) else kept
                break
        frame = frame.f_back
    at = users[0] if users else at
    assert at is not None
    callers = tuple(user.f_code.co_qualname for user in users[1 : 1 + CALLERS] if not _of_trio(user))
    who = _who() if lane is None else str(lane)
    where = Where(who, at.f_code.co_filename, at.f_lineno, at.f_code.co_qualname, callers)
    return where, None if lane is None else lane.run


def _of_trio(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "trio"


def _who() -> str:
    machine = current()
    if machine is not None:
        thread = machine.platform.current_thread()
        if not isinstance(thread, int):  # a virtual one
            return f"cpu {thread[1]}" if isinstance(thread, tuple) else f"thread {thread!r}"
    name = threading.current_thread().name
    if trio.lowlevel.in_trio_task():
        return f"task {trio.lowlevel.current_task().name} of thread {name!r}"
    return f"thread {name!r}"


def current() -> Machine | None:
    """Return the machine that is current here, in whatever phase; None if there is none."""
    machine = CURRENT.get(None)
    if machine is not None:
        return machine
    try:
        return next((found for find in FINDERS if (found := find()) is not None), None)
    except NoSystemError:
        return None


# -- an object -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False, weakref_slot=True)
class Allocation(Generic[T]):
    """One object of a slab: which, and what became of it."""

    name: str  # "pcb 17, generation 3": slab, slot, and how often that was used
    type_name: str
    allocated: Where
    obj: T | None  # while it is not freed
    slab: Slab[T]
    freed: Where | None = None
    _poison: type | None = None  # kept while it lives, so that free() need not make it
    _machine: weakref.ref[Machine] | None = field(default=None)  # where it was allocated: a use is told to that, too

    def __str__(self) -> str:
        end = "" if self.freed is None else f", freed by {self.freed}"
        return f"{self.name} ({self.type_name}), allocated by {self.allocated}{end}"

    def __repr__(self) -> str:
        return f"<{self}>"

    def used(self, how: str, grave: GraveCpu | None = None) -> UseAfterFree:
        """Return the error for a use by the caller. It is in the slab's reports, and among the machine's faults."""
        where, run = look()
        if grave is None and run is not None:
            cpu = cast(object, run.callout.c_cpu)
            if isinstance(cpu, GraveCpu) and cpu.allocation is self:
                grave = cpu
        lines = [
            f"{self.name} ({self.type_name}) was used after it was freed: {how}",
            f"used by {where}",
            f"freed by {self.freed}",
            f"allocated by {self.allocated}",
        ]
        if grave is not None:
            lines.append(f"callout {grave.name!r}, function {grave.function}, armed at {grave.armed}")
        text = "\n  ".join(lines)
        self.slab._report(text)
        error = UseAfterFree(text)
        # The user's code may catch it, and the schedule has gone wrong all the same. Not every thread has a current
        # machine; then it is told to the one in which the object was allocated.
        machine = current() or (None if self._machine is None else self._machine())
        if machine is not None and machine.faults is not None:
            machine.faults.append(error)
        return error


class GraveLock(Refusal):
    """Stands where the raw lock of something freed was."""

    __slots__ = ("_allocation", "_cpu", "_what")

    def __init__(
        self, allocation: Allocation[object], what: str, inner: RawLock | None = None, cpu: GraveCpu | None = None
    ) -> None:
        super().__init__(UseAfterFree, what, inner)
        self._allocation = allocation
        self._what = what
        self._cpu = cpu

    def used(self, how: str) -> UseAfterFree:
        """Return the error for a use of the lock in some other way."""
        return self._allocation.used(f"{self._what} {how}", self._cpu)

    def refuse(self, call: str = "") -> NoReturn:
        """Raise: a lock is acquired, or a callout used."""
        raise self._allocation.used(self._what, self._cpu) if self._cpu is not None else self.used("was acquired")

    def release(self, /) -> None:
        """Release what was held when it was freed, and raise: releasing a lock is a use, too."""
        super().release()
        raise self.used("was released")


class GraveCpu(NoCpu):
    """Stands where the CPU of a freed callout was, so that each call looks here before anything."""

    __slots__ = ("allocation", "armed", "function", "name")

    def __init__(self, allocation: Allocation[object], name: str, function: str, armed: str) -> None:
        super().__init__(-2, GraveLock(allocation, f"a call was made for its callout {name!r}", cpu=self))
        self.allocation = allocation
        self.name = name
        self.function = function
        self.armed = armed

    def fired(self, arg: object = None) -> None:
        """Raise, in the place of the callback."""
        raise self.allocation.used(f"softclock ran its callout {self.name!r}, which nobody had stopped", self)
