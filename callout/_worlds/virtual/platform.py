"""Deterministic virtual SMP: CPUs, interrupts, softclocks and user threads are greenlets under one scheduler.

Time is virtual and moves only when a clock interrupt is taken. Switch points are: taking or dropping a lock, a wake-up,
a read that no lock guards.

A virtual CPU is one loop, as on trio: its interrupt and its tasks take turns and give way only where they await. So a
direct callout runs when softclock is idle or parked at a lock, never in the middle of another callback of its CPU. A
callback that blocks the thread blocks the whole CPU.

Not modelled: weak memory (everything is sequentially consistent), trio's scheduler, preemption inside plain Python code
between two switch points.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import greenlet

from ..._core.platform import Entry, Thread
from ..._core.state import Callout
from ..._core.units import NEVER, NS_PER_S
from .scheduler import Blocker, Chooser, Context, RunOn, Scheduler

__all__ = [
    "Blocker",
    "Chooser",
    "Context",
    "RunOn",
    "VirtualLock",
    "VirtualPlatform",
    "VirtualWaiter",
]


class VirtualLock:
    """A raw lock whose taking and dropping are switch points."""

    __slots__ = ("_platform", "holder", "label")

    def __init__(self, platform: VirtualPlatform, label: str) -> None:
        self._platform = platform
        self.label = label
        self.holder: Context | None = None

    def ready(self) -> bool:
        """Whether the lock is free."""
        return self.holder is None

    def acquire(self, blocking: bool = True, /) -> bool:
        """Take the lock; without *blocking*, return False if it is taken."""
        platform = self._platform
        if platform.off:
            raise greenlet.GreenletExit
        platform.point()
        if self.holder is not None:
            if not blocking:
                return False
            platform.block(self)
        self.holder = platform.current or platform.outside
        self.holder_depth(1)
        return True

    def release(self, /) -> None:
        """Give the lock back."""
        self.holder_depth(-1)
        self.holder = None
        self._platform.point()

    def holder_depth(self, by: int) -> None:
        """Count the CPU locks that a context holds: reads are not racy under one."""
        if self.label.startswith("cpu"):
            self._platform.locked += by


class VirtualWaiter:
    """A one-shot event; a task that waits for it gives its CPU's loop to the other tasks."""

    __slots__ = ("_blocks_cpu", "_is_set", "_platform", "label")

    def __init__(self, platform: VirtualPlatform, blocks_cpu: bool) -> None:
        self._platform = platform
        self._blocks_cpu = blocks_cpu
        self._is_set = False
        self.label = "a wake-up"

    def ready(self) -> bool:
        """Whether it is set."""
        return self._is_set

    async def wait(self) -> None:
        """Wait until it is set. Never yields: the greenlet is switched instead."""
        if self._blocks_cpu:
            if not self._is_set:
                self._platform.block(self)
        else:
            self._platform.give_way(self)

    def set(self) -> None:
        """Set it."""
        self._is_set = True
        self._platform.point()

    set_here = set


class _Interrupt:
    """What a CPU's interrupt context waits for: its clock or a call from another CPU."""

    __slots__ = ("_cpu", "_platform", "label")

    def __init__(self, platform: VirtualPlatform, cpu: int) -> None:
        self._platform = platform
        self._cpu = cpu
        self.label = f"an interrupt of cpu {cpu}"

    def ready(self) -> bool:
        platform = self._platform
        return platform.called[self._cpu] or platform.clock_may_strike(self._cpu)


