"""What other timer APIs need and callout(9) lacks: conditional arming, dequeueing, waiting without refusing,
cross-CPU calls.

``callout_linux`` stands on these, and so can a port of any other timer API. Each is one step under the lock of the
callout's CPU, so what it was asked and what it answers belong together. Where callout(9) has a result of its own for
every call, these return the two *facts* from which all of those are made, or'ed together: ``CALLOUT_REMOVED`` (a
scheduled run was there, and is taken away or replaced) and ``CALLOUT_RUNNING`` (a run is in progress).

None of them asks for the callout's lock. Errors that all share are those of ``callout._api``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from .._core.arm import (
    IF_EARLIER,
    IF_IDLE,
    IF_PENDING,
    STAY,
    UNCHANGED,
    arm,
    attach,
    check_cpu,
    check_func,
    contended,
    dequeue,
    destination,
    refuse_if_closed,
)
from .._core.cpu import BARRIER, CURRENT, STARTED, SYNC, T_CLOSE, Cpu, Ticket, current_machine
from .._core.drain import check_locks, machine_of, run_blocking, wait, wait_blocking
from .._core.errors import ArgumentTypeError, ArgumentValueError, LoopThreadError, SelfDrainError, SleepError
from .._core.guard import guarded
from .._core.platform import Waiter
from .._core.softclock import cross_call
from .._core.state import ARMED, CLOSED, FRESH, REMOVED, RUNNING, Callout
from .._core.units import SBT_MAX, check_flags, sbt_to_ns
from .._core.wheel import SLACK

T = TypeVar("T")

CALLOUT_REMOVED: Final = REMOVED
CALLOUT_RUNNING: Final = RUNNING

ARM_IF_IDLE: Final = IF_IDLE  # only if no run is scheduled
ARM_IF_PENDING: Final = IF_PENDING  # only if a run is scheduled
ARM_IF_EARLIER: Final = IF_EARLIER  # only if none is scheduled, or one for a later time
ARM_STAY: Final = STAY  # a callout that runs keeps its CPU, and a put-off move is replaced
ARM_UNCHANGED: Final = UNCHANGED  # leave everything as it is, the CPU too, if a run is scheduled for this very tick
_ARM_ALL: Final = IF_IDLE | IF_PENDING | IF_EARLIER | STAY | UNCHANGED

_LONG_WAY: Final = IF_IDLE | IF_EARLIER  # conditions that the short path does not look at
_SIGN: Final = 1 << 63  # ticks wrap as a long of C does: what is further ahead than this lies in the past
_FAR: Final = sbt_to_ns(SBT_MAX)

# -- arming --------------------------------------------------------------------------------------------------------


def _arm(call: str, c: Callout, tick: int, func: Callable[[T], object], arg: T, to: Cpu | None, flags: int) -> int:
    if func is not c.func or func is None:
        check_func(call, func)
    check_flags(call, flags, _ARM_ALL)
    if not isinstance(tick, int):
        raise ArgumentTypeError(f"{call}: tick must be an int, a clock tick as ticks() counts them, not {tick!r}")
    machine = machine_of(c)
    length = machine.tick
    next_tick = (machine.platform.now() - machine.boot) // length + 1
    ahead = ((tick - next_tick + _SIGN) & 2 * _SIGN - 1) - _SIGN
    when = min(machine.boot + (next_tick + max(ahead, 0)) * length, _FAR)
    return arm(call, c, when, 0, func, arg, destination(call, c, to, direct=False), how=flags)


def callout_arm(c: Callout, tick: int, func: Callable[[T], object], arg: T, flags: int = 0, /) -> int:
    """Arm *c* to call ``func(arg)`` at clock tick number *tick*, as ``ticks()`` counts them, if *flags* allow it.
    Never blocks.

    A tick that has begun counts as the next one. The callout keeps its CPU. *flags*, or'ed together:

    - ``ARM_IF_IDLE``, ``ARM_IF_PENDING``, ``ARM_IF_EARLIER``: only if no run is scheduled; only if one is; only if
      none is, or a later one.
    - ``ARM_STAY``: if it runs it stays on the CPU where it runs, whatever CPU is asked for, and takes the place of a
      put-off move.
    - ``ARM_UNCHANGED``: a run that is scheduled for this very tick is left as it is, on the CPU where it is.

    As everywhere, nothing is armed while the callout is drained, nor after it was terminated.

    Returns the facts as they were: ``CALLOUT_REMOVED`` if a run was scheduled (it has been replaced, unless *flags*
    forbade it), ``CALLOUT_RUNNING`` if one was in progress.

    Raises:
        ArgumentTypeError, ArgumentValueError: *tick* is not an int, *func* not a plain function; unknown flag.
    """
    return _arm("callout_arm", c, tick, func, arg, None, flags)


def callout_arm_on(c: Callout, tick: int, func: Callable[[T], object], arg: T, cpu: int, flags: int = 0, /) -> int:
    """Arm *c* as ``callout_arm()`` does, to run on CPU number *cpu*; put off, without ``ARM_STAY``, while it runs
    elsewhere. Never blocks.

    Raises:
        ArgumentTypeError, ArgumentValueError: also if *cpu* is not an int or not there.
    """
    return _arm("callout_arm_on", c, tick, func, arg, check_cpu("callout_arm_on", machine_of(c), cpu), flags)


@guarded
def callout_arm_curcpu(c: Callout, tick: int, func: Callable[[T], object], arg: T, flags: int = 0, /) -> int:
    """Arm *c* as ``callout_arm_on()`` does, on the CPU on which this code runs. Never blocks."""
    cpu = c.cpu
    lock = cpu.lock
    if not lock.acquire(False):
        contended(cpu)
    try:
        # The short path of callout_reset(): pending, plain, on this CPU and staying there, pushed out. It touches no
        # queue.
        if c.state == ARMED and func is c.func and not flags & _LONG_WAY and type(tick) is int:
            when = cpu.boot + tick * cpu.tick
            if (
                c.time < when <= _FAR
                and c.cpu is cpu
                and c.run is None
                and when > cpu.now()
                and (cpu.only or cpu.thread == cpu.current_thread() or cpu.id == cpu.machine.platform.current_cpu())
            ):
                c.seq = cpu.seq = cpu.seq + 1
                c.time = when
                c.arg = arg
                c.precision = 0
                return REMOVED
    finally:
        lock.release()
    machine = cpu.machine
    return _arm("callout_arm_curcpu", c, tick, func, arg, machine.cpus[machine.platform.current_cpu()], flags)


# -- taking away and looking ---------------------------------------------------------------------------------------


@guarded
def callout_dequeue(c: Callout, /, *, if_not_running: bool = False, close: bool = False) -> int:
    """Take the scheduled run of *c* away, a put-off move included; a run in progress goes on, and may arm it again.
    Never blocks.

    With *if_not_running* nothing at all is done while it runs. With *close* it is never armed again: later armings do
    nothing.

    Returns the facts: ``CALLOUT_REMOVED`` if a run was taken away, ``CALLOUT_RUNNING`` if one is in progress.
    """
    cpu = c.cpu
    lock = cpu.lock
    if not lock.acquire(False):
        contended(cpu)
    try:
        # The short path: plain, in the wheel, idle, still on this CPU.
        if c.state == ARMED and c.run is None and not close and c.cpu is cpu:
            c.state = 0
            wheel = cpu.wheel
            wheel.live -= 1
            if wheel.size > 2 * wheel.live + SLACK:
                wheel.sweep()
            return REMOVED
    finally:
        lock.release()
    return dequeue("callout_dequeue", c, if_not_running, close)


def callout_running(c: Callout, /) -> int:
    """Return 1 if a run of *c* is in progress, else 0. Never blocks.

    Without a lock of your own the answer may be old when it arrives.
    """
    machine_of(c)
    return int(c.run is not None)


def callout_executing(c: Callout, /) -> int:
    """Return 1 if this very code runs inside the callback of *c*, else 0. Never blocks."""
    machine_of(c)
    run = c.run
    if run is None or run.state != STARTED:
        return 0
    return int(run.cpu.thread == run.cpu.machine.platform.current_thread())


def callout_terminated(c: Callout, /) -> int:
    """Return 1 if *c* was closed for good, by ``callout_terminate()`` or with ``close``, else 0. Never blocks."""
    state = c.state
    if state & FRESH:
        machine_of(c)  # raises
    return (state & CLOSED) // CLOSED


def check_callback(call: str, func: object, /) -> None:
    """Raise unless *func* can be a callback, for those who take functions from their own users. *call* goes into the
    message. Never blocks.

    Raises:
        ArgumentTypeError: *func* cannot be called, or is a coroutine or generator function.
    """
    check_func(call, func)


# -- waiting -------------------------------------------------------------------------------------------------------


def check_wait(call: str, c: Callout, /) -> None:
    """Raise what a wait for *c* would raise here, before anything is changed. *call* goes into the message. Never
    blocks.

    Raises:
        SelfDrainError: this is the callback of *c*.
        LockHeldError: the caller holds the callout's lock, or, in checking mode, any but Giant.
        ArgumentValueError: *c* belongs to another system than the current one.
    """
    machine = machine_of(c)
    if CURRENT.get(machine) is not machine:
        raise ArgumentValueError(f"{call}: {c!r} belongs to another callout system than the one that is current here")
    if callout_executing(c):
        raise SelfDrainError(f"{call}: {c!r} waits for its own callback, which would never end")
    check_locks(call, c, machine)


async def callout_quiesce(c: Callout, /, *, close: bool = False) -> int:
    """Take the scheduled run of *c* away and wait until a run in progress has ended, without refusing that it is
    armed meanwhile.

    What is armed while this waits is taken away at the end of the run, in one step with it; of several who wait the
    first takes it. With *close* the callout is closed in that same step, not before. Hold no lock but Giant, which is
    given up while waiting.

    Returns the facts: ``CALLOUT_REMOVED`` if it took a scheduled run away, ``CALLOUT_RUNNING`` if it had to wait for
    one.

    Raises:
        ArgumentValueError: *c* belongs to another system than the current one.
        LockHeldError, SelfDrainError: as ``callout_drain()``.
    """
    check_wait("callout_quiesce", c)
    return await wait("callout_quiesce", c, SYNC | T_CLOSE if close else SYNC)


def callout_quiesce_sync(c: Callout, /, *, close: bool = False) -> int:
    """Do as ``callout_quiesce()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    check_wait("callout_quiesce", c)
    return wait_blocking("callout_quiesce", c, SYNC | T_CLOSE if close else SYNC)


