"""Bringing a machine up on a platform, and taking it down, phase by phase (``phases``).

Taking it down: ``quiesce`` stops what is pending and waits until nothing runs and the last promised completion has
returned, while every CPU works. Then ``close`` has each CPU take no more calls and run those that it took, and only
when all have done so everything is refused. So nothing of a system that is being left ever meets a part of it that is
closed already.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from .._locks.lock import Lock
from .._locks.mutex import MTX_RECURSE, Mtx
from . import phases
from .arm import fresh_state, unschedule
from .callback import call
from .calls import cross_call, run_calls
from .checks import check_int
from .cpu import Cpu, Lane, Run
from .cpulock import acquire
from .deadline import precision_exponent
from .drain import barrier
from .errors import CalloutError, ClosedError, ForkedError
from .guard import protected
from .machine import Machine
from .origins import Origins
from .phases import FORKED_TEXT, STEPS, Phase, closed_text
from .platform import Entry, Platform, Thread, Waiter
from .refusal import Refusal
from .runs import end
from .sleep import wake_all
from .softclock import hardclock, softclock
from .state import ACTIVE, PENDING, QUEUED, Func
from .trace import TraceKind, Tracer, tell
from .units import NEVER
from .wheel import callouts_of
from .witness import Witness

if TYPE_CHECKING:
    from .._api.callout import Callout

MAX_CPUS: Final = 1024
MAX_HZ: Final = 1_000_000


# -- up ------------------------------------------------------------------------------------------------------------


def _untold(func: Func, ns: int) -> None:
    """Tell nobody that a callback was expensive."""


def check_options(call: str, cpus: int, hz: int, alloweddeviation: int) -> None:
    """Raise unless *call* can make a machine of these."""
    check_int(call, "cpus", cpus, 1, MAX_CPUS)
    check_int(call, "hz", hz, 1, MAX_HZ)
    check_int(call, "alloweddeviation", alloweddeviation, 0, 100)


def boot(
    platform: Platform,
    *,
    kind: type[Callout],
    cpus: int,
    hz: int,
    alloweddeviation: int,
    checking: bool,
    expensive: Callable[[Func, int], None] = _untold,
) -> Machine:
    """Make a machine, which is OPENING, and hand its CPUs to the platform. When these are up, ``enter`` OPEN.

    *kind* is the class of the callouts that the engine makes itself.
    The caller has checked the options, and says where errors are reported (``Machine.report``).
    """
    machine = Machine(platform, hz, precision_exponent(alloweddeviation))
    machine.expensive = expensive
    if checking:
        machine.held = {}
        machine.origins = Origins()
        machine.witness = Witness(machine)
        machine.call = partial(machine.witness.run, call)
    else:
        machine.call = call
    machine.giant = Mtx("Giant", MTX_RECURSE, machine=machine)
    machine.cpus = tuple(Cpu(machine, number) for number in range(cpus))
    machine.cpus[0].only = cpus == 1
    machine.plain = kind
    machine.kind = platform.racy(kind)
    if machine.kind is kind:
        machine.fresh = fresh_state(machine)
    for cpu in machine.cpus:
        platform.attach(cpu.id, Entry(partial(hardclock, cpu), partial(run_calls, cpu), partial(softclock, cpu)))
    return machine


# -- phases --------------------------------------------------------------------------------------------------------


@protected
def enter(machine: Machine, phase: Phase) -> None:
    """Enter *phase*, under the locks of all CPUs. When CLOSED, every later use of a CPU is refused."""
    assert phase in STEPS[machine.phase], f"{machine.phase.name} -> {phase.name}"
    closed = Refusal(ClosedError, closed_text(machine))
    held: list[Cpu] = []
    try:
        for cpu in machine.cpus:
            acquire(cpu)
            held.append(cpu)
        machine.phase = phase
    finally:
        # Twice, for an exception of a signal handler that comes in the first: then the second does the rest.
        try:
            _let_go(machine, held, closed)
        finally:
            _let_go(machine, held, closed)


@protected
def _let_go(machine: Machine, held: list[Cpu], closed: Refusal) -> None:
    """Release the locks of *held*, and have them replaced by *closed* if the machine is."""
    plain = machine.phase < Phase.QUIESCING and machine.trace is None
    if machine.phase is Phase.CLOSED:
        machine.fresh = None
    while held:
        cpu = held[-1]
        lock = cpu.lock
        del held[-1]  # no call, and so one step with what follows
        cpu.plain = cpu if plain else None
        if machine.phase is Phase.CLOSED:
            cpu.lock = closed
        cpu.busy = False
        lock.release()


@protected
def trace_with(machine: Machine, tracer: Tracer | None) -> None:
    """Have *tracer* be told of every event; None: nobody any more. Under the locks of all CPUs."""
    held: list[Cpu] = []
    try:
        for cpu in machine.cpus:
            acquire(cpu, "tracing")
            held.append(cpu)
        machine.trace = tracer
        plain = tracer is None and machine.phase < Phase.QUIESCING
        for cpu in held:
            cpu.plain = cpu if plain else None
    finally:
        for cpu in reversed(held):
            cpu.busy = False
            cpu.lock.release()


def fork(machine: Machine) -> None:
    """In a forked child: refuse every use from now on.

    What the child has is a picture of the parent's memory in which any lock may be held, for ever, so no lock is
    acquired.
    """
    phases.IN_CHILD = True
    machine.phase = Phase.FORKED
    machine.fresh = None
    machine.dead = Refusal(ForkedError, FORKED_TEXT)
    machine.held = _Forked()  # every lock that is acquired or released is noted there, and so is refused
    for cpu in machine.cpus:
        cpu.open = False
        cpu.lock = machine.dead


class _Forked(dict[Thread, list[Lock]]):
    """Stands where it is noted which locks a thread holds."""

    def _refuse(self, *_: object) -> NoReturn:
        Refusal(ForkedError, FORKED_TEXT).refuse()

    setdefault = get = __getitem__ = __contains__ = _refuse


# -- down ----------------------------------------------------------------------------------------------------------


def runs(cpu: Cpu) -> tuple[Run, ...]:
    """Return the runs in progress on *cpu*: softclock's, and the clock interrupt's."""
    return tuple(run for lane in cpu.lanes if (run := lane.run) is not None)


@protected
def stop_all(cpu: Cpu) -> list[Callout]:
    """Stop what is pending on *cpu*, deferred migrations too, and return it; leave runs in progress alone."""
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
        cpu.removed += len(gone)
        for run in runs(cpu):
            if run.move is not None:
                unschedule(cpu, run.callout)
                run.callout.state &= ~ACTIVE
                gone.append(run.callout)
        for c in gone:
            tell(cpu, TraceKind.STOPPED, c)
    finally:
        cpu.busy = False
        cpu.lock.release()
    return gone


async def quiesce(machine: Machine) -> list[Callout]:
    """Stop what is pending, wait until no callback or completion runs; return what was stopped.

    From a task of CPU 0's loop. Arming is refused from now on, and calls from callbacks.
    """
    enter(machine, Phase.QUIESCING)
    stopped = [c for cpu in machine.cpus for c in stop_all(cpu)]
    for cpu in machine.cpus:
        for waiter in barrier(cpu, machine.platform.waiter):
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


@protected
def _shut(cpu: Cpu) -> Waiter | None:
    acquire(cpu)
    cpu.open = False
    idle, cpu.idle = cpu.idle, None
    cpu.busy = False
    cpu.lock.release()
    return idle


@protected
def abandon(lane: Lane) -> None:
    """End the lane's run, if it has one: softclock or the event timer has died in the middle of it. Release the
    callout's lock, serve the tickets. On the loop of its CPU.
    """
    run = lane.run
    if run is None:
        return
    try:
        if run.lock is not None:
            run.lock.drop_all()
    except CalloutError as error:
        lane.cpu.machine.report(error, run.callout)
    end(lane)
