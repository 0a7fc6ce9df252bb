"""The life of a system: every kind of call, in every phase, on both platforms, does what the table says."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import pytest
import trio

import callout
from callout import (
    C_ABSOLUTE,
    Callout,
    CalloutSystem,
    ClosedError,
    DeadlockError,
    Event,
    ForkedError,
    Mtx,
    RmLock,
    RwLock,
    callout_drain_async,
    callout_init,
    callout_pending,
    callout_reset,
    open_callouts,
)
from callout._core import phases
from callout._core.lifecycle import end_calls, enter, fork
from callout._core.machine import CURRENT, Machine
from callout._core.phases import ADMITS, STEPS, Admission, Phase, Use
from callout._core.state import CLOSED as TERMINATED
from callout.testing import VirtualSMP

Op = Callable[["Things"], object]
HOUR: Final = 3_600_000  # ticks


def ignore(arg: object) -> None:
    """Be a callback that does nothing."""


class Things:
    """What there is to use, made while the system is open."""

    def __init__(self, machine: Machine, system: CalloutSystem | None = None) -> None:
        self.machine = machine
        self.system = system
        self.c = Callout()
        callout_init(self.c, 1)
        callout_reset(self.c, HOUR, ignore, None)
        callout.callout_stop(self.c)
        self.mtx, self.rw, self.event = Mtx("m"), RwLock("rw"), Event()

    def cpu(self) -> callout.CpuHandle:
        """Return CPU 0 of the trio system."""
        assert self.system is not None
        return self.system.cpu(0)


def armed(things: Things, arm: Callable[[Callout], object]) -> Admission:
    """Arm, and say whether that has armed anything."""
    result = arm(things.c)

    assert result == 0
    return Admission.WORKS if callout_pending(things.c) else Admission.NOTHING


def waits(things: Things) -> None:
    """Begin to wait for an event that is not set; that it waits shows that it was admitted."""
    waiting: Coroutine[Any, Any, bool] = things.event.wait()
    try:
        waiting.send(None)
    finally:
        waiting.close()


def blocks(things: Things) -> None:
    """Wait for an event that nobody will ever set; that this is seen shows that it was admitted."""
    with pytest.raises(DeadlockError):
        things.event.wait_sync()
    things.machine.sleepers.clear()


def now(make: Callable[[Callout], Coroutine[Any, Any, int]]) -> Op:
    """Await what need not wait."""

    def op(things: Things) -> None:
        with pytest.raises(StopIteration):
            make(things.c).send(None)

    return op


def called(things: Things, call: Callable[[], object]) -> Admission:
    """Make a cross-CPU call, and say whether it was taken."""
    calls = things.machine.cpus[0].calls
    before = len(calls)
    call()
    taken = len(calls) - before
    if taken:
        calls.pop()
    return Admission.WORKS if taken else Admission.NOTHING


def started(things: Things) -> Admission:
    """Start a task, and say whether it was taken."""
    handed_over = things.cpu()._tasks._handed_over
    before = len(handed_over)
    things.cpu().start_soon(trio.sleep, 0)
    if len(handed_over) == before:
        return Admission.NOTHING
    things.cpu()._tasks._over(handed_over.pop())
    return Admission.WORKS


def tried(mtx: Mtx) -> None:
    """Try a mutex, and release it."""
    assert mtx.trylock() == 1
    mtx.unlock()


def read(rw: RwLock) -> None:
    """Hold a read/write lock for reading."""
    with rw.read():
        pass


@contextmanager
def bound(things: Things) -> Iterator[None]:
    """Bind this task to the system."""
    assert things.system is not None
    with things.system.bound():
        yield


OPS: Final[Mapping[Use, Mapping[str, Op]]] = {
    Use.INIT: {
        "callout_init": lambda s: callout_init(Callout(), 1),
        "callout_init Giant": lambda s: callout_init(Callout(), 0),
        "Mtx": lambda s: Mtx(),
        "RwLock": lambda s: RwLock(),
        "RmLock": lambda s: RmLock(),
        "Event": lambda s: Event(),
    },
    Use.ARM: {
        "callout_reset": lambda s: armed(s, lambda c: callout_reset(c, HOUR, ignore, None)),
        "callout_reset_on": lambda s: armed(s, lambda c: callout.callout_reset_on(c, HOUR, ignore, None, 0)),
        "callout_reset_curcpu": lambda s: armed(s, lambda c: callout.callout_reset_curcpu(c, HOUR, ignore, None)),
        "callout_reset_sbt": lambda s: armed(
            s, lambda c: callout.callout_reset_sbt(c, 1 << 60, 0, ignore, None, C_ABSOLUTE)
        ),
        "callout_schedule": lambda s: armed(s, lambda c: callout.callout_schedule(c, HOUR)),
        "callout_schedule_on": lambda s: armed(s, lambda c: callout.callout_schedule_on(c, HOUR, 0)),
        "callout_arm": lambda s: armed(s, lambda c: callout.callout_arm(c, 1 << 60, ignore, None)),
        "callout_arm_curcpu": lambda s: armed(s, lambda c: callout.callout_arm_curcpu(c, 1 << 60, ignore, None)),
    },
    Use.STOP: {
        "callout_stop": lambda s: callout.callout_stop(s.c),
        "callout_drain": now(callout.callout_drain),
        "callout_barrier": now(callout.callout_barrier),
        "callout_terminate": now(callout.callout_terminate),
        "callout_drain_async": lambda s: callout_drain_async(s.c, ignore, None),
        "callout_dequeue": lambda s: callout.callout_dequeue(s.c),
        "callout_quiesce": now(callout.callout_quiesce),
        "callout_deactivate": lambda s: callout.callout_deactivate(s.c),
    },
    Use.LOOK: {
        "callout_pending": lambda s: callout_pending(s.c),
        "callout_active": lambda s: callout.callout_active(s.c),
        "callout_running": lambda s: callout.callout_running(s.c),
        "callout_executing": lambda s: callout.callout_executing(s.c),
        "callout_armed_with": lambda s: callout.callout_armed_with(s.c, None),
        "callout_armed_with something else": lambda s: callout.callout_armed_with(s.c, 1),
        "callout_terminated": lambda s: callout.callout_terminated(s.c),
        "is_set": lambda s: s.event.is_set(),
        "set": lambda s: s.event.set(),
    },
    Use.WAIT: {},
    Use.CURRENT: {
        "ticks": lambda s: callout.ticks(),
        "hz": lambda s: callout.hz(),
        "curcpu": lambda s: callout.curcpu(),
        "sbinuptime": lambda s: callout.sbinuptime(),
        "giant": lambda s: callout.giant(),
        "mp_ncpus": lambda s: callout.mp_ncpus(),
        "on_cpu": lambda s: callout.on_cpu(0),
        "mp_maxid": lambda s: callout.mp_maxid(),
        "CPU_FOREACH": lambda s: callout.CPU_FOREACH(),
        "tick_sbt": lambda s: callout.tick_sbt(),
        "callout_when": lambda s: callout.callout_when(1, 0),
    },
    Use.LOCK: {
        "with mtx": lambda s: s.mtx.__enter__().__exit__(),
        "mtx_trylock": lambda s: tried(s.mtx),
        "with Giant": lambda s: s.machine.giant.__enter__().__exit__(),
        "with rw": lambda s: s.rw.__enter__().__exit__(),
        "with rw.read()": lambda s: read(s.rw),
    },
    Use.CALL: {"cpu_call": lambda s: called(s, lambda: callout.cpu_call(0, ignore, None))},
    Use.CALL_INSIDE: {"cpu_call": lambda s: called(s, lambda: callout.cpu_call(0, ignore, None))},
    Use.START: {},
    Use.START_INSIDE: {},
}

# What only a system on trio has.
TRIO_OPS: Final[Mapping[Use, Mapping[str, Op]]] = {
    Use.INIT: {"bound": lambda s: bound(s).__enter__()},
    Use.WAIT: {"wait": waits},
    Use.CURRENT: {
        "system.ticks": lambda s: s.system and s.system.ticks(),
        "system.sbinuptime": lambda s: s.system and s.system.sbinuptime(),
    },
    Use.CALL: {"call": lambda s: called(s, lambda: s.cpu().call(ignore, None))},
    Use.CALL_INSIDE: {"call": lambda s: called(s, lambda: s.cpu().call(ignore, None))},
    Use.START: {"start_soon": started},
    Use.START_INSIDE: {"start_soon": started},
}
INSIDE: Final = {Use.CALL_INSIDE, Use.START_INSIDE}


def outcome(op: Op, things: Things) -> Admission:
    """Return what *op* did."""
    try:
        result = op(things)
    except ClosedError:
        return Admission.CLOSED
    except ForkedError:
        return Admission.FORKED
    return result if isinstance(result, Admission) else Admission.WORKS


def check(use: Use, phase: Phase, things: Things, ops: Mapping[str, Op]) -> None:
    """Assert that all *ops* do what the table says."""
    token = CURRENT.set(things.machine)
    try:
        found = {}
        for name, op in ops.items():
            found[name] = outcome(op, things)
            if phase < Phase.CLOSED:
                callout.callout_stop(things.c)
                things.c.state &= ~TERMINATED  # callout_terminate() is one of them
    finally:
        CURRENT.reset(token)

    assert found == dict.fromkeys(ops, ADMITS[use][phase])


each_cell = pytest.mark.parametrize(
    ("use", "phase"), [(use, phase) for use in Use for phase in Phase], ids=lambda cell: cell.name
)


def test_the_table_is_complete() -> None:
    """There is a row for every use, with a cell for every phase, and an operation for every row."""
    assert set(ADMITS) == set(Use)
    assert all(set(row) == set(Phase) for row in ADMITS.values())
    assert set(STEPS) == set(Phase)
    assert all(OPS[use] or TRIO_OPS[use] for use in Use)


def test_phases_go_forward() -> None:
    """No step leads back, and from every phase but the last there is a way to the close."""
    assert all(after > before for before, steps in STEPS.items() for after in steps)
    assert all(steps for phase, steps in STEPS.items() if phase is not Phase.FORKED)


def put_into(machine: Machine, phase: Phase) -> None:
    """Have a machine be in a phase, as ``enter()`` does, whatever the one before."""
    machine.phase = phase
    for cpu in machine.cpus:
        cpu.plain = None if phase >= Phase.QUIESCING else cpu


@each_cell
def test_on_virtual_cpus(use: Use, phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell of the table, on virtual CPUs."""
    monkeypatch.setattr(phases, "IN_CHILD", False)
    ops = {"wait_sync": blocks} if use is Use.WAIT else OPS[use]
    with VirtualSMP(1, free_clock=False) as vm:
        things = Things(vm.machine)
        if phase is Phase.FORKED:
            fork(vm.machine)
        elif phase is Phase.CLOSED:
            for step in (Phase.CANCELLING, Phase.QUIESCING, Phase.CLOSED):
                enter(vm.machine, step)
        failed: list[BaseException] = []

        def play() -> None:
            before = vm.machine.phase
            put_into(vm.machine, phase)
            try:
                check(use, phase, things, ops)
            except BaseException as error:
                failed.append(error)
            put_into(vm.machine, before)

        if use in INSIDE and phase < Phase.CLOSED:
            vm.call(0, play)
            vm.settle()
        elif use in INSIDE:
            monkeypatch.setattr(vm.platform, "in_callback", lambda: True)  # nothing runs any more that could be one
            play()
        else:
            play()
        for error in failed:
            raise error


