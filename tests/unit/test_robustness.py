"""Interrupted at every line: KeyboardInterrupt anywhere, and engine calls from what interrupts the engine.

A trace function stands for the interpreter, which runs signal handlers, finalizers and weakref callbacks between any
two instructions: at line number *n* of the package's own code it does what is to be tried there. Each test goes
through all *n*, until the operation ends before line *n* comes.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

import outcome
import pytest
import trio
import trio.testing

import callout
from callout import (
    SBT_1MS,
    BusyError,
    Callout,
    CalloutSystem,
    Mtx,
    ReentrantCallError,
    RwLock,
    SleepError,
    callout_deactivate,
    callout_drain,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_schedule,
    callout_stop,
    open_callouts,
)
from callout._core import lifecycle
from callout._core.cpu import Cpu
from callout._core.machine import Machine
from callout._core.rawlock import RawLock
from callout.freebsd13 import callout_async_drain

PACKAGE: Final = str(Path(callout.__file__).parent)

Operation = Callable[[], object]


class Interruption:
    """Something that happens once, at a line of the package's code in this thread."""

    def __init__(self, line: int, action: Callable[[], object]) -> None:
        self._left = line
        self._action = action
        self.happened = False
        self.where = ""

    def __call__(self, frame: FrameType, event: str, arg: object) -> Interruption | None:
        """Be a trace function."""
        if self.happened or not frame.f_code.co_filename.startswith(PACKAGE):
            return None  # the lines of this frame are not looked at
        if event == "line":
            self._left -= 1
            if self._left < 0:
                self.happened = True
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                self._action()
        return self

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Let it happen in a ``with`` block."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(before)


