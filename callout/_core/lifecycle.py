"""Bringing a machine up on a platform, and taking it down.

Taking it down stops what is pending, waits until nothing runs, and closes the CPUs one by one, each by a cross-CPU
call: what was called before the close runs, what is called after it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from weakref import WeakKeyDictionary

from .._locks.mutex import MTX_RECURSE, Mtx
from .arm import attach, unschedule
from .cpu import BARRIER, Cpu, Machine, Ticket
from .errors import ArgumentTypeError, ArgumentValueError, CalloutError, ClosedError
from .guard import guarded
from .platform import Entry, Platform
from .softclock import _enter, cross_call, hardclock, run_calls, softclock
from .state import ACTIVE, MOVING, PENDING, Callout, Func, Refusal
from .units import NEVER, NS_PER_S, precision_exponent

CLOSED_TEXT = "the callout system was closed: its `async with open_callouts()` block has been left"
MAX_CPUS = 1024
MAX_HZ = 1_000_000


def check_int(call: str, name: str, value: object, low: int, high: int) -> int:
    """Return *value* if it is an int in that range."""
    if type(value) is not int:
        raise ArgumentTypeError(f"{call}: {name} must be an int, not {value!r}")
    if not low <= value <= high:
        raise ArgumentValueError(f"{call}: {name} must be from {low} to {high}, got {value}")
    return value


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
    check_int("open_callouts", "hz", hz, 1, MAX_HZ)
    check_int("open_callouts", "alloweddeviation", alloweddeviation, 0, 100)
    machine = Machine(platform, hz, NS_PER_S // hz, precision_exponent(alloweddeviation))
    machine.report = report
    machine.expensive = expensive
    if checking:
        machine.held = {}
        machine.origins = WeakKeyDictionary()
    machine.giant = Mtx("Giant", MTX_RECURSE, machine=machine)
    machine.cpus = tuple(Cpu(machine, number) for number in range(cpus))
    machine.cpus[0].only = cpus == 1
    for cpu in machine.cpus:
        platform.attach(cpu.id, Entry(partial(hardclock, cpu), partial(run_calls, cpu), partial(softclock, cpu)))
    return machine


@guarded
def stop_all(cpu: Cpu) -> None:
    """Stop what is pending on *cpu*, and put-off moves; leave runs in progress alone."""
    _enter(cpu)
    try:
        cpu.deadline = NEVER
        for c in cpu.wheel.clear():
            c.state &= ~(PENDING | ACTIVE)
        for queue in (cpu.expireq, cpu.directq):
            while (due := queue.pop()) is not None:
                due.state &= ~(PENDING | ACTIVE)
        for run in (cpu.standing, cpu.direct):
            if run is not None and run.callout.state & MOVING:
                unschedule(cpu, run.callout)
                run.callout.state &= ~ACTIVE
    finally:
        cpu.lock.release()


@guarded
def _barrier(cpu: Cpu) -> Ticket | None:
    """Return a ticket for the end of softclock's run on *cpu*, or None if it has none."""
    _enter(cpu)
    try:
        if cpu.standing is None:
            return None
        ticket = Ticket(BARRIER, cpu.machine.platform.waiter())
        attach(cpu.standing.callout, ticket)
        return ticket
    finally:
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


@guarded
def _shut(cpu: Cpu, error: type[CalloutError], text: str) -> Callable[[], None] | None:
    _enter(cpu)
    lock = cpu.lock
    cpu.open = False
    idle, cpu.idle = cpu.idle, None
    cpu.lock = Refusal(error, text, lock)
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
        while (ticket := _barrier(cpu)) is not None:
            assert ticket.waiter is not None
            await ticket.waiter.wait()


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
