"""A callout system whose clock is moved by hand, for tests of what is given its timers."""

from __future__ import annotations

from contextvars import Token
from types import TracebackType
from typing import Self

from ..._api.callout import Callout
from ..._api.making import Making
from ..._core.describe import shown
from ..._core.errors import ArgumentTypeError, ArgumentValueError, BusyError, SleepError
from ..._core.lifecycle import boot, close, enter, quiesce
from ..._core.machine import CURRENT, Machine
from ..._core.phases import Phase, Use, admit
from ..._core.seconds import CENTURIES, Seconds, to_ns
from ..._core.units import NS_PER_S
from .platform import ManualPlatform


class ManualTimers(Making):
    """The real engine on one CPU without a loop, for tests: ``advance(seconds)`` moves its clock.

    It makes callouts as a ``CalloutSystem`` does, and they run in the thread that calls ``advance()``, in order. Until
    then nothing runs, and no time passes. ``with ManualTimers() as timers:`` closes it at the end, and inside the block
    it is the current system. It runs no loop, and needs no extra.
    """

    __slots__ = ("__weakref__", "_errors", "_machine", "_platform", "_token")

    def __init__(self, start: float = 0.0) -> None:
        """Make one whose clock stands at *start*, in seconds. Never blocks.

        Raises:
            ArgumentTypeError, ArgumentValueError: *start* is no number, or so far from 0 that it is no time.
        """
        if type(start) is not float and type(start) is not int:
            raise ArgumentTypeError(
                f"ManualTimers: start must be a number of seconds, not {shown(start)}", call="ManualTimers"
            )
        if not -CENTURIES <= start <= CENTURIES:
            raise ArgumentValueError(
                f"ManualTimers: start must be from -{CENTURIES:,} to {CENTURIES:,} seconds, not {shown(start)}",
                call="ManualTimers",
            )
        self._errors: list[BaseException] = []
        self._platform = ManualPlatform()
        self._machine: Machine = boot(self._platform, kind=Callout, cpus=1, hz=1000, alloweddeviation=0, checking=True)
        self._machine.attached["closed"] = "these ManualTimers were closed; make others"
        self._machine.epoch = round(start * NS_PER_S)
        self._machine.report = lambda error, c: self._errors.append(error)
        self._token: Token[Machine] | None = None
        with self._platform.driving("ManualTimers"):
            self._platform.power_on()
        enter(self._machine, Phase.OPEN)

    def __repr__(self) -> str:
        return f"<ManualTimers at {self.current_time():g} s, {self._machine.phase.name.lower()}>"

    def advance(self, seconds: Seconds) -> None:
        """Move the clock on, and run what is due on the way, here and in order. Blocks while callbacks run.

        While a callback runs the clock stands at the time for which it was armed; what it arms runs as well, if that is
        due by the end. Functions that are to be called soon, as those of ``close_soon()``, are called, too:
        ``advance(0)`` does only what is due by now. An exception of a callback is raised when all has run: a
        single one as it is, several as an ``ExceptionGroup``. ``KeyboardInterrupt`` and its like end it sooner.

        Raises:
            ArgumentTypeError, ArgumentValueError: *seconds* is no number, negative, NaN, infinite or more than 68
                years.
            ReentrantCallError: called by a callback.
            BusyError: another thread is in it.
            SleepError: this thread holds a lock, which a callback may be waiting for.
            LivelockError: callbacks arm themselves for the time at which they run, without end.
            ClosedError: it was closed.
        """
        length = to_ns("advance", seconds)
        admit("advance", self._machine, Use.INIT)
        self._refuse_locks("advance")
        platform = self._platform
        with platform.driving("advance"):
            self._machine.cpus[0].thread = platform.current_thread()
            platform.run_until(platform.time + length, self._interrupted)
        self._raise("advance")

    def close(self) -> None:
        """Stop what is pending, and have every later use but a look be a ``ClosedError``. Completions that were
        promised are called first, and what they raise leaves this. To close it again does nothing.

        Raises:
            ReentrantCallError, BusyError, SleepError: as ``advance()``.
        """
        machine, platform = self._machine, self._platform
        if machine.phase >= Phase.CLOSED:
            return
        self._refuse_locks("close")
        with platform.driving("close"):
            machine.cpus[0].thread = platform.current_thread()
            enter(machine, Phase.CANCELLING)
            platform.drive(quiesce(machine))
            platform.drive(close(machine))
            platform.serve()
        self._raise("close")

    def __enter__(self) -> Self:
        """Raise ClosedError if it was closed, BusyError in its block."""
        admit("ManualTimers", self._machine, Use.INIT)
        if self._token is not None:
            raise BusyError("ManualTimers: one block for each; make another one", call="ManualTimers")
        self._token = CURRENT.set(self._machine)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        token, self._token = self._token, None
        if token is not None:
            CURRENT.reset(token)
        self.close()

    def _interrupted(self) -> bool:
        """Return whether a callback has raised what ends a program."""
        return any(not isinstance(error, Exception) for error in self._errors)

    def _refuse_locks(self, call: str) -> None:
        machine = self._machine
        if machine.held is not None and (mine := machine.held.get(self._platform.current_thread())):
            raise SleepError(f"{call}: release {mine} first: a callback may be waiting for it", call=call)

    def _raise(self, call: str) -> None:
        """Raise what callbacks have raised."""
        errors, self._errors = self._errors, []
        try:
            if len(errors) == 1:
                raise errors[0]
            if errors:
                raise BaseExceptionGroup(f"{call}: callbacks", errors)
        finally:
            del errors  # their tracebacks refer to this frame