def interrupt() -> None:
    """Do what Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)


class Stage:
    """Callouts and locks to operate on, in an open system of one CPU."""

    def __init__(self, system: CalloutSystem) -> None:
        self.machine: Machine = system._machine
        self.system = system
        self.mtx = Mtx("m")
        self.rw = RwLock("rw")
        self.idle, self.pending, self.soon, self.locked = Callout(), Callout(), Callout(), Callout()
        for c in (self.idle, self.pending, self.soon):
            callout_init(c, 1)
        callout_init_mtx(self.locked, self.mtx)
        self.ready()

    def ready(self) -> None:
        """Have everything as it is before each operation."""
        for c in (self.idle, self.pending, self.soon):
            callout_stop(c)
        callout_reset(self.pending, 100_000, ignore, None)
        with self.mtx:
            callout_stop(self.locked)
            callout_reset(self.locked, 100_000, ignore, None)

    def check(self) -> None:
        """Assert that nothing was left half done."""
        for cpu in self.machine.cpus:
            assert not cpu.lock._is_owned(), f"the lock of cpu {cpu.id} was left taken"
            cpu.lock.acquire()  # the CPU's own loop may hold it for a moment
            try:
                cpu.wheel.check()
                assert cpu.deadline <= cpu.wheel.next_event(), "the event timer would fire too late"
            finally:
                cpu.lock.release()
        for lock in (self.mtx, self.rw, self.system.giant):
            assert not lock.holds(), f"{lock!r} was left taken"
            assert lock.try_acquire(shared=False), f"{lock!r} cannot be taken"
            lock.release_as(shared=False)
        assert not self.machine.held, "locks are thought to be held"


def ignore(_: object) -> None:
    """Do nothing."""


def fresh(stage: Stage) -> None:
    """Initialise a callout and give its CPU something."""
    c = Callout()
    callout_init(c, 1)
    callout_reset(c, 1000, ignore, None)
    callout_stop(c)


def locked(stage: Stage, use: Callable[[Callout], object]) -> None:
    """Use a callout with its lock held."""
    stage.mtx.lock()
    try:
        use(stage.locked)
    finally:
        surely(stage.mtx.unlock)


def surely(give: Operation) -> None:
    """Release a lock, also if Ctrl-C comes on the way in, before it was released."""
    try:
        give()
    except KeyboardInterrupt:
        give()
        raise


def read_lock(stage: Stage) -> None:
    """Acquire and release a read/write lock in each way."""
    for take, give in ((stage.rw.rlock, stage.rw.runlock), (stage.rw.wlock, stage.rw.wunlock)):
        take()
        surely(give)


OPERATIONS: Final[dict[str, Callable[[Stage], object]]] = {
    "init": fresh,
    "reset of an idle one": lambda s: callout_reset(s.idle, 50_000, ignore, None),
    "reset to an earlier time": lambda s: callout_reset(s.pending, 50_000, ignore, None),
    "reset to a later time": lambda s: callout_reset(s.pending, 200_000, ignore, None),
    "reset on a CPU": lambda s: callout_reset_on(s.pending, 50_000, ignore, None, 0),
    "reset in sbintime": lambda s: callout_reset_sbt(s.pending, 9_000 * SBT_1MS, 0, ignore, None, 0),
    "schedule": lambda s: callout_schedule(s.pending, 50_000),
    "stop": lambda s: callout_stop(s.pending),
    "deactivate": lambda s: callout_deactivate(s.pending),
    "drain_async": lambda s: callout_drain_async(s.pending, ignore, None),
    "async_drain": lambda s: callout_async_drain(s.pending, ignore),
    "stop under a lock": lambda s: locked(s, callout_stop),
    "reset under a lock": lambda s: locked(s, lambda c: callout_reset(c, 5, ignore, None)),
    "read/write lock": read_lock,
    "call": lambda s: s.system.cpu(0).call(ignore, None),
    "start_soon": lambda s: s.system.cpu(0).start_soon(trio.sleep, 0),
}


async def checkpoint() -> int:
    """Let the loop have a turn; return how many KeyboardInterrupts arrived."""
    arrived = 0
    for _ in range(2):
        try:
            await trio.lowlevel.checkpoint()
        except KeyboardInterrupt:
            arrived += 1
    return arrived


# -- KeyboardInterrupt -------------------------------------------------------------------------------------------------


@pytest.mark.pure
@pytest.mark.parametrize("name", OPERATIONS)
def test_ctrl_c_at_any_line_of_an_operation(name: str) -> None:
    """Ctrl-C at any line of an operation arrives exactly once, and leaves nothing half done: everything still works."""
    lines = 0

    async def main() -> None:
        nonlocal lines
        async with open_callouts() as system:
            stage = Stage(system)
            while True:
                interruption = Interruption(lines, interrupt)
                arrived = 0
                with suppress(KeyboardInterrupt), interruption.armed():
                    arrived = 1
                    OPERATIONS[name](stage)
                    arrived = 0
                arrived += await checkpoint()

                assert arrived == interruption.happened, interruption.where
                stage.check()
                stage.ready()
                stage.check()
                if not interruption.happened:
                    return
                lines += 1

    trio.run(main)

    assert lines >= 4


@pytest.mark.parametrize("kind", ["plain", "mutex", "direct"])
def test_ctrl_c_at_any_line_of_a_run(kind: str) -> None:
    """Ctrl-C at any line from a callout's arming to its end reaches the block; it has run once or not at all."""
    lines = happened = 0

    async def main(interruption: Interruption) -> None:
        c = Callout()
        ran: list[int] = []
        finished = False
        try:
            async with open_callouts() as system:
                if kind == "mutex":
                    callout_init_mtx(c, Mtx("m"))
                else:
                    callout_init(c, 1)
                with interruption.armed():
                    flags = callout.C_DIRECT_EXEC if kind == "direct" else 0
                    callout_reset_sbt(c, SBT_1MS, 0, ran.append, 1, flags)
                    await callout.callout_barrier(c)
                    while callout_pending(c):
                        await trio.lowlevel.checkpoint()
                finished = True
        finally:
            assert not callout_pending(c)
            assert c.run is None
            assert ran in ([], [1])
            assert not finished or ran == [1] or interruption.happened
            assert not system._machine.cpus[0].open
            assert not system._machine.held

    while True:
        interruption = Interruption(lines, interrupt)
        threads = set(threading.enumerate())
        error = outcome.capture(trio.run, main, interruption)
        if isinstance(error, outcome.Error):
            assert {type(leaf) for leaf in leaves(error.error)} == {KeyboardInterrupt}, interruption.where
            happened += 1
        assert set(threading.enumerate()) <= threads
        if not interruption.happened:
            break
        lines += 1

    assert happened >= 10


