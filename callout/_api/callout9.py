"""The names of callout(9), in the kernel's argument order, and the few that we add. Nothing is decided here.

What callout(9) does with out parameters is returned. Results are ints, as in C. Every function may be called from any
thread and never blocks for longer than a lock is held, except the coroutines and their ``_sync`` twins. All raise
``NotInitializedError`` for a callout that was never initialised and ``ForkedError`` in a forked child; all that change
a callout or wait for one, ``ClosedError`` after the system was closed.

Source: callout(9); sys/callout.h.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .._core import phases, short, signatures
from .._core.arm import arm, default_precision, destination, initialize_with
from .._core.checks import check_callout, check_cpu, check_func, machine_of, not_a_callout
from .._core.cpu import BARRIER, CLOSE, DRAIN, Cpu
from .._core.deadline import after_ticks, at_sbt, ticks_since_boot
from .._core.drain import drain_async, wait, wait_blocking
from .._core.machine import Machine, current_machine
from .._core.results import DRAIN_RESULT, RESET_RESULT, WAITED_RESULT
from .._core.state import ACTIVE, FRESH, PENDING, UNMADE_IS_IDLE, Func
from .._core.stop import deactivate
from .._core.units import (
    C_ALL,
    C_DIRECT_EXEC,
    SBT_MAX,
    check_flags,
    check_sbt,
    check_ticks,
    ns_to_sbt,
)
from .._locks.mutex import Mtx
from .._locks.rwlock import RmLock, RwLock
from .awaitable import must_await, refuse_wait
from .callout import Callout

T = TypeVar("T")

# -- initialisation ------------------------------------------------------------------------------------------------


def callout_init_rw(c: Callout, rw: RwLock, flags: int = 0, /) -> None:
    """Make *c* a callout whose callbacks run with *rw* held: for writing, or with ``CALLOUT_SHAREDLOCK`` for reading.

    Never blocks. With the flag they run on CPU 0 only, since a read lock does not exclude its other holders.
    Otherwise as ``callout_init_mtx()``.

    See callout(9), ``callout_init_rw()``.
    """
    initialize_with("callout_init_rw", c, rw, RwLock, flags)


def callout_init_rm(c: Callout, rm: RmLock, flags: int = 0, /) -> None:
    """Make *c* a callout whose callbacks run with *rm* held. Never blocks. Otherwise as ``callout_init_rw()``.

    Raises:
        LockClassError: also if *rm* is sleepable.

    See callout(9), ``callout_init_rm()``.
    """
    initialize_with("callout_init_rm", c, rm, RmLock, flags)


# -- looking -------------------------------------------------------------------------------------------------------


def callout_pending(c: Callout, /) -> int:
    """Return 1 if a run of *c* is scheduled and has not begun, else 0. Never blocks.

    During a deferred migration this is 1, too. Without the callout's lock the result may be out of date when it is
    returned. See callout(9).
    """
    if type(c) is not Callout:
        check_callout("callout_pending", c)
    try:
        state = c.state
    except AttributeError:
        not_a_callout("callout_pending", c)
    if state & FRESH or phases.IN_CHILD or (UNMADE_IS_IDLE and not state):
        machine_of(c)  # raises
    return state & PENDING


def callout_active(c: Callout, /) -> int:
    """Return 1 from the moment *c* is armed until it is deactivated, until a stop finds it scheduled or running, or
    until a drain finds it scheduled; else 0. Never blocks.

    A run does not clear it, nor does a stop that finds nothing to stop: after its run an idle callout is still active,
    and ``callout_stop()`` returns -1 and leaves it so. See callout(9), ``callout_active()``; kern_timeout.c,
    _callout_stop_safe().
    """
    if type(c) is not Callout:
        check_callout("callout_active", c)
    try:
        state = c.state
    except AttributeError:
        not_a_callout("callout_active", c)
    if state & FRESH or phases.IN_CHILD or (UNMADE_IS_IDLE and not state):
        machine_of(c)  # raises
    return (state & ACTIVE) // ACTIVE


def callout_deactivate(c: Callout, /) -> None:
    """Clear the active flag, and nothing else: what is scheduled still runs. Never blocks. See callout(9).

    A callout that was reset to another CPU while it ran is scheduled there when that run is over, and is active again
    then, as in the kernel (``callout_cc_add()``).
    """
    check_callout("callout_deactivate", c)
    deactivate(c)


# -- arming --------------------------------------------------------------------------------------------------------


callout_reset = signatures.reset(short.callout_reset)


def _reset(
    call: str, c: Callout, when: int, precision: int, func: Func | None, arg: object, to: Cpu | None, direct: bool
) -> int:
    return RESET_RESULT[arm(call, c, when, precision, func, arg, destination(call, c, to, direct), direct)]


def _in_ticks(call: str, c: Callout, ticks: int) -> tuple[int, int]:
    """Return the time *ticks* from now, and the default precision."""
    ticks = check_ticks(call, ticks)
    machine = machine_of(c)
    when = after_ticks(machine, machine.platform.now(), ticks)
    return when, default_precision(machine, when)


def _in_sbt(call: str, machine: Machine, sbt: int, precision: int, flags: int) -> tuple[int, int, bool]:
    """Return time and precision in ns, as callout_when() of kern_timeout.c reckons them, but never early; and whether
    the callback is to run directly.
    """
    flags = check_flags(call, flags, C_ALL)
    sbt = check_sbt(call, "sbt", sbt)
    precision = check_sbt(call, "precision", precision)
    when, precision = at_sbt(machine, sbt, precision, flags)
    return when, precision, bool(flags & C_DIRECT_EXEC)


@signatures.reset_on
def callout_reset_on(c: Callout, ticks: int, func: Callable[[T], object], arg: T, cpu: int, /) -> int:
    """Arm *c* as ``callout_reset()`` does, to run on CPU number *cpu*, to which it is assigned from now on.

    If it is running, the migration is deferred until that run has ended. Where the three rules say CPU 0 it goes there.

    Raises:
        ArgumentTypeError, ArgumentValueError: also if *cpu* is not an int or not there.

    See callout(9), ``callout_reset_on()``.
    """
    check_func("callout_reset_on", func)
    to = check_cpu("callout_reset_on", machine_of(c), cpu)
    when, precision = _in_ticks("callout_reset_on", c, ticks)
    return _reset("callout_reset_on", c, when, precision, func, arg, to, False)


@signatures.reset
def callout_reset_curcpu(c: Callout, ticks: int, func: Callable[[T], object], arg: T, /) -> int:
    """Arm *c* as ``callout_reset_on()`` does, on the CPU on which this code runs. See callout(9)."""
    check_func("callout_reset_curcpu", func)
    to = _curcpu(c)
    when, precision = _in_ticks("callout_reset_curcpu", c, ticks)
    return _reset("callout_reset_curcpu", c, when, precision, func, arg, to, False)


def _curcpu(c: Callout) -> Cpu:
    machine = machine_of(c)
    return machine.cpus[machine.platform.current_cpu()]


@signatures.reset_sbt
def callout_reset_sbt(
    c: Callout, sbt: int, precision: int, func: Callable[[T], object], arg: T, flags: int = 0, /
) -> int:
    """Arm *c* to call ``func(arg)`` once *sbt* from now, late by at most *precision*, both in sbintime. Never blocks.

    *flags*, or'ed together: ``C_ABSOLUTE`` (*sbt* is a time of ``sbinuptime()``), ``C_DIRECT_EXEC`` (run in the clock
    interrupt), ``C_PREL(x)`` (late by at most sbt / 2**x), ``C_HARDCLOCK`` (at a clock tick), ``C_PRECALC`` (both
    come from ``callout_when()``).

    Returns 1 if a scheduled run was replaced or a waiting one cancelled, else 0.

    Raises:
        ArgumentTypeError, ArgumentValueError: a time is not an int (NaN …), negative or more than ``SBT_MAX``;
            unknown flag; *func* is not a function.
        LockClassError: ``C_DIRECT_EXEC`` with a lock that is not a spin mutex.

    See callout(9), ``callout_reset_sbt()``.
    """
    check_func("callout_reset_sbt", func)
    when, pr, direct = _in_sbt("callout_reset_sbt", machine_of(c), sbt, precision, flags)
    return _reset("callout_reset_sbt", c, when, pr, func, arg, None, direct)


@signatures.reset_sbt_on
def callout_reset_sbt_on(
    c: Callout, sbt: int, precision: int, func: Callable[[T], object], arg: T, cpu: int, flags: int = 0, /
) -> int:
    """Arm *c* as ``callout_reset_sbt()`` does, on CPU number *cpu*. See callout(9), ``callout_reset_sbt_on()``."""
    check_func("callout_reset_sbt_on", func)
    to = check_cpu("callout_reset_sbt_on", machine_of(c), cpu)
    when, pr, direct = _in_sbt("callout_reset_sbt_on", machine_of(c), sbt, precision, flags)
    return _reset("callout_reset_sbt_on", c, when, pr, func, arg, to, direct)


@signatures.reset_sbt
def callout_reset_sbt_curcpu(
    c: Callout, sbt: int, precision: int, func: Callable[[T], object], arg: T, flags: int = 0, /
) -> int:
    """Arm *c* as ``callout_reset_sbt()`` does, on the CPU on which this code runs. See callout(9)."""
    check_func("callout_reset_sbt_curcpu", func)
    to = _curcpu(c)
    when, pr, direct = _in_sbt("callout_reset_sbt_curcpu", machine_of(c), sbt, precision, flags)
    return _reset("callout_reset_sbt_curcpu", c, when, pr, func, arg, to, direct)


def callout_schedule(c: Callout, ticks: int, /) -> int:
    """Arm *c* as ``callout_reset()`` does, with the function and argument that it has. Never blocks.

    While a reset onto another CPU is deferred it has those of the run in progress, as with the kernel's macro.

    Raises:
        NeverArmedError: it has none yet.

    See callout(9), ``callout_schedule()``.
    """
    when, precision = _in_ticks("callout_schedule", c, ticks)
    return _reset("callout_schedule", c, when, precision, None, None, None, False)


def callout_schedule_on(c: Callout, ticks: int, cpu: int, /) -> int:
    """Arm *c* as ``callout_schedule()`` does, on CPU number *cpu*. See callout(9), ``callout_schedule_on()``."""
    to = check_cpu("callout_schedule_on", machine_of(c), cpu)
    when, precision = _in_ticks("callout_schedule_on", c, ticks)
    return _reset("callout_schedule_on", c, when, precision, None, None, to, False)


def callout_schedule_curcpu(c: Callout, ticks: int, /) -> int:
    """Arm *c* as ``callout_schedule()`` does, on the CPU on which this code runs. See callout(9)."""
    to = _curcpu(c)
    when, precision = _in_ticks("callout_schedule_curcpu", c, ticks)
    return _reset("callout_schedule_curcpu", c, when, precision, None, None, to, False)


def callout_schedule_sbt(c: Callout, sbt: int, precision: int, flags: int = 0, /) -> int:
    """Arm *c* as ``callout_reset_sbt()`` does, with the function and argument that it has. See callout(9)."""
    when, pr, direct = _in_sbt("callout_schedule_sbt", machine_of(c), sbt, precision, flags)
    return _reset("callout_schedule_sbt", c, when, pr, None, None, None, direct)


def callout_schedule_sbt_on(c: Callout, sbt: int, precision: int, cpu: int, flags: int = 0, /) -> int:
    """Arm *c* as ``callout_schedule_sbt()`` does, on CPU number *cpu*. See callout(9)."""
    to = check_cpu("callout_schedule_sbt_on", machine_of(c), cpu)
    when, pr, direct = _in_sbt("callout_schedule_sbt_on", machine_of(c), sbt, precision, flags)
    return _reset("callout_schedule_sbt_on", c, when, pr, None, None, to, direct)


def callout_schedule_sbt_curcpu(c: Callout, sbt: int, precision: int, flags: int = 0, /) -> int:
    """Arm *c* as ``callout_schedule_sbt()`` does, on the CPU on which this code runs. See callout(9)."""
    to = _curcpu(c)
    when, pr, direct = _in_sbt("callout_schedule_sbt_curcpu", machine_of(c), sbt, precision, flags)
    return _reset("callout_schedule_sbt_curcpu", c, when, pr, None, None, to, direct)


def callout_when(sbt: int, precision: int, flags: int = 0, /) -> tuple[int, int]:
    """Return the absolute time and the precision, in sbintime, with which ``callout_reset_sbt()`` would arm now.
    Never blocks.

    Pass them on with ``C_PRECALC``, to arm many callouts for one moment. See callout(9), ``callout_when()``.
    """
    when, pr, _ = _in_sbt("callout_when", current_machine("callout_when"), sbt, precision, flags)
    return min(ns_to_sbt(when), SBT_MAX), min(ns_to_sbt(pr), SBT_MAX)


# -- stopping and waiting ------------------------------------------------------------------------------------------


def callout_drain(c: Callout, /) -> Coroutine[Any, Any, int]:
    """Cancel *c*, and wait until a run in progress has ended. Hold no lock but Giant, which is released while waiting.

    While it waits, every arming is refused. Afterwards *c* may be freed, unless the wait was cancelled: then *c* is
    stopped, but its callback may still be running. ``async with draining(c):`` and ``callout_drain_async()`` cannot
    be got wrong in this way.

    Returns 1 if a scheduled run was removed; -1 if none was, or only a deferred migration, whether or not it waited for
    a run.

    Raises:
        LockHeldError: the caller holds the callout's lock, or, in checking mode, any but Giant.
        SelfDrainError: called from the callout's own callback.
        LoopError: this is a task of asyncio, but ``callout.guest`` has not opened the system.

    See callout(9), ``callout_drain()``.
    """
    refuse_wait("callout_drain", c)
    return must_await("callout_drain", _drain("callout_drain", c, DRAIN))


async def _drain(call: str, c: Callout, asks: int) -> int:
    return DRAIN_RESULT[await wait(call, c, asks)]


def callout_drain_sync(c: Callout, /) -> int:
    """Do as ``callout_drain()``, and block the thread, which must not run an event loop (``LoopThreadError``).

    It may hold a sleepable ``RmLock``. In checking mode that is ``LockOrderError`` if the callback may wait for it.
    """
    return DRAIN_RESULT[wait_blocking("callout_drain", c, DRAIN)]


@signatures.takes_completion
def callout_drain_async(c: Callout, func: Callable[[T], object], arg: T, /) -> int:
    """Stop *c* as ``callout_stop()`` does, and have ``func(arg)`` called when softclock no longer uses it.

    Never blocks. Hold the callout's lock.

    Returns 1 if something is still outstanding: *func* **will** be called, exactly once, on the CPU that ran the
    callout, with no lock held. 0 if nothing is: *func* will not be called, and the caller may free *c* at once.

    This is the opposite sense of ``callout.freebsd13.callout_async_drain()``.

    Raises:
        LockNotHeldError, ArgumentTypeError: as ``callout_stop()`` and ``callout_reset()``.

    Source: the kern_timeout.c rewrite of December 2014, callout_drain_async().
    """
    check_callout("callout_drain_async", c)
    return WAITED_RESULT[drain_async("callout_drain_async", c, func, arg)]


def callout_barrier(c: Callout, /) -> Coroutine[Any, Any, int]:
    """Wait until the run in progress has ended; cancel nothing, refuse nothing.

    Returns 1 if there was one, 0 if not. Hold no lock but Giant. Errors as ``callout_drain()``.
    """
    refuse_wait("callout_barrier", c)
    return must_await("callout_barrier", _barrier(c))


async def _barrier(c: Callout) -> int:
    return WAITED_RESULT[await wait("callout_barrier", c, BARRIER)]


def callout_barrier_sync(c: Callout, /) -> int:
    """Do as ``callout_barrier()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    return WAITED_RESULT[wait_blocking("callout_barrier", c, BARRIER)]


