"""Arming: the long way, which every kind of arming can take. ``short`` has the short one.

Ground rules (each was learned from a failing schedule; tests/race shows them):

- A callout changes CPU only under both CPUs' locks, and only while nobody runs it. A reset onto another CPU during a
  run is *deferred*: kept in the run, carried out at its end.
- A deferred migration sets PENDING, so what the old wheel has of the callout must go.
- The event timer is programmed before anything is changed, with the lock held. A call that is cut off there has set it
  too early, which does no harm; the other order would leave a callout that nothing wakes.
- What is replaced, function and argument, dies after the locks were released: it may be the last reference, and a
  finalizer may call anything.

Every operation returns two facts, REMOVED and RUNNING; the results of callout(9), of FreeBSD 13's
``callout_async_drain`` and of Linux are views of them (``results``).

Source: kern_timeout.c, callout_reset_sbt_on(), callout_cc_add(), callout_cpu_switch().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._locks.lock import Lock
from .._locks.rwlock import RmLock, RwLock
from .checks import check_callout, machine_of
from .cpu import CANCELLED, NOWHERE, WAITING, Cpu, Move, Run
from .cpulock import lock_callout, lock_callout_and
from .deadline import share
from .describe import shown
from .errors import ArgumentValueError, BusyError, LockClassError, NeverArmedError
from .guard import protect
from .machine import Machine, current_machine
from .phases import Phase
from .rules import LockClass, Place, place
from .state import (
    ACTIVE,
    CAREFUL,
    CLOSED,
    DIRECT,
    FIXED,
    FRESH,
    MOVING,
    PENDING,
    QUEUED,
    REFUSED,
    REMOVED,
    RUNNING,
    TRACED,
    Func,
    Link,
)
from .trace import TraceKind, tell
from .units import CALLOUT_RETURNUNLOCKED, CALLOUT_SHAREDLOCK, CALLOUT_TRYLOCK, check_flags

if TYPE_CHECKING:
    from .._api.callout import Callout

_LOCK_FLAGS: Final = CALLOUT_RETURNUNLOCKED | CALLOUT_SHAREDLOCK | CALLOUT_TRYLOCK

# Conditions of arming.
IF_IDLE: Final = 0x1  # only if nothing is scheduled
IF_PENDING: Final = 0x2  # only if something is scheduled
IF_EARLIER: Final = 0x4  # only if nothing is scheduled, or for a later time
STAY: Final = 0x8  # a callout that runs keeps its CPU, and a deferred migration is replaced
UNCHANGED: Final = 0x10  # leave everything as it is if this very time is scheduled already
IF_ACTIVE: Final = 0x20  # only if it was not stopped since its run began


# -- the three rules ---------------------------------------------------------------------------------------------------


def lock_class_of(lock: Lock | None, flags: int) -> LockClass:
    """Return the row of the rules' table that such a callout has."""
    if lock is None:
        return LockClass.NONE
    if lock is lock.machine.giant:
        return LockClass.GIANT
    if flags & CALLOUT_SHAREDLOCK and lock.lock_class is LockClass.EXCLUSIVE:
        return LockClass.SHARED
    return lock.lock_class


def destination(call: str, c: Callout, cpu: Cpu | None, direct: bool) -> Cpu | None:
    """Return where the three rules send such an arming; None: where it is. Raise if the rules forbid it."""
    if cpu is None and not direct:
        return None
    machine = machine_of(c)
    where = place(call, lock_class_of(c.lock, c.flags), direct)
    return machine.cpus[0] if where is Place.CPU0 else cpu


def _lock_for(call: str, c: Callout, to: Cpu | None) -> tuple[Cpu, Cpu]:
    """Acquire the locks for arming *c* onto *to*; return the CPU that it is on, and that to which it may go."""
    if to is None:
        cpu = lock_callout(c, call)
        return cpu, cpu
    return lock_callout_and(c, to, call), to


# -- under the lock ----------------------------------------------------------------------------------------------------


def unschedule(cpu: Cpu, c: Callout) -> bool:
    """Remove a scheduled run, wherever it is; return whether there was one. Leaves ACTIVE alone."""
    state = c.state
    if not state & PENDING:
        return False
    cpu.wheel.remove(c)
    c.state = state & ~(PENDING | QUEUED | MOVING)
    cpu.removed += 1
    run = c.run
    if run is not None and run.move is not None:
        run.move.before = run.removed
        run.removed = run.move
        run.move = None
    return True


