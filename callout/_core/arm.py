"""Arming and stopping: what may be asked of a callout, each under one hold of its CPU's lock.

Ground rules (each was learned from a failing schedule; tests/race shows them):

- A callout's CPU is looked at again under that CPU's lock: between the look and the lock another CPU may have moved it.
- It changes CPU only under both locks, taken in the order of their numbers, and only while nobody runs it. A reset
  onto another CPU during a run is *put off*: kept in the run, carried out at its end.
- A put-off move sets PENDING, so it must also make the entry in the old wheel stale.
- The event timer is programmed after the lock is dropped, so the CPU's deadline is read again afterwards: an older call
  may have overwritten an earlier deadline.

Every operation returns two facts, REMOVED and RUNNING; the results of callout(9), of FreeBSD 13's
``callout_async_drain`` and of Linux are views of them (``STOP_RESULT`` and its like).

Source: kern_timeout.c, callout_reset_sbt_on(), _callout_stop_safe(), callout_lock(), callout_cpu_switch().
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final, TypeVar

from .._locks.mutex import Lock
from . import frames
from .cpu import CANCELLED, STARTED, T_CLOSE, T_REFUSE, WAITING, Cpu, Machine, Move, Run, Ticket
from .errors import (
    ArgumentTypeError,
    ArgumentValueError,
    BusyError,
    LockNotHeldError,
    NeverArmedError,
)
from .guard import check_reentry, guarded, protected
from .phases import Phase, Use, admit
from .rules import LockClass, Place, place
from .state import (
    ACTIVE,
    ARMED,
    CAREFUL,
    CLOSED,
    DIRECT,
    MOVING,
    PENDING,
    QUEUED,
    REMOVED,
    RUNNING,
    Callout,
    Func,
)
from .units import CALLOUT_SHAREDLOCK, CALLOUT_TRYLOCK, INT_MAX, check_ticks

# facts -> result: for nothing, REMOVED, RUNNING, both
STOP_RESULT: Final = (-1, 1, 0, 0)  # a running callout's queued next run goes, yet the answer is 0
DRAIN_RESULT: Final = (-1, 1, -1, 1)
RESET_RESULT: Final = (0, 1, 0, 1)

# Conditions of arming.
IF_IDLE: Final = 0x1  # only if nothing is scheduled
IF_PENDING: Final = 0x2  # only if something is scheduled
IF_EARLIER: Final = 0x4  # only if nothing is scheduled, or for a later time
STAY: Final = 0x8  # a callout that runs keeps its CPU, and a put-off move is replaced
UNCHANGED: Final = 0x10  # leave everything as it is if this very time is scheduled already

T = TypeVar("T")

_REFUSED_CODE: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_GENERATOR


# -- checks: before anything changes -----------------------------------------------------------------------------


def check_func(call: str, func: object) -> None:
    """Raise unless *func* is a plain function of one argument, as far as one can tell without calling it."""
    target: Any = func
    while type(target) is partial:
        target = target.func
    if type(target) is not FunctionType and type(target) is not MethodType:
        if not callable(target):
            raise ArgumentTypeError(f"{call}: the callback must be a function of one argument, not {func!r}")
        if not isinstance(target, type):
            method = type(target).__call__
            target = method if isinstance(method, FunctionType) else target
    code = getattr(target, "__code__", None)
    if code is not None and code.co_flags & _REFUSED_CODE:
        raise ArgumentTypeError(
            f"{call}: {func!r} is a coroutine or generator function, and calling it would run nothing; give a plain "
            "function, and start asynchronous work from it with system.cpu(0).start_soon(async_function, ...)"
        )


def check_cpu(call: str, machine: Machine, cpu: object) -> Cpu:
    """Return the CPU of that number."""
    if type(cpu) is not int:
        raise ArgumentTypeError(f"{call}: cpu must be an int, not {cpu!r}")
    if not 0 <= cpu < len(machine.cpus):
        raise ArgumentValueError(f"{call}: there is no cpu {cpu}; this system has {len(machine.cpus)}, counted from 0")
    return machine.cpus[cpu]


def lock_class_of(lock: Lock | None, flags: int) -> LockClass:
    """Return the row of the rules' table that such a callout has."""
    if lock is None:
        return LockClass.NONE
    if lock is lock.machine.giant:
        return LockClass.GIANT
    if flags & CALLOUT_SHAREDLOCK and lock.lock_class is LockClass.EXCLUSIVE:
        return LockClass.SHARED
    return lock.lock_class


# -- the CPU's lock ------------------------------------------------------------------------------------------------


