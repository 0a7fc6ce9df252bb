"""The records of one machine: its CPUs, the runs in progress on them, and who waits for those. No behaviour.

Who may touch what:

=====================  =====================================================================================
field                  guarded by
=====================  =====================================================================================
``Cpu.wheel``,         that CPU's lock
``expireq``,
``directq``, ``seq``,
``deadline``
``Cpu.idle``           that CPU's lock; set only by its softclock
``Cpu.lock``           replaced once, under itself, when the machine closes (then every call is refused)
``Cpu.open``           written under that CPU's lock; read without it by cross-CPU calls, which look again afterwards
``Cpu.calls``          nothing: appending to and taking from a deque are atomic
``Run.*``              the lock of ``Run.cpu``; ``state`` leaves WAITING under it only
``Callout.*``          the lock of ``Callout.cpu``; ``Callout.cpu`` itself, both CPUs' locks
=====================  =====================================================================================

While a callout has a run in progress it stays on the CPU of that run, so one lock guards all that is known of it.

Source: struct callout_cpu and struct cc_exec of kern_timeout.c. The kernel has one execution slot a kind (direct or
not) and one waiting flag and one drain function in each; here a run is a record, and any number may wait for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from .errors import NoSystemError
from .phases import Phase, Use, admit
from .state import Callout, Func, Refusal
from .units import NEVER
from .wheel import DueQueue, Wheel

if TYPE_CHECKING:
    from .._locks.mutex import Lock, Mtx
    from .platform import Platform, RawLock, Thread, Waiter
    from .sleep import Sleeper

# The state of a run in progress.
WAITING: Final = 0  # dequeued; softclock stands at the callout's lock: may still be cancelled
CANCELLED: Final = 1  # told to skip the callback, but softclock still stands at the lock
STARTED: Final = 2  # cannot be stopped now

# What a ticket asks of the end of the run it waits for.
T_REFUSE: Final = 1  # until then, every arming is refused
T_DEQUEUE: Final = 2  # then, take away a queued next run, and tell the first who asked
T_CLOSE: Final = 4  # then, close the callout for good

BARRIER: Final = 0
DRAIN: Final = T_REFUSE | T_DEQUEUE
SYNC: Final = T_DEQUEUE


class Move:
    """A reset onto another CPU that came during a run: carried out when the run has ended."""

    __slots__ = ("arg", "cpu", "direct", "func", "precision", "time")

    def __init__(self, cpu: Cpu, time: int, precision: int, func: Func, arg: object, direct: bool) -> None:
        self.cpu, self.time, self.precision, self.func, self.arg, self.direct = cpu, time, precision, func, arg, direct


class Ticket:
    """One who waits for the end of a run: by a waiter, or by a function that is called then."""

    __slots__ = ("arg", "asks", "func", "removed", "waiter")

    def __init__(self, asks: int, waiter: Waiter | None, func: Func | None = None, arg: object = None) -> None:
        self.asks = asks
        self.waiter = waiter
        self.func = func
        self.arg = arg
        self.removed = False  # the answer: the end of the run took a queued next run away


class Run:
    """One run in progress: which callout, who runs it, how far it is, what is put off until it has ended."""

    __slots__ = (
        "arg",
        "callout",
        "cpu",
        "due",
        "func",
        "lock",
        "move",
        "refusing",
        "shared",
        "state",
        "tickets",
        "unlocked",
    )

    def __init__(self, c: Callout, cpu: Cpu, state: int) -> None:
        self.callout = c
        self.cpu = cpu
        self.state = state
        # A reset during the run writes new values into the callout: those of this run are kept here.
        self.func = c.func
        self.arg = c.arg
        self.lock = c.lock
        self.shared = False
        self.unlocked = False
        self.due = c.time
        self.move: Move | None = None
        self.refusing = False
        self.tickets: list[Ticket] | None = None


class Cpu:
    """One CPU: its wheel, its queues and its lock."""

    __slots__ = (
        "boot",
        "calls",
        "current_thread",
        "deadline",
        "direct",
        "directq",
        "expireq",
        "id",
        "idle",
        "lock",
        "machine",
        "now",
        "only",
        "open",
        "seq",
        "standing",
        "thread",
        "tick",
        "wheel",
    )

    def __init__(self, machine: Machine, number: int) -> None:
        self.id = number
        self.machine = machine
        self.lock: RawLock = machine.platform.raw_lock(f"cpu{number}")
        self.now: Callable[[], int] = machine.platform.now
        self.tick: int = machine.tick  # nanoseconds
        self.boot: int = machine.boot
        self.current_thread: Callable[[], Thread] = machine.platform.current_thread
        self.only = False  # the machine has no other
        self.seq = 0
        self.wheel = Wheel(self)
        self.expireq = DueQueue(self, -1)  # due, for softclock
        self.directq = DueQueue(self, -2)  # due, for the interrupt that found them
        self.deadline = NEVER  # what the event timer should be set to
        self.idle: Waiter | None = None  # softclock waits here when it has nothing to do
        self.standing: Run | None = None  # softclock's run in progress
        self.direct: Run | None = None  # the clock interrupt's
        self.thread: Thread = None  # whose loop this is
        self.open = True
        self.calls: deque[Callable[[], None]] = deque()


class Machine:
    """One callout system: its platform, CPUs, Giant and settings."""

    __slots__ = (
        "__weakref__",
        "boot",
        "budget",
        "cpus",
        "dead",
        "expensive",
        "giant",
        "held",
        "hz",
        "origins",
        "phase",
        "platform",
        "precexp",
        "report",
        "sleepers",
        "slow",
        "stall",
        "tick",
        "waits",
    )

    def __init__(self, platform: Platform, hz: int, tick: int, precexp: int) -> None:
        self.platform = platform
        self.hz = hz
        self.tick = tick
        self.precexp = precexp
        self.boot = platform.now()
        self.cpus: tuple[Cpu, ...] = ()
        self.giant: Mtx
        self.dead: Refusal | None = None  # in a forked child: who would wait for a lock here is told so
        self.phase = Phase.OPENING  # written under the locks of all CPUs
        self.sleepers: dict[Sleeper, None] = {}  # who waits for an event; woken when the machine is closed
        # Checking mode: the locks that each thread holds, oldest first, and where each callout was armed. None: off.
        self.held: dict[Thread, list[Lock]] | None = None
        self.origins: WeakKeyDictionary[Callout, str] | None = None
        self.budget = NEVER  # nanoseconds for which softclock may run without a checkpoint
        self.slow = NEVER  # nanoseconds after which a callback is an expensive one
        self.report: Callable[[BaseException, Callout | None], None]  # an exception left a callback or a completion
        self.expensive: Callable[[Func, int], None]  # a callback took that long
        # A block in which somebody waits: the call named for a run of this callout, or, "lock", that run for its lock.
        self.waits: Callable[[str, Callout], AbstractContextManager[object]] = _unwatched
        # A named place in which softclock can be held up, to stage a race on purpose: between dequeue and lock.
        self.stall: Callable[[Callout], Awaitable[None]] | None = None


def _unwatched(what: str, c: Callout) -> AbstractContextManager[object]:
    return nullcontext()


CURRENT: ContextVar[Machine] = ContextVar("callout.machine")
FINDERS: Final[list[Callable[[], Machine | None]]] = []  # where a world looks if nothing is bound here


def current_machine(call: str) -> Machine:
    """Return the machine that is bound here (tasks and threads inherit that), else the one that a world finds here.

    Raises:
        NoSystemError: there is none.
        ClosedError, ForkedError: there was one.
    """
    machine = CURRENT.get(None)
    if machine is None:
        for find in FINDERS:
            machine = find()
            if machine is not None:
                break
        else:
            raise NoSystemError(
                f"{call}: no callout system is open here; run this inside `async with open_callouts():`, "
                "or, in a thread of your own, inside `with system.bound():`"
            )
    if machine.phase >= Phase.CLOSED:
        admit(call, machine, Use.CURRENT)
    return machine
