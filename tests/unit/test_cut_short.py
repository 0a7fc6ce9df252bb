"""An exception that a signal handler raises cuts no operation in two: it is done, or it was not begun.

CPython runs signal handlers between two instructions, but only at certain ones: when a function is entered, after a
call of what is not written in Python, and at the end of a loop. ``Cut`` raises at each of these places in turn, in the
package's own frames, as a handler that raises does, and as KeyboardInterrupt does in a main thread without trio.

One thing cannot be had in plain Python: the way out of a ``with`` block of a mutex begins with entering ``__exit__()``,
and an exception that is raised there leaves the mutex held. The engine's own locks have no such place.
"""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import pytest
import trio

import callout
from callout import (
    C_DIRECT_EXEC,
    MTX_RECURSE,
    MTX_SPIN,
    SBT_1MS,
    Callout,
    CalloutSystem,
    Mtx,
    ReentrantCallError,
    RwLock,
    callout_active,
    callout_arm_curcpu,
    callout_deactivate,
    callout_dequeue,
    callout_drain_all_async,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_schedule,
    callout_stop,
    callout_terminated,
    close_all_soon,
    freebsd13,
    open_callouts,
    ticks,
)
from callout._core.cpu import DRAIN, T_CLOSE
from callout._core.cpulock import release_if_owned
from callout._core.drain import begin
from callout._core.invariants import check, check_cpu
from callout._core.lifecycle import enter
from callout._core.phases import Phase
from callout._core.rawlock import RawLock
from callout._core.short import arm_new
from callout._core.units import NEVER
from callout.testing import VirtualSMP

pytestmark = pytest.mark.pure

CORE: Final = tuple(str(Path(callout.__file__).parent / room) for room in ("_core", "_locks", "_api"))
AFTER: Final = frozenset(
    opcode for name, opcode in dis.opmap.items() if name.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))
)


WAYS_OUT: Final = ("__exit__", "_unlock", "wunlock", "runlock", "_note_released", "wake_all")


class Handler(Exception):  # noqa: N818 - what a signal handler raises
    """What a signal handler raises."""


@lru_cache(maxsize=4096)
def last_of(code: CodeType) -> frozenset[int]:
    """Return the offsets of the instructions after which a signal handler can run."""
    return frozenset(each.offset for each in dis.get_instructions(code) if each.opcode in AFTER)


def callers(frame: FrameType | None) -> Iterator[str]:
    """Yield the names of the functions on the stack."""
    while frame is not None:
        yield frame.f_code.co_name
        frame = frame.f_back