def prepare(cpu: Cpu, when: int, now: int) -> tuple[Link, int, int]:
    """Make the calls that filing for *when* on *cpu* needs: plain stores do the rest. The lock is held.

    Returns the place in the wheel, the number of the arming, and the deadline of the CPU, which is kept already.
    """
    seq = cpu.seq = cpu.seq + 1
    at = cpu.wheel.spot(when, seq, now)
    deadline = cpu.deadline
    if when < deadline:
        cpu.machine.platform.set_event(cpu.id, when)
        deadline = when
    return at, seq, deadline


def schedule(cpu: Cpu, c: Callout, when: int) -> None:
    """Put *c*, which is pending, into the wheel of *cpu*, on which it is."""
    at, seq, deadline = prepare(cpu, when, cpu.now())
    cpu.refiled += 1
    cpu.wheel.put(c, at, when, seq)
    c.state = c.state & ~(QUEUED | MOVING) | PENDING
    cpu.deadline = deadline


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
    """Schedule a run of *c*; return the facts, and REFUSED if nothing was armed.

    *func* None keeps function and argument. *to* None keeps the CPU.
    """
    old: list[object] = []  # what is replaced; it dies with this frame
    cpu, to = _lock_for(call, c, to)
    try:
        return _arm_locked(call, cpu, c, when, precision, func, arg, to, direct, how, old)
    finally:
        try:
            if to is not cpu:
                to.busy = False
                to.lock.release()
        finally:
            cpu.busy = False
            cpu.lock.release()


def _arm_locked(
    call: str,
    cpu: Cpu,
    c: Callout,
    when: int,
    precision: int,
    func: Func | None,
    arg: object,
    to: Cpu,
    direct: bool,
    how: int,
    old: list[object],
) -> int:
    """Do what ``arm()`` does; the locks of both CPUs are held."""
    machine = cpu.machine
    state = c.state
    run = c.run
    if state & CLOSED or machine.phase >= Phase.QUIESCING:
        cpu.refused += 1
        if cpu.plain is None:
            tell(cpu, TraceKind.REFUSED, c, func, when)
        return REFUSED if run is None else REFUSED | RUNNING
    if func is None:
        func, arg = c.func, c.arg
        if func is None:
            raise NeverArmedError(
                f"{call}: this callout was never given a function; use callout_reset() first, or give one here",
                call=call,
                callout=c,
            )
    elif state & FIXED and (func is not c.func or arg is not c.arg):
        raise ArgumentValueError(
            f"{call}: {c!r} is periodic, and keeps the function and arguments that every() was given; make another",
            call=call,
            callout=c,
        )
    if precision and machine.platform.coalesces:
        when = share(when, precision)
    # Rule 1 for what is direct already: without a lock of its own it is on CPU 0, and stays there. Not asked before the
    # lock is held, for it may become direct meanwhile. Shown by tests/conformance/test_rules.py.
    if state & DIRECT and c.lock is None:
        to = c.c_cpu
    facts = 0 if run is None else RUNNING
    if how and not _applies(c, how, when):
        return facts | (REMOVED | REFUSED if state & PENDING else REFUSED)
    cancels = run is not None and run.state == WAITING
    if cancels:
        facts = REMOVED
    if run is not None and run.refusing:
        if cancels:
            run.state = CANCELLED
        cpu.refused += 1
        if cpu.plain is None:
            tell(cpu, TraceKind.REFUSED, c, func, when)
        return facts | REFUSED
    if state & PENDING:
        facts |= REMOVED
    machine.note(c)
    if run is not None:
        old.append(run.move)
        if (state & MOVING or to is not cpu) and not how & STAY:
            _defer(cpu, c, run, cancels, Move(to, when, precision, func, arg, direct))
            if cpu.plain is None:
                tell(to, TraceKind.REARMED if facts & REMOVED else TraceKind.ARMED, c, func, when)
            return facts
        to = cpu
    old += (c.func, c.arg)
    at, seq, deadline = prepare(to, when, cpu.now())
    # From here on there are plain stores only, so that nothing can interrupt them; put() is made of them, too.
    to.wheel.put(c, at, when, seq)
    if not state & PENDING:
        to.fresh += 1
    if to is not cpu:
        to.migrated += 1
        if state & PENDING:
            cpu.moved -= 1
            to.moved += 1
    c.c_cpu = to
    c.func = func
    c.arg = arg
    c.precision = precision
    c.state = c.state & ~(QUEUED | MOVING) | (PENDING | ACTIVE | DIRECT if direct else PENDING | ACTIVE)
    if run is not None:
        run.move = None
        if cancels:
            run.state = CANCELLED
    to.deadline = deadline
    if to.plain is None:
        if to is not cpu:
            tell(to, TraceKind.MIGRATED, c, func, when)
        tell(to, TraceKind.REARMED if facts & REMOVED else TraceKind.ARMED, c, func, when)
    return facts


