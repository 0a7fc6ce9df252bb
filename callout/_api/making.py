"""What makes callouts, and tells of them: the part of a system that is the same in every world."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar, cast

from .._core.args import packed
from .._core.arm import arm, initialize, lock_class_of
from .._core.checks import GIVEN, check_bool, check_cpu, check_func
from .._core.counters import SystemStats, stats
from .._core.deadline import FAR
from .._core.describe import shown
from .._core.errors import ArgumentTypeError, ArgumentValueError, LockClassError
from .._core.guard import protected
from .._core.machine import Extra, Machine
from .._core.methods import in_ns, later
from .._core.periodic import Times, grid
from .._core.phases import Use, admit
from .._core.rules import Place, place
from .._core.seconds import Seconds, from_ns, to_ns, to_time
from .._core.short import tolerance_of
from .._core.snapshot import CalloutInfo, callouts
from .._core.state import CAREFUL, FIXED, Func
from .._locks.lock import Lock
from .._locks.mutex import MTX_DEF, MTX_RECURSE, Mtx
from .._locks.rwlock import RwLock
from . import shapes
from .callout import Callout
from .periodic import Periodic

C = TypeVar("C", bound=Callout)

_THREADS_LOCKS: Final = (type(threading.Lock()), type(threading.RLock()))


class Making:
    """Makes callouts, and the locks for them, and tells of them. What is made belongs to this system."""

    __slots__ = ()

    _machine: Machine

    @shapes.new
    def callout(
        self,
        /,
        *given: object,
        lock: Lock | None = None,
        name: str | None = None,
        cpu: int | None = None,
        tolerance: Seconds = 0,
    ) -> Callout:
        r"""Make a callout that is not armed: ``system.callout()`` or ``system.callout(fn, *args)``. Never blocks.

        *fn* may also come with the first ``reset()``. *lock*: a ``Mtx``, ``RwLock`` or ``RmLock`` of this system,
        or ``system.giant``; the callback runs with it held. *name*: for the log. *cpu*: where it runs; by default
        the CPU whose loop this is, for other threads the one they are bound to, or CPU 0. Under Giant it is CPU 0.
        *tolerance*: by how many seconds it may be late, so that wake-ups are shared.

        Raises:
            ArgumentTypeError: *fn* is asynchronous or no function; *name* is no str, *cpu* no int.
            LockClassError: *lock* is of a kind that softclock cannot wait for.
            ArgumentValueError: *lock* belongs to another system, or there is no such CPU.
            ClosedError: the system is closed.
        """
        if given:
            return self._given("callout", given[0], given[1:], lock, name, cpu, tolerance)
        admit("callout", self._machine, Use.INIT)
        return _make("callout", self._machine, Callout(), lock, name, cpu, tolerance)

    def _given(
        self,
        call: str,
        fn: object,
        args: tuple[object, ...],
        lock: Lock | None,
        name: str | None,
        cpu: int | None,
        tolerance: Seconds,
    ) -> Callout:
        """Make a callout that is given its function."""
        admit(call, self._machine, Use.INIT)
        check_func(call, fn, GIVEN)
        return _make(call, self._machine, Callout(), lock, name, cpu, tolerance, cast("Func", fn), packed(args))

    @shapes.call_later
    @protected
    def call_later(
        self,
        seconds: Seconds,
        fn: Callable[..., object],
        /,
        *args: object,
        lock: Lock | None = None,
        name: str | None = None,
        cpu: int | None = None,
        tolerance: Seconds = 0,
    ) -> Callout:
        r"""Make a callout that calls *fn(\*args)* once, *seconds* from now. Never blocks.

        *seconds* is a number or a ``timedelta``; 0 means as soon as its loop comes round. The rest as
        ``callout()``. Returns it: ``reset()`` arms it anew, ``stop()`` cancels it; it need not be kept.

        Raises:
            ArgumentTypeError, ArgumentValueError: *seconds* is no number, negative, NaN, infinite or more than 68
                years.
            LockClassError, ClosedError: as ``callout()``.
        """
        machine = self._machine
        if lock is not None or name is not None or tolerance != 0:
            delay = in_ns("call_later", seconds)
            c = self._given("call_later", fn, args, lock, name, cpu, tolerance)
            _arm("call_later", c, machine.platform.now() + delay)
            return c
        home = machine.cpus[machine.platform.current_cpu()] if cpu is None else check_cpu("call_later", machine, cpu)
        return later("call_later", home, seconds, fn, args)

    @shapes.call_at
    @protected
    def call_at(
        self,
        deadline: float,
        fn: Callable[..., object],
        /,
        *args: object,
        lock: Lock | None = None,
        name: str | None = None,
        cpu: int | None = None,
        tolerance: Seconds = 0,
    ) -> Callout:
        """Do as ``call_later()``, for a time of ``current_time()``: at once if that is past. Never blocks."""
        when = to_time("call_at", self._machine, deadline)
        c = self._given("call_at", fn, args, lock, name, cpu, tolerance)
        _arm("call_at", c, when)
        return c

    @shapes.every
    @protected
    def every(
        self,
        seconds: Seconds,
        fn: Callable[..., object],
        /,
        *args: object,
        first: Seconds | None = None,
        lock: Lock | None = None,
        name: str | None = None,
        cpu: int | None = None,
        tolerance: Seconds = 0,
    ) -> Periodic:
        r"""Make a callout that calls *fn(\*args)* every *seconds*, on a fixed grid of times. Never blocks.

        *first*: seconds until the first run; by default one period. See ``Periodic``; the rest as ``call_later()``.

        Raises:
            ArgumentValueError: also if *seconds* is 0.
        """
        period = to_ns("every", seconds)
        if not period:
            raise ArgumentValueError("every: seconds must be above 0, or it would never end", call="every")
        admit("every", self._machine, Use.INIT)
        check_func("every", fn, GIVEN)
        c = Periodic.__new__(Periodic)
        Callout.__init__(c)
        when = self._machine.platform.now() + (period if first is None else to_ns("every", first, "first"))
        c._times = Times(when, period)
        _make("every", self._machine, c, lock, name, cpu, tolerance, fn, grid(args, c, c._times), FIXED)
        _arm("every", c, when)
        return c

    def mutex(self, name: str = "", *, recursive: bool = False) -> Mtx:
        """Make a mutex of this system, to be given to callouts as their lock, and to be held by your code for a few
        lines. Never blocks.

        *recursive*: its owner may acquire it again. Raises ArgumentTypeError; ClosedError.
        """
        admit("mutex", self._machine, Use.INIT)
        if not isinstance(name, str):
            raise ArgumentTypeError(f"mutex: name must be a str, not {shown(name)}", call="mutex")
        check_bool("mutex", "recursive", recursive)
        opts = MTX_RECURSE if recursive else MTX_DEF
        return Mtx(name, opts, machine=self._machine) if name else Mtx(opts=opts, machine=self._machine)

    def current_time(self) -> float:
        """Return the time of the system's clock, in seconds: what ``call_at()`` and ``reset_at()`` count in. Never
        blocks.

        On trio that is ``trio.current_time()``, on every CPU.
        """
        machine = self._machine
        return from_ns(machine.platform.now() + machine.epoch)

    def stats(self) -> SystemStats:
        """Return what its CPUs have done since it was opened: how many callouts were armed, were called and were
        stopped, how late they were, for how long callbacks ran. Never blocks.

        Times are in seconds. Nothing is ever set back, so that any number of readers may take the difference of two:
        ``later - earlier``.

        Raises:
            ClosedError: the system is closed.
            ReentrantCallError: called by a finalizer or signal handler that has interrupted the engine.
            ForkedError: in a forked child.
        """
        admit("stats", self._machine, Use.CURRENT)
        return stats(self._machine)

    def callouts(self, limit: int | None = None) -> list[CalloutInfo]:
        """Return what is scheduled and what runs now, by deadline; with *limit*, the first so many. Never blocks.

        While the callouts of a CPU are listed its lock is held, as in any call: with a limit for as long as it takes to
        find the first, else the longer the more there are. The list keeps none of them alive, and does not show with
        which arguments they will be called.

        Raises:
            ArgumentTypeError, ArgumentValueError: *limit* is no int from 0.
            ClosedError, ReentrantCallError, ForkedError: as ``stats()``.
        """
        admit("callouts", self._machine, Use.CURRENT)
        return callouts("callouts", self._machine, limit)


def _make(
    call: str,
    machine: Machine,
    c: C,
    lock: Lock | None,
    name: str | None,
    cpu: int | None,
    tolerance: Seconds,
    func: Func | None = None,
    arg: object = None,
    more: int = 0,
) -> C:
    """Make *c*, which is blank, a callout of *machine*."""
    _check_lock(call, lock)
    if name is not None and not isinstance(name, str):
        raise ArgumentTypeError(f"{call}: name must be a str, not {shown(name)}", call=call)
    late = to_ns(call, tolerance, "tolerance") if tolerance != 0 else 0
    home = machine.cpus[machine.platform.current_cpu() if cpu is None else check_cpu(call, machine, cpu).id]
    if place(call, lock_class_of(lock, 0), direct=False) is Place.CPU0:
        home = machine.cpus[0]
    initialize(call, machine, c, lock, 0, home, func, arg, more | CAREFUL if late else more)
    if name is not None or late:
        machine.extras.set(c, Extra(name, late))
    return c


def _arm(call: str, c: Callout, when: int) -> None:
    """Arm *c*, which was just made, for the time *when*."""
    when = min(when, FAR)
    arm(call, c, when, tolerance_of(c.c_cpu.machine, c, when), None, None, None)


def _check_lock(call: str, lock: object) -> None:
    """Raise unless *lock* is None or a lock that softclock can wait for."""
    if lock is None or isinstance(lock, Mtx | RwLock):
        return
    if isinstance(lock, _THREADS_LOCKS):
        why = "it knows no owner and wakes nothing that parks, so softclock would have to stop its loop for it"
    elif type(lock).__module__.partition(".")[0] in ("trio", "anyio", "asyncio"):
        why = "it can be held across an await, and then the loop that has to release it would wait for itself"
    else:
        why = "softclock has to know its owner"
    raise LockClassError(
        f"{call}: lock must be a callout.Mtx, RwLock or RmLock, not {shown(lock)}: {why}; "
        "make one with system.mutex(), and have your code hold that",
        call=call,
    )
