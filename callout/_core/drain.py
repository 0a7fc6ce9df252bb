"""Waiting for a run to end: drains of every kind, barriers, and the synchronous delete of Linux.

A call that waits leaves a *ticket* with the run in progress; there may be any number. The end of the run serves them
all (``softclock.end``): under the CPU's lock it removes a queued next run if a ticket asks for that, and fills in the
result; then, with no lock held, it wakes the waiters and calls the completions.

A ticket is never withdrawn. A caller that was cancelled while it waited has asked for a stopped callout all the same,
and gets it, without learning when.

Source: kern_timeout.c, _callout_stop_safe() with CS_DRAIN; the async drain of the rewrite of December 2014.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .._locks.lock import Lock, watched
from .._locks.mutex import Mtx
from .._locks.parking import acquire_parked
from .arm import unschedule
from .checks import check_func, machine_of
from .cpu import BARRIER, CLOSE, DRAIN, STARTED, T_CLOSE, T_DEQUEUE, T_FORGET, T_REFUSE, Cpu, Run, Ticket
from .cpulock import acquire, lock_callout
from .errors import LockHeldError, LoopThreadError, SelfDrainError
from .guard import protected
from .machine import Machine
from .platform import Waiter
from .rules import LockClass
from .state import ACTIVE, CLOSED, MOVING, REMOVED, RUNNING, Func
from .stop import check_stop_lock, stop_locked
from .trace import TraceKind, tell

if TYPE_CHECKING:
    from .._api.callout import Callout

T = TypeVar("T")


def attach(run: Run, ticket: Ticket) -> None:
    """Have *ticket* served at the end of *run*. The CPU's lock is held."""
    run.tickets = [*(run.tickets or ()), ticket]
    if ticket.asks & T_REFUSE:
        run.refusing = True


def is_inside(run: Run) -> bool:
    """Whether this code runs inside the callback of *run*.

    While softclock yields, this thread is a task of its loop, not the callback: that was taken from the queue and not
    called yet. Shown by tests/race/test_engine.py.
    """
    return run.state == STARTED and run.cpu.thread == run.cpu.current_thread()


@protected
def begin(
    call: str, c: Callout, asks: int, new_waiter: Callable[[], Waiter | None], again: bool = False
) -> int | Ticket:
    """Do at once what can be done at once and return the facts; or leave a ticket with the run in progress.

    *again*: it was done before, for the same call, which is counted once.
    """
    old: list[object] = []  # what a callout that forgets it referred to; it dies with this frame
    cpu = lock_callout(c, call)
    try:
        run = c.run
        if run is None:
            func = c.func
            old += (func, c.arg)
            removed = bool(asks & T_DEQUEUE) and unschedule(cpu, c)
            if removed:
                c.state &= ~ACTIVE
            if asks & T_DEQUEUE and not again:
                cpu.drained += 1
            closes = bool(asks & T_CLOSE) and not c.state & CLOSED
            if closes:
                cpu.closed += 1
                c.state |= CLOSED
            if asks & T_FORGET:
                c.func = c.arg = None
            if cpu.plain is None:
                _tell(cpu, c, asks, again, removed, closes, func)
            return REMOVED if removed else 0
        if is_inside(run):
            raise SelfDrainError(
                f"{call}: {c!r} waits for its own callback, which would never end; use close_soon(), or "
                "callout_drain_async()",
                call=call,
                callout=c,
                cpu=cpu.id,
            )
        ticket = Ticket(asks, new_waiter())
        attach(run, ticket)  # if this is cut off now the end of the run does the rest
        if asks & T_DEQUEUE and not again:
            cpu.drained += 1
        refuses = bool(asks & T_REFUSE)
        moves = refuses and bool(c.state & MOVING)
        closes = refuses and bool(asks & T_CLOSE) and not c.state & CLOSED
        if moves:
            unschedule(cpu, c)
            c.state &= ~ACTIVE
        if closes:
            cpu.closed += 1
            c.state |= CLOSED
        if cpu.plain is None:
            _tell(cpu, c, asks, again, moves, closes, None)
        return ticket
    finally:
        cpu.busy = False
        cpu.lock.release()


_NAMES: Final = {DRAIN: "callout_drain", CLOSE: "callout_terminate", BARRIER: "callout_barrier"}


def _tell(cpu: Cpu, c: Callout, asks: int, again: bool, removed: bool, closes: bool, func: Func | None) -> None:
    if not again:
        tell(cpu, TraceKind.DRAINED, c, func, None, _NAMES.get(asks, "callout_quiesce"))
    if removed:
        tell(cpu, TraceKind.STOPPED, c, func)
    if closes:
        tell(cpu, TraceKind.CLOSED, c, func)


@protected
def barrier(cpu: Cpu, new_waiter: Callable[[], Waiter]) -> list[Waiter]:
    """Leave a ticket with each run in progress on *cpu*, and return what they will set."""
    waiters: list[Waiter] = []
    acquire(cpu)
    try:
        for lane in cpu.lanes:
            if lane.run is not None:
                waiter = new_waiter()
                attach(lane.run, Ticket(BARRIER, waiter))
                waiters.append(waiter)
    finally:
        cpu.busy = False
        cpu.lock.release()
    return waiters