def contended(cpu: Cpu) -> None:
    """Take a CPU's lock that turned out to be taken."""
    check_reentry()
    cpu.lock.acquire()


def lock_cpu(c: Callout) -> Cpu:
    """Take the lock of the CPU that *c* is on."""
    while True:
        cpu = c.cpu
        if not cpu.lock.acquire(False):
            contended(cpu)
        # Look again under the lock: another CPU may have moved c meanwhile, and then this lock guards nothing of it.
        # Shown by tests/race/test_engine.py with the mutant NO_CPU_RECHECK. Source: callout_lock().
        if c.cpu is cpu:
            return cpu
        cpu.lock.release()


def _lock_both(c: Callout, to: Cpu) -> Cpu:
    """Take the lock of the CPU that *c* is on and that of *to*, in the order of their numbers."""
    while True:
        cpu = c.cpu
        if cpu is to:
            return lock_cpu(c)
        first, second = (cpu, to) if cpu.id < to.id else (to, cpu)
        if not first.lock.acquire(False):
            contended(first)
        try:
            if not second.lock.acquire(False):
                contended(second)
        except BaseException:  # refused: that CPU is closed
            first.lock.release()
            raise
        if c.cpu is cpu:
            return cpu
        second.lock.release()
        first.lock.release()


def _lock_for(c: Callout, to: Cpu | None) -> tuple[Cpu, Cpu | None]:
    """Take the locks for arming *c* onto *to*; return the CPU that it is on, and that to which it may go."""
    while True:
        cpu = lock_cpu(c) if to is None else _lock_both(c, to)
        # Look at rule 1 again under the lock: c may have become direct since destination() looked, and without a lock
        # of its own it runs on CPU 0 then. Shown by tests/conformance/test_rules.py.
        if to is None or not to.id or not c.state & DIRECT or c.lock is not None:
            return cpu, to
        if to is not cpu:
            to.lock.release()
        cpu.lock.release()
        to = cpu.machine.cpus[0]


@protected
def program(cpu: Cpu) -> None:
    """Set the event timer of *cpu*. Called without its lock, after its deadline has changed."""
    set_event = cpu.machine.platform.set_event
    while True:
        when = cpu.deadline
        set_event(cpu.id, when)
        if cpu.deadline == when:
            return


def refuse_if_closed(call: str, machine: Machine) -> None:
    """Raise if the machine was closed."""
    if machine.phase >= Phase.CLOSED:
        admit(call, machine, Use.STOP)


# -- under the lock ------------------------------------------------------------------------------------------------


def unschedule(cpu: Cpu, c: Callout) -> bool:
    """Take a scheduled run away, wherever it is; return whether there was one. Leaves ACTIVE alone."""
    state = c.state
    if not state & PENDING:
        return False
    if state & MOVING:
        assert c.run is not None, "a put-off move without a run"
        c.run.move = None
    elif not state & QUEUED:
        cpu.wheel.live -= 1
        cpu.wheel.sweep()
    c.state = state & ~(PENDING | QUEUED | MOVING)
    return True


def schedule(cpu: Cpu, c: Callout, when: int) -> bool:
    """Put *c*, which is not pending, into the wheel of *cpu*; return whether the event timer must be programmed."""
    seq = cpu.seq = cpu.seq + 1
    c.time = when
    c.seq = seq
    c.state |= PENDING
    cpu.wheel.live += 1
    look = cpu.wheel.file(c)
    if look < cpu.deadline:
        cpu.deadline = look
        return True
    return False


def _put_off(c: Callout, run: Run, move: Move) -> None:
    """Keep a reset onto another CPU until the run has ended.

    Until then pending and active tell the truth (RACES R4.7).
    """
    run.move = move
    c.filed = 0
    c.state |= PENDING | ACTIVE | MOVING