def played(arg: tuple[Callable[[], None], trio.Event]) -> None:
    """Play, and tell so."""
    play, done = arg
    play()
    done.set()


def from_callback(things: Things, play: Callable[[], None], done: trio.Event) -> None:
    """Have it played by a callback."""
    c = Callout()
    callout_init(c, 1)
    callout_reset(c, 1, played, (play, done))


def from_completion(things: Things, play: Callable[[], None], done: trio.Event) -> None:
    """Have it played by the completion of a drain."""
    c = Callout()
    callout_init(c, 1)
    callout_reset(c, 1, lambda arg: callout_drain_async(c, played, (play, done)), None)


def from_call(things: Things, play: Callable[[], None], done: trio.Event) -> None:
    """Have it played by a cross-CPU call."""
    things.cpu().call(played, (play, done))


def from_task(things: Things, play: Callable[[], None], done: trio.Event) -> None:
    """Have it played by a task of the system."""

    async def task() -> None:
        play()
        done.set()

    things.cpu().start_soon(task)


Place = Callable[[Things, Callable[[], None], trio.Event], None]


@pytest.mark.trio
@each_cell
async def test_on_trio(use: Use, phase: Phase) -> None:
    """Every cell of the table, on a real loop; what is inside is played by a callback, a completion, a call, a task."""
    ops = {**OPS[use], **TRIO_OPS.get(use, {})}
    places: list[Place] = [from_callback, from_completion, from_call] if use in INSIDE else []
    if use is Use.START_INSIDE:
        places.append(from_task)
    failed: list[BaseException] = []
    async with open_callouts() as system:
        things = Things(system._machine, system)
        closed_or_later = phase >= Phase.CLOSED

        def play() -> None:
            put_into(system._machine, phase)
            try:
                check(use, phase, things, ops)
            except BaseException as error:
                failed.append(error)
            put_into(system._machine, Phase.OPEN)

        if phase is Phase.FORKED:
            text = in_child(partial(check, use, phase, things, ops))
            assert text == ""
        if use not in INSIDE and not closed_or_later:
            play()
        for place in places:
            if phase is not Phase.FORKED:
                done = trio.Event()
                place(things, play, done)
                await done.wait()
    if phase is Phase.CLOSED and use not in INSIDE:
        check(use, phase, things, ops)
    for error in failed:
        raise error


def in_child(play: Callable[[], None]) -> str:
    """Play it in a forked child; return what it raised there."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads: the child uses none
        child = os.fork()
    if child == 0:
        try:
            play()
        except BaseException as error:
            os.write(write, str(error).encode()[:4000] or b"?")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def test_a_cpu_that_takes_no_more_calls_is_not_closed_yet() -> None:
    """Between the last call of a CPU and the close everything works as while quiescing, and no lock stays held."""
    with VirtualSMP(1, free_clock=False) as vm:
        things = Things(vm.machine)
        enter(vm.machine, Phase.CANCELLING)
        enter(vm.machine, Phase.QUIESCING)
        end_calls(vm.machine.cpus[0])
        for use in (Use.INIT, Use.ARM, Use.STOP, Use.LOOK, Use.CURRENT, Use.LOCK):
            check(use, Phase.QUIESCING, things, OPS[use])
        callout.callout_init_mtx(things.c, things.mtx)
        with pytest.raises(callout.LockNotHeldError):
            callout.callout_stop(things.c)

        assert not vm.machine.cpus[0].lock._is_owned()
        assert not vm.machine.cpus[0].busy
