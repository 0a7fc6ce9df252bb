"""The record of one machine, a callout system, and which one is current."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from .deadline import tick_length
from .errors import NoSystemError
from .phases import Phase, Use, admit
from .serials import Serials
from .units import NEVER
from .weak import ByIdentity

if TYPE_CHECKING:
    from .._api.callout import Callout
    from .._locks.lock import Lock
    from .._locks.mutex import Mtx
    from .cpu import Cpu
    from .origins import Origins
    from .platform import Platform, Thread
    from .refusal import Refusal
    from .sleep import Sleeper
    from .state import Func
    from .trace import Tracer
    from .witness import Witness


class Extra:
    """What is known of a callout over and above its record: few have it, so the others pay nothing for it."""

    __slots__ = ("name", "tolerance")

    def __init__(self, name: str | None, tolerance: int) -> None:
        self.name = name
        self.tolerance = tolerance  # ns by which it may be late, so that wake-ups are shared


class Machine:
    """One callout system: its platform, CPUs, Giant and settings."""

    __slots__ = (
        "__weakref__",
        "attached",
        "boot",
        "budget",
        "call",
        "careful",
        "cpus",
        "dead",
        "epoch",
        "expensive",
        "extras",
        "faults",
        "fresh",
        "giant",
        "held",
        "hz",
        "kind",
        "making",
        "origins",
        "phase",
        "plain",
        "platform",
        "precexp",
        "report",
        "serials",
        "sleepers",
        "slow",
        "stall",
        "tick",
        "trace",
        "unlocked",
        "waits",
        "witness",
    )

    def __init__(self, platform: Platform, hz: int, precexp: int) -> None:
        self.platform = platform
        self.hz = hz
        self.tick, exact = tick_length(hz)  # in nanoseconds, rounded up
        self.careful = not exact  # every arming goes the long way
        self.precexp = precexp
        self.boot = platform.now()
        self.epoch = 0  # ns: what the clock of system.current_time() is ahead of the engine's
        self.extras: ByIdentity[Callout, Extra] = ByIdentity()  # what only some callouts have
        self.serials: Serials[Callout] = Serials()
        self.cpus: tuple[Cpu, ...] = ()
        self.giant: Mtx
        self.making = platform.raw_lock("parking lots")  # held while one is made, for the first that parks at a lock
        self.dead: Refusal | None = None  # in a forked child: what a thread that would wait for a lock is told
        self.phase = Phase.OPENING  # written under the locks of all CPUs
        self.attached: dict[str, object] = {}  # what modules above the engine keep of this machine, by their names
        # What waits for an event; woken when the machine is closed.
        self.sleepers: dict[Sleeper, None] = platform.shared({})
        # Checking mode: the locks that each thread holds, oldest first, and where each callout was armed. None: off.
        self.held: dict[Thread, list[Lock]] | None = None
        self.origins: Origins | None = None
        self.witness: Witness | None = None  # the order in which locks are acquired
        # What must not be lost even if the user's code catches it, a slab's reports for example. None: off.
        self.faults: list[BaseException] | None = None
        # The state of a callout that is initialised for the first time, if nothing but that and its CPU has to change;
        # None: the long way finds out.
        self.fresh: int | None = None
        self.plain: type[Callout]  # a plain callout
        self.kind: type[Callout]  # what it becomes here
        self.trace: Tracer | None = None  # where every event is told of, under a CPU's lock or on its loop. None: off
        self.budget = NEVER  # nanoseconds for which softclock may run without a checkpoint
        self.slow = NEVER  # nanoseconds after which a callback is an expensive one
        # Runs a callback or a completion. The caller reports what leaves it.
        self.call: Callable[[Func, object], None]
        # An exception left a callback or a completion. Never raises.
        self.report: Callable[[BaseException, Callout | None], None]
        self.expensive: Callable[[Func, int], None]  # a callback took that long. Never raises
        # A block in which somebody waits: the call named for a run of this callout, or, "lock", that run for its lock.
        self.waits: Callable[[str, Callout], AbstractContextManager[object]] = _unwatched
        # In checking mode, told of a callout that was armed anew without its lock, with the lock of its CPU held. Never
        # raises, and calls nothing of the user's. None: nobody wants to know.
        self.unlocked: Callable[[Callout], None] | None = None
        # A named place in which softclock can be held up, to stage a race on purpose: between dequeue and lock.
        self.stall: Callable[[Callout], Awaitable[None]] | None = None

    def note(self, c: Callout) -> None:
        """In checking mode, note where *c* is being armed, and tell of one that is armed anew without its lock."""
        if self.origins is not None:
            lock = c.lock
            if self.unlocked is None or lock is None or lock.holds() or self.origins.get(c) is None:
                self.origins.note(c)
            else:
                self.origins.note(c)
                self.unlocked(c)


def _unwatched(what: str, c: Callout) -> AbstractContextManager[object]:
    return nullcontext()


CURRENT: Final[ContextVar[Machine]] = ContextVar("callout.machine")
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
                "or, in a thread of your own, inside `with system.bound():`",
                call=call,
            )
    if machine.phase >= Phase.CLOSED:
        admit(call, machine, Use.CURRENT)
    return machine
