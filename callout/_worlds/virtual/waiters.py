"""What a context of the deterministic world waits for: wake-ups and interrupts; and blocks that nothing cancels."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ..._core.errors import CalloutError
from ..._core.platform import Entry
from .footprints import RELEASES, WRITES

if TYPE_CHECKING:
    from .platform import VirtualPlatform

T = TypeVar("T")


class _Waiter:
    """A one-shot event with one waiter."""

    __slots__ = ("_is_set", "_number", "_platform", "_waited")

    def __init__(self, platform: VirtualPlatform) -> None:
        self._platform = platform
        self._number = platform.trail.number("a wait")
        self._is_set = False
        self._waited = False

    label = "a wake-up"

    def ready(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, from anywhere. RuntimeError if it is set: a caller that counts wake-ups has miscounted."""
        if self._platform.off:
            return  # as the token of a loop that has ended
        self._platform.me()
        if self._is_set:
            raise RuntimeError("a waiter is set twice")
        self._is_set = True
        self._platform.touch(self._number, RELEASES)
        self._wakes()
        self._platform.point(("ends", self._number))

    def _wakes(self) -> None:
        """Note what else is changed by that."""

    def _begin(self) -> None:
        if self._waited:
            raise RuntimeError("a waiter is waited for twice: it is a one-shot event with one waiter")
        self._waited = True


class TaskWaiter(_Waiter):
    """A waiter for a task, which gives its loop to the loop's other tasks meanwhile."""

    __slots__ = ("_loop",)

    def __init__(self, platform: VirtualPlatform, loop: object) -> None:
        super().__init__(platform)
        self._loop = loop

    async def wait(self) -> None:
        """Wait until it is set. Never yields: the greenlet is switched instead."""
        self._check_loop("a waiter is waited for")
        self._begin()
        self._platform.give_way(self, ("begins", self._number))
        self._platform.touch(self._number, WRITES)

    def then(self, entry: Entry, is_open: Callable[[], object]) -> None:
        """Begin as softclock, which was idle and has been woken: it looks for work first."""
        self._waited = True
        self._platform.touch(self._number, WRITES)
        if is_open():
            drive(entry.softclock())

    def _wakes(self) -> None:
        if isinstance(self._loop, int):
            self._platform.touch(self._platform.turns[self._loop], WRITES)

    def set_here(self) -> None:
        """Set it, from a task of the same loop."""
        if not self._platform.off:
            self._check_loop("set_here() is called")
        self.set()

    def _check_loop(self, what: str) -> None:
        if self._platform.current_loop(what) != self._loop:
            raise RuntimeError(f"{what} on another loop than the one that the waiter was made on")


class ThreadWaiter(_Waiter):
    """A waiter for a thread, which blocks it, and with it the whole CPU if it is one."""

    __slots__ = ()

    async def wait(self) -> None:
        """Block until it is set. Never yields."""
        self._platform.me()
        self._begin()
        if not self._is_set:
            self._platform.block(self, ("begins", self._number))
        self._platform.touch(self._number, WRITES)

    def set_here(self) -> None:
        """Set it."""
        self.set()


class Interrupt:
    """What a CPU's interrupt context waits for: its clock or a call from another CPU."""

    __slots__ = ("_cpu", "_platform", "label")

    def __init__(self, platform: VirtualPlatform, cpu: int) -> None:
        self._platform = platform
        self._cpu = cpu
        self.label = f"an interrupt of cpu {cpu}"

    def ready(self) -> bool:
        """Whether one has come, or may come."""
        platform, cpu = self._platform, self._cpu
        return platform.called[cpu] or platform.clock_may_expire(cpu)


class Shield:
    """A block that nothing can cancel, as nothing here can be cancelled: it is for tasks only, all the same."""

    __slots__ = ("_platform",)

    def __init__(self, platform: VirtualPlatform) -> None:
        self._platform = platform

    def __enter__(self) -> None:
        self._platform.current_loop("a shielded block is entered")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing is held."""


def drive(awaits: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose awaits are the platform's: they switch greenlets, so it never yields."""
    try:
        awaits.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    awaits.close()
    name = getattr(awaits, "__qualname__", repr(awaits))
    raise CalloutError(
        f"{name}() awaits something that is not of this package: on virtual CPUs only callout's own awaitables can be "
        "waited for",
        call=name,
    )
