"""What every platform's primitives do and refuse: the same assertions about the real world and the virtual one.

The engine is explored on the virtual platform and ships on trio's, so a primitive that grants there what the real one
refuses makes a certificate false. A test is a task of CPU 0; it has threads without a loop and a CPU 1 beside it.

The manual world has one CPU and no loop. The same is asserted of it, as far as that goes: a test drives the CPU.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import pytest
import trio

from callout._core.drain import run_blocking
from callout._core.platform import Entry, Platform, Waiter
from callout._core.rawlock import RawLock
from callout._core.units import NEVER
from callout._worlds.manual.platform import ManualPlatform
from callout._worlds.trio.platform import TrioPlatform
from callout._worlds.trio.services import Services
from callout._worlds.virtual.platform import VirtualPlatform
from callout._worlds.virtual.waiters import drive
from callout.conformance._worlds import real

T = TypeVar("T")
CPUS: Final = 2


class World(Protocol):
    """A platform with two CPUs, seen from a task of CPU 0."""

    entries: Entries
    in_loop: bool  # what the entries of a CPU run in is a loop

    @property
    def platform(self) -> Platform:
        """The platform."""
        ...

    async def thread(self, func: Callable[[], T]) -> T:
        """Run *func* in a thread without a loop, and return its result."""
        ...

    async def together(self, *tasks: Callable[[], Awaitable[object]], cpu: int = 0) -> None:
        """Run these as tasks of the loop of *cpu*, and wait for them."""
        ...

    def tick(self) -> None:
        """Let the time of an event that was set come, if it does not by itself."""
        ...


Body = Callable[[World], Coroutine[Any, Any, None]]


class Entries:
    """What the platform runs for each CPU: it writes down where it is, and tells the test."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.more = 0  # how often hardclock has more to do
        self.told: list[Callable[[], None]] = []
        self.platform: Platform

    def entry(self, cpu: int) -> Entry:
        """Return the entry of *cpu*."""
        return Entry(partial(self._hardclock, cpu), partial(self._note, "calls", cpu), partial(self._softclock, cpu))

    def _hardclock(self, cpu: int) -> bool:
        self.more -= 1
        if self.more >= 0:
            self.log.append("more")
            return True
        self._note("hardclock", cpu)
        return False

    def _note(self, what: str, cpu: int) -> None:
        self.log.append(f"{what} of {cpu} on {self.platform.current_cpu()} in_loop={self.platform.in_loop()}")
        told, self.told = self.told, []
        for tell in told:
            tell()

    async def _softclock(self, cpu: int) -> None:
        """Have nothing to do, for ever."""
        await self.platform.idle_waiter(cpu).wait()

    async def noted(
        self, world: World, provoke: Callable[[], Awaitable[object]], *others: Callable[[], Awaitable[object]]
    ) -> None:
        """Wait until an entry has been run, which *provoke* has it do; that begins when this task listens."""
        listening = self.platform.waiter()

        async def listen() -> None:
            waiter = self.platform.waiter()
            self.told.append(waiter.set)
            listening.set()
            await waiter.wait()

        async def then() -> None:
            await listening.wait()
            await provoke()

        await world.together(listen, then, *others)