@contextmanager
def watched(seconds: int) -> Iterator[None]:
    """Have what hangs in a ``with`` block fail, also where it waits shielded."""

    def hangs(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("cpus", [1, 2])
def test_ctrl_c_at_any_line_of_a_block(cpus: int) -> None:
    """Ctrl-C at any line of opening and leaving a block reaches its program, and the block is left all the same."""
    lines = happened = 0

    async def main(interruption: Interruption) -> None:
        with interruption.armed():
            async with open_callouts(cpus=cpus):
                await trio.lowlevel.checkpoint()

    while True:
        interruption = Interruption(lines, interrupt)
        threads = set(threading.enumerate())
        with watched(60):
            error = outcome.capture(trio.run, main, interruption)
        if isinstance(error, outcome.Error):
            assert {type(leaf) for leaf in leaves(error.error)} == {KeyboardInterrupt}, interruption.where
            happened += 1
        assert set(threading.enumerate()) <= threads, interruption.where
        if not interruption.happened:
            break
        lines += 1 if cpus == 1 else 23  # every line with one, a sample with a thread more

    assert happened >= 10


def leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def test_ctrl_c_in_a_callback() -> None:
    """Ctrl-C that comes in a callback ends that callback and leaves through the block."""
    ran: list[str] = []
    first, second = Callout(), Callout()

    def interrupted(_: object) -> None:
        ran.append("interrupted")
        interrupt()
        ran.append("never")

    async def main() -> None:
        async with open_callouts():
            for c, func in ((first, interrupted), (second, ignore)):
                callout_init(c, 1)
                callout_reset(c, 1, func, None)
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main)

    assert [type(error) for error in leaves(caught.value)] == [KeyboardInterrupt]
    assert ran == ["interrupted"]
    assert first.run is None
    assert not callout_pending(second)


def test_ctrl_c_during_a_drain() -> None:
    """Ctrl-C while a task drains ends the drain, and the callout is stopped all the same."""
    c = Callout()

    async def main() -> None:
        async with open_callouts(cpus=2):
            go = threading.Event()
            there = trio.Event()
            token = trio.lowlevel.current_trio_token()

            def stand(_: object) -> None:
                token.run_sync_soon(there.set)
                go.wait()
                callout_reset(c, 1, ignore, None)

            callout_init(c, 1)
            callout_reset_on(c, 1, stand, None, 1)
            await there.wait()

            async def strike() -> None:
                await trio.testing.wait_all_tasks_blocked()
                interrupt()  # a system task is protected, so it arrives in the main task, which drains

            trio.lowlevel.spawn_system_task(strike)
            try:
                await callout_drain(c)
            finally:
                go.set()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)

    assert c.run is None
    assert not callout_pending(c)


# -- what interrupts the engine calls it -------------------------------------------------------------------------------


def by_finalizer(action: Operation) -> None:
    """Have a __del__ do it."""

    class Owner:
        def __del__(self) -> None:
            action()

    del [Owner()][0]


def by_weakref(action: Operation) -> None:
    """Have a weakref's callback do it."""

    class Owner:
        pass

    owner = Owner()
    reference = weakref.ref(owner, lambda _: action())
    del owner
    assert reference() is None


def by_weakref_finalize(action: Operation) -> None:
    """Have weakref.finalize() do it."""

    class Owner:
        pass

    owner = Owner()
    weakref.finalize(owner, action)
    del owner


def by_collection(action: Operation) -> None:
    """Have the garbage collector do it, for an object that refers to itself."""

    class Owner:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            action()

    Owner()
    gc.collect(0)


def by_signal(action: Operation) -> None:
    """Have a signal handler do it."""
    before = signal.signal(signal.SIGUSR1, lambda *_: action())
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


WAYS: Final[dict[str, Callable[[Operation], None]]] = {
    "finalizer": by_finalizer,
    "weakref": by_weakref,
    "weakref.finalize": by_weakref_finalize,
    "collection": by_collection,
    "signal": by_signal,
}
INNER: Final[dict[str, Callable[[Stage], object]]] = {
    "reset": lambda s: callout_reset(s.soon, 70_000, ignore, None),
    "reset on a CPU": lambda s: callout_reset_on(s.soon, 70_000, ignore, None, 0),
    "stop": lambda s: callout_stop(s.soon),
    "drain_async": lambda s: callout_drain_async(s.soon, ignore, None),
    "mutex": lambda s: locked(s, callout_stop) if not s.mtx.owned() else None,
    "read/write lock": lambda s: read_lock(s) if not s.rw.holds() else None,
}


