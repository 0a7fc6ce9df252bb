"""Several callouts at once: all are stopped before the first is waited for; and one completion for them all.

The completion of a set is promised in one step, under the locks of all CPUs that its callouts can be on: a call for
the same callouts that comes meanwhile finds them all as they were, or all as they are afterwards. Each run in progress
gets a ticket, and the tickets share what counts the runs that are left (``Ticket.rest``). Where nothing runs a CPU is
told to call the completion, as a cross-CPU call.

Source: our own; the rewrite of December 2014 has drain functions for one callout only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from .calls import send
from .checks import machine_of
from .cpu import T_CLOSE, T_FORGET, T_REFUSE, Cpu, Ticket
from .cpulock import acquire, lock_callout
from .drain import begin, wait
from .errors import ArgumentValueError
from .guard import protected
from .platform import Waiter
from .runs import complete
from .state import CLOSED, REMOVED, Func
from .stop import check_stop_lock, stop_locked
from .trace import TraceKind, tell

if TYPE_CHECKING:
    from .._api.callout import Callout


# Each callout of a set: whether a run that waits for its lock may be cancelled, and what to leave with its run.
Plan = list[tuple["Callout", bool, Ticket | None]]


def one_machine(call: str, callouts: Sequence[Callout]) -> None:
    """Raise unless *callouts* belong to one system, if there are any."""
    machines = [machine_of(c, call) for c in callouts]
    if any(machine is not machines[0] for machine in machines):
        raise ArgumentValueError(
            f"{call}: these callouts are of more than one system, and no lock guards them all; make a call for each",
            call=call,
        )


@protected
async def wait_all(call: str, callouts: Sequence[Callout], asks: int) -> int:
    """Do with each of *callouts* as ``wait()`` does; all are stopped before the first wait. Return how many scheduled
    runs were removed.
    """
    stopped = [begin(call, c, asks, _nobody) for c in callouts]
    removed = 0
    for c, had in zip(callouts, stopped, strict=True):
        removed += bool(had & REMOVED) if isinstance(had, int) else 0
        removed += bool(await wait(call, c, asks, again=True) & REMOVED)  # it may have been armed anew meanwhile
        removed += had.removed if isinstance(had, Ticket) else 0
    return removed


def _nobody() -> Waiter | None:
    """Return that nobody waits."""
    return None


@protected
def drain_all_async(call: str, callouts: Sequence[Callout], func: Func, arg: object, *, close: bool) -> bool:
    """Stop *callouts*, each of which is named once, and have ``func(arg)`` called when softclock uses none of them any
    more; return whether it will be.

    *close*: they are stopped for good. Then the completion is called in any case, but for a set of which every callout
    was closed before; else it is called if a run is in progress.
    """
    cancels = [check_stop_lock(call, c) for c in callouts]
    asks = T_REFUSE | T_CLOSE | T_FORGET if close else T_REFUSE
    old: list[object] = []  # what callouts that are closed referred to; it dies with this frame
    cpus = _lock_all(call, callouts)
    try:
        todo = [c for c in callouts if not (close and c.state & CLOSED)]
        if not todo:
            return False
        plan: Plan = []
        tickets: list[Ticket] = []
        for c, may_cancel in zip(callouts, cancels, strict=True):
            ticket = None
            if c.run is not None:
                ticket = Ticket(asks, None, func, arg)
                tickets.append(ticket)
            plan.append((c, may_cancel, ticket))
            old += (c.func, c.arg)
        if len(callouts) > 1:
            rest = deque([None] * (len(tickets) - 1))
            for ticket in tickets:
                ticket.rest = rest
        told = Ticket(0, None, func, arg)
        will_be_called = close or bool(tickets)
        if close and not tickets:
            send(cpus[0], partial(_complete, cpus[0], callouts[0], len(callouts) == 1, told))
        events = [(c, c.func) for c in todo]
        if len(callouts) == 1:
            name = "close_soon" if close else "callout_drain_async"
        else:
            name = "close_all_soon" if close else "callout_drain_all_async"
        try:
            told.promised = True
            _stop_all(plan, close)
        except BaseException:  # from a signal handler: what was begun is done all the same
            _stop_all(plan, close)
            raise
        kind = TraceKind.CLOSED if close else TraceKind.DRAINED
        for c, had in events:
            tell(c.c_cpu, kind, c, had, None, name)
        return will_be_called
    finally:
        # Twice, for an exception of a signal handler that comes in the first: then the second does the rest.
        try:
            _unlock(cpus)
        finally:
            _unlock(cpus)


@protected
def _stop_all(plan: Plan, close: bool) -> None:
    """Stop each callout, and leave its ticket with its run. To do it twice does no harm. The locks are held."""
    for c, may_cancel, ticket in plan:
        if ticket is None or c.run is None or ticket not in (c.run.tickets or ()):
            stop_locked(c.c_cpu, c, may_cancel, None, ticket)
            c.c_cpu.drained += 1
        if close:
            if not c.state & CLOSED:
                c.c_cpu.closed += 1
            c.state |= CLOSED
            if ticket is None:
                c.func = c.arg = None


def _lock_all(call: str, callouts: Sequence[Callout]) -> list[Cpu]:
    """Acquire the lock of the CPU that the callout is on; of several callouts, those of all CPUs that there are."""
    if len(callouts) == 1:
        return [lock_callout(callouts[0], call)]
    held: list[Cpu] = []
    try:
        for cpu in callouts[0].c_cpu.machine.cpus:
            acquire(cpu, call)
            held.append(cpu)
    except BaseException:
        _unlock(held)
        raise
    return held


@protected
def _unlock(held: list[Cpu]) -> None:
    while held:
        cpu = held[-1]
        lock = cpu.lock
        del held[-1]  # no call, and so one step with what follows
        cpu.busy = False
        lock.release()


@protected
def _complete(cpu: Cpu, c: Callout, alone: bool, ticket: Ticket) -> None:
    """Call the completion of callouts of which none was running; *c* is the first, *alone*: and the only one. On the
    loop of *cpu*.
    """
    acquire(cpu)  # what has promised it holds the lock until all is done
    cpu.busy = False
    cpu.lock.release()
    if ticket.promised:  # else it was cut off, and nothing was closed
        assert ticket.func is not None
        try:
            complete(cpu, c, ticket)
        except BaseException as error:
            cpu.machine.report(error, c if alone else None)
