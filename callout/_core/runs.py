"""Runs: how one begins and ends, and what a clock interrupt finds due. ``softclock`` says when, and waits for locks.

For a callout with a lock it is::

    [cpu]  take it from the queue; PENDING off; the run is WAITING
           acquire the callout's lock, parking while it is held by another thread
    [cpu]  cancelled meanwhile? else the run is STARTED: it cannot be stopped now
           call the function; release the callout's lock; report what it raised
    [cpu]  the end: carry out a deferred migration, remove a queued next run if a drain wants that; take the next
           wake the waiters, call the completions

where [cpu] is one hold of the CPU's lock. "Was it cancelled?" and "it cannot be stopped now" are one step under that
lock: a reset may come without the callout's lock, and with a step between, a run took place that the reset had
returned 1 for.

A lane has at most one run, and a run ends in one way only, in ``end()``, which ``turn()`` shortens where nobody waits
and nothing is deferred. After the completions of a run were called its callout may be freed memory: nothing here
touches it then.

Source: kern_timeout.c, callout_process(), softclock_call_cc().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._locks.mutex import Mtx, MtxRecord
from .arm import prepare, schedule, unschedule
from .cpu import CANCELLED, STARTED, T_CLOSE, T_DEQUEUE, T_FORGET, WAITING, Cpu, Lane, Move, Run, Ticket
from .cpulock import acquire, acquire_both
from .describe import name_of
from .errors import CallbackLockError, CalloutError, UseAfterFree
from .guard import protect
from .phases import Phase
from .state import ACTIVE, CLOSED, DIRECT, MOVING, PENDING, QUEUED
from .trace import TraceKind, tell
from .units import CALLOUT_RETURNUNLOCKED, CALLOUT_SHAREDLOCK, CALLOUT_TRYLOCK

if TYPE_CHECKING:
    from .._api.callout import Callout

# -- a run -------------------------------------------------------------------------------------------------------------


def run_started(lane: Lane, begun: int, until: int) -> Run | None:
    """Run callouts of *lane* one after another, from *begun*, which is now. Return a run that has to wait for its lock
    first; or None: nothing is left, or the time is over, which was *until*, and the lane's run is to be ended.

    Softclock tries the lock here, for most are free. The interrupt waits for one on the spot, and where a race is
    staged, softclock is held up before it tries: then the run is returned as it is.
    """
    machine = lane.cpu.machine
    while True:
        run = turn(lane)
        if run is None:
            return None
        may_start = run.state == STARTED
        if not may_start:
            if lane.direct or machine.stall is not None:
                return run
            try:
                if not _try(run):
                    return run
            except CalloutError as error:  # destroyed, or freed
                fail(run, error)
            else:
                may_start = confirm(run)
                if not may_start:
                    skip(run)
        begun = execute(run, begun) if may_start else lane.cpu.now()
        if begun > until:
            return None


def turn(lane: Lane) -> Run | None:
    """End the lane's run, if it has one, and begin the next; return that, or None if there is nothing to run.

    Softclock that has nothing to run has ``cpu.idle`` to wait for.
    """
    cpu = lane.cpu
    while True:
        acquire(cpu)
        try:
            done = lane.run
            if done is None or (done.tickets is None and done.move is None):
                if done is not None:
                    # What only the run refers to dies with this frame, under no lock, though its record is used again.
                    _c, _func, _arg, _lock = done.callout, done.func, done.arg, done.lock
                    _c.run = None
                    lane.run = None
                return _next(lane, done)
        finally:
            cpu.busy = False
            cpu.lock.release()
        end(lane)
        done = None


def _next(lane: Lane, done: Run | None) -> Run | None:
    """Begin the first run in the queue that can be begun; the lock is held. *done* is the record of one that has ended
    and for which nobody has waited: it is used again.
    """
    cpu = lane.cpu
    # Direct ones go first. Where the interrupt has used up its time, softclock waits until it has run the rest.
    if lane.direct or not cpu.interrupt.queue:
        queue = lane.queue
        while queue.next is not queue:
            c: Any = queue.next
            if done is not None and c.flags == 0 and done.removed is None:
                before, after = c.prev, c.next
                before.next, after.prev = after, before
                c.prev = c.next = None
                c.state &= ~(PENDING | QUEUED)
                cpu.begun += 1
                done.callout = c
                done.due = c.time
                done.func = c.func
                done.arg = c.arg
                done.lock = c.lock
                done.state = STARTED if c.lock is None else WAITING
                done.shared = done.unlocked = False
                c.run = lane.run = done
                if cpu.plain is None:
                    tell(cpu, TraceKind.DEQUEUED, c)
                return done
            run = _begin(lane, c)
            if run is not None:
                return run
    if not lane.direct:
        cpu.idle = cpu.machine.platform.idle_waiter(cpu.id)
    return None


def _try(run: Run) -> bool:
    """Acquire the lock of *run* if it is free; return whether it was."""
    lock = run.lock
    if type(lock) is Mtx:
        return MtxRecord.try_acquire(lock, False)
    assert lock is not None
    return lock.try_acquire(run.shared)


def _begin(lane: Lane, c: Callout) -> Run | None:
    """Begin a run of *c*, whose turn it is; None if it was filed again. The lock is held."""
    cpu, lock, flags = lane.cpu, c.lock, c.flags
    state = STARTED
    shared = bool(flags & CALLOUT_SHAREDLOCK)
    if lock is not None:
        state = WAITING
        if flags & CALLOUT_TRYLOCK:
            # Tried under the CPU's lock: success makes it unstoppable in the same step.
            try:
                if not lock.try_acquire(shared):
                    _file_again(cpu, c)
                    return None
                state = STARTED
            except CalloutError:
                pass  # destroyed or freed: acquiring it will say so, where it can be reported
    run = Run(c, lane, state, shared, bool(flags & CALLOUT_RETURNUNLOCKED))
    cpu.wheel.remove(c)
    c.state &= ~(PENDING | QUEUED)
    cpu.begun += 1
    c.run = lane.run = run
    if cpu.plain is None:
        tell(cpu, TraceKind.DEQUEUED, c)
    return run


def _file_again(cpu: Cpu, c: Callout) -> None:
    """File a refused TRYLOCK callout again: half its precision later, but not sooner than a tick. ACTIVE stays."""
    precision = c.precision // 2
    schedule(cpu, c, cpu.now() + max(precision, cpu.tick))
    c.precision = precision


def confirm(run: Run) -> bool:
    """The callout's lock is held: start the run unless it was cancelled before that."""
    cpu = run.cpu
    acquire(cpu)
    try:
        if run.state == CANCELLED:
            return False
        run.state = STARTED
        return True
    finally:
        cpu.busy = False
        cpu.lock.release()