def goes_through(outer: str, inner: str, way: str) -> tuple[int, int]:
    """Try *inner* at each line of *outer*; return at how many lines it worked and at how many it was refused."""
    worked = refused = 0

    async def main() -> None:
        nonlocal worked, refused
        async with open_callouts() as system:
            stage = Stage(system)
            lines = 0
            while True:
                outcomes: list[bool] = []

                def action(outcomes: list[bool] = outcomes) -> None:
                    before = callout_pending(stage.soon), stage.soon.time
                    try:
                        INNER[inner](stage)
                    except ReentrantCallError as error:
                        unchanged = before == (callout_pending(stage.soon), stage.soon.time)
                        says_what_to_do = "system.cpu(0).call" in str(error)
                        outcomes.append(not (unchanged and says_what_to_do))
                    except BaseException:
                        outcomes.append(True)
                        outcomes.append(True)  # one too many
                        raise
                    else:
                        outcomes.append(True)

                callout_reset(stage.soon, 60_000, ignore, None)
                interruption = Interruption(lines, partial(WAYS[way], action))
                with interruption.armed():
                    OPERATIONS[outer](stage)

                assert len(outcomes) == interruption.happened, interruption.where
                stage.check()
                stage.ready()
                stage.check()
                if not interruption.happened:
                    return
                worked += outcomes[0]
                refused += not outcomes[0]
                lines += 1

    trio.run(main)
    return worked, refused


@pytest.mark.pure
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", OPERATIONS)
def test_an_engine_call_that_interrupts_the_engine(outer: str, inner: str) -> None:
    """A call from a finalizer at any line of another one works or is refused: it never waits for its own thread."""
    worked, refused = goes_through(outer, inner, "finalizer")

    assert worked + refused >= 4
    if outer.startswith("reset") and inner.startswith("reset"):
        assert refused >= 3  # under the CPU's lock; with none refused this tries nothing


@pytest.mark.pure
@pytest.mark.parametrize("way", WAYS)
def test_each_kind_of_interruption_is_recognised(way: str) -> None:
    """Finalizers, weakref callbacks and signal handlers are all told from the engine's own calls."""
    worked, refused = goes_through("reset to an earlier time", "reset", way)

    assert worked >= 3
    assert refused >= 3


@pytest.mark.parametrize("outer", OPERATIONS)
def test_a_cross_cpu_call_works_from_anywhere(outer: str) -> None:
    """What a finalizer hands to system.cpu(0).call() runs once, at whatever line of the engine it interrupted."""

    async def main() -> None:
        async with open_callouts() as system:
            stage = Stage(system)
            lines = 0
            while True:
                ran: list[int] = []

                def action(ran: list[int] = ran, line: int = lines) -> None:
                    system.cpu(0).call(ran.append, line)
                    system.cpu(0).start_soon(note, ran)

                interruption = Interruption(lines, partial(by_finalizer, action))
                with interruption.armed():
                    OPERATIONS[outer](stage)
                while len(ran) < 2 and interruption.happened:
                    await trio.lowlevel.checkpoint()

                stage.check()
                stage.ready()
                if not interruption.happened:
                    return
                assert sorted(ran) == sorted([lines, -1])
                lines += 1

    trio.run(main)


async def note(ran: list[int]) -> None:
    """Be a task."""
    ran.append(-1)


