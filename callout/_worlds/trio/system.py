"""One running callout system on trio: ``open_callouts``.

Every CPU has two nurseries. The outer one runs the *services*, event timer and softclock, shielded from the
application's cancellation: they must outlive whatever the block is left for. The inner one is the application's, for
``system.cpu(n).start_soon()``.

Leaving the block, by whatever way:

1. the tasks of all CPUs end: awaited after a normal exit, cancelled otherwise; callouts still run meanwhile;
2. what is pending is stopped, and runs in progress are awaited; the tasks that those started end, too;
3. every CPU is closed, its thread joined, its descriptors given back.

All this happens in a task of its own: a KeyboardInterrupt can strike the task that has opened the system even where
that is shielded.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeVarTuple

import trio

from ..._core import describe
from ..._core.calls import cross_call
from ..._core.checks import check_cpu, check_int
from ..._core.cpu import Cpu, Run
from ..._core.deadline import ticks_since_boot
from ..._core.errors import ArgumentTypeError, ArgumentValueError, ClockError, ClosedError, ForkedError, SleepError
from ..._core.lifecycle import boot, close, close_cpu, quiesce
from ..._core.machine import CURRENT, Machine
from ..._core.refusal import Refusal
from ..._core.state import Callout, Func
from ..._core.units import NEVER, NS_PER_S, ns_to_sbt
from ..._locks.mutex import Mtx
from .log import log
from .platform import Loop, TrioPlatform

Ts = TypeVarTuple("Ts")

OnError = Callable[[Exception, Callout | None], object]

SOFTCLOCK_BUDGET: Final = 2_000_000  # ns for which softclock keeps the loop to itself
_FORKED: Final = (
    "this callout system belongs to the parent process: its loops and threads do not exist in a forked child; "
    "open one of your own"
)
_MACHINES: Final[weakref.WeakSet[Machine]] = weakref.WeakSet()


class CpuHandle:
    """One CPU of a system: ``system.cpu(n)``."""

    def __init__(self, system: CalloutSystem, cpu: Cpu, loop: Loop) -> None:
        self._system = system
        self._cpu = cpu
        self._loop = loop
        self._tasks: trio.Nursery | None = None
        self._starts: deque[tuple[Callable[..., Awaitable[object]], tuple[Any, ...]]] = deque()  # Any: passed through
        self._quiet: trio.Event | None = None

    @property
    def id(self) -> int:
        """Its number, from 0."""
        return self._cpu.id

    def __repr__(self) -> str:
        return f"<cpu {self.id}>"

    def start_soon(self, async_fn: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        r"""Start *async_fn(\*args)* as a task of this CPU. From anywhere: callbacks, tasks, other threads,
        finalizers. Never blocks.

        Leaving ``open_callouts()`` normally waits for it; leaving with an exception cancels it. What it raises leaves
        through the block.

        Raises:
            ClosedError: the system is closed.
        """
        if not self._cpu.open:
            if self._cpu.machine.dead is not None:
                self._cpu.machine.dead.acquire()
            raise ClosedError(
                f"start_soon: cpu {self.id} is closed: its `async with open_callouts()` block has been left"
            )
        self._starts.append((async_fn, args))
        with suppress(trio.RunFinishedError):
            self._loop.token.run_sync_soon(self._start_all, idempotent=True)

    def call(self, func: Callable[[*Ts], object], *args: *Ts) -> None:
        r"""Have *func(\*args)* run once on this CPU's loop: soon, and never inside one of its callbacks. From
        anywhere. Never blocks.

        This is the engine's cross-CPU call. Calls made before the system closes do run. What *func* raises is treated
        as a callback's exception.

        Raises:
            ClosedError: the system is closed; *func* will not run.
        """

        def thunk() -> None:
            func(*args)

        cross_call(self._cpu, thunk)

    # -- on the CPU's own loop -----------------------------------------------------------------------------------

    def _start_all(self) -> None:
        while self._starts:
            async_fn, args = self._starts.popleft()
            if self._tasks is None:
                name = getattr(async_fn, "__qualname__", async_fn)
                self._system._fail(ClosedError(f"start_soon: cpu {self.id} was closed before {name} could be started"))
            else:
                self._loop.context.run(partial(self._tasks.start_soon, self._run_task, async_fn, args, name=async_fn))

    async def _run_task(
        self, async_fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]
    ) -> None:  # Any: passed through
        try:
            await async_fn(*args)
        finally:
            if self._quiet is not None:
                self._quiet.set()

    async def _tasks_done(self) -> None:
        """Wait until no task is left, those included that are started by the last ones."""
        while True:
            # What was handed over before this call is started before this event is set.
            handed_over = trio.Event()
            self._loop.token.run_sync_soon(handed_over.set)
            await handed_over.wait()
            if self._tasks is None or not self._tasks.child_tasks:
                return
            self._quiet = trio.Event()
            await self._quiet.wait()


class CalloutSystem:
    """A callout system that is open: what ``async with open_callouts() as system:`` gives."""

    def __init__(self, machine: Machine, platform: TrioPlatform, on_error: OnError | None) -> None:
        self._machine = machine
        self._platform = platform
        self._on_error = on_error
        self._late: list[BaseException] = []
        self._leaving = trio.Event()
        self._cpus = tuple(CpuHandle(self, cpu, loop) for cpu, loop in zip(machine.cpus, platform.loops, strict=True))

    def __repr__(self) -> str:
        return f"<CalloutSystem of {len(self._cpus)} cpus{'' if self._machine.cpus[0].open else ', closed'}>"

    @property
    def cpus(self) -> int:
        """How many CPUs it has."""
        return len(self._cpus)

    @property
    def hz(self) -> int:
        """How many clock ticks it counts in a second."""
        return self._machine.hz

    @property
    def giant(self) -> Mtx:
        """Giant, its recursive mutex."""
        return self._machine.giant

    def cpu(self, number: int) -> CpuHandle:
        """Return CPU *number*, from 0. Raises ArgumentTypeError, ArgumentValueError."""
        return self._cpus[check_cpu("system.cpu", self._machine, number).id]

    def ticks(self) -> int:
        """Return how many clock ticks have passed since it was opened. Never blocks."""
        return ticks_since_boot(self._machine, self._platform.now())

    def sbinuptime(self) -> int:
        """Return the time of its clock as sbintime. Never blocks."""
        return ns_to_sbt(self._platform.now())

    @contextmanager
    def bound(self, cpu: int = 0) -> Iterator[CalloutSystem]:
        """Make this the current system of a thread of your own, and *cpu* its current CPU, in a ``with`` block. Never
        blocks.

        Raises:
            ArgumentTypeError, ArgumentValueError: that CPU is not there, or this thread is the loop of one.
        """
        check_cpu("bound", self._machine, cpu)
        if any(loop.thread == threading.get_ident() for loop in self._platform.loops):
            raise ArgumentValueError(
                "bound: this thread is the loop of a CPU of this system, which is its current CPU already"
            )
        token = CURRENT.set(self._machine)
        try:
            with self._platform.bind(cpu):
                yield self
        finally:
            CURRENT.reset(token)

    # -- what goes wrong -----------------------------------------------------------------------------------------

    def _report(self, error: BaseException, c: Callout | None) -> None:
        """An exception has left a callback, on the loop that ran it."""
        log().error("callout.callback_error", callout=repr(c), error=repr(error))
        if self._on_error is not None and isinstance(error, Exception):
            try:
                self._on_error(error, c)
            except BaseException as worse:  # whatever it is, it goes where an unhandled error goes
                self._fail(worse)
            return
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Have *error* leave through the block. From any thread."""
        with suppress(trio.RunFinishedError):
            self._platform.loops[0].token.run_sync_soon(self._crash, error)

    def _crash(self, error: BaseException) -> None:
        tasks = self._cpus[0]._tasks
        if tasks is None:
            self._late.append(error)
        else:
            tasks.start_soon(_raise, error)

    def _begin_to_leave(self) -> None:
        """Begin to look for what keeps the end of the block waiting; under a mock clock, once all tasks are done."""
        if not self._platform.follows_trio:
            self._leaving.set()

    def _cancel_tasks(self) -> None:
        """Cancel the tasks of all CPUs."""
        for handle in self._cpus:
            if handle._tasks is not None:
                with suppress(trio.RunFinishedError):
                    handle._loop.token.run_sync_soon(handle._tasks.cancel_scope.cancel)


