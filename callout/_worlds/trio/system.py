"""A callout system as its users see it: what ``async with open_callouts() as system:`` gives."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVarTuple

import trio

from ..._api.making import Making
from ..._core.calls import call_on
from ..._core.checks import check_cpu
from ..._core.cpu import Cpu
from ..._core.deadline import ticks_since_boot
from ..._core.errors import ArgumentValueError, NoSystemError
from ..._core.guard import protected
from ..._core.machine import CURRENT, Machine, current_machine
from ..._core.once import AsyncBlock, Block
from ..._core.phases import Phase, Use, admit
from ..._core.units import ns_to_sbt
from ..._locks.mutex import Mtx
from .forked import end_if_forked
from .interrupts import interrupts_kept_out
from .platform import Loop, TrioPlatform
from .reporting import OnError, Reporter
from .tasks import Start, Tasks
from .timed import TimedNursery, trio_nursery
from .tracing import Sink, Trace, tracing
from .watch import Watch

if TYPE_CHECKING:
    from .leaving import Leaving

Ts = TypeVarTuple("Ts")


class Body(AbstractContextManager["Body", bool | None], Protocol):
    """The body of the block, which something that fails cancels."""

    def cancel(self) -> None:
        """Cancel it. On CPU 0's loop."""
        ...