@guarded
def _runs(cpu: Cpu, new_waiter: Callable[[], Waiter]) -> list[Waiter]:
    """Leave a ticket with each run in progress on *cpu*, and return what they will set."""
    if not cpu.lock.acquire(False):
        contended(cpu)
    try:
        refuse_if_closed("callout_barrier_all", cpu.machine)
        waiters = []
        for run in (cpu.standing, cpu.direct):
            if run is not None:
                waiter = new_waiter()
                attach(run.callout, Ticket(BARRIER, waiter))
                waiters.append(waiter)
        return waiters
    finally:
        cpu.lock.release()


async def _barrier_all(*, blocking: bool) -> int:
    machine = current_machine("callout_barrier_all")
    platform = machine.platform
    me = platform.current_thread()
    for cpu in machine.cpus:
        for run in (cpu.standing, cpu.direct):
            if run is not None and callout_executing(run.callout):
                raise SelfDrainError(
                    f"callout_barrier_all: called by the callback of {run.callout!r}, it would wait for itself"
                )
    if blocking and platform.in_loop():
        raise LoopThreadError(
            "callout_barrier_all_sync: this thread runs an event loop, which must not be blocked; "
            "use `await callout_barrier_all()`"
        )
    if machine.held is not None and me in machine.held:
        raise SleepError(f"callout_barrier_all: give up {machine.held[me]} first: a callback may be waiting for it")
    new_waiter = platform.thread_waiter if blocking else platform.waiter
    waiters = [waiter for cpu in machine.cpus for waiter in _runs(cpu, new_waiter)]
    for waiter in waiters:
        await waiter.wait()
    return len(waiters)


async def callout_barrier_all() -> int:
    """Wait until every run that is in progress now, on any CPU, has ended; cancel nothing, refuse nothing. Hold no
    lock.

    Returns how many there were.

    Raises:
        SelfDrainError: called from a callback.
        SleepError: in checking mode, the caller holds a lock.
    """
    return await _barrier_all(blocking=False)


def callout_barrier_all_sync() -> int:
    """Do as ``callout_barrier_all()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    return run_blocking(_barrier_all(blocking=True))


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
    check_func("cpu_call", func)
    to = check_cpu("cpu_call", machine, cpu)

    def thunk() -> None:
        func(*args)

    cross_call(to, thunk)


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
    "callout_barrier_all",
    "callout_barrier_all_sync",
    "callout_dequeue",
    "callout_executing",
    "callout_quiesce",
    "callout_quiesce_sync",
    "callout_running",
    "callout_terminated",
    "check_callback",
    "check_wait",
    "cpu_call",
    "mp_ncpus",
    "on_cpu",
]
