"""The primitives of the deterministic world: locks, waiters, the event timers and interrupts of virtual CPUs.

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
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from ..._core.cpu import Cpu
from ..._core.errors import CalloutError
from ..._core.platform import Entry, Thread
from ..._core.state import PENDING, Callout
from ..._core.units import NEVER, NS_PER_S
from ..._core.weak import ByIdentity, WeakValues
from .context import INTERRUPT, SOFTCLOCK, Context
from .footprints import READS, RELEASES, TIME, TRIES, WORLD, WRITES
from .scheduler import Chooser, RunOn, Scheduler
from .trail import At

__all__ = ["CpuLock", "Interrupt", "RunOn", "TaskWaiter", "ThreadWaiter", "VirtualLock", "VirtualPlatform"]

T = TypeVar("T")

FREE: Final = 1  # so many sleeps of a thread may end by their timeouts while another one stands still

_PARKS: Final[At] = ("is about to wait", 0)
_YIELDS: Final[At] = ("yields", 0)
_RESTS: Final[At] = ("waits for an interrupt", 0)


class LockState:
    """What every kind of lock here has: a name, a holder, and words for what is done with it."""

    __slots__ = ("_acquires", "_number", "_platform", "_releases", "_waits", "holder", "name")

    def __init__(self, platform: VirtualPlatform, name: str) -> None:
        self._platform = platform
        self.name = name
        number = self._number = platform.trail.number(f"the lock {name!r}")
        self._acquires: At = "acquires", number
        self._waits: At = "waits for", number
        self._releases: At = "releases", number
        self.holder: Context | None = None

    @property
    def label(self) -> str:
        """Its name and its holder."""
        return f"the lock {self.name!r}" + ("" if self.holder is None else f", which {self.holder.name} holds")

    def ready(self) -> bool:
        """Whether the lock is free."""
        return self.holder is None


class VirtualLock(LockState):
    """A raw lock whose acquiring and releasing are switch points. Recursive, as ``threading.RLock`` is."""

    __slots__ = ("_depth",)

    def __init__(self, platform: VirtualPlatform, name: str) -> None:
        super().__init__(platform, name)
        self._releases = "has released", self._number  # it is a switch point after that
        self._depth = 0

    def _is_owned(self, /) -> bool:
        """Whether this thread holds the lock: for the tasks of one CPU any of them, as on a loop."""
        holder = self.holder
        return holder is not None and holder.thread == (self._platform.current or self._platform.outside).thread

    def acquire(self, blocking: bool = True, /) -> bool:
        """Acquire the lock, once more if this thread holds it; without *blocking*, return False if another holds it."""
        platform = self._platform
        me = platform.current
        if me is None or platform.off:
            me = platform.me()
        else:
            platform.point(self._acquires)
        holder = self.holder
        if holder is not None:
            if holder.thread == me.thread:
                self._depth += 1
                return True
            if not blocking:
                platform.touch(self._number, READS)
                if platform.notes is not None:
                    platform.notes.append(f"held by {holder.name}")
                return False
            platform.block(self, self._waits)
        platform.touch(self._number, WRITES if blocking else WRITES | TRIES)
        self.holder = me
        self._depth = 1
        return True

    def release(self, /) -> None:
        """Release the lock as often as it was acquired. RuntimeError if this thread does not hold it, as an RLock."""
        self._check_owned()
        self._drop()

    def _check_owned(self) -> Context:
        """Return the current context, whose thread holds the lock."""
        me = self._platform.current or self._platform.outside
        if self.holder is not me and not self._is_owned():
            raise RuntimeError(f"cannot release un-acquired lock: {me.name} does not hold {self.label}")
        return me

    def _drop(self) -> None:
        self._depth -= 1
        if not self._depth:
            self.holder = None
            self._platform.touch(self._number, RELEASES)
            self._platform.point(self._releases)


class CpuLock(VirtualLock):
    """The lock of a CPU: with one held, nothing that a callout's record says can change, so reading it is no point."""

    __slots__ = ("before_release",)

    def __init__(self, platform: VirtualPlatform, name: str) -> None:
        super().__init__(platform, name)
        self.before_release: Callable[[], None] | None = None  # looks at what the lock guards, while it does

    def acquire(self, blocking: bool = True, /) -> bool:
        """Acquire the lock and count it."""
        if not VirtualLock.acquire(self, blocking):
            return False
        (self._platform.current or self._platform.outside).cpu_locks += 1
        return True

    def release(self, /) -> None:
        """Release the lock."""
        me = self._check_owned()
        if self.before_release is not None and self._depth == 1 and not self._platform.off:
            self.before_release()
        me.cpu_locks -= 1
        self._drop()


