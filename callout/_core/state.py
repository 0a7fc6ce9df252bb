"""The callout record and the bits of its state.

Pure data. The fields of a callout belong to the lock of the CPU that ``c_cpu`` names; ``c_cpu`` itself changes only
under both CPUs' locks, so code that has read it, acquired that CPU's lock and read it again may touch the rest.

Three fields are read without a lock, on purpose: ``c_cpu`` (to find the lock), and ``state`` by ``callout_pending()``
and ``callout_active()``. The virtual platform makes these reads switch points.

Source: struct callout of sys/_callout.h; the flags split of kern_timeout.c (c_flags, c_iflags).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, SupportsIndex, cast

from .build import CORE, PURE
from .errors import ArgumentTypeError

if TYPE_CHECKING:
    from .._locks.lock import Lock
    from .cpu import Cpu, Run

PENDING: Final = 0x01  # a run is scheduled: filed in the wheel, in a due queue, or as a deferred migration
ACTIVE: Final = 0x02  # armed, and neither stopped nor deactivated since
QUEUED: Final = 0x04  # pending in a due queue of its CPU (the kernel: CALLOUT_PROCESSED)
MOVING: Final = 0x08  # pending as a deferred migration (the kernel: CALLOUT_DFRMIGRATION)
DIRECT: Final = 0x10  # runs in the clock interrupt; once direct, always direct
CLOSED: Final = 0x20  # callout_terminate() came: never armed again
CAREFUL: Final = 0x40  # every arming goes the long way (coalescing, an inexact tick, or a test wants it)
TRACED: Final = 0x80  # checking mode: where it was armed is noted
FRESH: Final = 0x100  # never initialised
FIXED: Final = 0x200  # periodic: its function and argument are not replaced

ARMED: Final = PENDING | ACTIVE  # the whole state of a plain callout in the wheel: what the short paths test for
ARMED_TRACED: Final = ARMED | TRACED  # the same in checking mode
NOT_IDLE: Final = ~(ACTIVE | TRACED)  # of these an idle plain callout has none: active outlives the run

# What every operation finds out, under one hold of the CPU's lock. Each dialect's result is a view of these two bits.
REMOVED: Final = 1  # a scheduled run was removed: it will not happen
RUNNING: Final = 2  # a run is in progress, and this operation did not stop it
# And of an arming, which no result of C tells:
REFUSED: Final = 4  # nothing was armed

# Any: the argument's type is tied to the function's at the API, where mypy checks the pair; the record forgets it.
Func = Callable[[Any], object]


class Link:
    """What can be in a ring: a doubly linked list through the records themselves, as the kernel's LIST.

    Linking and unlinking are a few plain stores, with no call between: nothing can interrupt them half way, neither a
    finalizer nor what a signal handler raises.
    """

    __slots__ = ("next", "prev")

    next: Link | None
    prev: Link | None


class Ring(Link):
    """The head of a ring. It is in its own ring, so that no end is a special case."""

    __slots__ = ()

    next: Link  # type: ignore[mutable-override]  # a head is always in its own ring
    prev: Link  # type: ignore[mutable-override]  # as above

    def __init__(self) -> None:
        self.next = self.prev = self

    def __bool__(self) -> bool:
        return self.next is not self

    def append(self, link: Link) -> None:
        """Put *link*, which is in no ring, at the end of this one."""
        last = self.prev
        link.prev, link.next = last, self
        last.next = self.prev = link


# Of the compiled core, what ``__init__()`` did not make looks idle, and has no CPU.
UNMADE_IS_IDLE: Final = CORE != PURE

# Whether a subclass can have a say in each use of a field, as an exploration must: C code goes by the place of a field,
# not by its name, unless it was compiled for that (``sources.add_switch_points()``).
SEES_READS: Final = CORE == PURE

NOWHERE: Cpu = cast("Cpu", None)  # the CPU of a callout that was never initialised: the module cpu puts it here

# What a callout is at, for repr: by the state of its run.
RUN_WORDS: Final = ("waiting for its lock", "cancelled at its lock", "running")


class Record(Link):
    """The fields of a callout.

    Of the compiled core this is a structure of C, whose objects keep their class for ever: hence ``Callout``.
    """

    __slots__ = (
        "__weakref__",
        "arg",  # c_arg
        "c_cpu",  # its lock guards all the other fields
        "filed",  # the ``seq`` under which the open ring of the wheel has it; another now: pushed out since
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
    c_cpu: Cpu
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
        self.next = self.prev = None
        self.arg = None
        self.c_cpu = NOWHERE
        self.filed = 0
        self.flags = 0
        self.func = None
        self.lock = None
        self.precision = 0
        self.run = None
        self.seq = 0
        self.state = FRESH
        self.time = 0

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be copied or pickled: a twin of a pending callout would be in the wheel without being filed."""
        raise ArgumentTypeError(
            f"{self!r} cannot be copied or pickled; make a new Callout and initialise it", callout=self
        )


# What reads and writes a field of a callout, by its name: also if its class would do something else.
FIELDS: Final = {
    name: field
    for kind in (Link, Record)
    for name, field in vars(kind).items()
    if hasattr(field, "__set__") and not name.startswith("__")
}
