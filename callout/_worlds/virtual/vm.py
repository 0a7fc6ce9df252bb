"""A callout system on virtual CPUs, for tests that own the schedule."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import Token
from functools import partial
from types import FunctionType, TracebackType
from typing import Any, Self, TypeVar

from ..._api.callout import Callout
from ..._api.making import Making
from ..._core.calls import call_on
from ..._core.checks import check_bool, check_int
from ..._core.counters import SystemStats
from ..._core.describe import name_of, shown
from ..._core.errors import (
    ArgumentTypeError,
    BusyError,
    CalloutError,
    DeadlockError,
    LivelockError,
    LockError,
    LoopThreadError,
    NoSystemError,
)
from ..._core.lifecycle import boot, check_options, enter
from ..._core.machine import CURRENT, Machine
from ..._core.phases import Phase
from ..._core.snapshot import CalloutInfo
from ..._core.state import Func
from ..._locks.lock import Lock
from . import records
from .context import INTERRUPT, SOFTCLOCK, Context
from .models import Cell, InterruptLine, Invariant, SpinLock, Struct, Until, cells_of, free
from .platform import VirtualPlatform
from .purity import is_pure
from .scheduler import Chooser
from .visible import Visible
from .waiters import Interrupt, drive

T = TypeVar("T")
V = TypeVar("V")

MAX_STEPS = 1 << 40
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_CHECKED = "In a scenario use vm.settle(); explore() makes all checks when the scenario has ended"
_COUNTED = "In a scenario note in a vm.cell() what it is to look at: what is counted is no part of an exploration"
_GENERATES = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


class VirtualSMP(Visible, Making):
    """Virtual CPUs on which the real engine runs, deterministically; ``with VirtualSMP(cpus=2) as vm:``.

    The block powers them on, and inside it this is the current system; after it every use is ``ClosedError``.
    Exceptions of callbacks are collected in ``errors``. Needs the extra ``callout[explore]``.
    """

    # No attributes of yours: threads would share them, and the reduction would not see that.
    __slots__ = (
        "__weakref__",
        "_cells",
        "_chooser",
        "_lines",
        "_locks",
        "_machine",
        "_run_function",
        "_token",
        "errors",
        "machine",
        "platform",
        "ran",
    )

    def __init__(
        self,
        cpus: int = 2,
        *,
        hz: int = 1000,
        chooser: Chooser | None = None,
        free_clock: bool = True,
        checking: bool = True,
        short_paths: bool = True,
        alloweddeviation: int = 0,
        max_steps: int = 100_000,
    ) -> None:
        """Make *cpus* CPUs.

        With *free_clock* a timer may expire at any moment after it was set; without, only in ``tick()``. Without
        *short_paths* the calls that have a short path for the commonest case take the long one. A run of more than
        *max_steps* switch points is a livelock.

        Raises:
            ArgumentTypeError, ArgumentValueError: an argument has the wrong type, or a number is out of range.
        """
        check_options("VirtualSMP", cpus, hz, alloweddeviation)
        check_int("VirtualSMP", "max_steps", max_steps, 1, MAX_STEPS)
        for what, value in (("free_clock", free_clock), ("checking", checking), ("short_paths", short_paths)):
            check_bool("VirtualSMP", what, value)
        if chooser is not None and not callable(getattr(chooser, "choose", None)):
            raise ArgumentTypeError(
                f"VirtualSMP: chooser must have a method choose(runnable, current), and {chooser!r} has none",
                call="VirtualSMP",
            )
        self.errors: list[BaseException] = []
        self.ran: set[str] = set()  # the names of the callbacks and completions that have begun
        self.platform = VirtualPlatform(None, free_clock=free_clock, max_steps=max_steps)
        self.machine: Machine = boot(
            self.platform,
            kind=Callout,
            cpus=cpus,
            hz=hz,
            alloweddeviation=alloweddeviation,
            checking=checking,
            expensive=_ignore,
        )
        self._machine = self.machine
        self.machine.report = self._report
        self._run_function = self.machine.call
        self.machine.call = self._call
        if not short_paths:
            self.machine.careful = True
        self._chooser = chooser
        self._cells: list[Cell[Any]] = []
        self._locks: list[SpinLock] = []
        self._lines: dict[Context, InterruptLine] = {}
        self._token: Token[Machine] | None = None

    def _call(self, func: Func, arg: object) -> None:
        """Run a callback or a completion."""
        me = self.platform.me()
        self.ran.add(name_of(func))
        me.in_user += 1
        try:
            with self.platform.user(me, pure=self.platform.foot is None or is_pure(func, (arg,))):
                self._run_function(func, arg)
        finally:
            me.in_user -= 1

    def _report(self, error: BaseException, c: Callout | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            self.platform.fail(error)
        self.errors.append(error)

    def __enter__(self) -> Self:
        if self._token is not None:
            raise BusyError("VirtualSMP: one block for each; make another one", call="VirtualSMP")
        self._token = CURRENT.set(self.machine)
        idle = self.platform.power_on([partial(getattr, cpu, "open") for cpu in self.machine.cpus])
        records.idle_all(self.machine, idle)
        self.machine.faults = []
        enter(self.machine, Phase.OPEN)
        if self._chooser is not None:
            self.platform.obey(self._chooser)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._driver("__exit__")
        assert self._token is not None
        CURRENT.reset(self._token)
        self.machine.report = _ignore_error  # that a callback was thrown away where it stood is no error of its own
        if error is None:
            unending = self.platform.power_off()
        else:
            with warnings.catch_warnings():
                # What is thrown away where it stands has been awaited by nobody, and is no news.
                warnings.simplefilter("ignore", RuntimeWarning)
                unending = self.platform.power_off()
        records.shut(self.machine)
        if unending:
            said = (
                f"{', '.join(unending)} cannot be ended: it catches everything that is raised in it, and goes on; "
                "have it catch Exception at most"
            )
            if error is None:
                raise LivelockError(said)
            error.add_note(said)

    @property
    def giant(self) -> object:
        """The system's Giant."""
        return self.machine.giant

    def spawn(
        self,
        func: Callable[..., object],
        *args: object,
        name: str | None = None,
        cpu: int | None = None,
        bound: int = 0,
    ) -> Context:
        r"""Start *func(\*args)* as a thread of its own, or as a task of *cpu*. Never blocks.

        *func* may be a coroutine function whose awaits are callout's own. *bound* is a thread's current CPU.

        Raises:
            ArgumentTypeError, ArgumentValueError: *func* is a generator function or cannot be called; no such CPU.
        """
        self._entered("spawn")
        check_int("spawn", "bound", bound, 0, len(self.machine.cpus) - 1)
        if cpu is not None:
            check_int("spawn", "cpu", cpu, 0, len(self.machine.cpus) - 1)
        check_thread("spawn", func)
        if name is not None and not isinstance(name, str):
            raise ArgumentTypeError(f"spawn: name must be a str, not {shown(name)}", call="spawn")
        self.platform.me()
        name = name or str(getattr(func, "__name__", "thread"))
        context = self.platform.spawn(name, self._play, func, args, cpu=cpu, bound=bound)
        context.pure = self.platform.foot is not None and is_pure(func, args)
        return context

    def _play(self, func: Callable[..., object], args: tuple[object, ...]) -> None:
        """Be the thread or task that runs *func*."""
        result = func(*args)
        if result is None:
            return
        me = self.platform.me()
        me.result = None if isinstance(result, Coroutine) else result
        if isinstance(result, Coroutine):
            # What the package itself gives to be awaited is no plain coroutine: callout_drain(), Event.wait().
            if inspect.iscoroutine(result) and not inspect.iscoroutinefunction(func):
                result.close()
                raise ArgumentTypeError(
                    f"{func!r} has returned a coroutine, and nothing has awaited it: give the coroutine function itself"
                )
            me.result = self.run(lambda: result)
        elif inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise ArgumentTypeError(f"{func!r} has returned {result!r}, and nothing has run it")

    # -- for small models of other code -------------------------------------------------------------------------

    def cell(self, value: V, name: str = "cell", *, guarded_by: SpinLock | Lock | None = None) -> Cell[V]:
        """Return a shared variable with that *value*. Each read and write of ``cell.value`` is a step of its own.

        *guarded_by* is a lock without which every use is ``LockNotHeldError``; a read lock is enough to read. What is
        done in ``setup()`` and asked by ``wait_until()`` needs no lock.

        Raises:
            ArgumentTypeError: *guarded_by* is no lock.
        """
        self._entered("cell")
        if guarded_by is not None and not isinstance(guarded_by, SpinLock | Lock):
            raise ArgumentTypeError(
                f"cell: guarded_by must be a lock, vm.lock() or one of the package's, not {shown(guarded_by)}",
                call="cell",
            )
        cell = Cell(self.platform, name, value, guarded_by)
        self._cells.append(cell)
        return cell

    def struct(self, name: str, **fields: object) -> Struct:
        """Return a structure whose *fields* are shared variables, used as its attributes; ``vm.free()`` frees it."""
        self._entered("struct")
        struct = Struct(self.platform, name, fields)
        self._cells += cells_of(struct)
        return struct

    def free(self, s: Struct) -> None:
        """Free a structure, in one step: every later use of it is ``UseAfterFree``, and so is to free it again."""
        self._entered("free")
        free(s)

    def lock(self, name: str = "lock") -> SpinLock:
        """Return a spin lock that is not recursive; ``with lock:``. Acquiring and releasing it is a step each."""
        self._entered("lock")
        lock = SpinLock(self.platform, name)
        self._locks.append(lock)
        return lock

    def point(self) -> None:
        """Be a switch point: another thread may run here."""
        self._entered("point")
        self.platform.me()
        self.platform.point()

    def relax(self) -> None:
        """Say, in a loop that tries again, that it gets nowhere until another thread has run (``cpu_relax()``)."""
        self._entered("relax")
        self.platform.yields(("relaxes", 0))

    def wait_until(self, pred: Callable[[], object], why: str = "") -> None:
        """Wait until *pred()* is true. Blocks the thread, and with it the CPU if it is a task of one.

        *pred* is called again and again, with nobody running between, and must change nothing. Reading cells in it is
        no step. *why* says in a report what is waited for.

        Raises:
            ArgumentTypeError: *pred* cannot be called.
        """
        self._entered("wait_until")
        if not callable(pred):
            raise ArgumentTypeError(f"wait_until: give a function, not {shown(pred)}", call="wait_until")
        until = Until(self.platform, pred, why)
        self.platform.point(("waits until", 0))
        if not until.holds():
            self.platform.block(until, ("waits until", 0))
            until.holds()  # notes what it reads

    def invariant(self, func: Callable[[], object]) -> Callable[[], object]:
        """Have *func()* called after every step from now on, for what must always hold: it returns False or raises if
        it does not. Returns *func*, so it can be a decorator.

        That is also in the middle of what threads do, whatever locks they hold. It must change nothing and may not
        wait. Reading cells in it is no step. Never blocks.

        Raises:
            ArgumentTypeError: *func* cannot be called.
        """
        self._entered("invariant")
        check_thread("invariant", func)
        if inspect.iscoroutinefunction(func):
            raise ArgumentTypeError(
                "invariant: give a plain function; an async one would have to wait", call="invariant"
            )
        platform = self.platform
        platform.invariants.append(Invariant(platform, func, world=platform.world and not is_pure(func, ())))
        return func

    @contextmanager
    def setup(self) -> Iterator[None]:
        """Run the block in one piece: nobody else runs, no timer expires, and nothing in it is explored.

        For what happens before the race: making objects, arming timers. It may not wait.
        """
        self._entered("setup")
        self.platform.me()
        self.platform.still += 1
        try:
            yield
        finally:
            self.platform.still -= 1

    def interrupt(self, func: Callable[..., object], *args: object, of: Context, name: str | None = None) -> Context:
        r"""Have an interrupt come once, at any moment: *func(\*args)* runs on top of the thread *of*, which is
        suspended until it returns. It does not come in ``vm.irqs_off()`` of that thread. Never blocks.
        """
        self._entered("interrupt")
        check_thread("interrupt", func)
        if not isinstance(of, Context):
            raise ArgumentTypeError(
                f"interrupt: of is the thread that is interrupted, what vm.spawn() returns, not {shown(of)}",
                call="interrupt",
            )
        name = name or str(getattr(func, "__name__", "interrupt"))
        return self.platform.spawn(name, self._line(of).serve, func, args)

    def irqs_off(self) -> AbstractContextManager[None]:
        """Return a block in which the current thread is not interrupted (``local_irq_disable()``)."""
        self._entered("irqs_off")
        return self._line(self.platform.me()).off()

    def me(self) -> Context:
        """Return the thread that asks."""
        self._entered("me")
        return self.platform.me()

    def _line(self, victim: Context) -> InterruptLine:
        line = self._lines.get(victim)
        if line is None:
            line = self._lines[victim] = InterruptLine(self.platform, victim)
        return line

    # -- the machine ------------------------------------------------------------------------------------------------

    def call(self, cpu: int, func: Callable[..., object], *args: object) -> None:
        r"""Have *func(\*args)* run once in the interrupt context of *cpu*. Never blocks."""
        self._entered("call")
        check_int("call", "cpu", cpu, 0, len(self.machine.cpus) - 1)
        self.platform.me()
        call_on("call", self.machine.cpus[cpu], func, args)

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the coroutine that *make* makes, here and now, and return its result; its awaits must be callout's own.

        A task of a CPU awaits, and lets the other tasks of its CPU run meanwhile. A thread runs a loop of its own.

        Raises:
            LoopThreadError: a callback, or what a coroutine calls, cannot await.
            ArgumentTypeError: *make* does not make a coroutine.
        """
        self._entered("run")
        if isinstance(make, Coroutine):
            make.close()
            raise ArgumentTypeError(
                "run: give a function that makes the coroutine: vm.run(lambda: callout_drain(c))", call="run"
            )
        if not callable(make):
            raise ArgumentTypeError(f"run: give a function that makes a coroutine, not {shown(make)}", call="run")
        me = self.platform.me()
        if me.kind in (SOFTCLOCK, INTERRUPT) or me.runs_loop:
            raise LoopThreadError(
                f"run: {me.name} is in a plain function that its loop has called, and that cannot await; "
                "use vm.spawn(function, cpu=…), or await it in the coroutine itself",
                call="run",
            )
        awaits = make()
        if not isinstance(awaits, Coroutine):
            raise ArgumentTypeError(f"run: {make!r} has returned {awaits!r}, which is no coroutine", call="run")
        me.runs_loop = True
        try:
            result: T = drive(awaits)
            return result
        finally:
            me.runs_loop = False

    def tick(self, ticks: int = 1) -> None:
        """Move a hand-driven clock on, tick by tick, each until nothing can run. Called from outside."""
        check_int("tick", "ticks", ticks, 0, MAX_STEPS)
        self._driver("tick")
        for _ in range(ticks):
            self.platform.tick(self.machine.tick)
            self.platform.settle()

    def settle(self) -> None:
        """Let all others run until nothing can run any more.

        From outside, this raises what ended the run: LivelockError, KeyboardInterrupt.
        """
        self._entered("settle")
        self.platform.me()
        if self.platform.current is None:
            self.platform.settle()
        else:
            self.platform.wait_until_quiet()

    def stats(self) -> SystemStats:
        """Do as ``CalloutSystem.stats()``. Called from outside: what is counted is no part of an exploration."""
        self._driver("stats", _COUNTED)
        return super().stats()

    def callouts(self, limit: int | None = None) -> list[CalloutInfo]:
        """Do as ``CalloutSystem.callouts()``. Called from outside, as ``stats()``."""
        self._driver("callouts", _COUNTED)
        return super().callouts(limit)

    def check(self) -> None:
        """Let all run until nothing can, and raise what went wrong, if anything did: what left a thread or a callback,
        what a ``Slab`` or a cell reported (even if it was caught), DeadlockError if a thread or task waits for what
        will never come, LockError if one has ended with a lock of ``lock()`` held.

        Called from outside: a scenario need not call it, ``explore()`` does.
        """
        self._driver("check")
        self.platform.settle()
        for error in (*self.platform.errors, *self.errors, *(self.machine.faults or ())):
            raise error
        cpus = self.machine.cpus
        stuck = [context for context in self.platform.contexts if not self._rests(context)]
        if stuck:
            self.platform.stuck = {context.name: self._awaited(context) for context in stuck}
            raise DeadlockError("nothing can run any more: " + "; ".join(map(self._tell, stuck)))
        for lock in self._locks:
            if lock.holder is not None and not lock.freed:
                raise LockError(f"{lock.holder.name} has ended, and still holds {lock!r}: it was never released")
        for cpu in cpus:
            records.check_lock(cpu)
        for cpu in cpus:
            for complaint in records.complaints(cpu, self.platform.events[cpu.id]):
                raise DeadlockError(complaint)
            records.check(cpu)

    def final_state(self, main: Context) -> str:
        """Return how a run has ended, as far as the scenario says: what it has returned, and its cells."""
        # With no addresses: they are others in each run.
        cells = sorted(f"{cell.name}={cell.peek()!r}" for cell in self._cells)
        return _ADDRESS.sub("", "; ".join([f"returned {main.result!r}", *cells]))

    def _rests(self, context: Context) -> bool:
        """Whether *context* may wait for ever: an interrupt for the next, an idle softclock for work."""
        if context.kind == INTERRUPT:
            return isinstance(context.waits_for, Interrupt) and not context.waits_for.ready()
        return context.kind == SOFTCLOCK and records.idles(self.machine.cpus[context.cpu or 0], context.waits_for)

    def _tell(self, context: Context) -> str:
        """Return what *context* waits for, and where."""
        said = f"{context.name} waits for {self._awaited(context)}"
        place = context.place()
        return f"{said}, at {place}" if place else said

    def _awaited(self, context: Context) -> str:
        if context.waits_for is not None and not context.waits_for.ready():
            return context.waits_for.label
        loop = None if context.cpu is None else self.platform.loops[context.cpu]
        return f"its CPU's loop, which {loop.name if loop else 'nobody'} keeps"

    def _entered(self, call: str) -> None:
        if self._token is None:
            raise NoSystemError(
                f"{call}: the virtual CPUs are not powered on: use `with VirtualSMP() as vm:`", call=call
            )
        if self.platform.off:
            self.platform.refuse(call)

    def _driver(self, call: str, instead: str = _CHECKED) -> None:
        """Raise unless this is the code that drives the machine, outside of every thread, callback and scenario."""
        self._entered(call)
        self.platform.me()
        if self.platform.current is not None:
            raise CalloutError(
                f"{call}: {self.platform.current.name} runs on the machine, and this is for the code that drives it "
                f"from outside. {instead}",
                call=call,
            )


def check_thread(call: str, func: object) -> None:
    """Raise unless *func* can be the body of a thread: a plain function, or a coroutine function."""
    if isinstance(func, FunctionType) and not func.__code__.co_flags & _GENERATES:
        return  # as most are: to find that out is quick
    if isinstance(func, Coroutine):
        func.close()
        raise ArgumentTypeError(
            f"{call}: give the coroutine function, not the coroutine that it has returned", call=call
        )
    if not callable(func):
        raise ArgumentTypeError(f"{call}: give a function, not {shown(func)}", call=call)
    if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
        raise ArgumentTypeError(
            f"{call}: {func!r} is a generator function, and calling it would run nothing", call=call
        )


def _ignore(func: Func, spent: int) -> None:
    """Virtual time does not move while a callback runs."""


def _ignore_error(error: BaseException, c: Callout | None) -> None:
    """What is thrown away need not be reported."""