def execute(run: Run, begun: int) -> int:
    """Call the function of a started run, and release its lock. Then report what went wrong, and whether it was slow.

    *begun*: what time it is. Returns when it ended.
    """
    func = run.func
    assert func is not None
    cpu = run.cpu
    machine = cpu.machine
    errors: list[BaseException] | None = None
    if cpu.plain is None:
        tell(cpu, TraceKind.STARTED, run.callout, func)
    try:
        machine.call(func, run.arg)
    except BaseException as error:
        errors = [error]
    lock = run.lock
    if lock is not None and (run.unlocked or type(lock) is not Mtx or not MtxRecord.leave(lock)):
        errors = errors or []
        _release_after(run, errors)
    if cpu.plain is None:
        tell(cpu, TraceKind.FINISHED, run.callout, func)
    tally = cpu.tally
    if errors:
        tally.errors += 1
        for problem in errors:
            fail(run, problem)
    clock = cpu.now
    ended = clock()
    spent = ended - begun
    late = begun - run.due
    tally.late[late.bit_length()] += 1
    tally.total_late += late
    if late > tally.latest:  # noqa: PLR1730 - max() would be a call
        tally.latest = late
    tally.spent += spent
    if spent > tally.longest:
        tally.longest = spent
        tally.longest_function = name_of(func)
    if spent > machine.slow:
        machine.expensive(func, spent)
    return ended


