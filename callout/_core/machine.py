"""The record of one machine, a callout system, and which one is current."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from .deadline import tick_length
from .errors import NoSystemError
from .units import NEVER

if TYPE_CHECKING:
    from .._locks.lock import Lock
    from .._locks.mutex import Mtx
    from .cpu import Cpu
    from .origins import Origins
    from .platform import Platform, Thread
    from .refusal import Refusal
    from .state import Callout, Func


class Machine:
    """One callout system: its platform, CPUs, Giant and settings."""

    __slots__ = (
        "__weakref__",
        "boot",
        "budget",
        "careful",
        "closing",
        "cpus",
        "dead",
        "expensive",
        "giant",
        "held",
        "hz",
        "origins",
        "platform",
        "precexp",
        "report",
        "slow",
        "stall",
        "tick",
    )

    def __init__(self, platform: Platform, hz: int, precexp: int) -> None:
        self.platform = platform
        self.hz = hz
        self.tick, exact = tick_length(hz)  # in nanoseconds, rounded up
        self.careful = not exact  # every arming goes the long way
        self.precexp = precexp
        self.boot = platform.now()
        self.cpus: tuple[Cpu, ...] = ()
        self.giant: Mtx
        self.dead: Refusal | None = None  # in a forked child: who would wait for a lock here is told so
        self.closing = False  # arming is refused: the block is being left
        # Checking mode: the locks that each thread holds, oldest first, and where each callout was armed. None: off.
        self.held: dict[Thread, list[Lock]] | None = None
        self.origins: Origins | None = None
        self.budget = NEVER  # nanoseconds for which softclock may run without a checkpoint
        self.slow = NEVER  # nanoseconds after which a callback is an expensive one
        # An exception left a callback or a completion. Never raises.
        self.report: Callable[[BaseException, Callout | None], None]
        self.expensive: Callable[[Func, int], None]  # a callback took that long. Never raises
        # A named place in which softclock can be held up, to stage a race on purpose: between dequeue and lock.
        self.stall: Callable[[Callout], Awaitable[None]] | None = None

    def note(self, c: Callout) -> None:
        """In checking mode, note where *c* is being armed."""
        if self.origins is not None:
            self.origins.note(c)


CURRENT: Final[ContextVar[Machine]] = ContextVar("callout.machine")


def current_machine(call: str) -> Machine:
    """Return the machine that this code runs on."""
    machine = CURRENT.get(None)
    if machine is None:
        raise NoSystemError(
            f"{call}: no callout system is open here; run this inside `async with open_callouts():`, "
            "or, in a thread of your own, inside `with system.bound():`"
        )
    return machine