class _Waiter:
    """A one-shot event with one waiter."""

    __slots__ = ("_is_set", "_number", "_platform", "_waited")

    def __init__(self, platform: VirtualPlatform) -> None:
        self._platform = platform
        self._number = platform.trail.number("a wait")
        self._is_set = False
        self._waited = False

    label = "a wake-up"

    def ready(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, from anywhere. RuntimeError if it is set: a caller that counts wake-ups has miscounted."""
        if self._platform.off:
            return  # as the token of a loop that has ended
        self._platform.me()
        if self._is_set:
            raise RuntimeError("a waiter is set twice")
        self._is_set = True
        self._platform.touch(self._number, RELEASES)
        self._wakes()
        self._platform.point(("ends", self._number))

    def _wakes(self) -> None:
        """Note what else is changed by that."""

    def _begin(self) -> None:
        if self._waited:
            raise RuntimeError("a waiter is waited for twice: it is a one-shot event with one waiter")
        self._waited = True


class TaskWaiter(_Waiter):
    """A waiter for a task, which gives its loop to the loop's other tasks meanwhile."""

    __slots__ = ("_loop",)

    def __init__(self, platform: VirtualPlatform, loop: object) -> None:
        super().__init__(platform)
        self._loop = loop

    async def wait(self) -> None:
        """Wait until it is set. Never yields: the greenlet is switched instead."""
        self._check_loop("a waiter is waited for")
        self._begin()
        self._platform.give_way(self, ("begins", self._number))
        self._platform.touch(self._number, WRITES)

    def then(self, entry: Entry, is_open: Callable[[], object]) -> None:
        """Begin as softclock, which was idle and has been woken: it looks for work first."""
        self._waited = True
        self._platform.touch(self._number, WRITES)
        if is_open():
            drive(entry.softclock())

    def _wakes(self) -> None:
        if isinstance(self._loop, int):
            self._platform.touch(self._platform.turns[self._loop], WRITES)

    def set_here(self) -> None:
        """Set it, from a task of the same loop."""
        if not self._platform.off:
            self._check_loop("set_here() is called")
        self.set()

    def _check_loop(self, what: str) -> None:
        if self._platform.current_loop(what) != self._loop:
            raise RuntimeError(f"{what} on another loop than the one that the waiter was made on")


class ThreadWaiter(_Waiter):
    """A waiter for a thread, which blocks it, and with it the whole CPU if it is one."""

    __slots__ = ()

    async def wait(self) -> None:
        """Block until it is set. Never yields."""
        self._platform.me()
        self._begin()
        if not self._is_set:
            self._platform.block(self, ("begins", self._number))
        self._platform.touch(self._number, WRITES)

    def set_here(self) -> None:
        """Set it."""
        self.set()


class Interrupt:
    """What a CPU's interrupt context waits for: its clock or a call from another CPU."""

    __slots__ = ("_cpu", "_platform", "label")

    def __init__(self, platform: VirtualPlatform, cpu: int) -> None:
        self._platform = platform
        self._cpu = cpu
        self.label = f"an interrupt of cpu {cpu}"

    def ready(self) -> bool:
        """Whether one has come, or may come."""
        platform, cpu = self._platform, self._cpu
        return platform.called[cpu] or platform.clock_may_expire(cpu)


class _Shield:
    """A block that nothing can cancel, as nothing here can be cancelled: it is for tasks only, all the same."""

    __slots__ = ("_platform",)

    def __init__(self, platform: VirtualPlatform) -> None:
        self._platform = platform

    def __enter__(self) -> None:
        self._platform.current_loop("a shielded block is entered")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing is held."""


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
        self._due: list[
            int
        ] = []  # how many runs were asked for by what is no callback, and have not led to an interrupt
        self._numbers: ByIdentity[Callout, int] = ByIdentity()

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
        return _Shield(self)

    def shared(self, collection: T) -> T:
        """Return a collection that notes its uses."""
        number = self.trail.number("a collection")
        if isinstance(collection, deque):
            return cast("T", _SharedDeque(self, number))
        assert isinstance(collection, dict)
        return cast("T", _SharedDict(self, number))

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
            for part in _PARTS.values():
                self.touch(number + part, WRITES)
        else:
            raw = getattr(thing, "_raw", None)
            if isinstance(raw, VirtualLock):
                self.touch(raw._number, WRITES)

    def racy(self, record: type) -> type:
        """Return a subclass of a callout record in which unlocked reads are switch points."""
        if issubclass(record, _Racy):  # one that was freed
            return record
        made = _RACY.get(id(record))
        if made is None:
            made = type(record.__name__, (_Racy, record), {"__slots__": (), "_plain": record})
            _RACY.set(id(record), made)
        return made

    def number_of(self, c: Callout) -> int:
        """Return the number that *c* has in the trail, in the order in which callouts were initialised."""
        number = self._numbers.get(c)
        if number is None:
            number = self.trail.number("a callout")
            for part, after in _PARTS.items():  # in footprints they are things of their own
                if after:
                    self.trail.number(f"the {part} of a callout")
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


def drive(awaits: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose awaits are the platform's: they switch greenlets, so it never yields."""
    try:
        awaits.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    awaits.close()
    name = getattr(awaits, "__qualname__", repr(awaits))
    raise CalloutError(
        f"{name}() awaits something that is not of this package: on virtual CPUs only callout's own awaitables can be "
        "waited for",
        call=name,
    )


class _Shared:
    """A collection that notes its uses."""

    def __init__(self, platform: VirtualPlatform, number: int) -> None:
        super().__init__()
        self._platform = platform
        self._number = number


class _SharedDeque(_Shared, deque[Any]):
    def __len__(self) -> int:
        self._platform.touch(self._number, READS)
        return super().__len__()

    def __iter__(self) -> Iterator[Any]:
        self._platform.touch(self._number, READS)
        return super().__iter__()

    def append(self, item: object) -> None:
        self._platform.touch(self._number, WRITES)
        super().append(item)

    def popleft(self) -> object:
        self._platform.touch(self._number, WRITES)
        return super().popleft()

    def remove(self, item: object) -> None:
        self._platform.touch(self._number, WRITES)
        super().remove(item)


class _SharedDict(_Shared, dict[Any, Any]):
    def __setitem__(self, key: object, value: object) -> None:
        self._platform.touch(self._number, WRITES)
        super().__setitem__(key, value)

    def __iter__(self) -> Iterator[Any]:
        self._platform.touch(self._number, READS)
        return super().__iter__()

    def pop(self, *args: object) -> object:
        self._platform.touch(self._number, WRITES)
        result: object = super().pop(*args)
        return result


_PARTS: Final = {"cpu": 0, "state": 1, "run": 2, "arg": 3}  # of a callout, that are read with no lock


class _Racy:
    """Makes the unlocked reads of a callout switch points."""

    __slots__ = ()


def _racy_field(name: str) -> property:
    slot = Callout.__dict__[name]
    get, cpu_of = slot.__get__, _slot_cpu.__get__
    reads = f"reads the {name} of"
    is_state = name == "state"
    part = _PARTS[name]

    def read(self: Callout) -> object:
        cpu = cpu_of(self)
        if cpu.id >= 0:
            platform = cpu.machine.platform
            if not (platform.current or platform.outside).cpu_locks:
                number = platform.number_of(self)
                platform.point((reads, number))
                platform.touch(number + part, READS)
        return get(self)

    def write(self: Callout, value: object) -> None:
        cpu = cpu_of(self)
        if cpu.id >= 0:
            platform = cpu.machine.platform
            platform.touch(platform.number_of(self) + part, WRITES)
            if is_state and value & PENDING and not get(self) & PENDING:  # type: ignore[operator]  # ints, both
                platform.asks_for_run(cpu.id)
        slot.__set__(self, value)
        if slot is _slot_cpu and isinstance(value, Cpu) and isinstance(value.machine.platform, VirtualPlatform):
            value.machine.platform.number_of(self)  # in the order in which they are initialised

    return property(read, write)


_slot_cpu = Callout.__dict__["cpu"]
for _part in _PARTS:
    setattr(_Racy, _part, _racy_field(_part))

# Weak: a class that a scenario defines goes with it. The one of Callout itself stays.
_RACY: Final[WeakValues[type]] = WeakValues()  # by the id of the class
_RACY_CALLOUT: Final = type(Callout.__name__, (_Racy, Callout), {"__slots__": (), "_plain": Callout})
_RACY.set(id(Callout), _RACY_CALLOUT)
