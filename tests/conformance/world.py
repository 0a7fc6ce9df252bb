"""One test body, four worlds: virtual CPUs or real ones, one or two, under a clock that the test moves by hand.

A test is played on a ``Stage``. It tells the stage's threads what to do, moves the clock, opens gates. After each of
these the stage becomes quiescent, so a test never waits: what has not happened by then will not happen. Nothing is
asserted of the order in which two CPUs do things, for in the real world there is none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, ParamSpec, TypeVar

from callout import (
    MTX_SPIN,
    Callout,
    Mtx,
    RmLock,
    RwLock,
    callout_init,
    callout_init_mtx,
    callout_init_rm,
    callout_init_rw,
    curcpu,
    giant,
)
from callout._core.calls import cross_call
from callout.conformance import Scenario
from callout.conformance._worlds.world import World

P = ParamSpec("P")
T = TypeVar("T")
AnyLock = Mtx | RwLock

LOCKED: Final = ("Giant", "mtx", "spin", "rw", "rm")
KINDS: Final = ("mpsafe", *LOCKED)


class Blocked(AssertionError):  # noqa: N818 - it says what the thread is
    """A thread that should have come back did not."""


class Call(Generic[T]):
    """What became of something that a thread was told to do."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._value: list[T] = []
        self._error: BaseException | None = None

    def make(self, func: Callable[[], T]) -> None:
        """Do it: the thread's part."""
        try:
            self._value.append(func())
        except BaseException as error:
            self._error = error

    @property
    def blocked(self) -> bool:
        """Whether the thread is still at it."""
        return not self._value and self._error is None

    def result(self) -> T:
        """Return what it returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        if not self._value:
            raise Blocked(f"{self._what} has not returned")
        return self._value[0]


class Actor:
    """A thread of the stage: a plain one, which runs no loop. It does one thing at a time."""

    def __init__(self, stage: Stage, name: str) -> None:
        self._stage = stage
        self._name = name

    def begin(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        """Have the thread call *func*, and go on when everything is quiescent: it may be blocked then."""
        call: Call[T] = Call(f"{getattr(func, '__name__', func)}() in {self._name}")
        self._stage.world.post(self._name, lambda: call.make(lambda: func(*args, **kwargs)))
        self._stage.world.settle()
        return call

    def do(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Have the thread call *func*, and return what it returned; it must not block."""
        return self.begin(func, *args, **kwargs).result()

    @contextmanager
    def holding(self, lock: AnyLock) -> Iterator[None]:
        """Have the thread hold *lock*, for writing, in a ``with`` block."""
        self.do(lock.__enter__)
        try:
            yield
        finally:
            self.do(lock.__exit__)

    @contextmanager
    def reading(self, lock: RwLock) -> Iterator[None]:
        """Have the thread hold the read lock in a ``with`` block."""
        self.do(lock.rlock)
        try:
            yield
        finally:
            self.do(lock.runlock)


