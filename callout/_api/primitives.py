"""What other timer APIs need and callout(9) lacks: conditional arming, dequeueing, waiting without refusing,
cross-CPU calls.

``callout_linux`` stands on these, and so can a port of any other timer API. Each is one step under the lock of the
callout's CPU, so what it does and what it returns belong together. Where callout(9) has a result of its own for every
call, these return the two *facts* from which all of those results are made, or'ed together: ``CALLOUT_REMOVED`` (a
run was scheduled, and has been removed or replaced) and ``CALLOUT_RUNNING`` (a run is in progress).

None of them asks for the callout's lock. Errors that all share are those of ``callout._api``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from .._core import phases
from .._core.arm import IF_EARLIER, IF_IDLE, IF_PENDING, STAY, UNCHANGED
from .._core.calls import call_on
from .._core.checks import check_callout, check_cpu, check_func, machine_of, not_a_callout, refuse_unrun
from .._core.cpu import SYNC, T_CLOSE
from .._core.drain import barrier, is_inside, run_blocking, wait, wait_blocking
from .._core.errors import ArgumentValueError, SelfDrainError
from .._core.machine import CURRENT, Machine, current_machine
from .._core.platform import Waiter
from .._core.short import arm_at_tick, callout_arm_curcpu, callout_dequeue
from .._core.state import CLOSED, FRESH, MOVING, PENDING, REMOVED, RUNNING, UNMADE_IS_IDLE
from .awaitable import must_await, refuse_closed, refuse_held_locks, refuse_loop, refuse_wait
from .callout import Callout

T = TypeVar("T")

_SCHEDULED: Final = PENDING | MOVING  # only the first: in a queue

CALLOUT_REMOVED: Final = REMOVED
CALLOUT_RUNNING: Final = RUNNING

ARM_IF_IDLE: Final = IF_IDLE  # only if no run is scheduled
ARM_IF_PENDING: Final = IF_PENDING  # only if a run is scheduled
ARM_IF_EARLIER: Final = IF_EARLIER  # only if none is scheduled, or one for a later time
ARM_STAY: Final = STAY  # a callout that runs keeps its CPU, and a deferred migration is replaced
ARM_UNCHANGED: Final = UNCHANGED  # leave everything as it is, the CPU too, if a run is scheduled for this very tick

# -- arming --------------------------------------------------------------------------------------------------------


def callout_arm(c: Callout, tick: int, func: Callable[[T], object], arg: T, flags: int = 0, /) -> int:
    """Arm *c* to call ``func(arg)`` at clock tick number *tick*, as ``ticks()`` counts them, if *flags* allow it.
    Never blocks.

    A tick that has begun counts as the next one. The callout keeps its CPU. *flags*, or'ed together:

    - ``ARM_IF_IDLE``, ``ARM_IF_PENDING``, ``ARM_IF_EARLIER``: only if no run is scheduled; only if one is; only if
      none is, or a later one.
    - ``ARM_STAY``: if it runs it stays on the CPU where it runs, whatever CPU is asked for, and this arming replaces a
      deferred migration.
    - ``ARM_UNCHANGED``: a run that is scheduled for this very tick is left as it is, on the CPU where it is.

    As everywhere, nothing is armed while the callout is drained, nor after it was terminated.

    Returns the facts as they were: ``CALLOUT_REMOVED`` if a run was scheduled (it has been replaced, unless *flags*
    forbade it), ``CALLOUT_RUNNING`` if one was in progress.

    Raises:
        ArgumentTypeError, ArgumentValueError: *tick* is not an int, *func* not a plain function; unknown flag.
    """
    check_callout("callout_arm", c)
    return arm_at_tick("callout_arm", c, tick, func, arg, None, flags)


def callout_arm_on(c: Callout, tick: int, func: Callable[[T], object], arg: T, cpu: int, flags: int = 0, /) -> int:
    """Arm *c* as ``callout_arm()`` does, to run on CPU number *cpu*. While it runs elsewhere, and without
    ``ARM_STAY``, the migration is deferred until that run has ended. Never blocks.

    Raises:
        ArgumentTypeError, ArgumentValueError: also if *cpu* is not an int or not there.
    """
    return arm_at_tick("callout_arm_on", c, tick, func, arg, check_cpu("callout_arm_on", machine_of(c), cpu), flags)


# -- looking -------------------------------------------------------------------------------------------------------


def callout_running(c: Callout, /) -> int:
    """Return 1 if a run of *c* is in progress, else 0. Never blocks.

    Without a lock of your own the result may be out of date when it is returned.
    """
    machine_of(c)
    return int(c.run is not None)


def callout_executing(c: Callout, /) -> int:
    """Return 1 if this very code runs inside the callback of *c*, else 0. Never blocks."""
    machine_of(c)
    run = c.run
    return int(run is not None and is_inside(run))


def callout_armed_with(c: Callout, arg: object, /) -> int:
    """Return 1 if a run of *c* with this argument, or one that equals it, is scheduled and has not begun, else 0. Never
    blocks.

    Acquires no lock: 1 was true at a moment during the call. A deferred migration does not count, as its argument
    becomes the callout's only when it is carried out.
    """
    if phases.IN_CHILD:
        machine_of(c)  # raises
    try:
        armed_with = c.arg
    except AttributeError:
        not_a_callout("callout_armed_with", c)
    # One look at the state, between two at the argument. It says that what is scheduled is in a queue, and so has the
    # callout's own argument; if that is the same before and after, it was the same at this look, or has been armed
    # with it since.
    if armed_with == arg and c.state & _SCHEDULED == PENDING and c.arg == arg:
        return 1
    check_callout("callout_armed_with", c)
    if c.state & FRESH:
        machine_of(c)  # raises
    return 0


def callout_terminated(c: Callout, /) -> int:
    """Return 1 if *c* was closed for good, by ``callout_terminate()`` or with ``close``, else 0. Never blocks."""
    if type(c) is not Callout:
        check_callout("callout_terminated", c)
    try:
        state = c.state
    except AttributeError:
        not_a_callout("callout_terminated", c)
    if state & FRESH or phases.IN_CHILD or (UNMADE_IS_IDLE and not state):
        machine_of(c)  # raises
    return (state & CLOSED) // CLOSED


def check_callback(call: str, func: object, /) -> None:
    """Raise unless *func* can be a callback, for code that takes functions from users of its own. *call* goes into the
    message. Never blocks.

    Raises:
        ArgumentTypeError: *func* cannot be called, or is a coroutine or generator function.
    """
    check_func(call, func)


def check_result(func: object, result: object, /) -> None:
    """Raise if *result* still wants to be run, for code that calls functions of users of its own: nobody will. *func*,
    which has returned it, goes into the message. Never blocks.

    Raises:
        ArgumentTypeError: *result* is a coroutine or a generator; it is closed.
    """
    refuse_unrun(func, result)


# -- waiting -------------------------------------------------------------------------------------------------------


def check_wait(call: str, c: Callout, /, *, blocking: bool = False) -> None:
    """Raise what a wait for *c*, with *blocking* one that blocks the thread, would raise here, before anything is
    changed. *call* goes into the message. Never blocks.

    Raises:
        SelfDrainError: this is the callback of *c*.
        LockHeldError: the caller holds the callout's lock, or, in checking mode, any but Giant, and, with *blocking*,
            a sleepable one.
        LockOrderError: in checking mode, the callback may wait for the sleepable lock that the caller holds.
        ArgumentValueError: *c* belongs to another system than the current one.
        LoopThreadError: *blocking*, and this thread runs an event loop.
        LoopError: not *blocking*, and this is a task of asyncio.
    """
    _refuse_other(call, c, refuse_wait(call, c, blocking=blocking))


def check_current(call: str, c: Callout, /) -> None:
    """Raise unless the system of *c* is open, and the current one. *call* goes into the message. Never blocks.

    Raises:
        ClosedError: it was closed.
        NotInitializedError: *c* was never initialised.
        ArgumentValueError: another system is current here.
    """
    check_callout(call, c)
    machine = machine_of(c)
    refuse_closed(call, machine)
    _refuse_other(call, c, machine)


def _refuse_other(call: str, c: Callout, machine: Machine) -> None:
    """Raise if *c*, which is of *machine*, is of another system than the current one."""
    if CURRENT.get(machine) is not machine:
        raise ArgumentValueError(
            f"{call}: {c!r} belongs to another callout system than the one that is current here", call=call, callout=c
        )


def callout_quiesce(c: Callout, /, *, close: bool = False) -> Coroutine[Any, Any, int]:
    """Remove the scheduled run of *c* and wait until a run in progress has ended, without refusing that it is armed
    meanwhile.

    What is armed while this waits is removed at the end of the run, in one step with it; of several waiters the first
    is told so. With *close* the callout is closed in that same step, not before. Hold no lock but Giant, which is
    released while waiting.

    Returns the facts: ``CALLOUT_REMOVED`` if it removed a scheduled run, ``CALLOUT_RUNNING`` if it had to wait for
    one.

    Raises:
        ArgumentValueError: *c* belongs to another system than the current one.
        LockHeldError, SelfDrainError: as ``callout_drain()``.
    """
    check_wait("callout_quiesce", c)
    return must_await("callout_quiesce", wait("callout_quiesce", c, SYNC | T_CLOSE if close else SYNC))


def callout_quiesce_sync(c: Callout, /, *, close: bool = False) -> int:
    """Do as ``callout_quiesce()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    _refuse_other("callout_quiesce_sync", c, refuse_wait("callout_quiesce_sync", c, blocking=None))
    return wait_blocking("callout_quiesce", c, SYNC | T_CLOSE if close else SYNC)


