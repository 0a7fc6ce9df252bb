"""The records of one machine's CPUs: lanes, runs in progress, and tickets of those that wait for a run. No behaviour.

``GUARDED`` says which lock guards which field; the exploration of the engine checks every store against it.

While a callout has a run in progress it stays on the CPU of that run, so one lock guards all that is known of it.

Source: struct callout_cpu and struct cc_exec of kern_timeout.c. The kernel has an execution slot for softclock and one
for the interrupt, ``cc_exec_entity[2]``; a lane is that, with its queue. One waiting flag and one drain function belong
to each slot there; here a run is a record, and any number may wait for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from . import state
from .errors import NotInitializedError
from .refusal import Refusal
from .state import Func, Ring
from .units import NEVER
from .wheel import Wheel

if TYPE_CHECKING:
    from .._api.callout import Callout
    from .machine import Machine
    from .platform import Thread, Waiter
    from .rawlock import RawLock

# The state of a run in progress.
WAITING: Final = 0  # dequeued; softclock is at the callout's lock: may still be cancelled
CANCELLED: Final = 1  # told to skip the callback, but softclock is still at the lock
STARTED: Final = 2  # cannot be stopped now

# What a ticket asks of the end of the run it waits for.
T_REFUSE: Final = 1  # until then, every arming is refused
T_DEQUEUE: Final = 2  # then, remove a queued next run, and tell the first ticket that asked for it
T_CLOSE: Final = 4  # then, close the callout for good
T_FORGET: Final = 8  # then, have it refer to nothing any more

BARRIER: Final = 0
DRAIN: Final = T_REFUSE | T_DEQUEUE
SYNC: Final = T_DEQUEUE
CLOSE: Final = DRAIN | T_CLOSE | T_FORGET

# Which lock a store needs.
BY_CPU: Final = "the lock of this CPU"
BY_RUN: Final = "the lock of the run's CPU"
BY_CALLOUT: Final = "the lock of the callout's CPU"
BY_BOTH: Final = "the locks of the old CPU and the new one"
BY_LOOP: Final = "the loop of this CPU"
GUARDED: Final[Mapping[str, Mapping[str, str]]] = {
    "Cpu": {
        "busy": BY_CPU,
        "deadline": BY_CPU,
        "lock": BY_CPU,  # replaced once, when the machine closes: then every call is refused
        "begun": BY_CPU,
        "cancelled": BY_CPU,
        "closed": BY_CPU,
        "drained": BY_CPU,
        "fresh": BY_CPU,
        "migrated": BY_CPU,
        "moved": BY_CPU,
        "plain": BY_CPU,
        "refiled": BY_CPU,
        "refused": BY_CPU,
        "removed": BY_CPU,
        "open": BY_CPU,  # read without it by cross-CPU calls, which look again afterwards
        "seq": BY_CPU,
        "idle": BY_LOOP,
        "thread": BY_LOOP,
    },
    "Lane": {"run": BY_CPU},
    "Run": {"state": BY_RUN, "move": BY_RUN, "removed": BY_RUN, "refusing": BY_RUN, "tickets": BY_RUN},
    "Callout": {
        "arg": BY_CALLOUT,
        "c_cpu": BY_BOTH,
        "filed": BY_CALLOUT,
        "func": BY_CALLOUT,
        "key": BY_CALLOUT,
        "next": BY_CALLOUT,
        "precision": BY_CALLOUT,
        "prev": BY_CALLOUT,
        "run": BY_CALLOUT,
        "seq": BY_CALLOUT,
        "state": BY_CALLOUT,
        "time": BY_CALLOUT,
    },
}


class Move:
    """A reset onto another CPU that came during a run: carried out when the run has ended."""

    __slots__ = ("arg", "before", "cpu", "direct", "func", "precision", "time")

    def __init__(self, cpu: Cpu, time: int, precision: int, func: Func, arg: object, direct: bool) -> None:
        self.cpu, self.time, self.precision, self.func, self.arg, self.direct = cpu, time, precision, func, arg, direct
        self.before: Move | None = None  # the one that was removed before this one


class Ticket:
    """One wait for the end of a run: by a waiter, or by a function that is called then."""

    __slots__ = ("arg", "asks", "func", "promised", "removed", "rest", "waiter")

    def __init__(self, asks: int, waiter: Waiter | None, func: Func | None = None, arg: object = None) -> None:
        self.asks = asks
        self.waiter = waiter
        self.func = func
        self.arg = arg
        self.removed = False  # the result: the end of the run removed a queued next run
        self.rest: deque[None] | None = None  # of one that waits for several runs: one item for each but the last
        self.promised = False  # of one that waits for no run: it will be called


class Run:
    """One run in progress: which callout, which lane, how far it is, what is deferred until it has ended."""

    __slots__ = (
        "arg",
        "callout",
        "cpu",
        "due",
        "func",
        "lane",
        "lock",
        "move",
        "refusing",
        "removed",
        "shared",
        "state",
        "tickets",
        "unlocked",
    )

    def __init__(self, c: Callout, lane: Lane, state: int, shared: bool, unlocked: bool) -> None:
        self.callout = c
        self.lane = lane
        self.cpu = lane.cpu
        self.state = state
        self.due = c.time
        # A reset during the run writes new values into the callout: those of this run are kept here.
        self.func = c.func
        self.arg = c.arg
        self.lock = c.lock
        self.shared = shared
        self.unlocked = unlocked
        self.move: Move | None = None
        self.removed: Move | None = None  # moves that were removed: what they refer to dies with the run, under no lock
        self.refusing = False
        self.tickets: list[Ticket] | None = None


class Lane:
    """What runs callouts on a CPU, one at a time: softclock, or the clock interrupt. What is due, and what runs."""

    __slots__ = ("cpu", "direct", "queue", "run")

    def __init__(self, cpu: Cpu, direct: bool) -> None:
        self.cpu = cpu
        self.direct = direct
        self.queue = Ring()
        self.run: Run | None = None

    def __repr__(self) -> str:
        return f"{'the clock interrupt' if self.direct else 'softclock'} of cpu {self.cpu.id}"


class Tally:
    """What a loop counts of its own work. Written by that loop alone, with no lock; times are in ns."""

    __slots__ = (
        "errors",
        "late",
        "latest",
        "longest",
        "longest_function",
        "parked",
        "parks",
        "spent",
        "total_late",
        "wakeups",
    )

    def __init__(self) -> None:
        self.late = [0] * 65  # runs, by how many bits the ns have by which they were late
        self.total_late = 0
        self.latest = 0
        self.spent = 0  # in callbacks
        self.longest = 0  # of them
        self.longest_function: str | None = None
        self.errors = 0  # callbacks with which something was wrong
        self.parks = 0  # of softclock, at locks
        self.parked = 0
        self.wakeups = 0  # clock interrupts


class Cpu:
    """One CPU: its wheel, its lanes and its lock."""

    __slots__ = (
        "begun",
        "boot",
        "busy",
        "calls",
        "cancelled",
        "closed",
        "current_thread",
        "deadline",
        "drained",
        "fresh",
        "id",
        "idle",
        "interrupt",
        "lanes",
        "lock",
        "machine",
        "migrated",
        "moved",
        "now",
        "only",
        "open",
        "plain",
        "refiled",
        "refused",
        "removed",
        "seq",
        "softclock",
        "tally",
        "thread",
        "tick",
        "wheel",
    )

    def __init__(self, machine: Machine, number: int) -> None:
        self.id = number
        self.machine = machine
        self.lock: RawLock
        self.busy = False  # the lock's holder is at work: what finds it so interrupts that work
        self.now: Callable[[], int] = machine.platform.now
        self.tick: int  # nanoseconds
        self.boot: int
        self.current_thread: Callable[[], Thread] = machine.platform.current_thread
        self.only = False  # the machine has no other
        # Itself where the short paths may be gone; None while each call goes the long way: the machine quiesces.
        self.plain: Cpu | None = self
        self.seq = 0
        # Counted, so that pending is fresh + moved - removed - begun, and to arm anew what is pending costs nothing:
        self.fresh = 0  # armings of what was not pending
        self.moved = 0  # what has come from other CPUs while it was pending, less what has gone to them
        self.removed = 0  # scheduled runs that were removed
        self.begun = 0  # runs
        self.refiled = 0  # of the numbers in ``seq``, those that stand for no arming of this CPU
        self.cancelled = 0  # runs that were stopped while softclock was at their lock
        self.migrated = 0  # armings that have brought a callout here
        self.drained = 0  # calls that have drained
        self.closed = 0  # callouts that were closed for good
        self.refused = 0  # armings
        self.wheel: Wheel
        self.softclock = Lane(self, direct=False)
        self.interrupt = Lane(self, direct=True)
        self.lanes = (self.softclock, self.interrupt)
        self.deadline = NEVER  # what the event timer should be set to
        self.idle: Waiter | None = None  # softclock waits here when it has nothing to do
        self.thread: Thread = None  # whose loop this is
        self.open = True
        self.calls: deque[Callable[[], None]] = deque()
        self.equip()

    def equip(self) -> None:
        """Make what every call uses. A loop of its own calls this again, before anybody uses the CPU.

        Without a GIL, threads wait for each other where they write to the same line of the cache; and every use of an
        object writes to it, for it counts references. What a thread makes is far from what others make. The numbers
        are new objects, too.
        """
        machine = self.machine
        self.lock = machine.platform.cpu_lock(self.id)
        self.wheel = Wheel()
        self.tally = Tally()
        self.tick = machine.tick + 0
        self.boot = machine.boot + 0


class NoCpu(Cpu):
    """Stands where a callout has no CPU. Its number is nobody's, and its lock refuses."""

    __slots__ = ()

    def __init__(self, number: int, lock: Refusal) -> None:
        self.id = number
        self.lock = lock
        # What is looked at before the lock is acquired, and must not raise.
        self.now = int
        self.only = True
        self.boot = 0
        self.tick = 1


NOWHERE: Final = NoCpu(
    -1,
    Refusal(
        NotInitializedError,
        "this callout was never initialised: call callout_init(c, 1) first, or make one with system.callout()",
    ),
)
state.NOWHERE = NOWHERE