async def _raise(error: BaseException) -> None:
    raise error


def _expensive(func: Func, spent: int) -> None:
    log().warning("callout.expensive", function=describe.name_of(func), milliseconds=round(spent / 1e6, 3))


class _SleepCheck(trio.abc.Instrument):
    """Checking mode: reports a task that has awaited while its thread held a lock."""

    def __init__(self, system: CalloutSystem) -> None:
        self._system = system
        self._told = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task has come to an await, or to its end."""
        held = self._system._machine.held
        mine = held and held.get(threading.get_ident())
        if mine and not self._told:
            self._told = True
            where = ""
            for frame, line in task.iter_await_frames():
                if frame.f_globals.get("__name__", "").partition(".")[0] not in ("callout", "trio"):
                    where = f" at {frame.f_code.co_filename}:{line} in {frame.f_code.co_qualname}()"
            self._system._fail(
                SleepError(
                    f"task {task.name} awaited{where} with {', '.join(map(repr, mine))} held: "
                    "give locks up before an await, or the loop stops whenever its softclock wants them"
                )
            )


@trio.lowlevel.enable_ki_protection
async def _serve(handle: CpuHandle) -> None:
    """Run the event timer and softclock of a CPU until that is closed."""
    loop = handle._loop
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as services:
            services.start_soon(loop.timer.run, loop.entry.hardclock)
            await loop.entry.softclock()
            services.cancel_scope.cancel()


class _CpuThread:
    """The thread of a CPU other than 0, seen from CPU 0."""

    def __init__(self, system: CalloutSystem, number: int) -> None:
        self.handle = system._cpus[number]
        self._system = system
        self._home = trio.lowlevel.current_trio_token()
        self.started = False
        self._left = False
        self.ready = trio.Event()  # the loop runs
        self.idle = trio.Event()  # its tasks have ended
        self._leave: trio.Event | None = None
        self._services: trio.Nursery | None = None
        self._thread = threading.Thread(target=self._main, name=f"callout-cpu{number}", daemon=True)

    def start(self) -> None:
        """Start it. Raises RuntimeError if the operating system has no thread left."""
        self._thread.start()
        self.started = True

    async def tasks_done(self) -> None:
        """Wait until the CPU has no task left."""
        done = trio.Event()
        if self._services is not None:
            with suppress(trio.RunFinishedError):
                self.handle._loop.token.run_sync_soon(self._services.start_soon, self._answer, done)
                await done.wait()

    async def _answer(self, done: trio.Event) -> None:
        with trio.CancelScope(shield=True):
            await self.handle._tasks_done()
        self._tell(done)

    def leave(self) -> None:
        """Have the loop close its tasks' nursery, also if it has not come up yet."""
        self._left = True
        if self._leave is not None:
            with suppress(trio.RunFinishedError):
                self.handle._loop.token.run_sync_soon(self._leave.set)

    def join(self) -> None:
        """Wait for the thread, which is about to end."""
        self._thread.join()

    def _tell(self, event: trio.Event) -> None:
        with suppress(trio.RunFinishedError):
            self._home.run_sync_soon(event.set)

    def _main(self) -> None:
        try:
            trio.run(self._cpu)
        except BaseException as error:  # nothing may be lost: it leaves through the block
            self._system._fail(error)
            if self.handle._cpu.open:
                close_cpu(self.handle._cpu)
        finally:
            self._tell(self.ready)
            self._tell(self.idle)

    async def _cpu(self) -> None:
        handle = self.handle
        number = handle.id
        system = self._system
        CURRENT.set(system._machine)
        system._platform.power_on(number, copy_context())
        self._leave = trio.Event()
        if self._left:
            self._leave.set()
        try:
            if system._machine.held is not None:
                trio.lowlevel.add_instrument(_SleepCheck(system))
            async with trio.open_nursery() as self._services:
                self._services.start_soon(_serve, handle)
                try:
                    async with trio.open_nursery() as tasks:
                        handle._tasks = tasks
                        self._tell(self.ready)
                        await self._leave.wait()
                except BaseExceptionGroup as error:
                    system._fail(error)
                finally:
                    handle._tasks = None
                    self._tell(self.idle)
        finally:
            system._platform.power_off(number)


