"""The callout record and the bits of its state.

Pure data. The fields of a callout belong to the lock of the CPU that ``cpu`` names; ``cpu`` itself changes only under
both CPUs' locks, so whoever has read it, taken that CPU's lock and read it again may touch the rest.

Three fields are read without a lock, on purpose: ``cpu`` (to find the lock), and ``state`` by ``callout_pending()`` and
``callout_active()``. The virtual platform makes these reads switch points.

Source: struct callout of sys/_callout.h; the flags split of kern_timeout.c (c_flags, c_iflags).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from . import frames
from .errors import CalloutError, NotInitializedError

if TYPE_CHECKING:
    from .._locks.mutex import Lock
    from .cpu import Cpu, Run
    from .platform import RawLock

PENDING: Final = 0x01  # a run is scheduled: filed in the wheel, in the expired queue, or a put-off move
ACTIVE: Final = 0x02  # armed, and neither stopped nor deactivated since
QUEUED: Final = 0x04  # pending in the expired queue of its CPU (the kernel: CALLOUT_PROCESSED)
MOVING: Final = 0x08  # pending as a put-off move (the kernel: CALLOUT_DFRMIGRATION)
DIRECT: Final = 0x10  # runs in the clock interrupt; once direct, always direct
CLOSED: Final = 0x20  # callout_terminate() came: never armed again
CAREFUL: Final = (
    0x40  # arming has more to do than the short path does (coalescing, TRYLOCK), or is to take the long way
)
FRESH: Final = 0x80  # never initialised

ARMED: Final = PENDING | ACTIVE  # the whole state of a plain callout in the wheel: what the short path tests for

# What every operation finds out, under one hold of the CPU's lock. Each dialect's result is a view of these two bits.
REMOVED: Final = 1  # a scheduled run was taken away: it will not happen
RUNNING: Final = 2  # a run is in progress, and this operation did not stop it

# Any: the argument's type is tied to the function's at the API, where mypy checks the pair; the record forgets it.
Func = Callable[[Any], object]


class Refusal:
    """Stands where a CPU's lock is expected, and raises when it is taken: no short path pays for a check.

    Used for callouts that were never initialised, for closed systems, for forked children and for freed memory.
    """

    __slots__ = ("_error", "_inner", "_text")

    def __init__(self, error: type[CalloutError], text: str, inner: RawLock | None = None) -> None:
        """*inner* is the lock that this one replaces: who took it before and gives it up now must reach it."""
        self._error, self._text, self._inner = error, text, inner

    def acquire(self, blocking: bool = True) -> NoReturn:
        """Raise the error; of a function of callout(9) the text says which it was."""
        name = frames.entry()
        raise self._error(f"{name}: {self._text}" if name.startswith("callout_") else self._text)

    def release(self) -> None:
        """Release the lock that was replaced: this one is never held."""
        if self._inner is not None:
            self._inner.release()


class Nowhere:
    """The CPU of a callout that was never initialised."""

    id: Final = -1
    lock: Final = Refusal(NotInitializedError, "this callout was never initialised: call callout_init(c, 1) first")


NOWHERE: Final = cast("Cpu", Nowhere())


class Callout:
    """One callout: a function, its argument, and when and where to call it.

    A fresh record is unusable until ``callout_init()`` or a relative has bound it to the current system.
    It may be embedded in any object; it holds no resources of its own while it is neither pending nor running.
    """

    __slots__ = (
        "__weakref__",
        "arg",  # c_arg
        "cpu",  # c_cpu: its lock guards all the other fields
        "filed",  # the time under which the wheel has it, ns, not later than ``time``; 0 = not in the wheel
        "flags",  # CALLOUT_* given at initialisation
        "func",  # c_func; None until the first arming
        "lock",  # c_lock or None
        "precision",  # ns by which it may be late
        "run",  # the run in progress, or None
        "seq",  # order of arming on its CPU: breaks ties of ``time``
        "state",  # the bits above
        "time",  # c_time, ns
    )

    arg: Any
    cpu: Cpu
    filed: int
    flags: int
    func: Func | None
    lock: Lock | None
    precision: int
    run: Run | None
    seq: int
    state: int
    time: int

    def __init__(self) -> None:
        """Make an uninitialised record. Never blocks."""
        self.arg = None
        self.cpu = NOWHERE
        self.filed = 0
        self.flags = 0
        self.func = None
        self.lock = None
        self.precision = 0
        self.run = None
        self.seq = 0
        self.state = FRESH
        self.time = 0

    def __repr__(self) -> str:
        func = getattr(self.func, "__qualname__", repr(self.func))
        words = [
            word
            for bit, word in ((PENDING, "pending"), (ACTIVE, "active"), (DIRECT, "direct"), (CLOSED, "terminated"))
            if self.state & bit
        ]
        if self.run is not None:
            words.append("running")
        return f"<Callout {func} on cpu {self.cpu.id}: {' '.join(words) or 'idle'} at {id(self):#x}>"