async def wait(
    call: str, c: Callout, asks: int, *, blocking: bool = False, instead: str = "", again: bool = False
) -> int:
    """Wait for the run of *c* in progress as *asks* says; return the facts. Giant is released while waiting.

    *blocking*: block the thread, and never yield; *instead* is what a thread with a loop has to write. *again*: it
    was begun before.
    """
    machine = machine_of(c)
    platform = machine.platform
    if blocking:
        instead = instead or f"{call}(c)"
        call = f"{call}_sync"
    check_locks(call, c, machine, blocking)
    if blocking and platform.in_loop():
        raise LoopThreadError(
            f"{call}: this thread runs an event loop, which must not be blocked; use `await {instead}`",
            call=call,
            callout=c,
        )
    new_waiter = platform.thread_waiter if blocking else platform.waiter
    facts = 0
    while True:
        ticket = begin(call, c, asks, new_waiter, again)
        again = True
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
                    await _reacquire(machine.giant, depth, new_waiter)
        facts |= RUNNING | (REMOVED if ticket.removed else 0)
        # The end of the run has removed every arming. While Giant was acquired again it may have been armed anew.
        if not depth:
            return facts


protected(wait)


async def _reacquire(giant: Mtx, depth: int, new_waiter: Callable[[], Waiter]) -> None:
    """Acquire Giant as often as it was held. A KeyboardInterrupt, which no shield keeps off, waits until then."""
    interrupt: KeyboardInterrupt | None = None
    while not giant.owned():
        try:
            await acquire_parked(giant, False, new_waiter)
        except KeyboardInterrupt as error:
            interrupt = error
    for _ in range(depth - 1):
        giant.__enter__()
    if interrupt is not None:
        raise interrupt


protected(_reacquire)


def wait_blocking(call: str, c: Callout, asks: int, instead: str = "") -> int:
    """``wait`` for a thread without a loop; *instead* is what a thread with a loop has to write."""
    return run_blocking(wait(call, c, asks, blocking=True, instead=instead))


def run_blocking(waiting: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose waits block the thread, so that it never yields."""
    try:
        waiting.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a blocking wait has yielded")


def check_locks(call: str, c: Callout, machine: Machine, blocking: bool) -> None:
    """Raise if the caller holds a lock with which it must not sleep. Giant is released, so it does not count.

    A thread that blocks may hold a sleepable lock, unless the callback may be waiting for it: this is known in checking
    mode only.
    """
    giant = machine.giant
    lock = c.lock
    if lock is not None and lock is not giant and lock.holds():
        raise LockHeldError(
            f"{call}: release {lock!r} first: the callback may be waiting for it", call=call, callout=c, lock=lock
        )
    if machine.held is not None:
        for other in machine.held.get(machine.platform.current_thread(), ()):
            if other is giant:
                continue
            if not blocking or other.lock_class is not LockClass.SLEEPABLE:
                raise LockHeldError(
                    f"{call}: release {other!r} first: nobody may sleep with a mutex held{_known(machine, c, other)}",
                    call=call,
                    callout=c,
                    lock=other,
                )
            _check_order(call, c, machine, other)


def _known(machine: Machine, c: Callout, lock: Lock) -> str:
    """Return, for the end of a message, how the callback of *c* comes to wait for *lock*, if it is known to."""
    kind, _ = watched(lock, machine.platform.current_thread())
    return "" if machine.witness is None or kind is None else machine.witness.known(c, kind)


def _check_order(call: str, c: Callout, machine: Machine, held: Lock) -> None:
    """Raise if the order of locks forbids a wait for *c* with *held*, which is sleepable, held."""
    me = machine.platform.current_thread()
    kind, since = watched(held, me)
    if machine.witness is None or kind is None:
        return
    giant = machine.giant
    if giant.owned() and giant.kind is not None:
        machine.witness.acquire_again(call, giant, giant.kind, kind)
    machine.witness.wait(call, c, held, kind, since, None if c.lock is None else c.lock.kind)


@protected
def drain_async(call: str, c: Callout, func: Func, arg: object) -> int:
    """Stop *c*; if softclock still has to do with it, have ``func(arg)`` called when it has not. Return the facts.

    RUNNING here means that *func* will be called: also for a cancelled run that is still at the lock.
    """
    check_func(call, func)
    may_cancel = check_stop_lock(call, c)
    ticket = Ticket(T_REFUSE, None, func, arg)
    cpu = lock_callout(c)
    try:
        facts = stop_locked(cpu, c, may_cancel, None, ticket)
        cpu.drained += 1
        tell(cpu, TraceKind.DRAINED, c, None, None, "callout_drain_async")
        return facts if c.run is None else facts | RUNNING
    finally:
        cpu.busy = False
        cpu.lock.release()


@protected
def async_drain(call: str, c: Callout, func: Func) -> int:
    """Do as ``drain_async`` in the manner of FreeBSD 11-13: a run that waits for its lock is let run; *func* gets its
    argument.
    """
    check_func(call, func)
    check_stop_lock(call, c)
    ticket = Ticket(T_REFUSE, None, func)
    cpu = lock_callout(c)
    try:
        if c.run is not None:
            ticket.arg = c.run.arg
        cpu.drained += 1
        tell(cpu, TraceKind.DRAINED, c, None, None, "callout_async_drain")
        return stop_locked(cpu, c, False, None, ticket)
    finally:
        cpu.busy = False
        cpu.lock.release()