def _defer(cpu: Cpu, c: Callout, run: Run, cancels: bool, move: Move) -> None:
    """Keep a reset onto another CPU until the run has ended.

    Until then pending and active tell the truth. Source: r277213 of FreeBSD, "close a migration race where
    callout_reset() failed to set the CALLOUT_ACTIVE flag".
    """
    cpu.wheel.remove(c)
    cpu.seq += 1
    if not c.state & PENDING:
        cpu.fresh += 1
    run.move = move
    c.state = c.state & ~QUEUED | PENDING | ACTIVE | MOVING
    if cancels:
        run.state = CANCELLED


def _applies(c: Callout, how: int, when: int) -> bool:
    """Whether the conditions of an arming hold."""
    if how & IF_ACTIVE and not c.state & ACTIVE:
        return False
    if not c.state & PENDING:
        return not how & IF_PENDING
    if how & IF_IDLE:
        return False
    time = c.run.move.time if c.run is not None and c.run.move is not None else c.time
    return not (how & IF_EARLIER and time <= when) and not (how & UNCHANGED and time == when)


def default_precision(machine: Machine, when: int) -> int:
    """Return by how much a callout armed for *when* may be late by the system's ``alloweddeviation``, in ns."""
    return max(when - machine.platform.now(), 0) >> machine.precexp  # it may have come due meanwhile


# -- initialisation ----------------------------------------------------------------------------------------------------


def fresh_state(machine: Machine) -> int:
    """Return the state of an idle callout of *machine*."""
    state = CAREFUL if machine.careful or machine.precexp < 63 else 0
    return state if machine.origins is None else state | TRACED


def initialize(
    call: str,
    machine: Machine,
    c: Callout,
    lock: Lock | None,
    flags: int,
    home: Cpu | None = None,
    func: Func | None = None,
    arg: object = None,
    more: int = 0,
) -> None:
    """Bind *c* to CPU *home* of *machine* (None: 0), with this function and argument, and *more* bits of state; a
    callout that was initialised before must be neither pending nor running.
    """
    if lock is not None and lock.machine is not machine:
        raise ArgumentValueError(f"{call}: {lock!r} belongs to another callout system", call=call, callout=c, lock=lock)
    if lock is not None:
        lock.check_usable(call)
    place(call, lock_class_of(lock, flags), direct=False)
    if home is None:
        home = machine.cpus[0]
    if machine.fresh is not None and c.state == FRESH:
        c.lock = lock
        c.flags = flags
        c.func = func
        c.arg = arg
        c.state = machine.fresh | more
        c.c_cpu = home
        return
    plain = type(c).__dict__.get("_plain", type(c))  # it may have been a callout of another world
    record = machine.platform.racy(plain)
    cpu = to = None
    if c.c_cpu.id >= 0 and c.c_cpu.open:
        to = home if c.c_cpu.machine is machine else c.c_cpu
        cpu = lock_callout_and(c, to)
    try:
        _old = c.func, c.arg, c.lock  # they die with this frame, after the locks were released
        if cpu is not None and (c.state & PENDING or c.run is not None):
            raise BusyError(
                f"{call}: {c!r} is still {'running' if c.run else 'pending'}; drain it before it is used anew",
                call=call,
                callout=c,
                cpu=cpu.id,
            )
        if record is not type(c):
            c.c_cpu = NOWHERE  # what the one world notes of a callout's uses, the other knows nothing of
            c.__class__ = record
        machine.extras.pop(c)
        c.lock = lock
        c.flags = flags
        c.run = None
        c.func = func
        c.arg = arg
        c.state = fresh_state(machine) | more
        c.c_cpu = home
    finally:
        try:
            if to is not None and to is not cpu:
                to.busy = False
                to.lock.release()
        finally:
            if cpu is not None:
                cpu.busy = False
                cpu.lock.release()


def initialize_with(call: str, c: Callout, lock: Lock, kind: type[Lock], flags: int) -> None:
    """Make *c* a callout of the current system, whose lock *lock* is: one of *kind*, but an RmLock is no RwLock."""
    machine = current_machine(call)
    check_callout(call, c)
    if not isinstance(lock, kind) or (kind is RwLock and isinstance(lock, RmLock)):
        raise LockClassError(
            f"{call}: the lock must be a callout.{kind.__name__}, not {shown(lock)}: softclock has to know its owner, "
            "and must never find it held across an await, as a trio.Lock can be",
            call=call,
        )
    initialize(call, machine, c, lock, check_flags(call, flags, _LOCK_FLAGS))


protect(arm, initialize)
