"""The services of a CPU: softclock and the event timer, two tasks of its loop that run callbacks.

While softclock is idle its task is at the event timer itself, and takes the clock interrupts: what one finds due runs
at once, and not after another pass of the loop, which would take longer than all the rest. While softclock waits for
something else, a lock or its next turn, the other task stands in at the event timer.

To that end softclock's coroutine is driven by hand. Where it waits for work it yields a mark that trio never sees.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from .platform import Loop

_IDLE: Final = object()  # what softclock yields where it waits for work
LIVES: Final = 3  # of a service: how often it may die before it is left dead


class Idle:
    """What softclock waits for when it has nothing to do: one for a loop, used again and again."""

    __slots__ = ("_services", "is_set")

    def __init__(self, services: Services) -> None:
        self._services = services
        self.is_set = False

    @trio.lowlevel.enable_ki_protection
    @types.coroutine
    def wait(self) -> Generator[object, object, None]:
        """Wait until it is set: in softclock, as ``Services`` drives it."""
        while not self.is_set:
            yield _IDLE

    def set(self) -> None:
        """Set it, from anywhere. Never blocks."""
        self._services.loop.post(self.set_here)

    def set_here(self) -> None:
        """Set it, from a task of the same loop."""
        self.is_set = True
        self._services.wake()


class Services:
    """Softclock and the event timer of one loop."""

    def __init__(self, loop: Loop, fire: Callable[[bool], bool], died: Callable[[BaseException], None]) -> None:
        """*fire* takes the clock interrupt, and returns whether there is more to do; it is told whether the last did.
        *died* is told what it raised.
        """
        self.loop = loop
        self.idle = Idle(self)
        self.tasks: set[trio.lowlevel.Task] = set()
        self._fire = fire
        self._died = died
        self._lives = LIVES  # of the clock interrupt
        self._more = False  # the next interrupt is due at once
        self._fires = False
        self._is_away = False  # softclock waits for something else than work
        self._stands_in = False  # the other task is at the event timer, or on its way
        self._wanted = trio.Event()  # it is to go there
        self._news = trio.Event()  # for softclock, which is not: the other has left, or there is work

    @trio.lowlevel.enable_ki_protection
    async def softclock(self) -> None:
        """Be softclock, until it ends or dies."""
        await self._drive(self.loop.entry.softclock())

    @trio.lowlevel.enable_ki_protection
    @types.coroutine
    def _drive(self, service: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        go = partial(service.send, None)
        while True:
            try:
                trap = go()
            except StopIteration:
                return
            value = None
            try:
                if trap is _IDLE:
                    yield from self.work().__await__()
                else:
                    value = yield from self._wait_for(trap)
            except BaseException as error:
                go = partial(service.throw, error)
            else:
                go = partial(service.send, value)

    @trio.lowlevel.enable_ki_protection
    def _wait_for(self, trap: object) -> Generator[Any, Any, Any]:
        """Have trio do what softclock asks for, while the other task is at the event timer."""
        if not self._stands_in:
            self._stands_in = True
            self._wanted.set()
        self._is_away = True
        try:
            return (yield trap)
        finally:
            self._is_away = False

    @trio.lowlevel.enable_ki_protection
    async def work(self) -> None:
        """Wait until ``idle`` is set, at the event timer."""
        while not self.idle.is_set:
            if self._stands_in or not self._lives:
                self._news = trio.Event()
                await self._news.wait()
            else:
                await self._interrupt()

    @trio.lowlevel.enable_ki_protection
    async def stand_in(self) -> None:
        """Be at the event timer whenever softclock is not. Until cancelled."""
        while True:
            await self._wanted.wait()
            while self._is_away and self._lives:
                await self._interrupt()
            self._wanted = trio.Event()
            self._stands_in = False
            self._news.set()

    @trio.lowlevel.enable_ki_protection
    async def _interrupt(self) -> None:
        """Take the clock interrupt when it is time; if there was more to do, after the other tasks had a turn."""
        try:
            if self._more:
                await trio.lowlevel.checkpoint()
            else:
                await self.loop.timer.expired()
            again, self._more = self._more, True  # if it dies
            self._fires = True
            try:
                self._more = self._fire(again)
            finally:
                self._fires = False
        except trio.Cancelled:
            raise
        except BaseException as error:
            self._lives -= 1
            self._died(error)

    def wake(self) -> None:
        """Have softclock see that ``idle`` was set."""
        if not self._fires:  # what fires looks next
            self._news.set()
            self.loop.timer.wake()