def _check_arguments(cpus: object, on_error: object, expensive: object) -> None:
    check_int("open_callouts", "cpus", cpus, 1, 1024)
    if on_error is not None and not callable(on_error):
        raise ArgumentTypeError(
            f"open_callouts: on_error must be a function of an exception and a callout, not {on_error!r}"
        )
    if not isinstance(expensive, int | float) or not expensive > 0:
        raise ArgumentValueError(f"open_callouts: expensive must be a number of seconds above 0, got {expensive!r}")


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_callouts(
    cpus: int = 1,
    hz: int = 1000,
    *,
    alloweddeviation: int = 0,
    checking: bool | None = None,
    on_error: OnError | None = None,
    expensive: float = 0.1,
) -> AsyncIterator[CalloutSystem]:
    """Open a callout system for an ``async with`` block, inside which it is the current one.

    *cpus*: CPU 0 is this loop, each other a thread with a loop of its own. *hz*: clock ticks in a second.
    *alloweddeviation*: by how many per cent of its interval a callout may be late so that wake-ups are shared
    (``kern.timecounter.alloweddeviation``). *checking*: whether the locks that each thread holds are tracked, so that
    sleeping with one is an error; by default only under pytest. *on_error*: called with an exception that leaves a
    callback, and the callout; without it the exception leaves through this block, as one of a nursery's child does.
    *expensive*: a callback that takes longer, in seconds, is named in the log.

    Leaving the block waits for tasks of ``system.cpu(n).start_soon()`` (cancels them if it is left with an
    exception), stops what is pending, and waits until nothing runs.

    Raises:
        ArgumentTypeError, ArgumentValueError: an option is wrong.
        ClockError: more than one CPU under a clock that is not the system's.
    """
    _check_arguments(cpus, on_error, expensive)
    platform = TrioPlatform()
    if platform.follows_trio and cpus > 1:
        raise ClockError(
            f"open_callouts: a mock clock drives the loop that it was given to and no other; use cpus=1, not {cpus}"
        )
    if checking is None:
        checking = "PYTEST_CURRENT_TEST" in os.environ and "pytest" in sys.modules
    async with open_on(platform, cpus, hz, alloweddeviation, checking, on_error, expensive) as system:
        yield system


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_on(
    platform: TrioPlatform,
    cpus: int,
    hz: int,
    alloweddeviation: int,
    checking: bool,
    on_error: OnError | None,
    expensive: float,
) -> AsyncIterator[CalloutSystem]:
    """Open a system on *platform*. See ``open_callouts``."""
    # Bound late: the machine reports to the system that is made from it.
    machine = boot(
        platform,
        cpus=cpus,
        hz=hz,
        alloweddeviation=alloweddeviation,
        checking=checking,
        report=lambda error, c: system._report(error, c),
        expensive=_expensive,
    )
    system = CalloutSystem(machine, platform, on_error)
    machine.budget = SOFTCLOCK_BUDGET
    machine.slow = round(min(expensive * NS_PER_S, NEVER))
    _MACHINES.add(machine)
    token = CURRENT.set(machine)
    platform.power_on(0, copy_context())
    check = _SleepCheck(system) if checking else None
    if check is not None:
        trio.lowlevel.add_instrument(check)
    left: BaseException | None = None
    try:
        async with trio.open_nursery() as services:
            services.start_soon(_serve, system._cpus[0])
            naming = trio.CancelScope(shield=True)
            services.start_soon(_name_the_late, system, naming)
            threads = [_CpuThread(system, number) for number in range(1, cpus)]
            done = trio.Event()
            try:
                async with trio.open_nursery() as tasks:
                    system._cpus[0]._tasks = tasks
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        await _insist(thread.ready)
                    log().debug("callout.opened", cpus=cpus, hz=hz)
                    try:
                        yield system
                        system._begin_to_leave()
                        await _all_tasks_done(system, threads)
                        await _quiesce(system)
                        await _all_tasks_done(system, threads)
                    except trio.Cancelled:
                        raise
                    except BaseException as error:  # raised again below, not wrapped into a group if it is alone
                        left = error
                        tasks.cancel_scope.cancel()
            finally:
                system._cpus[0]._tasks = None
                system._begin_to_leave()
                system._cancel_tasks()
                for thread in threads:
                    thread.leave()
                services.start_soon(_close, system, threads, done)
                try:
                    await _insist(done)
                finally:
                    naming.cancel()
    except BaseExceptionGroup as group:
        _gather(system, left, group)
    finally:
        if check is not None:
            trio.lowlevel.remove_instrument(check)
        platform.power_off(0)
        with suppress(ValueError):  # left in another context than it was entered in, as test fixtures may be
            CURRENT.reset(token)
        log().debug("callout.closed")
    _gather(system, left, None)


