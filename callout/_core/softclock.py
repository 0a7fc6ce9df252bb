"""The clock interrupt, softclock, and cross-CPU calls: what happens on a CPU by itself.

The clock interrupt (``hardclock``) moves due callouts from the wheel to the expired queue and runs direct ones on the
spot. Softclock, one task a CPU, runs the others in order. For a callout with a lock that is::

    [cpu]  take it from the queue; PENDING off; the run is WAITING
           take the callout's lock, parking while it is taken
    [cpu]  cancelled meanwhile? else the run is STARTED: it cannot be stopped now
           call the function; give up the callout's lock
    [cpu]  end: serve who waits for it, carry out a put-off move, take the next

where [cpu] is one hold of the CPU's lock. "Was it cancelled?" and "it cannot be stopped now" are one step under that
lock: a reset may come without the callout's lock, and with a step between, a run took place that the reset had
answered 1 for.

After the completions of a run were called its callout may be freed memory: nothing here touches it then.

Source: kern_timeout.c, callout_process(), softclock_call_cc(), softclock_thread().
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .._locks.mutex import Mtx, take_parked
from .arm import close_asked, program, schedule, unschedule
from .cpu import CANCELLED, STARTED, T_DEQUEUE, WAITING, Cpu, Move, Run, Ticket
from .errors import CallbackLockError, CalloutError, ClosedError, UseAfterFree
from .guard import check_reentry, exposed, guarded, protected
from .phases import CLOSED_TEXT, Phase, Use, admit
from .platform import Waiter
from .state import ACTIVE, CLOSED, DIRECT, MOVING, PENDING, Callout, Func
from .units import CALLOUT_RETURNUNLOCKED, CALLOUT_SHAREDLOCK, CALLOUT_TRYLOCK
from .wheel import DueQueue


def _enter(cpu: Cpu) -> None:
    """Take the CPU's own lock."""
    if not cpu.lock.acquire(False):
        check_reentry()
        cpu.lock.acquire()


@exposed
def call(func: Func, arg: object) -> None:
    """Run the user's code."""
    func(arg)


# -- the clock interrupt -------------------------------------------------------------------------------------------


@guarded
def _scan(cpu: Cpu) -> tuple[bool, Waiter | None]:
    """Take what is due out of the wheel; return whether there is more, and the waiter of a softclock to be woken."""
    _enter(cpu)
    try:
        due: list[Callout] = []
        more = cpu.wheel.expire(cpu.now(), due)
        for c in due:
            (cpu.directq if c.state & DIRECT and c.run is None else cpu.expireq).push(c)
        cpu.deadline = cpu.wheel.next_event()
        idle = None
        if cpu.expireq:
            idle, cpu.idle = cpu.idle, None
        return more, idle
    finally:
        cpu.lock.release()


@protected
def hardclock(cpu: Cpu) -> bool:
    """Do a clock interrupt on the loop of *cpu*; return whether there is more to do now. Direct callbacks run here."""
    if not cpu.open:
        return False  # closed by this loop since the timer struck
    more, idle = _scan(cpu)
    run: Run | None = None
    while cpu.directq or run is not None:
        run = _turn(cpu, cpu.directq, run, idles=False)
        if run is None:
            break
        if run.state == WAITING:
            _run_direct_locked(cpu, run)
        elif run.state == STARTED:
            execute(cpu, run)
        if _unfinished(run):
            serve(cpu, run, finish(run))
            run = None
    if idle is not None:
        idle.set_here()
    if not more:
        program(cpu)
    return more


def _run_direct_locked(cpu: Cpu, run: Run) -> None:
    """Run a direct callout under its spin mutex, which is waited for on the spot."""
    assert isinstance(run.lock, Mtx), "rule 1"
    try:
        run.lock.__enter__()
    except CalloutError as error:
        cpu.machine.report(error, run.callout)
        return
    if confirm(run):
        execute(cpu, run)
    else:
        _give_up(run)


# -- one run -------------------------------------------------------------------------------------------------------


@guarded
def _turn(cpu: Cpu, queue: DueQueue, done: Run | None, *, idles: bool) -> Run | None:
    """End the run that is *done*, and begin the next in *queue*, under one hold of the lock.

    Returns *done* again, not ended, if that takes more than this (see ``_unfinished``); None if there is nothing to
    run: then, with *idles*, ``cpu.idle`` is what softclock waits for.
    """
    _enter(cpu)
    deadline = cpu.deadline
    try:
        if done is not None:
            if done.tickets is not None or done.move is not None:
                return done
            done.callout.run = None
        run = _next(cpu, queue)
        _note(cpu, run, idles)
        if run is None and idles:
            cpu.idle = cpu.machine.platform.waiter()
        refiled = cpu.deadline < deadline
    finally:
        cpu.lock.release()
    if refiled:
        program(cpu)
    return run


