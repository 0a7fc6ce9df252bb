"""Waiting for a run to end: drains of every kind, barriers, and the synchronous delete of Linux.

Who waits leaves a *ticket* with the run in progress; any number may. The end of the run serves them all
(``_softclock.finish``): under the CPU's lock it takes a queued next run away if a ticket asks for that, and fills in
the answer; then, with no lock held, it wakes the waiters and calls the completions.

A ticket is never withdrawn. Who was cancelled while it waited has asked for a stopped callout all the same, and gets
it; it just does not learn when.

Source: kern_timeout.c, _callout_stop_safe() with CS_DRAIN; the async drain of the rewrite of December 2014.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from typing import Any, TypeVar

from .._locks.mutex import Mtx, take_parked
from .arm import attach, check_func, check_stop_lock, lock_cpu, refuse_if_closed, stop_locked, unschedule
from .cpu import BARRIER, DRAIN, STARTED, SYNC, T_CLOSE, T_DEQUEUE, T_REFUSE, Machine, Ticket
from .errors import LockHeldError, LoopThreadError, SelfDrainError
from .guard import guarded, protected
from .platform import Waiter
from .state import ACTIVE, CLOSED, MOVING, REMOVED, RUNNING, Callout, Func

T = TypeVar("T")


@guarded
def begin(call: str, c: Callout, asks: int, new_waiter: Callable[[], Waiter]) -> int | Ticket:
    """Do at once what can be done at once and return the facts; or leave a ticket with the run in progress."""
    cpu = lock_cpu(c)
    try:
        refuse_if_closed(call, cpu.machine)
        run = c.run
        if run is None:
            if asks & T_CLOSE:
                c.state |= CLOSED
            if asks & T_DEQUEUE and unschedule(cpu, c):
                c.state &= ~ACTIVE
                return REMOVED
            return 0
        # While softclock yields, this thread is a task of its loop, not the callback: that was taken from the queue and
        # not called yet. Shown by tests/race/test_linux_timers.py.
        if run.state == STARTED and cpu.thread == cpu.machine.platform.current_thread():
            raise SelfDrainError(
                f"{call}: {c!r} waits for its own callback, which would never end; use callout_drain_async()"
            )
        if asks & T_REFUSE:
            if asks & T_CLOSE:
                c.state |= CLOSED
            if c.state & MOVING:
                unschedule(cpu, c)
                c.state &= ~ACTIVE
        ticket = Ticket(asks, new_waiter())
        attach(c, ticket)
        return ticket
    finally:
        cpu.lock.release()


async def wait(call: str, c: Callout, asks: int, *, blocking: bool = False) -> int:
    """Wait for the run of *c* in progress as *asks* says; return the facts. Giant is given up while waiting.

    *blocking*: block the thread, and never yield.
    """
    machine = machine_of(c)
    platform = machine.platform
    check_locks(call, c, machine)
    if blocking and platform.in_loop():
        raise LoopThreadError(
            f"{call}_sync: this thread runs an event loop, which must not be blocked; use `await {call}(c)`"
        )
    new_waiter = platform.thread_waiter if blocking else platform.waiter
    facts = 0
    while True:
        ticket = begin(call, c, asks, new_waiter)
        if isinstance(ticket, int):
            return facts | ticket
        assert ticket.waiter is not None
        depth = machine.giant.drop_all()
        try:
            with machine.waits(call, c):
                await ticket.waiter.wait()
        finally:
            if depth:
                with nullcontext() if blocking else platform.shield():
                    await _take_back(machine.giant, depth, new_waiter)
        facts |= RUNNING | (REMOVED if ticket.removed else 0)
        # Without Giant nobody but this caller's friends may have armed it again; while Giant was away, anybody may.
        if not depth:
            return facts


protected(wait)


async def _take_back(giant: Mtx, depth: int, new_waiter: Callable[[], Waiter]) -> None:
    """Take Giant as often as it was held. A KeyboardInterrupt, which no shield keeps off, has to wait until then."""
    interrupt: KeyboardInterrupt | None = None
    while not giant.owned():
        try:
            await take_parked(giant, False, new_waiter)
        except KeyboardInterrupt as error:
            interrupt = error
    for _ in range(depth - 1):
        giant.__enter__()
    if interrupt is not None:
        raise interrupt


protected(_take_back)


def wait_blocking(call: str, c: Callout, asks: int) -> int:
    """``wait`` for a thread without a loop."""
    return run_blocking(wait(call, c, asks, blocking=True))


def run_blocking(waiting: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose waits block the thread, so that it never yields."""
    try:
        waiting.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a blocking wait has yielded")


def machine_of(c: Callout) -> Machine:
    """Return the machine of *c*, or raise if it has none."""
    if c.cpu.id < 0:
        c.cpu.lock.acquire()  # raises: never initialised
    return c.cpu.machine


def check_locks(call: str, c: Callout, machine: Machine) -> None:
    """Raise if the caller holds a lock with which it must not sleep. Giant is given up, so it does not count."""
    giant = machine.giant
    lock = c.lock
    if lock is not None and lock is not giant and lock.holds():
        raise LockHeldError(f"{call}: give up {lock!r} first: the callback may be waiting for it")
    if machine.held is not None:
        for other in machine.held.get(machine.platform.current_thread(), ()):
            if other is not giant:
                raise LockHeldError(f"{call}: give up {other!r} first: nobody may sleep with a mutex held")


@guarded
def drain_async(call: str, c: Callout, func: Func, arg: object) -> int:
    """Stop *c*; if softclock still has to do with it, have ``func(arg)`` called when it has not. Return the facts.

    RUNNING here means that *func* will be called: also for a cancelled run that still stands at the lock.
    """
    check_func(call, func)
    may_cancel = check_stop_lock(call, c)
    cpu = lock_cpu(c)
    try:
        refuse_if_closed(call, cpu.machine)
        facts = stop_locked(cpu, c, may_cancel)
        if c.run is None:
            return facts
        attach(c, Ticket(T_REFUSE, None, func, arg))
        return facts | RUNNING
    finally:
        cpu.lock.release()


@guarded
def async_drain(call: str, c: Callout, func: Func) -> int:
    """Do as ``drain_async`` in the manner of FreeBSD 11-13: a run that waits for its lock is let run; *func* gets its
    argument.
    """
    check_func(call, func)
    check_stop_lock(call, c)
    cpu = lock_cpu(c)
    try:
        refuse_if_closed(call, cpu.machine)
        facts = stop_locked(cpu, c, may_cancel=False)
        if c.run is not None:
            attach(c, Ticket(T_REFUSE, None, func, c.run.arg))
        return facts
    finally:
        cpu.lock.release()


__all__ = [
    "BARRIER",
    "DRAIN",
    "SYNC",
    "async_drain",
    "begin",
    "check_locks",
    "drain_async",
    "machine_of",
    "wait",
    "run_blocking",
    "wait_blocking",
]