class Cut:
    """Raises once, at the place of that number in the code in *rooms*."""

    def __init__(self, number: int, rooms: tuple[str, ...] = CORE) -> None:
        self._left = number
        self._rooms = rooms
        self._python: set[FrameType] = set()  # frames whose call is one of a Python function
        self._last: dict[FrameType, int] = {}  # the instruction before
        self.happened = False
        self.where = ""
        self.releasing = False  # it happened on the way out of a lock

    def __call__(self, frame: FrameType, event: str, arg: object) -> Cut | None:
        """Be a trace function."""
        if event == "call" and frame.f_back is not None and frame.f_code.co_name != "__init__":
            self._python.add(frame.f_back)
        if self.happened or not frame.f_code.co_filename.startswith(self._rooms):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            returned = frame in self._python
            self._python.discard(frame)
            last = self._last.get(frame, -1)
            self._last[frame] = frame.f_lasti
            if (last < 0 or last in last_of(frame.f_code)) and not returned:  # entered, or after such a call
                self._left -= 1
                if self._left < 0:
                    self.happened = True
                    self.releasing = any(name in WAYS_OUT for name in callers(frame))
                    self.where = f"{frame.f_code.co_qualname}, line {frame.f_lineno}"
                    self.handle()
        return self

    def handle(self) -> None:
        """Be the signal handler."""
        raise Handler(self.where)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Let it happen in a ``with`` block."""
        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # from 3.12 on, settrace() looks whether any frame has it
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(before)


class Calls(Cut):
    """A signal handler that calls the engine, and raises nothing."""

    def __init__(self, number: int, call: Callable[[], object]) -> None:
        super().__init__(number)
        self._call = call
        self.result: object = None

    def handle(self) -> None:
        """Make the call; it may be refused."""
        try:
            self.result = self._call()
        except ReentrantCallError:
            self.result = "refused"


@asynccontextmanager
async def open_alone(cpus: int, *, checking: bool | None = None) -> AsyncIterator[CalloutSystem]:
    """Open a system in which nothing but this task is at work: the loops of the CPUs but this one stand still.

    So what is read of another CPU without its lock is what this task has left there.
    """
    go_on = threading.Event()

    def stand_still(still: threading.Event) -> None:
        still.set()
        go_on.wait()

    async with open_callouts(cpus, checking=checking) as system:
        try:
            for number in range(1, cpus):
                still = threading.Event()
                system.cpu(number).call(stand_still, still)
                still.wait()
            yield system
        finally:
            go_on.set()


class Stage:
    """Callouts and locks in an open system of two CPUs. Time stands still, or an operation would go another way where
    it comes into the next slot of the wheel.
    """

    def __init__(self, system: CalloutSystem) -> None:
        self.system = system
        self.machine = system._machine
        now = self.machine.platform.now()
        self.machine.platform.now = lambda: now  # type: ignore[method-assign]
        for cpu in self.machine.cpus:
            cpu.now = lambda: now
        self.mtx, self.spin, self.recursive = Mtx("m"), Mtx("s", MTX_SPIN), Mtx("r", MTX_RECURSE)
        self.rw = RwLock("rw")
        self.locks = (self.mtx, self.spin, self.recursive, self.rw, system.giant)
        self.idle, self.near, self.far, self.locked, self.away, self.direct = (Callout() for _ in range(6))
        self.callouts = (self.idle, self.near, self.far, self.locked, self.away, self.direct)
        self.programmed = [NEVER for _ in self.machine.cpus]  # to what each event timer was set last
        self.set_event = self.machine.platform.set_event
        self.machine.platform.set_event = self.program  # type: ignore[method-assign]
        self.ready()

    def program(self, cpu: int, when: int) -> None:
        """Program an event timer, and note it."""
        self.set_event(cpu, when)
        self.programmed[cpu] = when

    def ready(self) -> None:
        """Have everything as it is before each operation."""
        for c in self.callouts:
            if c.c_cpu.id >= 0:
                callout_dequeue(c)
            if c is self.locked:
                callout_init_mtx(c, self.mtx)
            else:
                callout_init(c, 1)
        callout_reset(self.idle, 200, ignore, "before")
        callout_stop(self.idle)
        callout_reset(self.near, 200, ignore, "near")
        callout_reset(self.far, 3_600_000, ignore, "far")
        callout_reset(self.locked, 100_000, ignore, "locked")
        callout_reset_on(self.away, 100_000, ignore, "away", 1)
        callout_stop(self.away)
        callout_reset_sbt(self.direct, 9_000 * SBT_1MS, 0, ignore, "direct", C_DIRECT_EXEC)

    def picture(self) -> tuple[object, ...]:
        """Return what an application can see of the callouts; times only by which arming they are of."""
        return tuple(
            (callout_pending(c), callout_active(c), c.c_cpu.id, c.arg if callout_pending(c) else None)
            for c in self.callouts
        )

    def let_go(self, cut: Cut) -> None:
        """Release what the way out of a ``with`` block has left held."""
        if cut.releasing:
            for lock in self.locks:
                if isinstance(lock, RwLock):
                    if lock.holds():
                        lock.unlock()
                elif lock.owned():
                    lock.__exit__()

    def check(self) -> None:
        """Assert that nothing was left half done."""
        for cpu in self.machine.cpus:
            assert not cpu.lock._is_owned(), f"the lock of cpu {cpu.id} was left held"
            assert not cpu.busy, f"cpu {cpu.id} was left busy"
            check_cpu(cpu)
            assert self.programmed[cpu.id] <= cpu.deadline, f"the event timer of cpu {cpu.id} would fire too late"
        for c in self.callouts:
            check(c)
        for lock in self.locks:
            assert not lock._raw._is_owned(), f"{lock!r} was left held"
            assert not lock.holds(), f"{lock!r} was left held"


def ignore(_: object) -> None:
    """Do nothing."""


def use(lock: Mtx) -> None:
    """Acquire and release a mutex."""
    with lock:
        pass


def under(stage: Stage, use: Callable[[Callout], object]) -> None:
    """Use the callout that has a lock, with it held."""
    with stage.mtx:
        use(stage.locked)


def read_and_write(stage: Stage) -> None:
    """Use a read/write lock in each way."""
    with stage.rw:
        pass
    with stage.rw.read():
        pass


OPERATIONS: Final[dict[str, Callable[[Stage], object]]] = {
    "init": lambda s: callout_init(Callout(), 1),
    "init of what was initialised": lambda s: callout_init(s.idle, 1),
    "init of what is on another CPU": lambda s: callout_init(s.away, 1),
    "reset of an idle one": lambda s: callout_reset(s.idle, 50_000, ignore, "new"),
    "reset of an idle one, soon": lambda s: callout_reset(s.idle, 50, ignore, "new"),
    "reset to an earlier time": lambda s: callout_reset(s.far, 50_000, ignore, "new"),
    "reset to a much earlier time": lambda s: callout_reset(s.far, 100, ignore, "new"),
    "reset to a later time": lambda s: callout_reset(s.far, 7_200_000, ignore, "new"),
    "reset of what is near to far": lambda s: callout_reset_on(s.near, 7_200_000, ignore, "new", 0),
    "reset on another CPU": lambda s: callout_reset_on(s.far, 50_000, ignore, "new", 1),
    "reset of what is near, on another CPU": lambda s: callout_reset_on(s.near, 50_000, ignore, "new", 1),
    "reset of what is direct, on another CPU": lambda s: callout_reset_on(s.direct, 50_000, ignore, "new", 1),
    "reset in sbintime": lambda s: callout_reset_sbt(s.far, 9_000 * SBT_1MS, 0, ignore, "new", 0),
    "schedule": lambda s: callout_schedule(s.far, 50_000),
    "arm at a tick": lambda s: callout_arm_curcpu(s.far, ticks() + 7_200_000, ignore, "new"),
    "arm at a tick, an idle one": lambda s: callout_arm_curcpu(s.idle, ticks() + 50_000, ignore, "new"),
    "make and arm": lambda s: arm_new("call_later", s.machine.cpus[0], 9_000_000_000, ignore, "new", None),
    "make and arm, for soon": lambda s: arm_new("call_later", s.machine.cpus[1], 1, ignore, "new", s.mtx),
    "reset by its method": lambda s: s.idle.reset(50, ignore, "new"),
    "reset by its method, to an earlier time": lambda s: s.far.reset(100),
    "reset by its method, to a later time": lambda s: s.far.reset(7_200, ignore, "new"),
    "stop": lambda s: callout_stop(s.far),
    "stop by its method": lambda s: s.far.stop(),
    "close by its method": lambda s: s.far.close_soon(ignore, None),
    "close of several": lambda s: close_all_soon([s.far, s.near, s.away], ignore, None),
    "drain of several": lambda s: callout_drain_all_async([s.far, s.near, s.away], ignore, None),
    "stop of what is near": lambda s: callout_stop(s.near),
    "dequeue": lambda s: callout_dequeue(s.far),
    "dequeue for good": lambda s: callout_dequeue(s.far, close=True),
    "deactivate": lambda s: callout_deactivate(s.far),
    "drain_async": lambda s: callout_drain_async(s.far, ignore, None),
    "drain_async as FreeBSD 13 has it": lambda s: freebsd13.callout_async_drain(s.far, ignore),
    "reset under a lock": lambda s: under(s, lambda c: callout_reset(c, 5_000, ignore, "new")),
    "stop under a lock": lambda s: under(s, callout_stop),
    "mutex": lambda s: use(s.mtx),
    "spin mutex": lambda s: use(s.spin),
    "recursive mutex": lambda s: use(s.recursive),
    "read/write lock": read_and_write,
}


@pytest.mark.parametrize("mode", ["", "checking", "the long way"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_exception_cuts_no_operation_in_two(name: str, mode: str) -> None:
    """At whatever place a signal handler raises, the operation is done or was not begun, and everything still works."""
    operation = OPERATIONS[name]
    cuts = 0

    async def main() -> None:
        nonlocal cuts
        async with open_alone(2, checking=mode == "checking") as system:
            system._machine.careful = mode == "the long way"
            # On the loop of CPU 0, which is blocked by this: nothing expires meanwhile.
            stage = Stage(system)
            begun = stage.picture()
            operation(stage)
            done = stage.picture()
            while True:
                stage.ready()
                assert stage.picture() == begun
                cut = Cut(cuts)
                try:
                    with cut.armed():
                        operation(stage)
                except Handler:
                    pass
                stage.let_go(cut)
                stage.check()
                assert stage.picture() in (begun, done), cut.where
                operation(stage)  # it works afterwards
                stage.check()
                assert stage.picture() == done, cut.where
                if not cut.happened:
                    return
                cuts += 1

    trio.run(main)

    assert cuts >= 3


@pytest.mark.parametrize(
    ("name", "interrupted"),
    [
        *(
            (name, (0, 1))
            for name in OPERATIONS
            if name.startswith(("reset", "schedule", "arm", "stop", "de", "drain"))
        ),
        *((name, (1,)) for name in OPERATIONS if "another CPU" in name),
    ],
)
def test_an_exception_in_a_call_that_is_refused_leaves_the_lock_as_it_was(
    name: str, interrupted: tuple[int, ...]
) -> None:
    """A call that interrupts another one and is itself cut at whatever place releases what it acquired, and no more."""
    operation = OPERATIONS[name]
    cuts = 0

    async def main() -> None:
        nonlocal cuts
        async with open_alone(2) as system:
            stage = Stage(system)
            while True:
                stage.ready()
                begun = stage.picture()
                cut = Cut(cuts)
                cpus = [stage.machine.cpus[number] for number in interrupted]
                for cpu in cpus:  # as the call that is interrupted has them
                    cpu.lock.acquire()
                    cpu.busy = True
                with pytest.raises((Handler, ReentrantCallError)), cut.armed():
                    operation(stage)
                stage.let_go(cut)
                for cpu in cpus:
                    assert cpu.busy, cut.where

                    cpu.busy = False
                    cpu.lock.release()  # it goes on, and ends
                stage.check()
                assert stage.picture() == begun, cut.where
                if not cut.happened:
                    return
                cuts += 1

    trio.run(main)

    assert cuts >= 3


class Overtaken(RawLock):
    """The lock of a CPU, for which the next call waits while another thread does something."""

    def __init__(self, lock: RawLock) -> None:
        self._lock = lock
        self.meanwhile: Callable[[], object] | None = None

    def acquire(self, blocking: bool = True, /) -> bool:
        """Let the other one do it, and acquire the lock."""
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return self._lock.acquire(blocking)

    def release(self, /) -> None:
        """Release it."""
        self._lock.release()

    def _is_owned(self, /) -> bool:
        return self._lock._is_owned()


@pytest.mark.parametrize("name", ["reset of an idle one", "reset on another CPU", "stop", "init"])
def test_an_exception_in_a_call_that_starts_again_leaves_no_lock_held(name: str) -> None:
    """Nor does one that finds its callout on another CPU when it has the lock, at whatever place it is cut."""
    operations: dict[str, Callable[[Stage], object]] = {**OPERATIONS, "init": lambda s: callout_init(s.idle, 1)}
    cuts = 0

    async def main() -> None:
        nonlocal cuts
        async with open_alone(2, checking=False) as system:
            stage = Stage(system)
            stage.machine.careful = True
            cpu = stage.machine.cpus[0]
            lock = cpu.lock = Overtaken(cpu.lock)

            def moves() -> None:
                for c in (stage.idle, stage.far):
                    callout_reset_on(c, 90_000, ignore, "moved", 1)
                callout_stop(stage.idle)

            while True:
                stage.ready()
                lock.meanwhile = moves
                cut = Cut(cuts)
                with suppress(Handler), cut.armed():
                    operations[name](stage)
                stage.check()
                if not cut.happened:
                    return
                cuts += 1

    trio.run(main)

    assert cuts >= 3


INTERRUPTED: Final = [
    name for name in OPERATIONS if name.startswith(("reset", "schedule", "arm", "stop", "dequeue", "drain"))
]
# Under the lock there is no call where a bucket is in use already, and so nothing to interrupt; in checking mode arming
# notes the place.
ONLY_STORE: Final = ("stop", "stop by its method", "stop of what is near", "stop under a lock", "dequeue")
ONLY_NOTE: Final = (
    "reset to a later time",
    "reset to an earlier time",
    "reset of an idle one",
    "reset under a lock",
    "reset by its method",
    "reset by its method, to an earlier time",
    "reset by its method, to a later time",
    "arm at a tick",
    "arm at a tick, an idle one",
)


@pytest.mark.parametrize("checking", [False, True])
@pytest.mark.parametrize("other", ["near", "far"])
@pytest.mark.parametrize("name", INTERRUPTED)
def test_a_handler_that_calls_the_engine_is_refused_or_in_time(name: str, other: str, *, checking: bool) -> None:
    """At whatever place a signal handler stops a callout: it is refused, or it is as if it had come before the
    operation that it interrupts, or after it.
    """
    operation = OPERATIONS[name]
    calls = refused = 0

    async def main() -> None:
        nonlocal calls, refused
        async with open_alone(2, checking=checking) as system:
            stage = Stage(system)

            def stops() -> int:
                return callout_stop(getattr(stage, other))

            alone = operation(stage), "refused", stage.picture()
            stage.ready()
            answer = stops()
            stopped_first = operation(stage), answer, stage.picture()
            stage.ready()
            stopped_last = operation(stage), stops(), stage.picture()
            while True:
                stage.ready()
                call = Calls(calls, stops)
                with call.armed():
                    done = operation(stage)
                stage.check()
                if not call.happened:
                    return
                assert (done, call.result, stage.picture()) in (alone, stopped_first, stopped_last), call.where
                refused += call.result == "refused"
                calls += 1

    trio.run(main)

    assert calls > refused
    assert (refused == 0) == (name in ONLY_STORE or (name in ONLY_NOTE and not checking))


@pytest.mark.parametrize(("before", "phase"), [(Phase.OPEN, Phase.LEAVING), (Phase.QUIESCING, Phase.CLOSED)])
def test_an_exception_while_a_phase_is_entered_leaves_no_lock_held(before: Phase, phase: Phase) -> None:
    """At whatever place it comes: the phase is entered, for all CPUs, or not, for none; and every lock is free."""
    cuts = 0

    async def main() -> None:
        nonlocal cuts
        async with open_alone(2) as system:
            machine = system._machine
            locks = [cpu.lock for cpu in machine.cpus]
            while True:
                machine.phase = before
                cut = Cut(cuts)
                with suppress(Handler), cut.armed():
                    enter(machine, phase)
                entered, machine.phase = machine.phase, Phase.OPEN
                closed = [cpu.lock is not lock for cpu, lock in zip(machine.cpus, locks, strict=True)]
                held = [lock._is_owned() for lock in locks]
                busy = [cpu.busy for cpu in machine.cpus]
                for cpu, lock in zip(machine.cpus, locks, strict=True):
                    cpu.lock = lock
                    cpu.busy = False
                    release_if_owned(lock)  # or the end of this block would wait for it
                assert held == busy == [False, False], cut.where
                assert entered in (before, phase), cut.where
                assert closed == [entered is Phase.CLOSED] * 2, cut.where
                if not cut.happened:
                    return
                cuts += 1

    trio.run(main)

    assert cuts >= 3


class AtItsLock:
    """A callout whose run stands at its lock, which this thread holds, and what becomes of it."""

    def __init__(self, vm: VirtualSMP, *, again: bool) -> None:
        self.vm = vm
        vm.platform.racy = lambda record: record  # type: ignore[method-assign]  # a store is one, as everywhere else
        self.c, self.mtx = Callout(), Mtx("m")
        self.happened: list[str] = []  # what was called
        callout_init_mtx(self.c, self.mtx)
        callout_reset(self.c, 1, self.happened.append, "run")
        self.mtx.__enter__()
        vm.tick()
        if again:  # instead of that run
            callout_reset_on(self.c, 2, self.happened.append, "moved", 1)

    def end(self) -> tuple[object, ...]:
        """Release the lock, let time pass, and return what an application can see."""
        self.mtx.__exit__()
        self.vm.tick(5)
        self.vm.check()
        for cpu in self.vm.machine.cpus:
            check_cpu(cpu)
        c = self.c
        return tuple(self.happened), callout_active(c), callout_terminated(c), c.run, c.c_cpu.id


ON_A_RUN: Final[dict[str, Callable[[AtItsLock], object]]] = {
    "reset": lambda s: callout_reset(s.c, 3, s.happened.append, "new"),
    "reset on another CPU": lambda s: callout_reset_on(s.c, 3, s.happened.append, "new", 1),
    "stop": lambda s: callout_stop(s.c),
    "dequeue": lambda s: callout_dequeue(s.c),
    "dequeue for good": lambda s: callout_dequeue(s.c, close=True),
    "deactivate": lambda s: callout_deactivate(s.c),
    "drain_async": lambda s: callout_drain_async(s.c, s.happened.append, "completed"),
    "close by its method": lambda s: s.c.close_soon(s.happened.append, "completed"),
    "close of several": lambda s: close_all_soon([s.c, s.vm.callout()], s.happened.append, "completed"),
    "drain_async as FreeBSD 13 has it": lambda s: freebsd13.callout_async_drain(s.c, s.happened.append),
    "drain": lambda s: begin("callout_drain", s.c, DRAIN, s.vm.platform.thread_waiter),
    "terminate": lambda s: begin("callout_terminate", s.c, DRAIN | T_CLOSE, s.vm.platform.thread_waiter),
}


WAITS: Final = ("drain", "terminate")


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", ON_A_RUN)
def test_an_exception_cuts_no_operation_on_a_run_in_two(name: str, again: bool) -> None:
    """Nor one on a callout with a run in progress: what becomes of it is as if the operation was done, or was not."""
    operation = ON_A_RUN[name]

    def outcome(act: Callable[[AtItsLock], object]) -> tuple[object, ...]:
        with VirtualSMP(2, free_clock=False, checking=False) as vm:
            scene = AtItsLock(vm, again=again)
            act(scene)
            return scene.end()

    not_begun, done = outcome(lambda scene: None), outcome(operation)
    cuts = 0
    while True:
        cut = Cut(cuts)

        def cut_short(scene: AtItsLock, cut: Cut = cut) -> None:
            with suppress(Handler), cut.armed():
                operation(scene)
            if name in WAITS and again and not callout_pending(scene.c):
                assert scene.c.run is not None
                assert scene.c.run.refusing, f"what was removed may be armed again: {cut.where}"

        assert outcome(cut_short) in (not_begun, done), cut.where
        if not cut.happened:
            break
        cuts += 1

    assert cuts >= 3