class Stage:
    """A system with nothing in it yet, and its threads: ``t0``, ``t1``, ``t2``.

    The current CPU of ``t1`` is the last one, that of the others CPU 0. Without *origins* the system does not note
    where each callout was armed: checking mode does, and then the short paths, which every application takes, are not.
    """

    def __init__(
        self, make: Callable[[Scenario], World], cpus: int, alloweddeviation: int = 0, *, origins: bool = False
    ) -> None:
        self.cpus = cpus
        self.last = cpus - 1
        self.ran: list[object] = []  # the arguments of the callbacks that have begun
        self.returned: list[object] = []  # those of halted callbacks that have returned
        self.cpu_of: dict[object, int] = {}  # argument -> CPU
        self.errors: list[BaseException] = []  # what has left a callback
        self.world = make(_nothing(cpus, alloweddeviation))
        if not origins:
            self.world.machine.origins = None
        self.world.machine.report = lambda error, c: self.errors.append(error)
        self.t0, self.t1, self.t2 = (Actor(self, name) for name in _THREADS)
        self.do = self.t0.do
        self._call_the_roll()

    def _call_the_roll(self) -> None:
        """Wait until every thread is there: quiescence counts only those that are."""
        there = threading.Semaphore(0)
        for name in _THREADS:
            self.world.post(name, there.release)
        self.world.settle()
        for _ in _THREADS:
            there.acquire()
        self.world.settle()

    # -- callbacks -----------------------------------------------------------------------------------------------

    def seen(self, arg: object) -> None:
        """Be a callback that notes its argument and its CPU."""
        self.cpu_of[arg] = curcpu()
        self.ran.append(arg)

    def halt(self, gate: str) -> None:
        """Be a callback that stands, with its whole CPU, at the gate that its argument names."""
        self.seen(gate)
        self.world.wait_at_gate(gate, _nothing_to_log)
        self.returned.append(gate)

    # -- the world -----------------------------------------------------------------------------------------------

    def tick(self, ticks: int = 1) -> None:
        """Move the clock on, tick by tick, each to quiescence."""
        for _ in range(ticks):
            self.world.tick()
            self.world.settle()

    def open(self, gate: str) -> None:
        """Open a gate, for good."""
        self.world.open_gate(gate)
        self.world.settle()

    def call(self, cpu: int, func: Callable[[], object]) -> None:
        """Have t0 make a cross-CPU call, as ``system.cpu(n).call()`` does."""

        def thunk() -> None:
            func()

        self.do(cross_call, self.world.machine.cpus[cpu], thunk)

    def error(self) -> BaseException:
        """Return what left a callback, and forget it; there must be one and no more."""
        (error,) = self.errors
        self.errors.clear()
        return error

    def leave(self) -> None:
        """Check that nothing was left unsaid and that the wheels are in order; throw everything away."""
        try:
            for cpu in self.world.machine.cpus:
                cpu.wheel.check()
        finally:
            self.world.close()
        assert self.errors == [], "something left a callback, and the test did not ask"

    # -- things ----------------------------------------------------------------------------------------------------

    def lock(self, kind: str) -> AnyLock:
        """Return a new lock: ``mtx``, ``spin``, ``rw``, ``rm``; or ``Giant``."""
        match kind:
            case "Giant":
                return self.do(giant)
            case "mtx":
                return self.do(Mtx, kind)
            case "spin":
                return self.do(Mtx, kind, MTX_SPIN)
            case "rw":
                return self.do(RwLock, kind)
            case "rm":
                return self.do(RmLock, kind)
            case _:
                raise ValueError(kind)

    def mtx(self) -> Mtx:
        """Return a new default mutex."""
        return self.do(Mtx, "mtx")

    def rw(self) -> RwLock:
        """Return a new read/write lock."""
        return self.do(RwLock, "rw")

    def callout(self, lock: AnyLock | None = None, flags: int = 0) -> Callout:
        """Return a new callout with that lock; without one it is mpsafe."""
        c = Callout()
        if lock is None:
            self.do(callout_init, c, 1)
        elif isinstance(lock, RmLock):
            self.do(callout_init_rm, c, lock, flags)
        elif isinstance(lock, RwLock):
            self.do(callout_init_rw, c, lock, flags)
        elif lock is self.world.machine.giant and not flags:
            self.do(callout_init, c, 0)
        else:
            self.do(callout_init_mtx, c, lock, flags)
        return c


_THREADS: Final = ("t0", "t1", "t2")


def _nothing_to_log() -> None:
    pass


def _nothing(cpus: int, alloweddeviation: int) -> Scenario:
    return Scenario(
        id="stage",
        title="",
        api="freebsd",
        tags=(),
        ncpu=cpus,
        locks={},
        callouts={},
        fns={},
        threads=_THREADS,
        steps=(),
        thread_cpu={"t1": cpus - 1},
        alloweddeviation=alloweddeviation,
    )