def _next(cpu: Cpu, queue: DueQueue) -> Run | None:
    """Begin the first run in *queue* that still is to be; the lock is held."""
    while (c := queue.pop()) is not None:
        run = _begin(cpu, c)
        if run is not None:
            return run
    return None


def _note(cpu: Cpu, run: Run | None, idles: bool) -> None:
    """Say what the CPU is at, for the close and for whoever wants to name it."""
    if idles:
        cpu.standing = run
    else:
        cpu.direct = run


def _begin(cpu: Cpu, c: Callout) -> Run | None:
    """Begin a run of *c*, whose turn it is; None if it was put back. The lock is held."""
    lock = c.lock
    state = STARTED
    if lock is not None:
        state = WAITING
        if c.flags & CALLOUT_TRYLOCK:
            # Tried under the CPU's lock: success makes it unstoppable in the same step.
            try:
                if not lock.try_take(bool(c.flags & CALLOUT_SHAREDLOCK)):
                    _put_back(cpu, c)
                    return None
                state = STARTED
            except CalloutError:
                pass  # destroyed or freed: softclock will find the same when it takes the lock, and can report it
    c.state &= ~PENDING
    run = Run(c, cpu, state)
    c.run = run
    run.shared = bool(c.flags & CALLOUT_SHAREDLOCK)
    run.unlocked = bool(c.flags & CALLOUT_RETURNUNLOCKED)
    return run


def _put_back(cpu: Cpu, c: Callout) -> None:
    """File a refused TRYLOCK callout again: half its precision later, but not sooner than a tick. ACTIVE stays."""
    c.precision //= 2
    c.state &= ~PENDING
    schedule(cpu, c, cpu.now() + max(c.precision, cpu.tick))


@guarded
def confirm(run: Run) -> bool:
    """The callout's lock is held: start the run unless it was cancelled while softclock stood there."""
    cpu = run.cpu
    _enter(cpu)
    try:
        if run.state == CANCELLED:
            return False
        run.state = STARTED
        return True
    finally:
        cpu.lock.release()


@protected
def execute(cpu: Cpu, run: Run) -> None:
    """Call the function of a started run, and give up its lock. What goes wrong is reported; nothing is left undone."""
    func = run.func
    assert func is not None
    try:
        call(func, run.arg)
    except BaseException as error:
        cpu.machine.report(error, run.callout)
    lock = run.lock
    if lock is None:
        return
    if run.unlocked:
        if not lock.holds():
            return
        _give_up(run)
        problem = f"the callback of {run.callout!r} is CALLOUT_RETURNUNLOCKED and returned with {lock!r} held"
    else:
        try:
            _give_up(run)
        except CalloutError as error:
            problem = (
                f"the callback of {run.callout!r} returned without {lock!r} ({error}); "
                "use CALLOUT_RETURNUNLOCKED if it gives it up"
            )
        else:
            return
    cpu.machine.report(CallbackLockError(problem), run.callout)


@protected
def _give_up(run: Run) -> None:
    """Give up the lock of a run. It may have been freed while softclock had it: then that is what is reported."""
    assert run.lock is not None
    try:
        run.lock.give(run.shared)
    except UseAfterFree as error:
        run.cpu.machine.report(error, run.callout)


def _unfinished(run: Run) -> bool:
    """Whether ``_turn`` gave a run back because more is to be done at its end.

    Reading these without the lock is safe: both only matter once ``_turn`` has seen them under it, and it will look
    again.
    """
    return run.tickets is not None or run.move is not None


@guarded
def finish(run: Run) -> list[Ticket]:
    """End a run for which somebody waits, or which has a put-off move; return the tickets to be served.

    The move needs both CPUs' locks. Until it is carried out the run counts as in progress, so the callout stays put.
    """
    c, cpu = run.callout, run.cpu
    to = cpu
    while True:
        first, second = (cpu, to) if cpu.id <= to.id else (to, cpu)
        _enter(first)
        if second is not first:
            _enter(second)
        move = run.move
        if run.tickets is not None:
            answer_tickets(cpu, c, run.tickets)
            move = run.move
        if move is None or move.cpu is to or move.cpu is cpu:
            break
        if second is not first:
            second.lock.release()
        first.lock.release()
        to = move.cpu
    try:
        c.run = None
        _note(cpu, None, cpu.standing is run)
        kick = move is not None and _carry_out(c, move)
    finally:
        if second is not first:
            second.lock.release()
        first.lock.release()
    if kick and move is not None:
        program(move.cpu)
    return run.tickets or []


def answer_tickets(cpu: Cpu, c: Callout, tickets: list[Ticket]) -> None:
    """Do what the tickets ask of the end of the run, and tell the first who asked for it what was taken away."""
    for ticket in tickets:
        if ticket.asks & T_DEQUEUE:
            if unschedule(cpu, c):
                c.state &= ~ACTIVE
                ticket.removed = True
            break
    if close_asked(tickets):
        c.state |= CLOSED