class VirtualPlatform(Scheduler):
    """The deterministic world.

    ``free_clock``: a timer may strike at any moment after it was set; else only ``tick()`` makes it.
    """

    coalesces = False

    def __init__(self, chooser: Chooser | None = None, *, free_clock: bool = True, max_steps: int = 100_000) -> None:
        super().__init__(chooser, max_steps)
        self.free_clock = free_clock
        self.time = NS_PER_S
        self.events: list[int] = []
        self.struck: list[bool] = []  # hand-driven clock: this CPU's interrupt is due
        self.striking: list[bool] = []  # its clock interrupt is being served
        self.called: list[bool] = []
        self.entries: list[Entry] = []

    # -- the Platform protocol ----------------------------------------------------------------------------------

    def attach(self, cpu: int, entry: Entry) -> None:
        """Give the CPU its interrupt and its softclock."""
        assert cpu == len(self.entries)
        self.entries.append(entry)
        self.events.append(NEVER)
        self.struck.append(False)
        self.striking.append(False)
        self.called.append(False)
        self.loops.append(None)

    def power_on(self) -> None:
        """Start the interrupt and the softclock of every CPU, with the caller's context variables."""
        for cpu, entry in enumerate(self.entries):
            self.spawn(f"cpu{cpu}.interrupt", self._interrupts, cpu, entry, cpu=cpu)
            self.spawn(f"cpu{cpu}", self.drive, entry.softclock, cpu=cpu)

    def now(self) -> int:
        """Return the virtual time."""
        return self.time

    def current_thread(self) -> Thread:
        """Return the thread of the current context."""
        return (self.current or self.outside).thread

    def current_cpu(self) -> int:
        """Return the CPU of the current context."""
        context = self.current or self.outside
        return context.bound if context.cpu is None else context.cpu

    def in_loop(self) -> bool:
        """Whether the current context is a task of a CPU."""
        return self.current is not None and self.current.cpu is not None

    def raw_lock(self, label: str) -> VirtualLock:
        """Return a lock."""
        return VirtualLock(self, label)

    def waiter(self) -> VirtualWaiter:
        """Return a waiter."""
        self._about_to_park()
        return VirtualWaiter(self, blocks_cpu=False)

    def thread_waiter(self) -> VirtualWaiter:
        """Return a waiter that stops the whole CPU, if it is one."""
        self._about_to_park()
        return VirtualWaiter(self, blocks_cpu=True)

    def _about_to_park(self) -> None:
        """Between finding that one has to wait and saying that one waits, others may run."""
        if not self.locked:
            self.point()

    def set_event(self, cpu: int, when: int) -> None:
        """Program the event timer."""
        self.point()
        self.events[cpu] = when

    def interrupt(self, cpu: int) -> None:
        """Have the CPU take its calls."""
        self.called[cpu] = True
        self.point()

    async def checkpoint(self) -> None:
        """Give the CPU's loop away and take it back."""
        self.give_way(None)

    def shield(self) -> AbstractContextManager[object]:
        """Return an empty block: there is no cancellation here."""
        return contextlib.nullcontext()

    def racy(self, record: type) -> type:
        """Return a subclass of a callout record in which unlocked reads are switch points."""
        if issubclass(record, _Racy):
            return record
        made = _RACY.get(record)
        if made is None:
            made = _RACY[record] = type(record.__name__, (_Racy, record), {"__slots__": ()})
        return made

    # -- time and interrupts ------------------------------------------------------------------------------------

    def stuck(self) -> list[Context]:
        """Return the contexts that have not finished and cannot run, except interrupts and softclocks that have
        nothing to do.
        """
        return [
            c for c in self.contexts if not (c.cpu is not None and isinstance(c.waits_for, _Interrupt | VirtualWaiter))
        ]

    def tick(self, tick: int) -> None:
        """Move a hand-driven clock by *tick* ns; every CPU whose deadline has come is to take its clock interrupt."""
        self.time += tick
        for cpu, when in enumerate(self.events):
            # Interrupts that come while one is being served merge into one that follows it.
            if when <= self.time or self.striking[cpu]:
                self.struck[cpu] = True

    def clock_may_strike(self, cpu: int) -> bool:
        """Whether this CPU's clock interrupt may be taken now."""
        return self.events[cpu] != NEVER if self.free_clock else self.struck[cpu]

    def _interrupts(self, cpu: int, entry: Entry) -> None:
        waits = _Interrupt(self, cpu)
        while True:
            self.give_way(waits)
            if self.called[cpu]:
                self.called[cpu] = False
                entry.calls()
            elif self.clock_may_strike(cpu):
                self.struck[cpu] = False
                if self.free_clock:
                    self.time = max(self.time, self.events[cpu])
                self.events[cpu] = NEVER
                self.striking[cpu] = True
                while entry.hardclock():
                    self.give_way(None)
                self.striking[cpu] = False


class _Racy:
    """Makes the unlocked reads of a callout switch points."""

    __slots__ = ()


def _racy_field(name: str) -> property:
    slot = Callout.__dict__[name]

    def read(self: Callout) -> object:
        cpu = _slot_cpu.__get__(self)
        platform = cpu.machine.platform if cpu.id >= 0 else None
        if platform is not None and not platform.locked:
            platform.point()
        return slot.__get__(self)

    def write(self: Callout, value: object) -> None:
        slot.__set__(self, value)

    return property(read, write)


_slot_cpu = Callout.__dict__["cpu"]
_Racy.cpu = _racy_field("cpu")  # type: ignore[attr-defined]  # added to the class by name
_Racy.state = _racy_field("state")  # type: ignore[attr-defined]  # as above
_RACY: dict[type, type] = {}
