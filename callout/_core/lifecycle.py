"""Bringing a machine up on a platform, and taking it down.

Taking it down stops what is pending, waits until nothing runs, and closes the CPUs one by one, each by a cross-CPU
call: what was called before the close runs, what is called after it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .._locks.mutex import MTX_RECURSE, Mtx
from .arm import unschedule
from .calls import cross_call, run_calls
from .checks import check_int
from .cpu import Cpu
from .cpulock import acquire
from .deadline import precision_exponent
from .drain import barrier
from .errors import CalloutError, ClosedError
from .guard import protected
from .machine import Machine
from .origins import Origins
from .platform import Entry, Platform
from .refusal import Refusal
from .softclock import hardclock, softclock
from .state import ACTIVE, PENDING, QUEUED, Callout, Func
from .units import NEVER
from .wheel import callouts_of

CLOSED_TEXT = "the callout system was closed: its `async with open_callouts()` block has been left"
MAX_CPUS = 1024


def boot(
    platform: Platform,
    *,
    cpus: int,
    hz: int,
    alloweddeviation: int,
    checking: bool,
    report: Callable[[BaseException, Callout | None], None],
    expensive: Callable[[Func, int], None],
) -> Machine:
    """Make a machine and hand its CPUs to the platform."""
    check_int("open_callouts", "cpus", cpus, 1, MAX_CPUS)
    check_int("open_callouts", "hz", hz, 1, 1_000_000)
    check_int("open_callouts", "alloweddeviation", alloweddeviation, 0, 100)
    machine = Machine(platform, hz, precision_exponent(alloweddeviation))
    machine.report = report
    machine.expensive = expensive
    if checking:
        machine.held = {}
        machine.origins = Origins()
    machine.giant = Mtx("Giant", MTX_RECURSE, machine=machine)
    machine.cpus = tuple(Cpu(machine, number) for number in range(cpus))
    machine.cpus[0].only = cpus == 1
    for cpu in machine.cpus:
        platform.attach(cpu.id, Entry(partial(hardclock, cpu), partial(run_calls, cpu), partial(softclock, cpu)))
    return machine


@protected
def stop_all(cpu: Cpu) -> None:
    """Stop what is pending on *cpu*, and deferred migrations; leave runs in progress alone."""
    acquire(cpu)
    try:
        cpu.deadline = NEVER
        gone = cpu.wheel.clear()
        for lane in cpu.lanes:
            for c in callouts_of(lane.queue):
                cpu.wheel.remove(c)
                gone.append(c)
        for c in gone:
            c.state &= ~(PENDING | ACTIVE | QUEUED)
        for lane in cpu.lanes:
            run = lane.run
            if run is not None and run.move is not None:
                unschedule(cpu, run.callout)
                run.callout.state &= ~ACTIVE
    finally:
        cpu.busy = False
        cpu.lock.release()


def close_cpu(cpu: Cpu, error: type[CalloutError] = ClosedError, text: str = CLOSED_TEXT) -> None:
    """Refuse everything from now on, then run what was called before.

    On the loop of *cpu*, which has no run in progress.
    """
    idle = _shut(cpu, error, text)
    if idle is not None:
        idle()
    while cpu.calls:
        run_calls(cpu)


@protected
def _shut(cpu: Cpu, error: type[CalloutError], text: str) -> Callable[[], None] | None:
    refusal = Refusal(error, text)
    acquire(cpu)
    lock = cpu.lock
    cpu.open = False
    idle, cpu.idle = cpu.idle, None
    cpu.lock = refusal
    cpu.busy = False
    lock.release()
    return None if idle is None else idle.set


async def quiesce(machine: Machine) -> None:
    """Stop what is pending and wait until no callback runs, from a task of CPU 0's loop.

    A callback that arms a callout meanwhile is refused, as during a drain.
    """
    machine.closing = True
    cpus = [cpu for cpu in machine.cpus if cpu.open]
    for cpu in cpus:
        stop_all(cpu)
    for cpu in cpus:
        while waiters := barrier(cpu, machine.platform.waiter):
            for waiter in waiters:
                await waiter.wait()


async def close(machine: Machine) -> None:
    """Close the CPUs of a machine that is quiescent, from a task of CPU 0's loop that cannot be cancelled."""
    for cpu in machine.cpus[1:]:
        if cpu.open:
            done = machine.platform.waiter()
            cross_call(cpu, partial(_close_and_tell, cpu, done.set))
            await done.wait()
    close_cpu(machine.cpus[0])


def _close_and_tell(cpu: Cpu, tell: Callable[[], None]) -> None:
    try:
        close_cpu(cpu)
    finally:
        tell()