def _carry_out(c: Callout, move: Move) -> bool:
    """Arm the callout as the put-off reset wanted. Both CPUs' locks are held."""
    c.state &= ~(PENDING | MOVING)
    if c.cpu.machine.phase >= Phase.QUIESCING:  # refused, as every arming is; nobody will stop it any more
        c.state &= ~ACTIVE
        return False
    if move.cpu is not c.cpu:
        c.filed = 0
        c.cpu = move.cpu
    c.func = move.func
    c.arg = move.arg
    c.precision = move.precision
    c.state |= ACTIVE | DIRECT if move.direct else ACTIVE
    return schedule(move.cpu, c, move.time)


@protected
def serve(cpu: Cpu, run: Run, tickets: list[Ticket]) -> None:
    """Wake who waits and call the completions; no lock is held, and the callout may be gone after the first of them."""
    for ticket in tickets:
        if ticket.waiter is not None:
            ticket.waiter.set()
        if ticket.func is not None:
            try:
                call(ticket.func, ticket.arg)
            except BaseException as error:
                cpu.machine.report(error, run.callout)


# -- softclock -----------------------------------------------------------------------------------------------------


async def softclock(cpu: Cpu) -> None:
    """Run the callouts of *cpu* until the machine is closed; yield to the loop after a time budget."""
    machine = cpu.machine
    platform = machine.platform
    cpu.thread = platform.current_thread()
    now = cpu.now
    run: Run | None = None
    func: Func | None = None
    begun = sliced = now()
    while True:
        done = run
        run = _turn(cpu, cpu.expireq, done, idles=True)
        if run is None:
            idle = cpu.idle
            if idle is None:
                continue  # the interrupt was faster than this look
            done = func = None  # an idle softclock keeps nobody's callout alive
            await idle.wait()
            if not cpu.open:
                return
            begun = sliced = now()
            continue
        if run is not done:
            if run.state != STARTED:
                if not await _get_lock(cpu, run):
                    continue
                begun = now()
            func = run.func
            execute(cpu, run)
            spent = now() - begun
            begun += spent
            if spent > machine.slow and func is not None:
                machine.expensive(func, spent)
            if begun - sliced <= machine.budget:
                continue
        # More is to be done at the end of this run than the next turn does; or the loop's other tasks are to have a
        # turn, and nobody shall wait for a run whose callback has returned.
        serve(cpu, run, finish(run))
        run = None
        if begun - sliced > machine.budget:
            await platform.checkpoint()
            if not cpu.open:
                return
            begun = sliced = now()


protected(softclock)


async def _get_lock(cpu: Cpu, run: Run) -> bool:
    """Take the lock of a waiting run, parking while it is taken; return whether the run may start."""
    lock = run.lock
    assert lock is not None
    machine = cpu.machine
    if machine.stall is not None:
        await machine.stall(run.callout)
    try:
        await take_parked(lock, run.shared, machine.platform.waiter, run.callout)
    except CalloutError as error:  # destroyed, or freed
        machine.report(error, run.callout)
        return False
    if confirm(run):
        return True
    _give_up(run)
    return False


protected(_get_lock)


# -- cross-CPU calls -----------------------------------------------------------------------------------------------


@protected
def cross_call(cpu: Cpu, thunk: Callable[[], None]) -> None:
    """Have *thunk* run once on the loop of *cpu*, in its interrupt context: soon, and never inside a callback of that
    CPU.

    From any thread, at any instant, also from what interrupted the engine: no lock is taken. Never blocks.

    Does nothing if it is called by a callback, a completion or a call while the machine quiesces.

    Raises:
        ClosedError: that CPU is gone; *thunk* will not run.
    """
    machine = cpu.machine
    if machine.phase >= Phase.QUIESCING:
        use = Use.CALL_INSIDE if machine.platform.in_callback() else Use.CALL
        if not admit("call", machine, use):
            return
    thunk = partial(thunk)  # an object of its own: the same function may be queued twice
    cpu.calls.append(thunk)
    if not cpu.open:
        # Either the closing CPU took it from the queue and ran it, or it is still there and nobody ever will.
        try:
            cpu.calls.remove(thunk)
        except ValueError:
            return
        raise ClosedError(f"call: {CLOSED_TEXT}")
    machine.platform.interrupt(cpu.id)


@protected
def run_calls(cpu: Cpu) -> None:
    """Run the cross-CPU calls that have come so far, in order."""
    for _ in range(len(cpu.calls)):
        try:
            thunk = cpu.calls.popleft()
        except IndexError:
            return
        try:
            call(_run_thunk, thunk)
        except BaseException as error:
            cpu.machine.report(error, None)


def _run_thunk(thunk: Callable[[], None]) -> None:
    thunk()
