"""Twisted: its reactor's delayed calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._peer import Func, Peer, Steps


class Twisted(Peer):
    """The reactor, which can be run once, so all workloads of a process share it."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor

    def run(self, body: Callable[[], Steps]) -> None:
        """Run the reactor until the workload has ended."""
        self._steps = body()
        self._error: BaseException | None = None
        self._reactor.callWhenRunning(self._step)
        self._reactor.run(installSignalHandlers=False)
        if self._error is not None:
            raise self._error

    def _step(self) -> None:
        try:
            wait = next(self._steps)
        except StopIteration:
            self._reactor.stop()
        except BaseException as error:  # the reactor would log it, and go on
            self._error = error
            self._reactor.stop()
        else:
            if wait is not None:
                self._reactor.callLater(wait, self._step)

    def wake(self) -> None:
        """Have the reactor go on."""
        self._reactor.callFromThread(self._step)

    def arm(self, delays: list[float], func: Func, timers: list[Any]) -> None:
        """Call later."""
        reactor = self._reactor
        for delay in delays:
            timers.append(reactor.callLater(delay, func, None))  # noqa: PERF401 - as the other peers

    def rearm(self, delays: list[float], func: Func, timers: list[Any]) -> None:
        """Reset."""
        for timer, delay in zip(timers, delays, strict=True):
            timer.reset(delay)

    def churn(self, delays: list[float], func: Func) -> None:
        """Call later, and cancel."""
        reactor = self._reactor
        for delay in delays:
            reactor.callLater(delay, func, None).cancel()

    def cancel(self, timers: list[Any]) -> None:
        """Cancel."""
        for timer in timers:
            timer.cancel()

    def arm_elsewhere(self, delays: list[float], func: Func) -> None:
        """Have the reactor call later."""
        reactor = self._reactor
        for delay in delays:
            reactor.callFromThread(reactor.callLater, delay, func, None)