def check_barrier_all(call: str, /, *, blocking: bool = False) -> None:
    """Raise what ``callout_barrier_all()`` (with *blocking*: its ``_sync`` twin) would raise here, before anything is
    changed. *call* goes into the message. Never blocks.
    """
    machine = current_machine(call)
    refuse_closed(call, machine)
    for cpu in machine.cpus:
        for lane in cpu.lanes:
            # Only the run is looked at: its function may have freed its callout.
            if lane.run is not None and is_inside(lane.run):
                raise SelfDrainError(
                    f"{call}: called by a callback of {lane}, it would wait for its own end", call=call
                )
    refuse_loop(call, machine, blocking=blocking)
    refuse_held_locks(call, machine)


async def _barrier_all(machine: Machine, new_waiter: Callable[[], Waiter]) -> int:
    waiters = [waiter for cpu in machine.cpus for waiter in barrier(cpu, new_waiter)]
    for waiter in waiters:
        await waiter.wait()
    return len(waiters)


def callout_barrier_all() -> Coroutine[Any, Any, int]:
    """Wait until every run that is in progress now, on any CPU, has ended; cancel nothing, refuse nothing. Hold no
    lock.

    Returns how many there were.

    Raises:
        SelfDrainError: called from a callback.
        SleepError: in checking mode, the caller holds a lock.
        LoopError: this is a task of asyncio, but ``callout.guest`` has not opened the system.
    """
    check_barrier_all("callout_barrier_all")
    machine = current_machine("callout_barrier_all")
    return must_await("callout_barrier_all", _barrier_all(machine, machine.platform.waiter))


