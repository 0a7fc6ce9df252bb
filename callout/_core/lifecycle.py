"""Bringing a machine up on a platform, and taking it down, phase by phase (``phases``).

Taking it down: ``quiesce`` stops what is pending and waits until nothing runs and the last promised completion has
returned, while every CPU works. Then ``close`` has each CPU take no more calls and run those that it took, and only
when all have done so everything is refused. So nothing of a system that is being left ever meets a part of it that is
closed already.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NoReturn
from weakref import WeakKeyDictionary

from .._locks.mutex import MTX_RECURSE, Lock, Mtx
from .arm import attach, unschedule
from .cpu import BARRIER, Cpu, Machine, Run, Ticket
from .errors import ArgumentTypeError, ArgumentValueError, CalloutError, ClosedError, ForkedError
from .guard import guarded, protected
from .phases import CLOSED_TEXT, FORKED_TEXT, STEPS, Phase
from .platform import Entry, Platform, Thread, Waiter
from .sleep import wake_all
from .softclock import _enter, cross_call, finish, hardclock, run_calls, serve, softclock
from .state import ACTIVE, MOVING, PENDING, Callout, Func, Refusal
from .units import NEVER, NS_PER_S, precision_exponent

MAX_CPUS: Final = 1024
SOFTCLOCK: Final = 0  # whose run it is
INTERRUPT: Final = 1


def check_int(call: str, name: str, value: object, low: int, high: int) -> int:
    """Return *value* if it is an int in that range."""
    if type(value) is not int:
        raise ArgumentTypeError(f"{call}: {name} must be an int, not {value!r}")
    if not low <= value <= high:
        raise ArgumentValueError(f"{call}: {name} must be from {low} to {high}, got {value}")
    return value


# -- up ------------------------------------------------------------------------------------------------------------


def boot(
    platform: Platform,
    *,
    cpus: int,
    hz: int,
    alloweddeviation: int,
    checking: bool,
    report: Callable[[BaseException, Callout | None], None] | None = None,
    expensive: Callable[[Func, int], None] | None = None,
) -> Machine:
    """Make a machine, which is OPENING, and hand its CPUs to the platform. When these are up, ``enter`` OPEN."""
    check_int("open_callouts", "cpus", cpus, 1, MAX_CPUS)
    check_int("open_callouts", "hz", hz, 1, 1_000_000)
    check_int("open_callouts", "alloweddeviation", alloweddeviation, 0, 100)
    machine = Machine(platform, hz, NS_PER_S // hz, precision_exponent(alloweddeviation))
    if report is not None:
        machine.report = report
    if expensive is not None:
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


# -- phases --------------------------------------------------------------------------------------------------------


@guarded
def enter(machine: Machine, phase: Phase) -> None:
    """Enter *phase*, under the locks of all CPUs. When CLOSED, every later use of a CPU is refused."""
    assert phase in STEPS[machine.phase], f"{machine.phase.name} -> {phase.name}"
    held = []
    try:
        for cpu in machine.cpus:
            _enter(cpu)
            held.append(cpu.lock)
        machine.phase = phase
        if phase is Phase.CLOSED:
            for cpu in machine.cpus:
                cpu.lock = Refusal(ClosedError, CLOSED_TEXT, cpu.lock)
    finally:
        for lock in reversed(held):
            lock.release()


def fork(machine: Machine) -> None:
    """In a forked child: refuse every use from now on.

    What the child has is a picture of the parent's memory in which any lock may be held, for ever, so no lock is taken.
    """
    machine.phase = Phase.FORKED
    machine.dead = Refusal(ForkedError, FORKED_TEXT)
    machine.held = _Forked()  # every lock that is acquired or released is noted there, and so is refused
    for cpu in machine.cpus:
        cpu.open = False
        cpu.lock = machine.dead


class _Forked(dict[Thread, list[Lock]]):
    """Stands where it is noted which locks a thread holds."""

    def _refuse(self, *_: object) -> NoReturn:
        Refusal(ForkedError, FORKED_TEXT).acquire()

    setdefault = get = __getitem__ = __contains__ = _refuse


# -- down ----------------------------------------------------------------------------------------------------------


def runs(cpu: Cpu) -> tuple[Run, ...]:
    """Return the runs in progress on *cpu*: softclock's, and the clock interrupt's."""
    return tuple(run for run in (cpu.standing, cpu.direct) if run is not None)


@guarded
def stop_all(cpu: Cpu) -> list[Callout]:
    """Stop what is pending on *cpu*, deferred migrations too, and return it; leave runs in progress alone."""
    stopped = []
    _enter(cpu)
    try:
        cpu.deadline = NEVER
        for c in cpu.wheel.clear():
            c.state &= ~(PENDING | ACTIVE)
            stopped.append(c)
        for queue in (cpu.expireq, cpu.directq):
            while (due := queue.pop()) is not None:
                due.state &= ~(PENDING | ACTIVE)
                stopped.append(due)
        for run in runs(cpu):
            if run.callout.state & MOVING:
                unschedule(cpu, run.callout)
                run.callout.state &= ~ACTIVE
                stopped.append(run.callout)
    finally:
        cpu.lock.release()
    return stopped


@guarded
def _barrier(cpu: Cpu) -> list[Waiter]:
    """Return what the ends of the runs in progress on *cpu* will set."""
    waiters = []
    _enter(cpu)
    try:
        for run in runs(cpu):
            waiters.append(cpu.machine.platform.waiter())
            attach(run.callout, Ticket(BARRIER, waiters[-1]))
    finally:
        cpu.lock.release()
    return waiters


async def quiesce(machine: Machine) -> list[Callout]:
    """Stop what is pending, wait until no callback or completion runs; return what was stopped.

    From a task of CPU 0's loop. Arming is refused from now on, and calls from callbacks.
    """
    if machine.phase < Phase.CANCELLING:
        enter(machine, Phase.CANCELLING)
    enter(machine, Phase.QUIESCING)
    stopped = [c for cpu in machine.cpus for c in stop_all(cpu)]
    for cpu in machine.cpus:
        for waiter in _barrier(cpu):
            await waiter.wait()
    # No run is in progress, and none will be. But the completions of the last may still be called, on the loop of their
    # CPU, which then takes no call.
    for cpu in machine.cpus:
        back = machine.platform.waiter()
        try:
            cross_call(cpu, back.set)
        except ClosedError:
            continue  # its loop has died
        await back.wait()
    return stopped


async def close(machine: Machine) -> None:
    """Close a machine that is quiescent, from a task of CPU 0's loop that cannot be cancelled."""
    for cpu in machine.cpus:
        done = machine.platform.waiter()
        try:
            cross_call(cpu, partial(_end_and_tell, cpu, done.set))
        except ClosedError:
            continue
        await done.wait()
    enter(machine, Phase.CLOSED)
    wake_all(machine)


def _end_and_tell(cpu: Cpu, tell: Callable[[], None]) -> None:
    try:
        end_calls(cpu)
    finally:
        tell()


def end_calls(cpu: Cpu) -> None:
    """Have *cpu* take no more calls, run those that it took, and end its softclock. On its loop."""
    idle = _shut(cpu)
    if idle is not None:
        idle.set()
    while cpu.calls:
        run_calls(cpu)


@guarded
def _shut(cpu: Cpu) -> Waiter | None:
    _enter(cpu)
    cpu.open = False
    idle, cpu.idle = cpu.idle, None
    cpu.lock.release()
    return idle


@protected
def abandon(cpu: Cpu, lane: int) -> None:
    """End the run in progress of softclock or of the clock interrupt of *cpu*, which has died in the middle: release
    the callout's lock, serve who waits. On its loop.
    """
    run = (cpu.standing, cpu.direct)[lane]
    if run is None:
        return
    try:
        if run.lock is not None and run.lock.holds():
            run.lock.give(run.shared)
    except CalloutError as error:
        cpu.machine.report(error, run.callout)
    serve(cpu, run, finish(run))
