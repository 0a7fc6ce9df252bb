"""A world for replays on real trio loops and real threads, under a hand-driven clock.

Quiescence is derived from what every actor is known to be blocked on. Actors are the scenario's threads and the CPUs'
loops. A thread is quiet while it waits for orders or stands in a lock, a drain or a gate of this world; a loop is
quiet in those, too, and while it waits for I/O with nothing handed over to it. What wakes another marks it as running
in the same step, so no wake-up is ever unseen. Nothing sleeps or polls.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING

import trio

from ..._core.lifecycle import stop_all
from ..._core.rawlock import RawLock
from ..._core.units import NEVER, NS_PER_S
from ..._worlds.trio.event_timer import EventTimer
from ..._worlds.trio.opening import open_on
from ..._worlds.trio.platform import Loop, TrioPlatform
from ..._worlds.trio.system import CalloutSystem
from .._format import Scenario

if TYPE_CHECKING:
    from ..._core.platform import Entry, Waiter


class _Actor:
    """A thread or a loop. All fields belong to the monitor."""

    def __init__(self, *, is_loop: bool) -> None:
        self.is_loop = is_loop
        self.blocked = False
        self.waits_for_io = False
        self.posts = 0  # handed over to the loop, and not taken yet

    def quiet(self) -> bool:
        """Whether it can do nothing until somebody wakes it."""
        return self.blocked or (self.is_loop and self.waits_for_io and not self.posts)


class _Monitor:
    """Knows what every actor is doing, and the time."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.actors: dict[int, _Actor] = {}  # by thread
        self.time = NS_PER_S

    def add(self, *, is_loop: bool) -> _Actor:
        """Make the current thread an actor."""
        actor = _Actor(is_loop=is_loop)
        with self.changed:
            self.actors[threading.get_ident()] = actor
            self.changed.notify_all()
        return actor

    def wait_for_actors(self, count: int) -> None:
        """Wait until *count* threads and loops are known: one that is not would count as quiet."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.actors) == count)

    def settle(self) -> None:
        """Wait until every actor is quiet."""
        with self.changed:
            self.changed.wait_for(lambda: all(actor.quiet() for actor in self.actors.values()))

    def block(self, place: deque[_Actor | None], over: Callable[[], bool]) -> None:
        """Block the current thread in *place* until ``wake`` there; the monitor is held."""
        actor = self.actors.get(threading.get_ident())
        place.append(actor)
        if actor is not None:
            actor.blocked = True
        self.changed.notify_all()
        self.changed.wait_for(over)

    def wake(self, place: deque[_Actor | None]) -> None:
        """Mark all that are blocked in *place* as running again; the monitor is held."""
        for actor in place:
            if actor is not None:
                actor.blocked = False
        place.clear()
        self.changed.notify_all()


class _Lock(RawLock):
    """A raw lock. It is handed to who has waited longest, so that it is known who will run."""

    def __init__(self, monitor: _Monitor) -> None:
        self._monitor = monitor
        self._queue: deque[tuple[int, deque[_Actor | None]]] = deque()
        self._holder: int | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, /) -> bool:
        """Acquire it."""
        me = threading.get_ident()
        with self._monitor.changed:
            if self._holder is None or self._holder == me:
                self._holder = me
                self._depth += 1
                return True
            if not blocking:
                return False
            place: deque[_Actor | None] = deque()
            self._queue.append((me, place))
            self._monitor.block(place, lambda: self._holder == me)
            return True

    def release(self, /) -> None:
        """Hand it on. RuntimeError if this thread does not hold it, as ``threading.RLock``."""
        with self._monitor.changed:
            if self._holder != threading.get_ident():
                raise RuntimeError("cannot release un-acquired lock")
            self._depth -= 1
            if self._depth:
                return
            self._holder = None
            if self._queue:
                self._holder, place = self._queue.popleft()
                self._depth = 1
                self._monitor.wake(place)

    def _is_owned(self, /) -> bool:
        return self._holder == threading.get_ident()


class _ThreadWaiter:
    """A one-shot event for threads."""

    def __init__(self, monitor: _Monitor) -> None:
        self._monitor = monitor
        self._place: deque[_Actor | None] = deque()
        self._is_set = False

    async def wait(self) -> None:
        """Block until it is set."""
        self.block()

    def block(self, log: Callable[[], None] | None = None) -> None:
        """Block until it is set; call *log* first if it is not."""
        with self._monitor.changed:
            if not self._is_set:
                if log is not None:
                    log()
                self._monitor.block(self._place, lambda: self._is_set)

    def set(self) -> None:
        """Set it. RuntimeError if it is set: what sets it has miscounted."""
        with self._monitor.changed:
            if self._is_set:
                raise RuntimeError("a waiter is set twice")
            self.open()

    def set_here(self) -> None:
        """Set it."""
        self.set()

    def open(self) -> None:
        """Let all pass, now and later: as a gate it may be opened twice."""
        with self._monitor.changed:
            self._is_set = True
            self._monitor.wake(self._place)


class _CountingToken:
    """Hands functions over to a loop as its token does, and has the monitor know of them."""

    def __init__(self, monitor: _Monitor, actor: _Actor) -> None:
        self._monitor = monitor
        self._actor = actor
        self._token = trio.lowlevel.current_trio_token()

    def run_sync_soon(self, func: Callable[..., object], *args: object, idempotent: bool = False) -> None:
        """Have the loop call *func*; once for each call, also if that is more often than needed."""

        def taken() -> None:
            with self._monitor.changed:
                self._actor.posts -= 1
            func(*args)

        with self._monitor.changed:
            self._actor.posts += 1
        try:
            self._token.run_sync_soon(taken)
        except trio.RunFinishedError:
            with self._monitor.changed:
                self._actor.posts -= 1
            raise


class _LoopWaiter:
    """A one-shot event for a task."""

    def __init__(self, token: _CountingToken) -> None:
        self._event = trio.Event()
        self._token = token

    async def wait(self) -> None:
        """Wait until it is set."""
        await self._event.wait()

    def set(self) -> None:
        """Set it, from anywhere."""
        self._token.run_sync_soon(self._event.set)

    def set_here(self) -> None:
        """Set it, from a task of the same loop."""
        self._event.set()


class _Timer:
    """An event timer that fires when the replay says so."""

    def __init__(self, monitor: _Monitor, token: _CountingToken) -> None:
        self._monitor = monitor
        self._token = token
        self._event = trio.Event()
        self._when = NEVER
        self._firing = False
        self._fired = False

    def set(self, when: int) -> None:
        """Program it."""
        with self._monitor.changed:
            self._when = when

    def tick(self) -> None:
        """The time has moved: fire if it has come. Interrupts that come while one is being served merge into one."""
        with self._monitor.changed:
            if self._fired or not (self._when <= self._monitor.time or self._firing):
                return
            self._fired = True
        self._token.run_sync_soon(lambda: self._event.set())

    async def expired(self) -> None:
        """Wait until it fires."""
        await self._event.wait()
        self._event = trio.Event()
        with self._monitor.changed:
            self._fired = False
            self._firing = True
            self._when = NEVER

    def served(self) -> None:
        """The interrupt is over: what comes from now on is another."""
        with self._monitor.changed:
            self._firing = False

    def wake(self) -> None:
        """Have it return, though nothing has come."""
        self._event.set()

    def close(self) -> None:
        """Nothing is held."""


class _Loop(Loop):
    """A loop that tells its timer when an interrupt is over."""

    def clock_interrupt(self, now: int) -> bool:
        """Take the clock interrupt."""
        more = super().clock_interrupt(now)
        if not more:
            assert isinstance(self.timer, _Timer)
            self.timer.served()
        return more


class _Watch(trio.abc.Instrument):
    """Tells the monitor when a loop waits for I/O."""

    def __init__(self, monitor: _Monitor, actor: _Actor) -> None:
        self._monitor = monitor
        self._actor = actor

    def before_io_wait(self, timeout: float) -> None:
        """Nothing can run on this loop, if it is going to wait at all."""
        if timeout > 0:
            with self._monitor.changed:
                self._actor.waits_for_io = True
                self._monitor.changed.notify_all()

    def after_io_wait(self, timeout: float) -> None:
        """It runs again."""
        with self._monitor.changed:
            self._actor.waits_for_io = False


class _Platform(TrioPlatform):
    """Real loops and threads whose waits the monitor knows."""

    def __init__(self, monitor: _Monitor) -> None:
        super().__init__()
        self.monitor = monitor
        self.coalesces = False
        self.now = lambda: monitor.time
        self._tokens: dict[int, _CountingToken] = {}

    def attach(self, cpu: int, entry: Entry) -> None:
        """Learn what to run for *cpu*."""
        self.loops.append(_Loop(entry, lambda error: self.fail(error)))

    def power_on(self, cpu: int, context: Context) -> None:
        """Make this loop an actor."""
        actor = self.monitor.add(is_loop=True)
        token = self._tokens[threading.get_ident()] = _CountingToken(self.monitor, actor)
        super().power_on(cpu, context)
        self.loops[cpu].token = token  # type: ignore[assignment]  # does what a TrioToken does; that class is final
        trio.lowlevel.add_instrument(_Watch(self.monitor, actor))

    def new_timer(self) -> EventTimer:
        """Return a timer that ``tick`` drives."""
        return _Timer(self.monitor, self._tokens[threading.get_ident()])

    def raw_lock(self, label: str) -> RawLock:
        """Return a lock that the monitor knows."""
        return _Lock(self.monitor)

    def waiter(self) -> Waiter:
        """Return a waiter for the current task."""
        trio.lowlevel.current_trio_token()  # RuntimeError outside a task
        return _LoopWaiter(self._tokens[threading.get_ident()])

    def thread_waiter(self) -> Waiter:
        """Return a waiter for the current thread."""
        return _ThreadWaiter(self.monitor)


class _Thread:
    """A thread of the scenario, which does as it is told."""

    def __init__(self, world: RealWorld, name: str, cpu: int) -> None:
        self._world = world
        self._cpu = cpu
        self._orders: deque[Callable[[], None] | None] = deque()
        self._place: deque[_Actor | None] = deque()
        self.actor: _Actor
        self.thread = threading.Thread(target=self._main, name=name, daemon=True)

    def post(self, order: Callable[[], None] | None) -> None:
        """Give it an order; None: end."""
        monitor = self._world.monitor
        with monitor.changed:
            self._orders.append(order)
            monitor.wake(self._place)

    def _main(self) -> None:
        monitor = self._world.monitor
        self.actor = monitor.add(is_loop=False)
        with self._world.system.bound(self._cpu):
            while True:
                with monitor.changed:
                    if not self._orders:
                        monitor.block(self._place, lambda: bool(self._orders))
                    order = self._orders.popleft()
                if order is None:
                    break
                try:
                    order()
                except BaseException as error:  # raised again where the world is used
                    self._world.fail(error)
        with monitor.changed:
            del monitor.actors[threading.get_ident()]
            monitor.changed.notify_all()

    def idle(self) -> bool:
        """Whether it waits for orders."""
        return bool(self._place)


class RealWorld:
    """Real loops and real threads."""

    def __init__(self, scenario: Scenario) -> None:
        self.monitor = _Monitor()
        self.system: CalloutSystem
        self._gates: dict[str, _ThreadWaiter] = {}
        self._closing = False  # every gate is open
        self._error: BaseException | None = None
        self._leave: trio.Event
        self._token: trio.lowlevel.TrioToken
        self._platform: _Platform
        opened = threading.Event()
        self._cpu0 = threading.Thread(target=self._main, args=(scenario, opened), name="cpu0", daemon=True)
        self._cpu0.start()
        opened.wait()
        if self._error is not None:
            raise self._error
        self.machine = self.system._machine
        self._threads = {name: _Thread(self, name, scenario.thread_cpu.get(name, 0)) for name in scenario.threads}
        for thread in self._threads.values():
            thread.thread.start()
        self.monitor.wait_for_actors(scenario.ncpu + len(self._threads))

    def _main(self, scenario: Scenario, opened: threading.Event) -> None:
        async def cpu0() -> None:
            self._platform = _Platform(self.monitor)
            self._token = trio.lowlevel.current_trio_token()
            self._leave = trio.Event()
            async with open_on(
                self._platform, scenario.ncpu, 1000, scenario.alloweddeviation, True, None, 3600
            ) as system:
                self.system = system
                opened.set()
                await self._leave.wait()

        try:
            trio.run(cpu0)
        except BaseException as error:  # raised again where the world is used
            self._error = error
        finally:
            opened.set()

    def fail(self, error: BaseException) -> None:
        """Remember what no actor may raise."""
        self._error = error

    def enter(self, setup: Callable[[], None]) -> None:
        """Run *setup* in this thread, bound to CPU 0."""
        with self.system.bound():
            setup()

    def post(self, thread: str, thunk: Callable[[], None]) -> None:
        """Give a thread an order."""
        self._threads[thread].post(thunk)

    def _gate(self, name: str) -> _ThreadWaiter:
        with self.monitor.changed:
            gate = self._gates.setdefault(name, _ThreadWaiter(self.monitor))
            if self._closing:
                gate.set()  # a callback may come to it only now, that the threads have released their locks
            return gate

    def wait_at_gate(self, gate: str, log: Callable[[], None]) -> None:
        """Block this thread, and with it its loop."""
        self._gate(gate).block(log)

    def open_gate(self, gate: str) -> None:
        """Open it."""
        self._gate(gate).open()

    def tick(self) -> None:
        """Move the time."""
        with self.monitor.changed:
            self.monitor.time += self.machine.tick
        for loop in self._platform.loops:
            assert isinstance(loop.timer, _Timer)
            loop.timer.tick()

    def settle(self) -> None:
        """Wait for quiescence."""
        self.monitor.settle()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Open the gates, have the threads release their locks, and leave the system."""
        self.machine.report = lambda error, c: None
        with self.monitor.changed:
            self._closing = True
        while True:
            for gate in list(self._gates.values()):
                gate.open()
            for thread in self._threads.values():
                thread.post(self._give_all_up)
            self.settle()
            if all(thread.idle() for thread in self._threads.values()):
                break
        for thread in self._threads.values():
            thread.post(None)
            thread.thread.join()
        for cpu in self.machine.cpus:
            stop_all(cpu)  # what a scenario has left pending is no news
        self._token.run_sync_soon(self._leave.set)
        self._cpu0.join()
        if self._error is not None:
            raise self._error

    def _give_all_up(self) -> None:
        assert self.machine.held is not None
        for lock in reversed(self.machine.held.get(threading.get_ident(), [])[:]):
            lock.release_as(shared=not lock.owned())