def callout_terminate(c: Callout, /) -> Coroutine[Any, Any, int]:
    """Drain *c*, and refuse every later arming: a permanent shutdown. ``callout_init()`` brings it back to life.

    Refused armings return 0. Returns and raises as ``callout_drain()``. DragonFly has it by this name, Linux as
    ``timer_shutdown_sync()``.
    """
    refuse_wait("callout_terminate", c)
    return must_await("callout_terminate", _drain("callout_terminate", c, CLOSE))


def callout_terminate_sync(c: Callout, /) -> int:
    """Do as ``callout_terminate()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    return DRAIN_RESULT[wait_blocking("callout_terminate", c, CLOSE)]


# -- time ----------------------------------------------------------------------------------------------------------


def sbinuptime() -> int:
    """Return the time of the current system's clock as sbintime: what ``C_ABSOLUTE`` counts in. Never blocks."""
    return ns_to_sbt(current_machine("sbinuptime").platform.now())


def ticks() -> int:
    """Return how many clock ticks have passed since the current system was opened. Never blocks."""
    machine = current_machine("ticks")
    return ticks_since_boot(machine, machine.platform.now())


def hz() -> int:
    """Return how many clock ticks the current system counts in a second. Never blocks."""
    return current_machine("hz").hz


def curcpu() -> int:
    """Return the number of the CPU on which this code runs; 0 for a thread that was not bound to another.

    Never blocks.
    """
    return current_machine("curcpu").platform.current_cpu()


def giant() -> Mtx:
    """Return Giant, the recursive mutex of the current system. Never blocks."""
    return current_machine("giant").giant


__all__ = [
    "callout_active",
    "callout_barrier",
    "callout_barrier_sync",
    "callout_deactivate",
    "callout_drain",
    "callout_drain_async",
    "callout_drain_sync",
    "callout_init_rm",
    "callout_init_rw",
    "callout_pending",
    "callout_reset_curcpu",
    "callout_reset_on",
    "callout_reset_sbt",
    "callout_reset_sbt_curcpu",
    "callout_reset_sbt_on",
    "callout_schedule",
    "callout_schedule_curcpu",
    "callout_schedule_on",
    "callout_schedule_sbt",
    "callout_schedule_sbt_curcpu",
    "callout_schedule_sbt_on",
    "callout_terminate",
    "callout_terminate_sync",
    "callout_when",
    "curcpu",
    "giant",
    "hz",
    "sbinuptime",
    "ticks",
]