class CpuHandle:
    """One CPU of a system: ``system.cpu(n)``."""

    def __init__(self, system: CalloutSystem, cpu: Cpu, loop: Loop) -> None:
        self._cpu = cpu
        self._tasks = system._new_tasks(cpu, loop)

    @property
    def id(self) -> int:
        """Its number, from 0."""
        return self._cpu.id

    def __repr__(self) -> str:
        return f"<cpu {self.id}>"

    def start_soon(self, async_fn: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        r"""Start *async_fn(\*args)* as a task of this CPU. From anywhere: callbacks, tasks, other threads,
        finalizers. Never blocks.

        Leaving ``open_callouts()`` normally waits for it if it is started before the body has ended, or by a task that
        is waited for. Other tasks, and all of them if the block is left by an exception or a cancellation, are
        cancelled then. What it raises leaves through the block.

        Once tasks are being cancelled, no more are started: then this does nothing where a callback or a task of the
        system calls it.

        *async_fn* may also be a plain function that returns what is to be awaited, as ``callout_drain()`` does. Of
        what is written in Python one learns that only when it has returned: the error of one that returns something
        else leaves through the block.

        Raises:
            ArgumentTypeError: *async_fn* is certainly no such function: a builtin one, a class, a generator function.
            ClosedError: the system is closed, or is being left and its tasks were cancelled.
            ForkedError: in a forked child.
        """
        self._tasks.start_soon(async_fn, args)

    def call(self, func: Callable[[*Ts], object], *args: *Ts) -> None:
        r"""Have *func(\*args)* run once on this CPU's loop: soon, and never inside one of its callbacks. From
        anywhere. Never blocks.

        This is the engine's cross-CPU call. Calls made before the system closes do run; those of callbacks, once what
        is pending was stopped, do nothing. What *func* raises is treated as a callback's exception.

        Raises:
            ArgumentTypeError: *func* is no plain function.
            ClosedError: the system is closed; *func* will not run.
            ForkedError: in a forked child.
        """
        call_on("call", self._cpu, func, args)


class CalloutSystem(Making):
    """A callout system that is open: what ``async with open_callouts() as system:`` gives."""

    def __init__(self, machine: Machine, platform: TrioPlatform, on_error: OnError | None) -> None:
        self._machine = machine
        machine.attached["system"] = weakref.ref(self)
        self._platform = platform
        self._reporter = Reporter(
            machine, on_error, self._fail, platform.cancelled, lambda tell: platform.loops[0].post(tell)
        )
        self._errors: list[BaseException] = []  # what has to leave through the block
        self._awaited: dict[Start, None] = {}  # the tasks for which a normal end waits
        self._body = self._new_body()
        self._leaving: Leaving | None = None
        self._cpus = tuple(CpuHandle(self, cpu, loop) for cpu, loop in zip(machine.cpus, platform.loops, strict=True))
        self._watch = Watch(self)

    def __repr__(self) -> str:
        phase = self._machine.phase
        return f"<CalloutSystem of {len(self._cpus)} cpus{'' if phase is Phase.OPEN else f', {phase.name.lower()}'}>"

    @property
    def cpus(self) -> int:
        """How many CPUs it has."""
        return len(self._cpus)

    @property
    def hz(self) -> int:
        """How many clock ticks it counts in a second."""
        return self._machine.hz

    @property
    def giant(self) -> Mtx:
        """Giant, its recursive mutex."""
        return self._machine.giant

    def cpu(self, number: int) -> CpuHandle:
        """Return CPU *number*, from 0. Raises ArgumentTypeError, ArgumentValueError."""
        return self._cpus[check_cpu("system.cpu", self._machine, number).id]

    def ticks(self) -> int:
        """Return how many clock ticks have passed since it was opened. Never blocks.

        Raises:
            ClosedError: the system is closed.
            ForkedError: in a forked child.
        """
        admit("ticks", self._machine, Use.CURRENT)
        return ticks_since_boot(self._machine, self._platform.now())

    def sbinuptime(self) -> int:
        """Return the time of its clock as sbintime. Never blocks. Raises as ``ticks()``."""
        admit("sbinuptime", self._machine, Use.CURRENT)
        return ns_to_sbt(self._platform.now())

    def tracing(self, sink: Sink, *, where: bool = False) -> Block[Trace]:
        """Write down what happens to every callout of this system, in a ``with`` block.

        *sink*: a path gets a trace in Chrome's format when the block is left, which Perfetto and ``chrome://tracing``
        open: a track for each CPU, on it a slice for each run, and a mark for whatever else has happened. A function is
        called with each ``TraceEvent``, those of one CPU in order, on the loop of CPU 0, soon after; what is left when
        the block is left is handed over then, by the thread that leaves it. *where*: note in which line of your code
        callouts were armed, stopped, drained and closed. Arguments of callbacks are never shown.

        While a system is traced every call takes the long way, and some ten microseconds more. The block is left
        quickly, but for the writing of the file. At most 131,072 events are kept until they are handed over or written,
        the last; ``Trace.dropped`` counts the others.

        Raises:
            ArgumentTypeError: *sink* is neither a path nor a plain function.
            BusyError: it is traced already.
            ClosedError: the system is closed.
            OSError: the file cannot be written.
        """
        return Block("tracing", partial(tracing, self._machine, self._platform.loops[0], sink, where))

    def open_nursery(self) -> AsyncBlock[TimedNursery]:
        """Open a nursery whose tasks are started by timers, for an ``async with`` block. See ``TimedNursery``.

        Left normally: what is scheduled is stopped, and the tasks that run are waited for. Left by an exception or a
        cancellation: they are cancelled, and waited for. What is wrong is raised when the block is entered.

        Raises:
            LoopThreadError: this is no task of a loop of this system.
            GuestError: this is another loop of asyncio than the one that ``callout.guest`` has opened the system in.
            ClosedError: the system is closed.
            BusyError: what this has returned was entered before: one call for each block.
            ForkedError: in a forked child.
        """
        return AsyncBlock("open_nursery", self._new_nursery)

    def bound(self, cpu: int | None = None) -> Block[CalloutSystem]:
        """Make this the current system of this thread, or of this task and what it starts, in a ``with`` block. Never
        blocks.

        *cpu* is the current CPU of a thread of your own, 0 unless given; on a CPU's loop it is that CPU. In a main
        thread that runs no trio, Ctrl-C is kept out of the engine in this block: it arrives when the call that it has
        interrupted has returned.

        Raises:
            ArgumentTypeError, ArgumentValueError: that CPU is not there, or this thread is the loop of another one.
            ClosedError: the system is closed.
            BusyError: what this has returned was entered before: one call for each block.
            ForkedError: in a forked child.
        """
        return Block("bound", partial(self._bound, cpu))

    @contextmanager
    def _bound(self, cpu: int | None) -> Iterator[CalloutSystem]:
        admit("bound", self._machine, Use.INIT)
        here = self._platform.loop_here()
        if cpu is not None:
            check_cpu("bound", self._machine, cpu)
            if here is not None and cpu != here:
                raise ArgumentValueError(
                    f"bound: this thread is the loop of cpu {here} of this system, which is its current CPU already",
                    call="bound",
                )
        with self._platform.bind(cpu or 0), interrupts_kept_out():
            token = CURRENT.set(self._machine)
            try:
                yield self
            finally:
                CURRENT.reset(token)

    # -- what another world has of its own -----------------------------------------------------------------------

    def _new_tasks(self, cpu: Cpu, loop: Loop) -> Tasks:
        """Return what runs the tasks of a CPU."""
        return Tasks(self, loop)

    def _new_body(self) -> Body:
        """Return what the body of the block runs in, on CPU 0's loop."""
        return trio.CancelScope()

    def _new_nursery(self) -> AbstractAsyncContextManager[TimedNursery]:
        """Return the block of a nursery, for the task that enters it."""
        return trio_nursery(self)

    # -- what goes wrong -----------------------------------------------------------------------------------------

    @protected
    def _fail(self, error: BaseException) -> None:
        """Have *error* leave through the block, whose body and tasks are cancelled. From any thread. Never raises."""
        end_if_forked(error)
        self._errors.append(error)
        self._platform.loops[0].post(self._end_the_body)

    def _end_the_body(self) -> None:
        self._body.cancel()
        if self._leaving is not None:
            self._leaving.cut_short()

    def _look_again(self) -> None:
        """The last awaited task may have ended. From any thread."""
        if self._leaving is not None:
            self._platform.loops[0].post(self._leaving.look_again)


def current_system() -> CalloutSystem:
    """Return the current system: the one that is bound here, else the innermost that is open on this thread's loop.
    Never blocks.

    Raises:
        NoSystemError: there is none.
        ClosedError, ForkedError: there was one.
    """
    ref = current_machine("current_system").attached.get("system")
    system = ref() if isinstance(ref, weakref.ref) else None
    if not isinstance(system, CalloutSystem):
        raise NoSystemError(
            "current_system: these CPUs are virtual; the VirtualSMP itself makes callouts here", call="current_system"
        )
    return system