@guarded
def arm(
    call: str,
    c: Callout,
    when: int,
    precision: int,
    func: Func | None,
    arg: object,
    to: Cpu | None,
    direct: bool = False,
    how: int = 0,
) -> int:
    """Schedule a run of *c*; return the facts. The long way, which every kind of arming can take.

    *func* None keeps function and argument. *to* None keeps the CPU.
    """
    cpu, to = _lock_for(c, to)
    other = to  # whose lock is held, too
    kick = False
    try:
        machine = cpu.machine
        refuse_if_closed(call, machine)
        if func is None:
            func, arg = c.func, c.arg
            if func is None:
                raise NeverArmedError(f"{call}: this callout was never given a function; use callout_reset() first")
        if precision and machine.platform.coalesces:
            when = share(when, precision)
        state = c.state
        run = c.run
        facts = 0 if run is None else RUNNING
        if state & CLOSED or machine.phase >= Phase.QUIESCING:
            return facts
        if how and not _applies(c, how, when):
            return facts | (REMOVED if state & PENDING else 0)
        if to is None or (how & STAY and run is not None):
            to = cpu
        if run is not None:
            if run.state == WAITING:
                run.state = CANCELLED
                facts = REMOVED
            if run.refusing:
                return facts
            if (state & MOVING and not how & STAY) or to is not cpu:
                if unschedule(cpu, c):
                    facts |= REMOVED
                _put_off(c, run, Move(to, when, precision, func, arg, direct))
                return facts
        if unschedule(cpu, c):
            facts |= REMOVED
        if to is not cpu:
            c.filed = 0
            c.cpu = to
        if machine.origins is not None:
            machine.origins[c] = frames.place(frames.caller())
        c.func = func
        c.arg = arg
        c.precision = precision
        c.state |= ACTIVE | DIRECT if direct else ACTIVE
        kick = schedule(to, c, when)
    finally:
        if other is not None and other is not cpu:
            other.lock.release()
        cpu.lock.release()
    if kick:
        program(to)
    return facts


def _applies(c: Callout, how: int, when: int) -> bool:
    """Whether the conditions of an arming hold."""
    if not c.state & PENDING:
        return not how & IF_PENDING
    if how & IF_IDLE:
        return False
    time = c.run.move.time if c.run is not None and c.run.move is not None else c.time
    return not (how & IF_EARLIER and time <= when) and not (how & UNCHANGED and time == when)


def share(when: int, precision: int) -> int:
    """Return the time from *when* to *when* + *precision* that most other windows contain: the roundest one."""
    bits = ((when - 1) ^ (when + precision)).bit_length() - 1
    return (when + precision) >> bits << bits


@guarded
def callout_reset(c: Callout, ticks: int, func: Callable[[T], object], arg: T, /) -> int:
    """Arm *c* to call ``func(arg)`` once, *ticks* clock ticks from now. Never blocks.

    Non-positive ticks count as one. The callout keeps its CPU. A scheduled run is replaced; a run that waits for the
    callout's lock is cancelled, whether the caller holds that lock or not; a run in progress goes on, and the new one
    follows it. While the callout is drained nothing is armed.

    Returns 1 if a scheduled run was replaced or a waiting one cancelled, else 0.

    Raises:
        ArgumentTypeError: *func* is a coroutine function or not callable, or *ticks* is not an int.
        ArgumentValueError: *ticks* does not fit into an int of C.
        NotInitializedError: ``callout_init()`` was never called.

    See callout(9), ``callout_reset()``; kern_timeout.c, callout_reset_sbt_on().
    """
    if func is not c.func:
        check_func("callout_reset", func)
    if type(ticks) is not int or ticks > INT_MAX:
        ticks = check_ticks("callout_reset", ticks)
    cpu = c.cpu
    lock = cpu.lock
    if not lock.acquire(False):
        contended(cpu)
    try:
        # The short path, and the commonest call of all: pending, plain, still on this CPU, pushed out. It touches no
        # queue. With a run in progress there may be a drain that refuses the call.
        when = cpu.now() + (ticks if ticks > 0 else 1) * cpu.tick
        if c.state == ARMED and c.run is None and c.filed <= when and c.cpu is cpu:
            c.seq = cpu.seq = cpu.seq + 1
            c.time = when
            c.func = func
            c.arg = arg
            c.precision = 0
            return 1
    finally:
        lock.release()
    if func is None:  # so is c.func, until it is first armed
        check_func("callout_reset", func)
    return RESET_RESULT[arm("callout_reset", c, when, default_precision(c, when), func, arg, None)]


def default_precision(c: Callout, when: int) -> int:
    """Return by how much a callout armed for *when* may be late by the system's ``alloweddeviation``, in ns."""
    cpu = c.cpu
    return max(when - cpu.now(), 0) >> cpu.machine.precexp  # it may have come due meanwhile


@guarded
def stop(call: str, c: Callout) -> int:
    """Take what is scheduled of *c* away, and cancel a run that waits for the lock which the caller holds; return the
    facts.

    *c*'s lock must be held. Without Giant a Giant callout may be stopped all the same, but a waiting run is not
    cancelled.
    """
    may_cancel = check_stop_lock(call, c)
    cpu = lock_cpu(c)
    try:
        refuse_if_closed(call, cpu.machine)
        return stop_locked(cpu, c, may_cancel)
    finally:
        cpu.lock.release()