class RealWorld:
    """Loops of trio in two threads; the CPUs are driven as the system drives them."""

    in_loop = True

    def __init__(self, make: Callable[[], TrioPlatform], tick: Callable[[TrioPlatform], None]) -> None:
        self._make = make
        self._tick = tick
        self.entries = Entries()
        self.platform: TrioPlatform

    def play(self, body: Body) -> None:
        """Run *body* as a task of CPU 0."""
        trio.run(self._cpu0, body)

    async def _cpu0(self, body: Body) -> None:
        self.platform = self.entries.platform = self._make()
        for cpu in range(CPUS):
            self.platform.attach(cpu, self.entries.entry(cpu))
        up = threading.Event()
        self._down = trio.Event()
        cpu1 = threading.Thread(target=trio.run, args=(self._cpu1, up))
        cpu1.start()
        up.wait()
        try:
            async with trio.open_nursery() as nursery:
                self._power_on(0, nursery)
                await body(self)
                nursery.cancel_scope.cancel()
        finally:
            self.platform.power_off(0)
            self._token1.run_sync_soon(self._down.set)
            cpu1.join()

    async def _cpu1(self, up: threading.Event) -> None:
        self._token1 = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._power_on(1, nursery)
            up.set()
            await self._down.wait()
            nursery.cancel_scope.cancel()
        self.platform.power_off(1)

    def _power_on(self, cpu: int, nursery: trio.Nursery) -> None:
        self.platform.power_on(cpu, contextvars.copy_context())
        loop = self.platform.loops[cpu]
        loop.services = Services(loop, lambda again: loop.entry.hardclock(), self._no_death)
        nursery.start_soon(loop.services.softclock)
        nursery.start_soon(loop.services.stand_in)

    @staticmethod
    def _no_death(error: BaseException) -> None:
        raise error

    async def thread(self, func: Callable[[], T]) -> T:
        """A worker thread."""
        return await trio.to_thread.run_sync(func)

    async def together(self, *tasks: Callable[[], Awaitable[object]], cpu: int = 0) -> None:
        """A nursery of that loop."""

        async def nurse() -> None:
            async with trio.open_nursery() as nursery:
                for task in tasks:
                    nursery.start_soon(task)

        if cpu == 0:
            await nurse()
        else:
            await trio.to_thread.run_sync(lambda: trio.from_thread.run(nurse, trio_token=self._token1))

    def tick(self) -> None:
        """Move the clock, if it is one that is driven by hand."""
        self._tick(self.platform)


class VirtualWorld:
    """Greenlets."""

    in_loop = True

    def __init__(self) -> None:
        self.entries = Entries()
        self.platform = self.entries.platform = VirtualPlatform()
        for cpu in range(CPUS):
            self.platform.attach(cpu, self.entries.entry(cpu))

    def play(self, body: Body) -> None:
        """Run *body* as a task of CPU 0."""
        self.platform.power_on([partial(bool, 1)] * CPUS)
        context = self.platform.spawn("body", lambda: drive(body(self)), cpu=0)
        try:
            self.platform.settle()
            for error in self.platform.errors:
                raise error
            assert context not in self.platform.contexts, f"it never ended: {context!r}"
        finally:
            self.platform.power_off()

    async def thread(self, func: Callable[[], T]) -> T:
        """A context without a CPU."""
        results: list[T] = []
        errors: list[BaseException] = []
        done = self.platform.waiter()

        def body() -> None:
            try:
                results.append(func())
            except BaseException as error:
                errors.append(error)
            done.set()

        self.platform.spawn("thread", body)
        await done.wait()
        for error in errors:
            raise error
        return results[0]

    async def together(self, *tasks: Callable[[], Awaitable[object]], cpu: int = 0) -> None:
        """Contexts of that CPU."""
        waiters = [self.platform.waiter() for _ in tasks]

        async def task(func: Callable[[], Awaitable[object]], done: Waiter) -> None:
            await func()
            done.set()

        for func, done in zip(tasks, waiters, strict=True):
            self.platform.spawn("task", partial(_drive, partial(task, func, done)), cpu=cpu)
        for done in waiters:
            await done.wait()

    def tick(self) -> None:
        """A free clock needs none."""