def _gather(system: CalloutSystem, left: BaseException | None, group: BaseExceptionGroup[BaseException] | None) -> None:
    """Raise what has to leave the block: the body's own exception as it is, if it is alone."""
    errors = [*_leaves(group), *system._late]
    if left is not None:
        if not errors:
            raise left
        errors.insert(0, left)
    if errors:
        raise BaseExceptionGroup("callouts", errors)


def _leaves(group: BaseExceptionGroup[BaseException] | None) -> Iterator[BaseException]:
    """Yield the exceptions of a group of nurseries, which is as deep as the nurseries are."""
    for error in () if group is None else group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _insist(event: trio.Event) -> None:
    """Wait, whatever comes; a KeyboardInterrupt that came is raised afterwards."""
    interrupt: KeyboardInterrupt | None = None
    with trio.CancelScope(shield=True):
        while not event.is_set():
            try:
                await event.wait()
            except KeyboardInterrupt as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt


async def _all_tasks_done(system: CalloutSystem, threads: list[_CpuThread]) -> None:
    """Wait until no CPU has a task left: one may start another on any CPU, so look until a whole round finds none."""
    handles = system._cpus
    while True:
        await handles[0]._tasks_done()
        for thread in threads:
            await thread.tasks_done()
        if not any(handle._starts or (handle._tasks is not None and handle._tasks.child_tasks) for handle in handles):
            return


