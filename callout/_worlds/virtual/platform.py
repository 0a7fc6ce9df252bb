"""Deterministic virtual SMP: CPUs, interrupts, softclocks and user threads are greenlets under one scheduler.

Time is virtual and moves only when a clock interrupt is taken. Whoever runs goes on until a *switch point*: taking or
dropping a lock, a wake-up, a read that no lock guards. There a *chooser* picks who runs next; nothing else is left to
chance, so the chooser's answers are the schedule.

A virtual CPU is one loop, as on trio: its interrupt and its tasks take turns and give way only where they await. So a
direct callout runs when softclock is idle or parked at a lock, never in the middle of another callback of its CPU. A
callback that blocks the thread blocks the whole CPU.

Not modelled: weak memory (everything is sequentially consistent), trio's scheduler, preemption inside plain Python code
between two switch points.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from ..._core.errors import DeadlockError, LivelockError, MissingExtraError
from ..._core.platform import Entry, Thread
from ..._core.state import Callout
from ..._core.units import NEVER, NS_PER_S

try:
    import greenlet
except ImportError as error:  # pragma: no cover - the test for it blocks the import in a process of its own
    raise MissingExtraError(
        "the virtual platform needs greenlet: install it with  pip install 'callout[explore]'"
    ) from error


__all__ = [
    "Blocker",
    "Chooser",
    "Context",
    "RunOn",
    "VirtualLock",
    "VirtualPlatform",
    "VirtualWaiter",
]

T = TypeVar("T")


class Context:
    """One thread of control: a user thread, a CPU's interrupt, a CPU's softclock, or a task on a CPU."""

    __slots__ = ("bound", "cpu", "error", "greenlet", "name", "thread", "waits_for")

    def __init__(self, name: str, cpu: int | None, bound: int, thread: Thread) -> None:
        self.name = name
        self.cpu = cpu  # whose loop it is a task of
        self.bound = bound  # the current CPU, for a thread that is no loop
        self.thread = thread
        self.waits_for: Blocker | None = None
        self.error: BaseException | None = None
        self.greenlet: greenlet.greenlet

    def __repr__(self) -> str:
        return f"<{self.name}{'' if self.waits_for is None else f' waits for {self.waits_for.label}'}>"


class Blocker(Protocol):
    """What a context can wait for."""

    label: str

    def ready(self) -> bool:
        """Whether the wait is over."""
        ...


class Chooser(Protocol):
    """Picks who runs next."""

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Return one of *runnable*, which is sorted by age and not empty.

        *current* is who stands at a switch point, if it could go on.
        """
        ...