class ManualWorld:
    """One CPU, which runs where the test drives it."""

    in_loop = False

    def __init__(self) -> None:
        self.entries = Entries()
        self.platform = self.entries.platform = ManualPlatform()
        self.platform.attach(0, self.entries.entry(0))

    def play(self, body: Body) -> None:
        """Run *body* as what drives the CPU."""
        with self.platform.driving("play"):
            self.platform.power_on()
            self.platform.drive(body(self))

    async def thread(self, func: Callable[[], T]) -> T:
        """A thread, for whose end the CPU waits."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(func).result()

    async def together(self, *tasks: Callable[[], Awaitable[object]], cpu: int = 0) -> None:
        """There are no tasks: in turn, as far as each comes. Between two rounds the CPU has its own."""
        assert cpu == 0
        left = [task().__await__() for task in tasks]
        while left:
            left = [each for each in left if next(each, left) is not left]
            self.platform.serve()

    def tick(self) -> None:
        """Have the clock stand where it is."""
        self.platform.run_until(self.platform.now(), lambda: False)


def _drive(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    drive(make())


def real_world() -> RealWorld:
    """Return the world of ``open_callouts()``."""
    return RealWorld(TrioPlatform, lambda platform: None)


def hand_driven_world() -> RealWorld:
    """Return the world in which recordings are replayed on real threads."""
    monitor = real._Monitor()

    def tick(platform: TrioPlatform) -> None:
        with monitor.changed:
            monitor.time += 1
        for loop in platform.loops:
            assert isinstance(loop.timer, real._Timer)
            loop.timer.tick()

    return RealWorld(lambda: real._Platform(monitor), tick)


WORLDS: Final[dict[str, Callable[[], RealWorld | VirtualWorld]]] = {
    "trio": real_world,
    "hand-driven": hand_driven_world,
    "virtual": VirtualWorld,
}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> RealWorld | VirtualWorld:
    """Give each world."""
    return WORLDS[request.param]()


@pytest.fixture(params=[*WORLDS, "manual"])
def any_world(request: pytest.FixtureRequest) -> AnyWorld:
    """Give each world, and the one that has no loop."""
    return ManualWorld() if request.param == "manual" else WORLDS[request.param]()


@pytest.fixture(params=["raw", "cpu"])
def make_lock(request: pytest.FixtureRequest) -> Callable[[Platform], RawLock]:
    """Give each way to make a lock."""
    if request.param == "raw":
        return lambda platform: platform.raw_lock("m")
    return lambda platform: platform.cpu_lock(0)


AnyWorld = RealWorld | VirtualWorld | ManualWorld
MakeLock = Callable[[Platform], RawLock]

# -- locks -------------------------------------------------------------------------------------------------------------


def test_releasing_a_lock_that_is_not_held(any_world: AnyWorld, make_lock: MakeLock) -> None:
    """It is a RuntimeError: before it was ever acquired, and a second time."""

    async def body(world: World) -> None:
        lock = make_lock(world.platform)
        with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
            lock.release()
        lock.acquire()
        lock.release()
        with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
            lock.release()
        with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
            await world.thread(lock.release)
        assert lock.acquire(False)
        lock.release()

    any_world.play(body)


def test_a_lock_is_held_by_one_thread_as_often_as_it_acquired_it(any_world: AnyWorld, make_lock: MakeLock) -> None:
    """Its holder may acquire it again; another thread may neither acquire nor release it before the last release."""

    async def body(world: World) -> None:
        lock = make_lock(world.platform)

        def owned() -> bool:
            return lock._is_owned()

        def try_it() -> bool:
            got = lock.acquire(False)
            if got:
                lock.release()
            return got

        assert not owned()
        assert lock.acquire(False)
        assert lock.acquire()
        lock.release()
        assert owned()
        assert not await world.thread(owned)
        assert not await world.thread(try_it)
        with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
            await world.thread(lock.release)
        lock.release()
        assert not owned()
        assert await world.thread(try_it)

    any_world.play(body)


def test_acquiring_waits_for_the_release(world: AnyWorld, make_lock: MakeLock) -> None:
    """Two threads that want the lock get it one after the other, and not before it is released."""

    async def body(world: World) -> None:
        lock = make_lock(world.platform)
        log: list[str] = []

        def want() -> None:
            lock.acquire()
            log.append("in")
            log.append("out")
            lock.release()

        held = [world.platform.waiter() for _ in range(2)]

        async def thread(held: Waiter) -> None:
            await held.wait()
            await world.thread(want)

        async def hold() -> None:
            lock.acquire()
            log.append("held")
            for waiter in held:
                waiter.set()
            await world.platform.checkpoint()
            await world.platform.checkpoint()
            log.append("released")
            lock.release()

        await world.together(*(partial(thread, waiter) for waiter in held), hold)
        assert log == ["held", "released", "in", "out", "in", "out"]

    world.play(body)


# -- waiters -----------------------------------------------------------------------------------------------------------


def test_a_waiter_that_is_set_lets_pass(any_world: AnyWorld) -> None:
    """A wake-up that comes before the wait is not lost."""

    async def body(world: World) -> None:
        for how in ("set", "set_here"):
            waiter = world.platform.waiter()
            getattr(waiter, how)()
            await waiter.wait()
            waiter = world.platform.thread_waiter()
            getattr(waiter, how)()
            await waiter.wait()

    any_world.play(body)


def test_a_wake_up_wakes_its_own_waiter_only(any_world: AnyWorld) -> None:
    """Each of those that wait is woken by its own, from a thread or from its loop."""

    async def body(world: World) -> None:
        log: list[str] = []
        one, other, told = (world.platform.waiter() for _ in range(3))

        async def wait(waiter: Waiter, name: str) -> None:
            await waiter.wait()
            log.append(f"{name} woken")
            if waiter is other:
                told.set_here()

        async def wake() -> None:
            await world.platform.checkpoint()
            log.append("wake other")
            await world.thread(other.set)
            await told.wait()
            log.append("wake one")
            one.set_here()

        await world.together(partial(wait, one, "one"), partial(wait, other, "other"), wake)
        assert log == ["wake other", "other woken", "wake one", "one woken"]

    any_world.play(body)


def test_setting_a_thread_waiter_twice(any_world: AnyWorld) -> None:
    """It is a RuntimeError, and the one that waits passes once."""

    async def body(world: World) -> None:
        waiter = world.platform.thread_waiter()
        waiter.set()
        with pytest.raises(RuntimeError):
            waiter.set()
        with pytest.raises(RuntimeError):
            waiter.set_here()
        await waiter.wait()

    any_world.play(body)


def test_a_thread_waiter_blocks_a_thread_until_it_is_set(world: AnyWorld) -> None:
    """The thread that waits goes on after the wake-up, not before."""

    async def body(world: World) -> None:
        log: list[str] = []
        made: list[Waiter] = []
        ready = world.platform.waiter()

        def wait() -> None:
            waiter = world.platform.thread_waiter()
            made.append(waiter)
            ready.set()
            run_blocking(waiter.wait())
            log.append("woken")

        async def wake() -> None:
            await ready.wait()
            log.append("set")
            made[0].set()

        async def thread() -> None:
            await world.thread(wait)

        await world.together(thread, wake)
        assert log == ["set", "woken"]

    world.play(body)


def test_a_thread_waiter_on_a_loop_blocks_the_whole_cpu(world: AnyWorld) -> None:
    """Its interrupt and its other tasks wait until it is set."""

    async def body(world: World) -> None:
        log = world.entries.log
        made: list[Waiter] = []
        ready = world.platform.waiter()

        async def block() -> None:
            waiter = world.platform.thread_waiter()
            made.append(waiter)
            ready.set()
            await waiter.wait()
            log.append("woken")

        async def wake() -> None:
            await ready.wait()
            world.platform.interrupt(1)
            log.append("set")
            made[0].set()

        async def cpu1() -> None:
            await world.together(block, cpu=1)

        await world.entries.noted(world, wake, cpu1)
        assert log == ["set", "woken", "calls of 1 on 1 in_loop=True"]

    world.play(body)


def test_a_waiter_outside_a_task(world: AnyWorld) -> None:
    """Making one in a thread without a loop is a RuntimeError; a thread waiter is what is made there."""

    async def body(world: World) -> None:
        with pytest.raises(RuntimeError):
            await world.thread(world.platform.waiter)
        await world.thread(world.platform.thread_waiter)

    world.play(body)


# -- tasks -------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_lets_the_other_tasks_have_a_turn(world: AnyWorld) -> None:
    """A task that does nothing but checkpoints does not keep the others from running."""

    async def body(world: World) -> None:
        done: list[int] = []

        async def wait() -> None:
            while not done:
                await world.platform.checkpoint()

        async def end() -> None:
            done.append(1)

        await world.together(wait, wait, end)

    world.play(body)


def test_a_checkpoint_or_a_shield_outside_a_task(world: AnyWorld) -> None:
    """There is no loop that could give another task a turn: it is an error."""

    async def body(world: World) -> None:
        def checkpoint() -> None:
            run_blocking(world.platform.checkpoint())

        def shield() -> None:
            with world.platform.shield():
                pass

        with pytest.raises((RuntimeError, AssertionError)):
            await world.thread(checkpoint)
        with pytest.raises(RuntimeError):
            await world.thread(shield)
        with world.platform.shield():
            await world.platform.checkpoint()

    world.play(body)


def test_which_cpu_which_thread_and_whether_it_is_a_loop(world: AnyWorld) -> None:
    """The tasks of one CPU are one thread; a thread without a loop counts as on CPU 0."""

    async def body(world: World) -> None:
        platform = world.platform
        seen: dict[str, tuple[int, bool, object]] = {}

        def look(name: str) -> None:
            seen[name] = platform.current_cpu(), platform.in_loop(), platform.current_thread()

        async def task(name: str) -> None:
            look(name)

        look("here")
        await world.together(lambda: task("task"))
        await world.together(lambda: task("cpu 1"), cpu=1)
        await world.thread(lambda: look("thread"))

        assert [seen[name][:2] for name in ("here", "task", "cpu 1", "thread")] == [
            (0, True),
            (0, True),
            (1, True),
            (0, False),
        ]
        assert seen["task"][2] == seen["here"][2]
        assert len({seen[name][2] for name in ("here", "cpu 1", "thread")}) == 3

    world.play(body)


# -- interrupts --------------------------------------------------------------------------------------------------------


CPUS_OF_WORLDS: Final = [*((name, cpu) for name in WORLDS for cpu in range(CPUS)), ("manual", 0)]


@pytest.mark.parametrize("from_thread", [True, False])
@pytest.mark.parametrize(("any_world", "cpu"), CPUS_OF_WORLDS, indirect=["any_world"])
def test_an_interrupt_takes_the_calls_on_that_cpu(any_world: AnyWorld, cpu: int, *, from_thread: bool) -> None:
    """``Entry.calls`` is called on the loop of that CPU, and nothing else is."""

    async def body(world: World) -> None:
        async def provoke() -> None:
            if from_thread:
                await world.thread(lambda: world.platform.interrupt(cpu))
            else:
                world.platform.interrupt(cpu)

        await world.entries.noted(world, provoke)
        assert world.entries.log == [f"calls of {cpu} on {cpu} in_loop={world.in_loop}"]

    any_world.play(body)


@pytest.mark.parametrize(("any_world", "cpu"), CPUS_OF_WORLDS, indirect=["any_world"])
def test_an_event_timer_expires_on_its_cpu(any_world: AnyWorld, cpu: int) -> None:
    """``Entry.hardclock`` is called on the loop of that CPU, and again as long as it has more to do."""
    any_world.entries.more = 3

    async def body(world: World) -> None:
        async def provoke() -> None:
            world.platform.set_event(cpu, NEVER)
            world.platform.set_event(cpu, world.platform.now())
            world.tick()

        await world.entries.noted(world, provoke)
        assert world.entries.log == ["more"] * 3 + [f"hardclock of {cpu} on {cpu} in_loop={world.in_loop}"]

    any_world.play(body)


def test_time_never_goes_back(any_world: AnyWorld) -> None:
    """Also over an interrupt."""

    async def body(world: World) -> None:
        before = world.platform.now()

        async def provoke() -> None:
            world.platform.set_event(0, before)
            world.tick()

        await world.entries.noted(world, provoke)
        assert world.platform.now() >= before

    any_world.play(body)


# -- where the real world does something undefined --------------------------------------------------------------------


def refused(body: Body, match: str) -> None:
    """Assert that the virtual platform raises RuntimeError."""
    with pytest.raises(RuntimeError, match=match):
        VirtualWorld().play(body)


def test_a_virtual_waiter_is_set_once_and_waited_for_once() -> None:
    """A trio event takes both; then nobody counts the wake-ups, and one may be missing elsewhere."""

    async def set_twice(world: World) -> None:
        waiter = world.platform.waiter()
        waiter.set()
        waiter.set()

    async def waited_twice(world: World) -> None:
        waiter = world.platform.waiter()
        waiter.set()
        await waiter.wait()
        await waiter.wait()

    async def thread_waited_twice(world: World) -> None:
        waiter = world.platform.thread_waiter()
        waiter.set()
        await waiter.wait()
        await waiter.wait()

    refused(set_twice, "set twice")
    refused(waited_twice, "waited for twice")
    refused(thread_waited_twice, "waited for twice")


def test_a_virtual_waiter_belongs_to_its_loop() -> None:
    """Waiting for it, or setting it with set_here(), on another loop would corrupt a real one."""

    async def waits_elsewhere(world: World) -> None:
        waiter = world.platform.waiter()
        await world.together(waiter.wait, cpu=1)

    async def set_here_elsewhere(world: World) -> None:
        waiter = world.platform.waiter()
        await world.thread(waiter.set_here)

    async def set_here_on_cpu1(world: World) -> None:
        waiter = world.platform.waiter()

        async def task() -> None:
            waiter.set_here()

        await world.together(task, cpu=1)

    refused(waits_elsewhere, "on another loop")
    refused(set_here_elsewhere, "outside a task")
    refused(set_here_on_cpu1, "on another loop")