async def _quiesce(system: CalloutSystem) -> None:
    """Wait until nothing runs."""
    system._leaving.set()
    await quiesce(system._machine)


@trio.lowlevel.enable_ki_protection
async def _close(system: CalloutSystem, threads: list[_CpuThread], done: trio.Event) -> None:
    """Take the system down; see the module's docstring."""
    with trio.CancelScope(shield=True):
        try:
            started = [thread for thread in threads if thread.started]
            for thread in started:
                await thread.idle.wait()
            for thread in threads:
                if not thread.started:
                    close_cpu(thread.handle._cpu)
            await _quiesce(system)
            await close(system._machine)
            for thread in started:
                thread.join()
        finally:
            done.set()


@trio.lowlevel.enable_ki_protection
async def _name_the_late(system: CalloutSystem, over: trio.CancelScope) -> None:
    """Name, in the log, each callback for which the end of the block has been waiting; the longer, the more rarely."""
    with over:
        await system._leaving.wait()
        if system._platform.follows_trio:  # to sleep would move the clock; by now the end waits for nothing but runs
            _name(_runs(system))
            return
        pause = 1.0
        seen = _runs(system)
        while True:
            await trio.sleep(pause)
            pause *= 2
            now = _runs(system)
            _name(now & seen)
            seen = now


def _runs(system: CalloutSystem) -> set[Run]:
    return {run for cpu in system._machine.cpus for lane in cpu.lanes if (run := lane.run) is not None}


def _name(runs: set[Run]) -> None:
    for run in sorted(runs, key=lambda run: run.cpu.id):
        log().warning("callout.close_waits", callout=repr(run.callout), cpu=run.cpu.id, arg=repr(run.arg))


def _after_fork() -> None:
    """In a forked child: refuse every use of the parent's systems."""
    for machine in list(_MACHINES):
        machine.dead = Refusal(ForkedError, _FORKED)
        for cpu in machine.cpus:
            if cpu.open:
                cpu.open = False
                cpu.lock = machine.dead


os.register_at_fork(after_in_child=_after_fork)