def check_stop_lock(call: str, c: Callout) -> bool:
    """Raise unless the caller holds *c*'s lock; return whether it may cancel a run that waits for it."""
    lock = c.lock
    if lock is None:
        return False
    if lock.owned():
        return True
    if lock is lock.machine.giant:
        return False
    raise LockNotHeldError(f"{call}: take {lock!r} first; it is the lock of {c!r}")


def stop_locked(cpu: Cpu, c: Callout, may_cancel: bool) -> int:
    """Do what ``stop`` does; the CPU's lock is held."""
    run = c.run
    facts = REMOVED if unschedule(cpu, c) else 0
    if run is not None:
        if may_cancel and run.state == WAITING:
            run.state = CANCELLED
            facts = REMOVED
        else:
            facts |= RUNNING
        c.state &= ~ACTIVE
    elif facts:
        c.state &= ~ACTIVE
    return facts


@guarded
def dequeue(call: str, c: Callout, if_not_running: bool = False, close: bool = False) -> int:
    """Take the queued run or put-off move of *c* away, and never touch the run in progress; return the facts.

    *if_not_running*: leave everything as it is while it runs. *close*: never arm it again. Asks for no lock.
    """
    cpu = lock_cpu(c)
    try:
        refuse_if_closed(call, cpu.machine)
        facts = 0 if c.run is None else RUNNING
        if close and not (if_not_running and facts):
            c.state |= CLOSED
        if if_not_running and facts:
            return facts
        if unschedule(cpu, c):
            c.state &= ~ACTIVE
            facts |= REMOVED
        return facts
    finally:
        cpu.lock.release()


@guarded
def deactivate(c: Callout) -> None:
    """Clear ACTIVE."""
    cpu = lock_cpu(c)
    try:
        c.state &= ~ACTIVE
    finally:
        cpu.lock.release()


def attach(c: Callout, ticket: Ticket) -> None:
    """Have *ticket* served at the end of *c*'s run. The CPU's lock is held, and there is a run."""
    run = c.run
    assert run is not None
    if ticket.asks & T_REFUSE:
        run.refusing = True
    if run.tickets is None:
        run.tickets = [ticket]
    else:
        run.tickets.append(ticket)


@guarded
def initialize(call: str, machine: Machine, c: Callout, lock: Lock | None, flags: int) -> None:
    """Bind *c* to CPU 0 of *machine*; a callout that was initialised before must be neither pending nor running."""
    if not isinstance(c, Callout):
        raise ArgumentTypeError(f"{call}: the first argument must be a Callout, not {c!r}")
    if lock is not None and lock.machine is not machine:
        raise ArgumentValueError(f"{call}: {lock!r} belongs to another callout system")
    place(call, lock_class_of(lock, flags), direct=False)
    refuse_if_closed(call, machine)
    if c.cpu.id >= 0 and c.cpu.open:
        cpu = lock_cpu(c)
        try:
            if c.state & PENDING or c.run is not None:
                raise BusyError(
                    f"{call}: {c!r} is still {'running' if c.run else 'pending'}; drain it before it is used anew"
                )
            c.filed = 0
        finally:
            cpu.lock.release()
    racy = machine.platform.racy(type(c))
    if racy is not type(c):
        c.__class__ = racy
    c.lock = lock
    c.flags = flags
    c.func = None
    c.arg = None
    c.run = None
    c.filed = c.precision = c.seq = c.time = 0
    careful = machine.precexp < 63 or machine.origins is not None or flags & CALLOUT_TRYLOCK
    c.state = CAREFUL if careful else 0
    c.cpu = machine.cpus[0]


def destination(call: str, c: Callout, cpu: Cpu | None, direct: bool) -> Cpu | None:
    """Return where the three rules send such an arming; None: where it is. Raise if the rules forbid it."""
    if cpu is None and not direct:
        return None
    if c.cpu.id < 0:
        c.cpu.lock.acquire()  # raises: never initialised
    where = place(call, lock_class_of(c.lock, c.flags), direct or bool(c.state & DIRECT))
    return c.cpu.machine.cpus[0] if where is Place.CPU0 else cpu


def close_asked(tickets: list[Ticket]) -> bool:
    """Whether one of those who wait wants the callout closed."""
    return any(ticket.asks & T_CLOSE for ticket in tickets)


LOCKED_STATES: Final[Mapping[int, str]] = {
    WAITING: "waits for its lock",
    CANCELLED: "was cancelled, but softclock still stands at its lock",
    STARTED: "runs",
}