class RunOn:
    """The default chooser: whoever runs goes on; then the oldest."""

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Return *current* if it can go on."""
        return current if current is not None else runnable[0]


class VirtualLock:
    """A raw lock whose acquiring and releasing are switch points. Recursive, as ``threading.RLock`` is."""

    __slots__ = ("_depth", "_platform", "holder", "label")

    def __init__(self, platform: VirtualPlatform, label: str) -> None:
        self._platform = platform
        self.label = label
        self.holder: Context | None = None
        self._depth = 0

    def ready(self) -> bool:
        """Whether the lock is free."""
        return self.holder is None

    def _is_owned(self) -> bool:
        platform = self._platform
        return self.holder is not None and self.holder.thread == (platform.current or platform.outside).thread

    def acquire(self, blocking: bool = True, /) -> bool:
        """Take the lock; without *blocking*, return False if it is taken."""
        platform = self._platform
        if platform.off:
            raise greenlet.GreenletExit
        platform.point()
        if self._is_owned():
            self._depth += 1
            return True
        if self.holder is not None:
            if not blocking:
                return False
            platform.block(self)
        self.holder = platform.current or platform.outside
        self.holder_depth(1)
        return True

    def release(self, /) -> None:
        """Release the lock."""
        if not self._is_owned():
            raise RuntimeError(f"cannot release un-acquired lock {self.label}")
        if self._depth:
            self._depth -= 1
            return
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


class _Quiet:
    """What a context waits for that wants everybody else to have come to a standstill."""

    label = "a standstill of all others"

    @staticmethod
    def ready() -> bool:
        """Never by itself: see ``_runnable``."""
        return False


class VirtualPlatform:
    """The deterministic world.

    ``free_clock``: a timer may strike at any moment after it was set; else only ``tick()`` makes it.
    """

    coalesces = False

    def __init__(self, chooser: Chooser | None = None, *, free_clock: bool = True, max_steps: int = 100_000) -> None:
        self.chooser: Chooser = chooser or RunOn()
        self.free_clock = free_clock
        self.max_steps = max_steps
        self.steps = 0
        self.contexts: list[Context] = []
        self.current: Context | None = None
        self.locked = 0  # CPU locks held by the current context
        self.time = NS_PER_S
        self.events: list[int] = []
        self.struck: list[bool] = []  # hand-driven clock: this CPU's interrupt is due
        self.striking: list[bool] = []  # its clock interrupt is being served
        self.called: list[bool] = []
        self.entries: list[Entry] = []
        self.loops: list[Context | None] = []  # who has the loop of each CPU
        self.services: set[Context] = set()  # interrupts and softclocks
        self.errors: list[BaseException] = []  # what left a context
        self.outside = Context("outside", None, 0, "outside")
        self.off = False
        self._left: list[Context] = []  # have ended, in the act of switching to another
        self._hub = greenlet.getcurrent()
        self._depths: dict[Context, int] = {}

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
            self.services.add(self.spawn(f"cpu{cpu}.interrupt", self._interrupts, cpu, entry, cpu=cpu))
            self.services.add(self.spawn(f"cpu{cpu}", self.drive, entry.softclock, cpu=cpu))

    def power_off(self) -> None:
        """End every context where it stands. Called from outside.

        Nobody else can: the stack of a suspended greenlet keeps alive what it refers to, the platform with it, and the
        garbage collector does not look into it. What is unwound gets no lock any more and wakes nobody.
        """
        self.off = True
        for context in (*self.contexts, *self._left):
            context.greenlet.throw(greenlet.GreenletExit)
        self.contexts.clear()
        self._left.clear()
        self._depths.clear()

    def now(self) -> int:
        """Return the virtual time."""
        return self.time

    def current_thread(self) -> Thread:
        """Return the thread of the current context."""
        return (self.current or self.outside).thread

    def name_of(self, thread: Thread) -> str:
        """Return the name of a thread."""
        return f"the loop of cpu {thread[1]}" if isinstance(thread, tuple) else f"thread {thread}"

    def current_cpu(self) -> int:
        """Return the CPU of the current context."""
        context = self.current or self.outside
        return context.bound if context.cpu is None else context.cpu

    def in_callback(self) -> bool:
        """Whether the current context is an interrupt or a softclock."""
        return self.current in self.services

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

    # -- contexts -------------------------------------------------------------------------------------------------

    def spawn(
        self, name: str, func: Callable[..., object], *args: object, cpu: int | None = None, bound: int = 0
    ) -> Context:
        r"""Start *func(\*args)* as a thread, or as a task of *cpu*. It runs when it is chosen."""
        context = Context(name, cpu, bound, name if cpu is None else ("cpu", cpu))

        def body() -> None:
            if cpu is not None:
                self.loops[cpu] = context
            try:
                func(*args)
            except greenlet.GreenletExit:
                raise
            except BaseException as error:
                context.error = error
            if self.off:
                return
            if cpu is not None and self.loops[cpu] is context:
                self.loops[cpu] = None
            self._leave(context)

        context.greenlet = greenlet.greenlet(body, parent=self._hub)
        context.greenlet.gr_context = contextvars.copy_context()
        self.contexts.append(context)
        return context

    def settle(self) -> None:
        """Run everything until nothing can run any more. Called from outside."""
        assert self.current is None, "settle() is for whoever drives the platform"
        while runnable := self._runnable():
            self._switch(self.chooser.choose(runnable, None))

    def wait_until_quiet(self) -> None:
        """Wait, as a context, until nobody else can run any more."""
        self.block(_Quiet())

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

    def point(self) -> None:
        """A switch point: somebody else may run here."""
        current = self.current
        if current is None or self.off:
            return
        self.steps += 1
        if self.steps > self.max_steps:
            raise LivelockError(
                f"no end after {self.max_steps} steps; is something re-arming itself, or retrying, for ever?"
            )
        runnable = self._runnable()
        if len(runnable) > 1:
            chosen = self.chooser.choose(runnable, current)
            if chosen is not current:
                self._switch(chosen)

    def block(self, blocker: Blocker) -> None:
        """Wait for *blocker*, keeping the CPU's loop."""
        if self.off:
            raise greenlet.GreenletExit
        current = self.current
        if current is None:
            if not blocker.ready():
                raise DeadlockError(f"whoever drives the platform would wait for {blocker.label}")
            return
        current.waits_for = blocker
        self._pass_on()
        current.waits_for = None

    def give_way(self, blocker: Blocker | None) -> None:
        """Wait for *blocker*, or for a turn, while other tasks have the CPU's loop."""
        if self.off:
            raise greenlet.GreenletExit
        current = self.current
        if current is None or current.cpu is None:
            if blocker is not None and not blocker.ready():
                self.block(blocker)
            return
        cpu = current.cpu
        self.loops[cpu] = None
        current.waits_for = blocker
        self._pass_on()
        current.waits_for = None
        self.loops[cpu] = current

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

    @staticmethod
    def drive(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine whose awaits are this platform's: they switch greenlets, so it never yields."""
        try:
            make().send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        raise AssertionError("a coroutine yielded to the virtual platform: await only what it provides")

    def _runnable(self) -> list[Context]:
        out = []
        loops = self.loops
        for context in self.contexts:
            if context.waits_for is not None and not context.waits_for.ready():
                continue
            if context.cpu is not None and loops[context.cpu] is not None and loops[context.cpu] is not context:
                continue
            out.append(context)
        return out or [context for context in self.contexts if isinstance(context.waits_for, _Quiet)][:1]

    def _pass_on(self) -> None:
        """The current context cannot go on: run another, or go back to whoever drives the platform."""
        runnable = self._runnable()
        current = self.current
        if runnable:
            chosen = self.chooser.choose(runnable, None)
            if chosen is current:
                return
            self._switch(chosen)
        else:
            self._switch(None)

    def _leave(self, context: Context) -> None:
        """A context has ended: never come back to it."""
        self.contexts.remove(context)
        self._left.append(context)
        if context.error is not None:
            self.errors.append(context.error)
        self._pass_on()

    def _switch(self, to: Context | None) -> None:
        leaving = self.current
        if leaving is not None:
            self._depths[leaving] = self.locked
        self.current = to
        self.locked = 0 if to is None else self._depths.pop(to, 0)
        (self._hub if to is None else to.greenlet).switch()


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