def test_a_contended_lock_is_not_mistaken_for_an_interruption() -> None:
    """Two threads that arm callouts of one CPU wait for each other; neither is told that it has interrupted itself."""

    async def main() -> None:
        async with open_callouts() as system:
            c = Callout()
            callout_init(c, 1)
            cpu = system._machine.cpus[0]
            waiting = threading.Event()
            results: list[int] = []

            class Contended(RawLock):
                """The CPU's lock; a thread that finds it held says so."""

                def __init__(self) -> None:
                    self._lock = cpu.lock

                def acquire(self, blocking: bool = True, /) -> bool:
                    if blocking:
                        waiting.set()
                    return self._lock.acquire(blocking)

                def release(self, /) -> None:
                    self._lock.release()

                def _is_owned(self, /) -> bool:
                    return self._lock._is_owned()

            lock = cpu.lock = Contended()

            def other() -> None:
                results.append(callout_reset(c, 1000, ignore, None))
                results.append(callout_reset(c, 500, ignore, None))
                results.append(callout_reset_on(c, 500, ignore, None, 0))
                results.append(callout_stop(c))

            def hold_up(turns: int) -> None:
                thread = threading.Thread(target=other)
                for turn in range(turns):
                    waiting.clear()
                    assert lock.acquire(False)
                    if turn == 0:
                        thread.start()
                    waiting.wait()
                    lock.release()
                thread.join()

            await trio.to_thread.run_sync(hold_up, 1)

            assert results == [0, 1, 1, 1]

    trio.run(main)


# -- holding a lock across an await, and systems inside each other ---------------------------------------------------


@pytest.mark.trio
async def test_a_task_that_awaits_with_a_lock_held_is_reported() -> None:
    """In checking mode an await with a lock held is a SleepError that names task, line and lock."""

    async def sleeps(mtx: Mtx) -> None:
        with mtx:
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with open_callouts(checking=True) as system:
            system.cpu(0).start_soon(sleeps, Mtx("held"))
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await main()

    (error,) = leaves(caught.value)
    assert type(error) is SleepError
    assert "'held'" in str(error)
    assert "<locals>.sleeps awaited at " in str(error)
    assert f"{Path(__file__).name}:" in str(error)
    assert "before an await" in str(error)


@pytest.mark.trio
async def test_without_checking_nobody_looks() -> None:
    """Without checking mode nothing is tracked, and an await with a lock held is not reported."""
    async with open_callouts(checking=False) as system:
        mtx = Mtx("held")
        with mtx:
            await trio.lowlevel.checkpoint()
            assert system._machine.held is None


@pytest.mark.trio
async def test_the_system_is_closed_while_softclock_lets_others_have_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Softclock that finds its CPU closed, back from a turn of the others, ends, and does not ask anything of it."""
    shut = lifecycle._shut
    yielding, closed = trio.Event(), trio.Event()

    def shut_and_tell(cpu: Cpu) -> object:
        result = shut(cpu)
        closed.set()
        return result

    async def checkpoint() -> None:
        yielding.set()
        await closed.wait()

    monkeypatch.setattr(lifecycle, "_shut", shut_and_tell)
    async with open_callouts() as system:
        c = Callout()
        system._machine.budget = -1  # every run is one too long
        monkeypatch.setattr(system._platform, "checkpoint", checkpoint)
        callout_init(c, 1)
        callout_reset(c, 1, ignore, None)
        await yielding.wait()

    assert closed.is_set()


@pytest.mark.trio
async def test_systems_may_be_nested() -> None:
    """A system opened inside another is the current one until its block is left; the outer one's callouts run on."""
    async with open_callouts(hz=1000) as outer:
        a, b = Callout(), Callout()
        ran = trio.Event()
        callout_init(a, 1)
        async with open_callouts(hz=100) as inner:
            assert callout.hz() == 100
            callout_init(b, 1)
            callout_reset(b, 1000, ignore, None)
            callout_reset(a, 1, lambda _: ran.set(), None)
            await ran.wait()
            with pytest.raises(BusyError):
                callout_init(b, 1)
            assert a.c_cpu.machine is outer._machine
            assert b.c_cpu.machine is inner._machine

        assert callout.hz() == 1000
        assert not callout_pending(b)
        callout_init(b, 1)  # what belonged to a closed system may be used anew
        assert b.c_cpu.machine is outer._machine


def test_a_system_in_a_worker_threads_own_run() -> None:
    """A system may be opened in a trio.run() of any thread, also where no signal arrives."""
    ran: list[int] = []

    async def main() -> None:
        async with open_callouts(cpus=2):
            c = Callout()
            done = trio.Event()
            token = trio.lowlevel.current_trio_token()
            callout_init(c, 1)

            def callback(_: object) -> None:
                ran.append(callout.curcpu())
                token.run_sync_soon(done.set)

            callout_reset_on(c, 1, callback, None, 1)
            await done.wait()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    thread.join()

    assert ran == [1]
