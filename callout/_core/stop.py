"""Stopping: removing what is scheduled, at once and without waiting. ``drain`` waits.

Source: kern_timeout.c, _callout_stop_safe().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .arm import unschedule
from .checks import not_held
from .cpu import CANCELLED, WAITING, Cpu, Ticket
from .cpulock import lock_callout
from .guard import protect
from .phases import Use, admit
from .state import ACTIVE, CLOSED, REMOVED, RUNNING
from .trace import TraceKind, tell

if TYPE_CHECKING:
    from .._api.callout import Callout


def stop(call: str, c: Callout) -> int:
    """Remove what is scheduled of *c*, and cancel a run that waits for the lock which the caller holds; return the
    facts.

    *c*'s lock must be held. Without Giant a Giant callout may be stopped all the same, but a waiting run is not
    cancelled.
    """
    may_cancel = check_stop_lock(call, c)
    cpu = lock_callout(c, call)
    try:
        return stop_locked(cpu, c, may_cancel, "callout_stop")
    finally:
        cpu.busy = False
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
    admit(call, c.c_cpu.machine, Use.STOP)  # if it was closed there is nothing left to stop, with or without the lock
    raise not_held(call, c, lock)


def stop_locked(cpu: Cpu, c: Callout, may_cancel: bool, call: str | None, ticket: Ticket | None = None) -> int:
    """Do what ``stop`` does; the CPU's lock is held. A trace has the name of the *call*, if that is nothing but a stop.

    *ticket*, which asks for a refusal, is left with a run in progress, in the same step: what was cut off between the
    two would have stopped a callout and lost the completion.
    """
    run = c.run
    tickets = None if run is None or ticket is None else [*(run.tickets or ()), ticket]
    facts = REMOVED if unschedule(cpu, c) else 0
    # From here on there are plain stores only, until all is done.
    if run is not None:
        if tickets is not None:
            run.tickets = tickets
            run.refusing = True
        if may_cancel and run.state == WAITING:
            run.state = CANCELLED
            cpu.cancelled += 1
            facts = REMOVED
        else:
            facts |= RUNNING
        c.state &= ~ACTIVE
    elif facts:
        c.state &= ~ACTIVE
    if cpu.plain is None:
        _tell_stop(cpu, c, facts, call)
    return facts


def _tell_stop(cpu: Cpu, c: Callout, facts: int, call: str | None) -> None:
    if facts & REMOVED:
        tell(cpu, TraceKind.STOPPED, c, None, None, call)
    elif call is not None:
        tell(cpu, TraceKind.NOT_STOPPED, c, None, None, call)


def dequeue(call: str, c: Callout, if_not_running: bool = False, close: bool = False) -> int:
    """Remove the queued run or deferred migration of *c*, and never touch the run in progress; return the facts.

    *if_not_running*: leave everything as it is while it runs. *close*: never arm it again. Asks for no lock.
    """
    cpu = lock_callout(c, call)
    try:
        facts = 0 if c.run is None else RUNNING
        if if_not_running and facts:
            return facts
        removed = unschedule(cpu, c)
        if removed:
            c.state &= ~ACTIVE
        closes = close and not c.state & CLOSED
        if closes:
            cpu.closed += 1
            c.state |= CLOSED
        if cpu.plain is None:
            _tell_stop(cpu, c, REMOVED if removed else 0, "callout_dequeue")
            if closes:
                tell(cpu, TraceKind.CLOSED, c)
        return facts | REMOVED if removed else facts
    finally:
        cpu.busy = False
        cpu.lock.release()


def deactivate(c: Callout) -> None:
    """Clear ACTIVE."""
    cpu = lock_callout(c)
    try:
        c.state &= ~ACTIVE
    finally:
        cpu.busy = False
        cpu.lock.release()


protect(stop, dequeue, deactivate)
