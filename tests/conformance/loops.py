"""What tests of real loops need: a callback that stands until it is released, and a look at what the process holds."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from callout import Callout, CalloutSystem, Mtx, callout_reset, open_callouts
from callout._worlds.trio import leaving

FDS = Path("/proc/self/fd")


class Halt:
    """A callback that stands, with its whole CPU, until it is released. Not for CPU 0, whose loop the test runs on."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._go = threading.Event()
        self.there = trio.Event()
        self.returned = False

    def __call__(self, arg: object) -> None:
        """Stand there."""
        self._token.run_sync_soon(self.there.set)
        self._go.wait()
        self.returned = True

    def let_go(self) -> None:
        """Let it return."""
        self._go.set()


class Tell:
    """A callback that tells a task of this loop that it ran."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self.ran = trio.Event()
        self.args: list[object] = []
        self.thread = 0

    def __call__(self, arg: object) -> None:
        """Note it, from any thread."""
        self.args.append(arg)
        self.thread = threading.get_ident()
        self._token.run_sync_soon(self.ran.set)


def holdings() -> tuple[set[threading.Thread], int]:
    """Return the threads of this process and the number of its open descriptors, as far as that can be known.

    trio keeps threads for some seconds after they have done something: those come and go by themselves.
    """
    threads = {thread for thread in threading.enumerate() if not thread.name.startswith("Trio thread")}
    return threads, len(list(FDS.iterdir())) if FDS.exists() else 0


def when_the_end_waits(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object], *, at_last: bool = False) -> None:
    """Have *then* called, once, when the end of a system's block waits.

    By then it waits for the tasks to end, also on a CPU that a callback has stopped; or *at_last*, when what was
    pending has been stopped, for runs in progress.
    """
    where, name = (leaving, "quiesce") if at_last else (leaving.Leaving, "_run")
    real: Callable[..., Awaitable[object]] = getattr(where, name)

    async def followed(*args: object) -> object:
        results: list[object] = []

        async def follow() -> None:
            results.append(await real(*args))

        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow)
                await trio.testing.wait_all_tasks_blocked()
                then()
        return results[0]

    monkeypatch.setattr(where, name, followed)


class Holder:
    """A thread that holds a callout's lock, arms the callout for the next tick, and goes on when it is released."""

    def __init__(self, system: CalloutSystem, mtx: Mtx, c: Callout, func: Callable[[object], object]) -> None:
        self.standing = trio.Event()  # softclock stands at the lock
        self._token = trio.lowlevel.current_trio_token()
        self._go = threading.Event()
        self._system, self._mtx, self._c, self._func = system, mtx, c, func
        self._then: Callable[[], object] = lambda: None
        system._machine.stall = self._stall
        self._thread = threading.Thread(target=self._main)
        self._thread.start()

    async def _stall(self, c: Callout) -> None:
        self._token.run_sync_soon(self.standing.set)

    def _main(self) -> None:
        with self._system.bound(), self._mtx:
            callout_reset(self._c, 1, self._func, "held up")
            self._go.wait()
            self._then()

    def let_go(self, then: Callable[[], object]) -> None:
        """Have it call *then*, with the lock held, and release the lock."""
        self._then = then
        self._go.set()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()


async def play(
    body: Callable[[CalloutSystem], Awaitable[object]],
    cpus: int = 1,
    way: str = "return",
    on_error: Callable[[Exception, Callout | None], object] | None = None,
) -> None:
    """Open a system, play *body* in it, and leave it by ``return``, ``exception`` or ``cancel``."""
    with trio.CancelScope() as scope:
        try:
            async with open_callouts(cpus, on_error=on_error) as system:
                await body(system)
                await _leave(way, scope)
        except Leaving:
            assert way == "exception"
    assert scope.cancelled_caught == (way == "cancel")


class Leaving(Exception):  # noqa: N818 - it is no error
    """The body leaves by an exception."""


async def _leave(way: str, scope: trio.CancelScope) -> None:
    if way == "exception":
        raise Leaving
    if way == "cancel":
        scope.cancel()
        await trio.sleep_forever()
