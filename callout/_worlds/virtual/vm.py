"""A callout system on virtual CPUs, for tests that own the schedule."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Token
from types import TracebackType
from typing import Any, Self, TypeVar

from ..._core.calls import cross_call
from ..._core.checks import check_int
from ..._core.errors import DeadlockError
from ..._core.lifecycle import boot, enter
from ..._core.machine import CURRENT, Machine
from ..._core.phases import Phase
from ..._core.state import Callout, Func
from .platform import Chooser, Context, VirtualPlatform

T = TypeVar("T")


class VirtualSMP:
    """Virtual CPUs on which the real engine runs, deterministically; ``with VirtualSMP(cpus=2) as vm:``.

    Inside the block it is the current system. Exceptions of callbacks are collected in ``errors``.
    Needs the extra ``callout[explore]``.
    """

    def __init__(
        self,
        cpus: int = 2,
        *,
        hz: int = 1000,
        chooser: Chooser | None = None,
        free_clock: bool = True,
        checking: bool = True,
        alloweddeviation: int = 0,
        max_steps: int = 100_000,
    ) -> None:
        """Power on *cpus* CPUs.

        With *free_clock* a timer may strike at any moment after it was set; without, only in ``tick()``.
        """
        self.errors: list[BaseException] = []
        self.platform = VirtualPlatform(None, free_clock=free_clock, max_steps=max_steps)
        self.machine: Machine = boot(
            self.platform,
            cpus=cpus,
            hz=hz,
            alloweddeviation=alloweddeviation,
            checking=checking,
            report=self._report,
            expensive=_ignore,
        )
        self._token: Token[Machine] = CURRENT.set(self.machine)
        enter(self.machine, Phase.OPEN)
        self.platform.power_on()
        self.platform.settle()  # every softclock is idle now: what follows is the scenario's
        if chooser is not None:
            self.platform.chooser = chooser

    def _report(self, error: BaseException, c: Callout | None) -> None:
        self.errors.append(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        CURRENT.reset(self._token)
        if self.platform.current is None:
            self.machine.report = _ignore_error  # that a callback was thrown away where it stood is no error of its own
            self.platform.power_off()

    @property
    def giant(self) -> object:
        """The system's Giant."""
        return self.machine.giant

    def spawn(
        self,
        func: Callable[..., object],
        *args: object,
        name: str | None = None,
        cpu: int | None = None,
        bound: int = 0,
    ) -> Context:
        r"""Start *func(\*args)* as a thread of its own, or as a task of *cpu*.

        *bound* is a thread's current CPU. Never blocks.
        """
        check_int("spawn", "bound", bound, 0, len(self.machine.cpus) - 1)
        return self.platform.spawn(name or str(getattr(func, "__name__", "thread")), func, *args, cpu=cpu, bound=bound)

    def call(self, cpu: int, func: Callable[..., object], *args: object) -> None:
        r"""Have *func(\*args)* run once in the interrupt context of *cpu*. Never blocks."""

        def thunk() -> None:
            func(*args)

        cross_call(self.machine.cpus[cpu], thunk)

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function here and now; its awaits must be callout's own."""
        return self.platform.drive(make)

    def tick(self, ticks: int = 1) -> None:
        """Move a hand-driven clock on, tick by tick, each to a standstill. Called from outside."""
        for _ in range(ticks):
            self.platform.tick(self.machine.tick)
            self.platform.settle()

    def settle(self) -> None:
        """Let everybody else run until nothing can run any more."""
        if self.platform.current is None:
            self.platform.settle()
        else:
            self.platform.wait_until_quiet()

    def check(self) -> None:
        """Raise what went wrong in a thread or callback, and DeadlockError if somebody waits for what will never
        come.
        """
        for error in (*self.platform.errors, *self.errors):
            raise error
        stuck = self.platform.stuck()
        if stuck:
            raise DeadlockError("nothing can run any more: " + "; ".join(map(repr, stuck)))
        for cpu in self.machine.cpus:
            for lane in cpu.lanes:
                if lane.run is not None:
                    raise DeadlockError(f"{lane} is still at {lane.run.callout!r}")
            cpu.wheel.check()


def _ignore(func: Func, spent: int) -> None:
    """Virtual time does not move while a callback runs."""


def _ignore_error(error: BaseException, c: Callout | None) -> None:
    """What is thrown away need not be reported."""
