"""The clock interrupt and softclock: what happens on a CPU by itself.

The clock interrupt (``hardclock``) moves due callouts from the wheel to the queues of the CPU's two lanes and runs the
direct ones on the spot. Softclock, one task a CPU, runs the others in order. ``runs`` says how.

This is never compiled: a report finds the lane on the stack, and the marks that keep Ctrl-C out are on these frames.

Source: kern_timeout.c, callout_process(), softclock_thread().
"""

from __future__ import annotations

from .._locks.mutex import Mtx
from .._locks.parking import acquire_parked, park
from .cpu import Cpu, Run
from .errors import CalloutError
from .guard import protected
from .runs import confirm, end, execute, fail, run_started, scan, skip
from .trace import TraceKind, tell
from .units import NEVER

# -- the clock interrupt -----------------------------------------------------------------------------------------------


@protected
def hardclock(cpu: Cpu) -> bool:
    """Do a clock interrupt on the loop of *cpu*; return whether there is more to do now. Direct callbacks run here."""
    if not cpu.open:
        return False  # closed by this loop since the timer fired
    cpu.tally.wakeups += 1
    more = scan(cpu)
    lane = cpu.interrupt
    now = cpu.now()
    until = min(now + cpu.machine.budget, NEVER)
    while (run := run_started(lane, now, until)) is not None:
        now = _run_locked(run)
        if now > until:
            break
    if lane.run is not None:  # the time is over
        end(lane)
        if lane.queue:
            return True
    idle = cpu.idle
    if idle is not None and cpu.softclock.queue:
        idle.set_here()  # first: what is cut short here would otherwise be forgotten, and softclock sleep for ever
        cpu.idle = None
    return more


def _run_locked(run: Run) -> int:
    """Run a direct callout under its spin mutex, which is waited for on the spot; return when it ended."""
    now = run.cpu.now
    assert isinstance(run.lock, Mtx), "rule 1"
    try:
        run.lock.__enter__()
    except CalloutError as error:
        fail(run, error)
        return now()
    if confirm(run):
        return execute(run, now())
    skip(run)
    return now()


# -- softclock ---------------------------------------------------------------------------------------------------------


@protected
async def softclock(cpu: Cpu) -> None:
    """Run the callouts of *cpu* until the machine is closed; yield to the loop after a time budget."""
    machine = cpu.machine
    lane = cpu.softclock
    cpu.thread = machine.platform.current_thread()
    now = cpu.now
    begun = now()
    until = min(begun + machine.budget, NEVER)
    while True:
        run = run_started(lane, begun, until)
        if run is not None:
            may_start = await _get_lock(run)
            begun = now()
            if may_start:
                begun = execute(run, begun)
            run = None  # an idle softclock keeps nobody's callout alive
            if begun <= until:
                continue
        if lane.run is None:
            idle = cpu.idle
            assert idle is not None, "the interrupt, on this very loop, has not come between"
            await idle.wait()
        else:  # the time is over
            end(lane)  # nobody shall wait for a run whose callback has returned
            await machine.platform.checkpoint()
        if not cpu.open:
            return
        begun = now()
        until = min(begun + machine.budget, NEVER)


@protected
async def _get_lock(run: Run) -> bool:
    """Acquire the lock of a waiting run, parking while another thread holds it; return whether the run may start."""
    lock = run.lock
    assert lock is not None
    machine = run.cpu.machine
    wait = park  # it was tried already
    if machine.stall is not None:
        await machine.stall(run.callout)
        wait = acquire_parked
    tally = run.cpu.tally
    now = run.cpu.now
    parked = now()
    tally.parks += 1
    tell(run.cpu, TraceKind.WAITING, run.callout, run.func)
    try:
        await wait(lock, run.shared, machine.platform.waiter, run.callout)
    except CalloutError as error:  # destroyed, or freed
        fail(run, error)
        return False
    finally:
        tally.parked += now() - parked
    if confirm(run):
        return True
    skip(run)
    return False
