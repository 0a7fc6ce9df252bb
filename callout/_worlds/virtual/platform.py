"""The deterministic world as the engine sees it: its primitives, the event timers and interrupts of virtual CPUs.

CPUs, interrupts, softclocks and user threads are greenlets under one scheduler. Time is virtual and moves only when a
clock interrupt occurs. Switch points are: acquiring or releasing a lock, a wake-up, a use that no lock guards.

A virtual CPU is one loop, as on trio: its interrupt and its tasks take turns and give way only where they await. So a
direct callout runs when softclock is idle or parked at a lock, never in the middle of another callback of its CPU. A
callback that blocks the thread blocks the whole CPU.

No primitive is kinder than its twin on trio: what ``threading.RLock``, a trio event or a call outside a task refuses
is refused here, with the same exception, and what blocks there blocks here. tests/unit/test_platforms.py makes the same
assertions about both. Where the real one does something undefined, because it would corrupt a loop, this one raises.

Not modelled: weak memory (everything is sequentially consistent), trio's scheduler, preemption inside plain Python code
between two switch points.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, TypeVar, cast

from ..._api.callout import Callout
from ..._core.platform import Entry, Thread
from ..._core.units import NEVER, NS_PER_S
from ..._core.weak import ByIdentity
from .context import INTERRUPT, SOFTCLOCK, Context
from .footprints import READS, RELEASES, TIME, TRIES, WORLD, WRITES
from .locks import CpuLock, VirtualLock
from .scheduler import Chooser, Scheduler
from .shared import ENDS, PARTS, SharedDeque, SharedDict, SharedNothing, racy
from .trail import At
from .waiters import Interrupt, Shield, TaskWaiter, ThreadWaiter

T = TypeVar("T")

FREE: Final = 1  # so many sleeps of a thread may end by their timeouts while another one stands still

_PARKS: Final[At] = ("is about to wait", 0)
_YIELDS: Final[At] = ("yields", 0)
_RESTS: Final[At] = ("waits for an interrupt", 0)


class VirtualPlatform(Scheduler):
    """The deterministic world.

    ``free_clock``: a timer may expire at any moment after it was set; else only ``tick()`` makes it.
    """

    coalesces = False

    def __init__(self, chooser: Chooser | None = None, *, free_clock: bool = True, max_steps: int = 100_000) -> None:
        super().__init__(chooser, max_steps)
        self.free_clock = free_clock
        self.time = NS_PER_S
        self.times: list[int] = []  # of each CPU: no clock interrupt of it came later
        self.events: list[int] = []
        self.expired: list[bool] = []  # hand-driven clock: this CPU's interrupt is due
        self.serving: list[bool] = []  # its clock interrupt is being served
        self.called: list[bool] = []
        self.entries: list[Entry] = []
        self._interrupts_it: list[At] = []
        self._timers: list[int] = []  # in footprints: the event timer of each CPU
        # How many runs were asked for by what is no callback, and have not led to an interrupt.
        self._due: list[int] = []
        self._numbers: ByIdentity[Callout, int] = ByIdentity()
        # A lock has its parking lot from the start, so that no schedule tells how it is made. What explores that says
        # no: tests/race/test_lock_races.py.
        self.lots_at_once = True

    # -- the Platform protocol ----------------------------------------------------------------------------------

    def attach(self, cpu: int, entry: Entry) -> None:
        """Learn what to run for *cpu*."""
        assert cpu == len(self.entries)
        self.entries.append(entry)
        self.events.append(NEVER)
        self.expired.append(False)
        self.serving.append(False)
        self.called.append(False)
        number = self.trail.number(f"cpu {cpu}")
        self._interrupts_it.append(("interrupts", number))
        self._timers.append(self.trail.number(f"the event timer of cpu {cpu}"))
        self.loop_numbers.append(self.trail.number(f"the loop of cpu {cpu}"))
        self.turns.append(self.trail.number(f"whose turn it is on cpu {cpu}"))
        self._due.append(0)
        self.times.append(self.time)
        self.loops.append(None)

    def power_on(self, open_: Sequence[Callable[[], object]]) -> list[TaskWaiter]:
        """Have the interrupt and the softclock of every CPU wait for work, with the caller's context variables.

        They begin when there is some: most runs are short, and one CPU is all that many of them use. *open_* says of
        each CPU whether it was not closed. Returns what each softclock waits for.
        """
        self.adopt_driver()
        idle = []
        for cpu, entry in enumerate(self.entries):
            interrupt = Interrupt(self, cpu)
            self.spawn(
                f"cpu{cpu}.interrupt", self._interrupts, cpu, entry, interrupt, cpu=cpu, kind=INTERRUPT
            ).waits_for = interrupt
            work = TaskWaiter(self, cpu)
            self.spawn(f"cpu{cpu}", work.then, entry, open_[cpu], cpu=cpu, kind=SOFTCLOCK).waits_for = work
            idle.append(work)
        return idle

    def now(self) -> int:
        """Return the virtual time. The engine's own contexts, outside of callbacks, go by that of their CPU.

        So the interrupts of two CPUs have nothing to do with one another: each finds due what it was set for.
        """
        me = self.current
        if me is not None:
            if me.kind in (INTERRUPT, SOFTCLOCK) and not me.in_user and self.free_clock:
                assert me.cpu is not None
                return self.times[me.cpu]
            self.touch(TIME, READS | TRIES)
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
        return self.current is not None and self.current.kind in (INTERRUPT, SOFTCLOCK)

    def in_loop(self) -> bool:
        """Whether the current context is a task of a CPU, or a thread that runs a loop of its own."""
        context = self.current or self.outside
        return context.cpu is not None or context.runs_loop

    def refuse_await(self, call: str) -> None:
        """Refuse nothing: no loop of another kind runs here."""

    def raw_lock(self, label: str) -> VirtualLock:
        """Return a lock."""
        return VirtualLock(self, label)

    def cpu_lock(self, cpu: int) -> CpuLock:
        """Return the lock of a CPU."""
        return CpuLock(self, f"cpu{cpu}")

    def waiter(self) -> TaskWaiter:
        """Return a waiter for the current task. RuntimeError outside a task, as trio raises it."""
        self._about_to_park()
        return TaskWaiter(self, self.current_loop("a waiter is made"))

    def idle_waiter(self, cpu: int) -> TaskWaiter:
        """Return a waiter like any other."""
        return self.waiter()

    def thread_waiter(self) -> ThreadWaiter:
        """Return a waiter that stops the whole CPU, if it is one."""
        self._about_to_park()
        return ThreadWaiter(self)

    def _about_to_park(self) -> None:
        """Between finding that it has to wait and saying that it waits, others may run."""
        if not self.me().cpu_locks:
            self.point(_PARKS)

    def set_event(self, cpu: int, when: int) -> None:
        """Program the event timer. The engine holds the CPU's lock meanwhile, so this is no switch point."""
        if self.events[cpu] != when:
            self.touch(self._timers[cpu], WRITES)
            self.touch(self.turns[cpu], WRITES)
        self.events[cpu] = when

    def interrupt(self, cpu: int) -> None:
        """Have the CPU take its calls."""
        self.touch(self._interrupts_it[cpu][1], WRITES)
        self.touch(self.turns[cpu], WRITES)
        self.called[cpu] = True
        self.point(self._interrupts_it[cpu])

    async def checkpoint(self) -> None:
        """Yield the CPU's loop to its other tasks. RuntimeError outside a task, as trio raises it."""
        self.current_loop("a checkpoint is called")
        self.yields(_YIELDS)

    def shield(self) -> AbstractContextManager[object]:
        """Return a block for tasks."""
        return Shield(self)

    def shared(self, collection: T, instead: object = None) -> T:
        """Return a collection that notes its uses. That it takes the place of another is a switch point."""
        if isinstance(instead, SharedNothing):
            number = instead.number
            self.point(("makes", number))
            self.touch(number, WRITES)
        else:
            number = self.trail.number("a collection")
        if isinstance(collection, tuple) and not self.lots_at_once:
            return cast("T", SharedNothing(self, number))
        if isinstance(collection, (deque, tuple)):
            return cast("T", SharedDeque(self, number))
        assert isinstance(collection, dict)
        return cast("T", SharedDict(self, number))

    def timed_out(self) -> None:
        """Twice it costs nothing. A loop that sleeps until others have done something must let them."""
        me = self.me()
        me.timeouts += 1
        if me.timeouts > FREE:
            self.wait_for_turns(me)

    def freed(self, thing: object) -> None:
        """Note that it is not to be used any more."""
        if isinstance(thing, Callout):
            number = self.number_of(thing)
            for part in PARTS.values():
                self.touch(number + part, WRITES)
        else:
            raw = getattr(thing, "_raw", None)
            if isinstance(raw, VirtualLock):
                self.touch(raw.number, WRITES)

    def racy(self, record: type) -> type:
        """Return a subclass of a callout record in which unlocked reads are switch points."""
        return racy(record)

    def number_of(self, c: Callout) -> int:
        """Return the number that *c* has in the trail, in the order in which callouts were initialised."""
        number = self._numbers.get(c)
        if number is None:
            number = self.trail.number("a callout")
            for _ in range(ENDS):  # of its parts
                self.trail.number("a part of a callout")
            self._numbers.set(c, number)
        return number

    def unguarded(self, label: str) -> Callable[[], None]:
        """Return a function to be called before each use of a field that no lock guards: a switch point."""
        at: At = "uses", self.trail.number(label)

        def use() -> None:
            if not (self.current or self.outside).cpu_locks:
                self.point(at)
                self.touch(at[1], WRITES)

        return use

    # -- loops ----------------------------------------------------------------------------------------------------

    def current_loop(self, what: str) -> object:
        """Return what stands for the loop of the current task. RuntimeError, which says *what*, if this is no task."""
        me = self.me()
        if me.cpu is not None:
            return me.cpu
        if me.runs_loop:
            return me
        raise RuntimeError(f"{what} outside a task: {me.name} is a thread without a loop; use vm.run() there")

    # -- time and interrupts ------------------------------------------------------------------------------------

    def tick(self, tick: int) -> None:
        """Move a hand-driven clock by *tick* ns; every CPU whose deadline has come is to take its clock interrupt."""
        self.time += tick
        for cpu, when in enumerate(self.events):
            # Interrupts that come while one is being served merge into one that follows it.
            if when <= self.time or self.serving[cpu]:
                self.expired[cpu] = True

    def clock_may_expire(self, cpu: int) -> bool:
        """Whether this CPU's clock interrupt may occur now."""
        return self.events[cpu] != NEVER if self.free_clock else self.expired[cpu]

    def _interrupts(self, cpu: int, entry: Entry, waits: Interrupt) -> None:
        while True:
            if self.called[cpu]:
                self.touch(self._interrupts_it[cpu][1], WRITES)
                self.called[cpu] = False
                with self.user(self.me(), pure=False):
                    entry.calls()
            elif self.clock_may_expire(cpu):
                self.touch(self._interrupts_it[cpu][1], READS)
                self.touch(self._timers[cpu], WRITES)
                self.expired[cpu] = False
                if self.free_clock:
                    self.touch(TIME, RELEASES)
                    self.time = max(self.time, self.events[cpu])
                    self.times[cpu] = max(self.times[cpu], self.events[cpu])
                self.events[cpu] = NEVER
                self.serving[cpu] = True
                while entry.hardclock():
                    self.give_way(None, _YIELDS)
                self.serving[cpu] = False
                if self._due[cpu]:
                    self._due[cpu] -= 1
                elif self.free_clock:  # what asks for itself, again and again, must let others have a turn
                    # Not wait_for_turns(): that every step of the others matters here has shown nothing but many more
                    # schedules.
                    self.fairness.yields(self.me(), self._runnable())
            self.give_way(waits, _RESTS)

    @contextmanager
    def user(self, me: Context, *, pure: bool) -> Iterator[None]:
        """Run the user's code in the block, as a context of the engine: *pure*, or with all that it may share."""
        before = me.pure
        me.pure = pure
        if not pure:
            self.touch(WORLD, WRITES)
        try:
            yield
        finally:
            if not me.pure:
                self.touch(WORLD, WRITES)
                me.entry = None
            me.pure = before

    def asks_for_run(self, cpu: int) -> None:
        """A callout of *cpu* was armed."""
        current = self.current
        if current is not None and current.kind not in (INTERRUPT, SOFTCLOCK):
            self._due[cpu] += 1