def _release_after(run: Run, errors: list[BaseException]) -> None:
    """Release the lock after the callback, and add to *errors* what was wrong with it."""
    lock = run.lock
    assert lock is not None
    problem = ""
    try:
        if not run.unlocked:
            try:
                lock.release_as(run.shared)
            except UseAfterFree:
                raise
            except CalloutError as error:
                problem = (
                    f"the callback of {run.callout!r} returned without {lock!r} ({error}); "
                    "use CALLOUT_RETURNUNLOCKED if it releases it"
                )
        # Softclock acquires no lock that its thread holds already, so what is held now is the callback's.
        if lock.holds():
            problem = problem or (
                f"the callback of {run.callout!r} is CALLOUT_RETURNUNLOCKED and returned with {lock!r} held"
                if run.unlocked
                else f"the callback of {run.callout!r} has acquired {lock!r} once more and not released it"
            )
            lock.drop_all()
    except UseAfterFree as error:  # it was freed while softclock held it: then that is what is reported
        errors.append(error)
    if problem:
        errors.append(CallbackLockError(problem, callout=run.callout, lock=lock, cpu=run.cpu.id))


def skip(run: Run) -> None:
    """Release the lock of a run that was cancelled while softclock was acquiring it."""
    assert run.lock is not None
    try:
        run.lock.release_as(run.shared)
    except UseAfterFree as error:
        fail(run, error)


def fail(run: Run, error: BaseException) -> None:
    """Tell of an error of a run, and report it."""
    cpu = run.cpu
    if cpu.plain is None:
        tell(cpu, TraceKind.ERROR, run.callout, run.func, None, type(error).__name__)
    cpu.machine.report(error, run.callout)


def end(lane: Lane) -> None:
    """End the lane's run: carry out what was deferred until now, and serve its tickets."""
    run = lane.run
    assert run is not None
    c, cpu = run.callout, run.cpu
    move = run.move
    to = cpu if move is None else move.cpu
    promised: list[Ticket] | None = None
    old: list[object] = []  # what is replaced; it dies with this frame
    try:
        while True:
            # A migration needs both CPUs' locks. Until it is carried out the run counts as in progress: c stays put.
            acquire_both(cpu, to)
            try:
                move = run.move
                if move is None or move.cpu is to or move.cpu is cpu:
                    tickets = run.tickets
                    if tickets is not None:
                        answer_tickets(cpu, c, tickets, old)
                        move = run.move
                    if move is not None:
                        _carry_out(cpu, c, move, old)
                    c.run = lane.run = None
                    promised = tickets
                    break
            finally:
                try:
                    if to is not cpu:
                        to.busy = False
                        to.lock.release()
                finally:
                    cpu.busy = False
                    cpu.lock.release()
            to = move.cpu
    finally:
        if promised:
            try:
                serve(run, promised)
            except BaseException:  # from a signal handler: what was promised to the others is kept all the same
                serve(run, promised)
                raise


def answer_tickets(cpu: Cpu, c: Callout, tickets: list[Ticket], old: list[object]) -> None:
    """Do what the tickets ask of the end of the run, and tell the first that asked for it what was removed.

    What a callout that is to forget it referred to is put into *old*.
    """
    for ticket in tickets:
        if ticket.asks & T_DEQUEUE:
            if unschedule(cpu, c):
                c.state &= ~ACTIVE
                ticket.removed = True
                if cpu.plain is None:
                    tell(cpu, TraceKind.STOPPED, c)
            break
    if any(ticket.asks & T_CLOSE for ticket in tickets):
        if not c.state & CLOSED:
            cpu.closed += 1
            if cpu.plain is None:
                tell(cpu, TraceKind.CLOSED, c)
        c.state |= CLOSED
    if any(ticket.asks & T_FORGET for ticket in tickets):
        old += (c.func, c.arg)
        c.func = c.arg = None


