"""The short paths: the calls that an application makes all the time, written out.

Each does what the long way does (``arm``, ``stop``) for a callout that is plain: on the CPU where it was found, with
nothing in progress, and with no bit in its state but ARMED, pending in the wheel or idle. One lock is acquired, once,
and no queue is touched. Whatever is not plain goes the long way: a bit in the state makes the comparison fail.
While ``Cpu.plain`` is None every call does: then the machine quiesces, or is traced.
Initialising has a short path on real loops, for what is used for the first time: its record needs two stores.

These are public functions, so that no call is spent on a wrapper; nor on a function of the lines that they share: that
would make ``callout_stop()`` and ``callout_dequeue()`` a tenth slower, measured. ``clock = cpu.now; clock()`` is
quicker than ``cpu.now()``: what a slot holds is no method, and Python looks for one first.

``record`` is the callout once more: to the compiled core a structure of C, where what is none raises a TypeError.
``Cpu.busy`` is set where calls are made under the lock. What only stores is over before anything can interrupt it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Final, TypeVar

from .._locks.lock import Lock
from .._locks.mutex import Mtx, MtxRecord
from .arm import (
    IF_EARLIER,
    IF_IDLE,
    IF_PENDING,
    STAY,
    UNCHANGED,
    arm,
    default_precision,
    destination,
    initialize,
    initialize_with,
    prepare,
)
from .checks import GIVEN, REFUSED_CODE, check_callout, check_func, check_tick, machine_of, not_a_callout
from .cpu import Cpu
from .cpulock import refuse_reentry, release_if_owned
from .deadline import FAR, after_ticks, at_tick
from .guard import protect
from .levels import COARSE, LAST
from .machine import CURRENT, Machine, current_machine
from .refusal import Refusal
from .results import RESET_RESULT, STOP_RESULT
from .state import ARMED, ARMED_TRACED, FRESH, NOT_IDLE, REMOVED, RUNNING, TRACED, Link, Record
from .stop import dequeue, stop
from .units import check_flags, check_ticks

if TYPE_CHECKING:
    from .._api.callout import Callout

T = TypeVar("T")

ARM_ALL: Final = IF_IDLE | IF_PENDING | IF_EARLIER | STAY | UNCHANGED
# Flags with which an arming goes the long way, bits that mean nothing among them: by what the callout is.
_LONG_IF_LATER: Final = ~(IF_PENDING | STAY | UNCHANGED)
_LONG_IF_EARLIER: Final = ~(IF_PENDING | IF_EARLIER | STAY | UNCHANGED)
_LONG_IF_IDLE: Final = ~(IF_IDLE | IF_EARLIER | STAY | UNCHANGED)
_ONE_DIGIT: Final = 2**30 - 1  # what Python compares fastest; any more ticks are looked at more closely


def callout_init(c: Callout, mpsafe: int, /) -> None:
    """Make *c* a callout of the current system, on CPU 0. Never blocks.

    With *mpsafe* true its callbacks run without a lock, on the CPU to which it is assigned; with false they run under
    Giant, on CPU 0.

    Raises:
        NoSystemError: no system is open here.
        BusyError: *c* is pending or running.

    See callout(9), ``callout_init()``.
    """
    machine = CURRENT.get(None)
    # For the first time, where nothing but the state and the CPU has to change.
    kind = type(c)
    if (
        machine is not None
        and machine.fresh is not None
        and mpsafe
        and (kind is machine.plain or issubclass(kind, Record))
    ):
        record = c
        try:
            if record.state == FRESH:
                record.state = machine.fresh
                record.c_cpu = machine.cpus[0]
                return
        except AttributeError:
            pass  # it was never made, as is said below
    machine = current_machine("callout_init")
    check_callout("callout_init", c)
    initialize("callout_init", machine, c, None if mpsafe else machine.giant, 0)


def callout_init_mtx(c: Callout, mtx: Mtx, flags: int = 0, /) -> None:
    """Make *c* a callout whose callbacks run with *mtx* held. Never blocks.

    *flags*: ``CALLOUT_RETURNUNLOCKED`` (the callback releases the mutex itself), ``CALLOUT_TRYLOCK`` (try the mutex,
    and try again later if it is held); ``CALLOUT_SHAREDLOCK`` means nothing for a mutex.

    Raises:
        LockClassError: *mtx* is not a ``Mtx``. A lock that can be held across an await may not be a callout's lock.
        ArgumentValueError: unknown flag, or *mtx* belongs to another system.
        NoSystemError, BusyError: as ``callout_init()``.

    See callout(9), ``callout_init_mtx()``.
    """
    machine = CURRENT.get(None)
    kind = type(c)
    # For the first time, as above, with a mutex that was not destroyed, of the same system.
    if machine is not None and type(mtx) is Mtx and (kind is machine.plain or issubclass(kind, Record)):
        record, mine = c, mtx
        try:
            if (
                machine.fresh is not None
                and record.state == FRESH
                and mine.machine is machine
                and type(mine._raw) is not Refusal
                and type(flags) is int
                and flags == 0
            ):
                record.lock = mtx
                record.state = machine.fresh
                record.c_cpu = machine.cpus[0]
                return
        except AttributeError:
            pass  # one of the two was never made, as is said below
    initialize_with("callout_init_mtx", c, mtx, Mtx, flags)


def callout_reset(c: Callout, ticks: int, func: Callable[[T], object], arg: T, /) -> int:
    """Arm *c* to call ``func(arg)`` once, *ticks* clock ticks from now. Never blocks.

    Non-positive ticks count as one. The callout keeps its CPU. A scheduled run is replaced; a run that waits for the
    callout's lock is cancelled, whether the caller holds that lock or not; a run in progress goes on, and the new one
    follows it. While the callout is drained nothing is armed.

    Returns 1 if a scheduled run was replaced or a waiting one cancelled, else 0.

    Raises:
        ArgumentTypeError: *func* is a coroutine function or not callable, or *ticks* is not an int.
        ArgumentValueError: *ticks* is more than an int of C holds.
        NotInitializedError: ``callout_init()`` was never called.

    See callout(9), ``callout_reset()``; kern_timeout.c, callout_reset_sbt_on().
    """
    try:
        record = c
        known = record.func
        cpu = record.c_cpu
        clock = cpu.now
    except (AttributeError, TypeError):
        not_a_callout("callout_reset", c)
    if func is not known and (type(func) is not FunctionType or func.__code__.co_flags & REFUSED_CODE):
        check_func("callout_reset", func)
    if type(ticks) is not int or ticks > _ONE_DIGIT:
        ticks = check_ticks("callout_reset", ticks)
    when = clock() + (ticks if ticks > 0 else 1) * cpu.tick
    lock = cpu.lock
    try:
        lock.acquire()
    except BaseException:
        release_if_owned(lock, "callout_reset")
        raise
    if cpu.busy:
        lock.release()
        refuse_reentry(cpu, "callout_reset")
    try:
        state = record.state
        # With a run in progress there may be a drain that refuses the call.
        if record.run is None and record.c_cpu is cpu.plain:
            pending = state == ARMED or state == ARMED_TRACED
            # Pushed out, the commonest call of all.
            if pending and record.time <= when:
                if state != ARMED:
                    cpu.busy = True
                    cpu.machine.note(record)
                _func, _arg = record.func, record.arg  # they die with this frame, after the lock was released
                record.seq = cpu.seq = cpu.seq + 1
                record.time = when
                record.func = func
                record.arg = arg
                record.precision = 0
                return 1
            # Idle, or to be earlier than it was, and a function is given.
            if (pending or not state & NOT_IDLE) and func is not None:
                cpu.busy = True
                if state & TRACED:
                    cpu.machine.note(record)
                wheel = cpu.wheel
                bucket = wheel.coarse[when >> COARSE & LAST]
                if bucket is None or (when - bucket.begins) >> COARSE:
                    bucket = wheel.bucket_of(when)
                at: Link | None = bucket
                if at is None or when < cpu.deadline:
                    at, seq, deadline = prepare(cpu, when, clock())
                else:
                    seq, deadline = cpu.seq + 1, cpu.deadline
                _func, _arg = record.func, record.arg  # as above
                if pending:
                    before, after = record.prev, record.next
                    if at is record:
                        at = after
                    before.next, after.prev = after, before  # type: ignore[union-attr]  # what is pending is in a ring
                else:
                    cpu.fresh += 1
                last = at.prev  # type: ignore[union-attr]  # as above
                record.prev = last
                record.next = at
                last.next = at.prev = record  # type: ignore[union-attr]  # what it is put before is in a ring
                record.time = when
                record.seq = record.filed = cpu.seq = seq
                record.func = func
                record.arg = arg
                record.precision = 0
                record.state = state | ARMED
                cpu.deadline = deadline
                return 1 if pending else 0
    finally:
        cpu.busy = False
        lock.release()
    if func is None:  # so is c.func, until it is first armed
        check_func("callout_reset", func)
    machine = machine_of(record, "callout_reset")
    when = after_ticks(machine, cpu.now(), ticks)
    precision = 0 if machine.precexp == 63 else default_precision(machine, when)
    return RESET_RESULT[arm("callout_reset", record, when, precision, func, arg, None)]


def arm_at(call: str, c: Callout, when: int, func: Callable[[T], object] | None, arg: T) -> int:
    """Arm *c* for the time *when*, in the name of *call*, which is a method of a callout; return the facts, and REFUSED
    if nothing was armed. Never blocks.

    *func* None keeps function and argument. It may be late by what the callout tolerates, and by the system's
    ``alloweddeviation``.
    """
    record = c
    cpu = record.c_cpu
    lock = cpu.lock
    try:
        lock.acquire()
    except BaseException:
        release_if_owned(lock, call)
        raise
    if cpu.busy:
        lock.release()
        refuse_reentry(cpu, call)
    try:
        state = record.state
        if record.run is None and record.c_cpu is cpu.plain and when <= FAR:
            pending = state == ARMED or state == ARMED_TRACED
            # Pushed out, the commonest call of all.
            if pending and record.time <= when:
                if state != ARMED:
                    cpu.busy = True
                    cpu.machine.note(record)
                _func, _arg = record.func, record.arg  # they die with this frame, after the lock was released
                record.seq = cpu.seq = cpu.seq + 1
                record.time = when
                if func is not None:
                    record.func = func
                    record.arg = arg
                record.precision = 0
                return REMOVED
            # Idle, or to be earlier than it was, and there is a function.
            if (pending or not state & NOT_IDLE) and (func is not None or record.func is not None):
                cpu.busy = True
                if state & TRACED:
                    cpu.machine.note(record)
                wheel = cpu.wheel
                bucket = wheel.coarse[when >> COARSE & LAST]
                if bucket is None or (when - bucket.begins) >> COARSE:
                    bucket = wheel.bucket_of(when)
                at: Link | None = bucket
                if at is None or when < cpu.deadline:
                    clock = cpu.now
                    at, seq, deadline = prepare(cpu, when, clock())
                else:
                    seq, deadline = cpu.seq + 1, cpu.deadline
                _func, _arg = record.func, record.arg  # as above
                if pending:
                    before, after = record.prev, record.next
                    if at is record:
                        at = after
                    before.next, after.prev = after, before  # type: ignore[union-attr]  # what is pending is in a ring
                else:
                    cpu.fresh += 1
                last = at.prev  # type: ignore[union-attr]  # as above
                record.prev = last
                record.next = at
                last.next = at.prev = record  # type: ignore[union-attr]  # what it is put before is in a ring
                record.time = when
                record.seq = record.filed = cpu.seq = seq
                if func is not None:
                    record.func = func
                    record.arg = arg
                record.precision = 0
                record.state = state | ARMED
                cpu.deadline = deadline
                return REMOVED if pending else 0
    finally:
        cpu.busy = False
        lock.release()
    machine = machine_of(record, call)
    when = min(when, FAR)
    return arm(call, record, when, tolerance_of(machine, record, when), func, arg, None)


def tolerance_of(machine: Machine, c: Callout, when: int) -> int:
    """Return by how much *c* may be late if it is armed for *when*, in ns."""
    extra = machine.extras.get(c)
    default = 0 if machine.precexp == 63 else default_precision(machine, when)
    return default if extra is None else extra.tolerance + default


def stop_now(call: str, c: Callout) -> int:
    """Do as ``callout_stop()``, in the name of *call*, which is a method of a callout; return the facts."""
    record = c
    cpu = record.c_cpu
    mine = record.lock
    if mine is not None and not (MtxRecord.mine(mine) if type(mine) is Mtx else mine.owned()):
        return stop(call, record)
    lock = cpu.lock
    try:
        lock.acquire()
    except BaseException:
        release_if_owned(lock, call)
        raise
    if cpu.busy:
        lock.release()
        refuse_reentry(cpu, call)
    try:
        cpu.busy = True
        state = record.state
        # In the wheel and idle.
        if (state == ARMED or state == ARMED_TRACED) and record.run is None and record.c_cpu is cpu.plain:
            before, after = record.prev, record.next
            before.next, after.prev = after, before  # type: ignore[union-attr]  # what is pending is in a ring
            record.prev = record.next = None
            record.state = state & TRACED
            cpu.removed += 1
            return REMOVED
    finally:
        cpu.busy = False
        lock.release()
    return stop(call, record)


def arm_new(call: str, cpu: Cpu, delay: int, func: Callable[[T], object], arg: T, lock: Lock | None) -> Callout:
    """Make a callout on *cpu* whose lock is *lock*, and arm it to call ``func(arg)`` once, *delay* ns from now: both in
    one step, in the name of *call*. Never blocks.

    Under Giant it is on CPU 0, whatever *cpu* is, and so it is under an rwlock or rmlock that is shared. Returns it.
    Raises what initialising and arming it would. Source: call_later() of asyncio.
    """
    if type(func) is not FunctionType or func.__code__.co_flags & REFUSED_CODE:
        check_func(call, func, GIVEN)
    machine = cpu.machine
    record = machine.plain()
    if machine.kind is not machine.plain:
        record.__class__ = machine.kind
    clock = cpu.now
    when = clock() + delay
    mine = lock if type(lock) is Mtx else None
    if (
        when <= FAR
        and not machine.careful
        and machine.precexp == 63
        and lock is mine
        and (mine is None or (mine.machine is machine and mine is not machine.giant and type(mine._raw) is not Refusal))
    ):
        raw = cpu.lock
        try:
            raw.acquire()
        except BaseException:
            release_if_owned(raw, call)
            raise
        if cpu.busy:
            raw.release()
            refuse_reentry(cpu, call)
        try:
            if cpu.plain is cpu:
                cpu.busy = True
                record.c_cpu = cpu
                state = ARMED
                if machine.origins is not None:
                    state = ARMED_TRACED
                    machine.note(record)
                wheel = cpu.wheel
                bucket = wheel.coarse[when >> COARSE & LAST]
                if bucket is None or (when - bucket.begins) >> COARSE:
                    bucket = wheel.bucket_of(when)
                at: Link | None = bucket
                if at is None or when < cpu.deadline:
                    at, seq, deadline = prepare(cpu, when, clock())
                else:
                    seq, deadline = cpu.seq + 1, cpu.deadline
                last = at.prev
                record.prev = last
                record.next = at
                last.next = at.prev = record  # type: ignore[union-attr]  # what it is put before is in a ring
                record.time = when
                record.seq = record.filed = cpu.seq = seq
                record.func = func
                record.arg = arg
                record.lock = lock
                record.state = state
                cpu.fresh += 1
                cpu.deadline = deadline
                return record
        finally:
            cpu.busy = False
            raw.release()
    initialize(call, machine, record, lock, 0)
    when = min(when, FAR)
    precision = 0 if machine.precexp == 63 else default_precision(machine, when)
    arm(call, record, when, precision, func, arg, destination(call, record, cpu, direct=False))
    return record


def callout_stop(c: Callout, /) -> int:
    """Cancel *c* if its callback has not begun. Never blocks. Hold the callout's lock.

    Returns 1 if it was pending, or waiting for the lock that the caller holds: it will not run. 0 if it is running
    and cannot be stopped, or was cancelled and softclock is still at its lock; a queued next run is gone all the same.
    -1 if nothing was scheduled or running.

    Even after 1, softclock may still be at the callout's lock: drain before you free anything.

    Raises:
        LockNotHeldError: *c* has a lock, other than Giant, and the caller does not hold it (for writing).

    See callout(9), RETURN VALUES; kern_timeout.c, _callout_stop_safe().
    """
    try:
        record = c
        cpu = record.c_cpu
        mine = record.lock
        lock = cpu.lock
    except (AttributeError, TypeError):
        not_a_callout("callout_stop", c)
    if mine is not None and not (MtxRecord.mine(mine) if type(mine) is Mtx else mine.owned()):
        return STOP_RESULT[stop("callout_stop", record)]
    try:
        lock.acquire()
    except BaseException:
        release_if_owned(lock, "callout_stop")
        raise
    if cpu.busy:
        lock.release()
        refuse_reentry(cpu, "callout_stop")
    try:
        cpu.busy = True
        state = record.state
        # In the wheel and idle.
        if (state == ARMED or state == ARMED_TRACED) and record.run is None and record.c_cpu is cpu.plain:
            before, after = record.prev, record.next
            before.next, after.prev = after, before  # type: ignore[union-attr]  # what is pending is in a ring
            record.prev = record.next = None
            record.state = state & TRACED
            cpu.removed += 1
            return 1
    finally:
        cpu.busy = False
        lock.release()
    return STOP_RESULT[stop("callout_stop", record)]


def callout_dequeue(c: Callout, /, *, if_not_running: bool = False, close: bool = False) -> int:
    """Remove the scheduled run of *c*, a deferred migration included; a run in progress goes on, and may arm it again.
    Never blocks.

    With *if_not_running* nothing at all is done while it runs. With *close* it is never armed again: later armings do
    nothing.

    Returns the facts: ``CALLOUT_REMOVED`` if a run was removed, ``CALLOUT_RUNNING`` if one is in progress.
    """
    try:
        record = c
        cpu = record.c_cpu
        lock = cpu.lock
    except (AttributeError, TypeError):
        not_a_callout("callout_dequeue", c)
    try:
        lock.acquire()
    except BaseException:
        release_if_owned(lock, "callout_dequeue")
        raise
    if cpu.busy:
        lock.release()
        refuse_reentry(cpu, "callout_dequeue")
    try:
        cpu.busy = True
        state = record.state
        # In the wheel and idle.
        if (state == ARMED or state == ARMED_TRACED) and record.run is None and not close and record.c_cpu is cpu.plain:
            before, after = record.prev, record.next
            before.next, after.prev = after, before  # type: ignore[union-attr]  # what is pending is in a ring
            record.prev = record.next = None
            record.state = state & TRACED
            cpu.removed += 1
            return REMOVED
    finally:
        cpu.busy = False
        lock.release()
    return dequeue("callout_dequeue", record, if_not_running, close)


def arm_at_tick(
    call: str, c: Callout, tick: int, func: Callable[[T], object], arg: T, to: Cpu | None, flags: int
) -> int:
    """Arm *c* for clock tick number *tick* the long way; return the facts."""
    if func is not c.func or func is None:
        check_func(call, func)
    flags = check_flags(call, flags, ARM_ALL)
    tick = check_tick(call, tick)
    machine = machine_of(c)
    when = at_tick(machine, tick, machine.platform.now())
    return arm(call, c, when, 0, func, arg, destination(call, c, to, direct=False), how=flags) & (REMOVED | RUNNING)


def callout_arm_curcpu(c: Callout, tick: int, func: Callable[[T], object], arg: T, flags: int = 0, /) -> int:
    """Arm *c* as ``callout_arm_on()`` does, on the CPU on which this code runs. Never blocks."""
    try:
        record = c
        cpu = record.c_cpu
        clock = cpu.now
    except (AttributeError, TypeError):
        not_a_callout("callout_arm_curcpu", c)
    now = clock()
    when = cpu.boot + tick * cpu.tick if type(tick) is int and type(flags) is int else 0
    # For a time to come, on this CPU.
    if now < when <= FAR and (
        cpu.only or cpu.thread == cpu.current_thread() or cpu.id == cpu.machine.platform.current_cpu()
    ):
        lock = cpu.lock
        try:
            lock.acquire()
        except BaseException:
            release_if_owned(lock, "callout_arm_curcpu")
            raise
        if cpu.busy:
            lock.release()
            refuse_reentry(cpu, "callout_arm_curcpu")
        try:
            state = record.state
            # Staying there, with the function that it had.
            if record.func is func and record.run is None and record.c_cpu is cpu.plain:
                pending = state == ARMED or state == ARMED_TRACED
                # Pushed out.
                if pending and record.time < when and not flags & _LONG_IF_LATER:
                    if state != ARMED:
                        cpu.busy = True
                        cpu.machine.note(record)
                    _arg = record.arg  # it dies with this frame, after the lock was released
                    record.seq = cpu.seq = cpu.seq + 1
                    record.time = when
                    record.arg = arg
                    record.precision = 0
                    return REMOVED
                # Idle, or to be earlier than it was.
                if (
                    record.time > when and not flags & _LONG_IF_EARLIER
                    if pending
                    else not state & NOT_IDLE and not flags & _LONG_IF_IDLE
                ) and func is not None:
                    cpu.busy = True
                    if state & TRACED:
                        cpu.machine.note(record)
                    wheel = cpu.wheel
                    bucket = wheel.coarse[when >> COARSE & LAST]
                    if bucket is None or (when - bucket.begins) >> COARSE:
                        bucket = wheel.bucket_of(when)
                    at: Link | None = bucket
                    if at is None or when < cpu.deadline:
                        at, seq, deadline = prepare(cpu, when, now)
                    else:
                        seq, deadline = cpu.seq + 1, cpu.deadline
                    _arg = record.arg  # as above
                    if pending:
                        before, after = record.prev, record.next
                        if at is record:
                            at = after
                        before.next, after.prev = after, before  # type: ignore[union-attr]  # it is in a ring
                    else:
                        cpu.fresh += 1
                    last = at.prev  # type: ignore[union-attr]  # as above
                    record.prev = last
                    record.next = at
                    last.next = at.prev = record  # type: ignore[union-attr]  # what it is put before is in a ring
                    record.time = when
                    record.seq = record.filed = cpu.seq = seq
                    record.arg = arg
                    record.precision = 0
                    record.state = state | ARMED
                    cpu.deadline = deadline
                    return REMOVED if pending else 0
        finally:
            cpu.busy = False
            lock.release()
    machine = machine_of(record, "callout_arm_curcpu")
    to = machine.cpus[machine.platform.current_cpu()]
    return arm_at_tick("callout_arm_curcpu", record, tick, func, arg, to, flags)


protect(callout_reset, arm_at, stop_now, arm_new, callout_stop, callout_dequeue, callout_arm_curcpu)