def callout_barrier_all_sync() -> int:
    """Do as ``callout_barrier_all()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    check_barrier_all("callout_barrier_all_sync", blocking=True)
    machine = current_machine("callout_barrier_all_sync")
    return run_blocking(_barrier_all(machine, machine.platform.thread_waiter))


# -- CPUs ----------------------------------------------------------------------------------------------------------


def mp_ncpus() -> int:
    """Return how many CPUs the current system has. Never blocks."""
    return len(current_machine("mp_ncpus").cpus)


def on_cpu(cpu: int, /) -> bool:
    """Return whether this code runs on the loop of CPU number *cpu*: not in a thread that is only bound to it.

    Never blocks.
    """
    machine = current_machine("on_cpu")
    return check_cpu("on_cpu", machine, cpu).thread == machine.platform.current_thread()


def cpu_call(cpu: int, func: Callable[..., object], /, *args: object) -> None:
    """Have *func* run once on the loop of CPU number *cpu*, with *args*: soon, and never inside one of its callbacks.
    Never blocks.

    From any thread. What *func* raises is treated as a callback's exception. This is ``system.cpu(n).call()`` of the
    current system.

    Raises:
        ClosedError: that CPU is closed; *func* will not run.
        ArgumentTypeError, ArgumentValueError: *func* is not a plain function, *cpu* not an int or not there.
    """
    machine = current_machine("cpu_call")
    call_on("cpu_call", check_cpu("cpu_call", machine, cpu), func, args)


__all__ = [
    "ARM_IF_EARLIER",
    "ARM_IF_IDLE",
    "ARM_IF_PENDING",
    "ARM_STAY",
    "ARM_UNCHANGED",
    "CALLOUT_REMOVED",
    "CALLOUT_RUNNING",
    "callout_arm",
    "callout_arm_curcpu",
    "callout_arm_on",
    "callout_armed_with",
    "callout_barrier_all",
    "callout_barrier_all_sync",
    "callout_dequeue",
    "callout_executing",
    "callout_quiesce",
    "callout_quiesce_sync",
    "callout_running",
    "callout_terminated",
    "check_barrier_all",
    "check_callback",
    "check_result",
    "check_wait",
    "cpu_call",
    "mp_ncpus",
    "on_cpu",
]