def _carry_out(cpu: Cpu, c: Callout, move: Move, old: list[object]) -> None:
    """Arm the callout as the deferred reset wanted. Both locks are held."""
    if cpu.machine.phase >= Phase.QUIESCING:  # what is pending was stopped, and this is as well
        c.state &= ~(PENDING | ACTIVE | MOVING)
        cpu.removed += 1
        return
    to = move.cpu
    old += (c.func, c.arg)
    at, seq, deadline = prepare(to, move.time, cpu.now())
    to.wheel.put(c, at, move.time, seq)
    to.refiled += 1  # its number was counted when it was armed
    if to is not cpu:
        to.migrated += 1
        cpu.moved -= 1
        to.moved += 1
    c.c_cpu = to
    c.func = move.func
    c.arg = move.arg
    c.precision = move.precision
    c.state = c.state & ~(QUEUED | MOVING) | (PENDING | ACTIVE | DIRECT if move.direct else PENDING | ACTIVE)
    to.deadline = deadline
    if to.plain is None and to is not cpu:
        tell(to, TraceKind.MIGRATED, c, None, move.time)


def serve(run: Run, tickets: list[Ticket]) -> None:
    """Wake the waiters and call the completions; what was served is removed. No lock is held, and the callout may be
    gone after the first.
    """
    while tickets:
        if run.cpu.machine.dead is not None:
            return  # a completion has forked, and this is the child: the others are the parent's
        ticket = tickets[0]
        if ticket.waiter is not None:
            ticket.waiter.set()
        del tickets[0]
        if ticket.func is not None:
            try:
                if is_last(ticket):
                    complete(run.cpu, run.callout, ticket)
            except BaseException as error:
                run.cpu.machine.report(error, run.callout if ticket.rest is None else None)


def complete(cpu: Cpu, c: Callout, ticket: Ticket) -> None:
    """Call the completion of a ticket of *c*, on the loop of *cpu*. It may free *c*."""
    func = ticket.func
    assert func is not None
    if cpu.plain is not None:
        cpu.machine.call(func, ticket.arg)
        return
    tell(cpu, TraceKind.COMPLETING, c, func)
    try:
        cpu.machine.call(func, ticket.arg)
    finally:
        tell(cpu, TraceKind.COMPLETED, c, func)


def is_last(ticket: Ticket) -> bool:
    """Whether this is the last of the runs that *ticket* waits for; asked once for each."""
    if ticket.rest is None:
        return True
    try:
        ticket.rest.pop()  # atomic: the others may end on other CPUs now
    except IndexError:
        return True
    return False


# -- the clock interrupt -----------------------------------------------------------------------------------------------


def scan(cpu: Cpu) -> bool:
    """Move what is due from the wheel to the queues; return whether there is more."""
    acquire(cpu)
    due: list[Callout] = []
    try:
        now = cpu.now()
        more = cpu.wheel.expire(now, due)
        queue = cpu.softclock.queue
        for c in due:
            state = c.state
            ring = cpu.interrupt.queue if state & DIRECT and c.run is None else queue
            last = ring.prev  # as Ring.append() does, without a call for each
            c.prev = last
            c.next = ring
            last.next = ring.prev = c
            c.state = state | QUEUED
        when = now if more else cpu.wheel.next_event()
        cpu.machine.platform.set_event(cpu.id, when)
        cpu.deadline = when
        return more
    except BaseException:  # from a signal handler: what has left the wheel is in no queue yet
        for c in due:
            if not c.state & QUEUED:
                schedule(cpu, c, c.time)
        raise
    finally:
        cpu.busy = False
        cpu.lock.release()


protect(run_started, turn, confirm, execute, _release_after, skip, fail, end, serve, complete, scan)
