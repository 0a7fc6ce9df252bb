"""What happens to an exception that leaves a callback, and what the log is told.

Nothing here ever raises: it is called by softclock and the clock interrupt, which have drainers to serve and a lock to
release whatever the application's ``on_error``, its log, or the ``__repr__`` of its objects do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final

from ..._api.callout import Callout
from ..._core.checks import check_takes
from ..._core.describe import name_of
from ..._core.errors import ArgumentTypeError, CallbackCancelledError
from ..._core.machine import Machine
from ..._core.state import Func
from .forked import end_if_forked
from .log import Level, tell, text_of

OnError = Callable[[Exception, Callout | None], object]

_SAMPLE: Final = 5  # how many of the callouts that were pending at the end are named


def check_on_error(on_error: object) -> None:
    """Raise unless *on_error* is None or a plain function, as far as one can tell without calling it."""
    if on_error is None:
        return
    if not callable(on_error):
        raise ArgumentTypeError(
            f"open_callouts: on_error must be a function of an exception and a callout, not {text_of(on_error)}",
            call="open_callouts",
        )
    called = getattr(on_error, "__call__", None)  # noqa: B004 - what runs when an object is called
    if any(map(inspect.iscoroutinefunction, (on_error, called))) or any(
        map(inspect.isasyncgenfunction, (on_error, called))
    ):
        raise ArgumentTypeError(
            f"open_callouts: on_error is an async function, {text_of(on_error)}, and calling it would run nothing; "
            "give a plain function, and start asynchronous work from it with system.cpu(0).start_soon()",
            call="open_callouts",
        )
    check_takes("open_callouts", "on_error", on_error, "an exception", "a callout")


class Reporter:
    """Knows whom to tell of an exception: the application's ``on_error`` or else the block, and always the log."""

    def __init__(
        self,
        machine: Machine,
        on_error: OnError | None,
        fail: Callable[[BaseException], None],
        cancelled: tuple[type[BaseException], ...],
        post: Callable[[Callable[[], object]], object],
    ) -> None:
        """*fail* has an exception leave through the block; *post* has a loop call a function. Neither raises.
        *cancelled* are the cancellations of the platform, which a callback must not raise.
        """
        self._cancelled = cancelled
        self._machine = machine
        self._on_error = on_error
        self._fail = fail
        self._post = post
        self._unlocked: set[str] = set()  # places, each of which is told of once

    def report(self, error: BaseException, c: Callout | None, run: object = None) -> None:
        """An exception has left a callback, on the loop that ran it. Never raises."""
        end_if_forked(error)
        try:
            kind = _cancellation(error, self._cancelled)
            if kind is not None:
                # Softclock was not cancelled, so no cancel scope waits for this: it would vanish in the first one.
                name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
                stray = CallbackCancelledError(f"a callback raised {name}, but nobody has cancelled it")
                stray.__cause__ = error
                error = stray
            self._hand_over(error, c)
        except BaseException as worse:  # on_error's own, or a bug of this module: it leaves as well
            self._fail(worse)
        tell(
            "error",
            "callout.callback_error",
            error,
            callout=None if c is None else text_of(c),
            problem=text_of(error),
            armed=self._origin(c, run),
        )

    def _hand_over(self, error: BaseException, c: Callout | None) -> None:
        if self._on_error is None or not isinstance(error, Exception):
            self._fail(error)
            return
        result = self._on_error(error, c)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            self._fail(error)  # nobody has dealt with it
            raise ArgumentTypeError(
                f"on_error, {text_of(self._on_error)}, returned an awaitable, which nobody awaits; use a plain function"
            )

    def _origin(self, c: Callout | None, run: object) -> str | None:
        """Return where the callout was armed, if that is known."""
        try:
            origin = getattr(run, "origin", None)
            if origin is None and c is not None and self._machine.origins is not None:
                origin = self._machine.origins.get(c)
        except BaseException:  # a freed callout, or one whose class has a __hash__ that fails
            return None
        return origin

    def expensive(self, func: Func, spent: int) -> None:
        """A callback took *spent* ns. Never raises."""
        tell("warning", "callout.expensive", function=name_of(func), milliseconds=round(spent / 1e6, 3))

    def late(self, cpu: int, ns: int, task: str | None) -> None:
        """The loop of *cpu* was kept from its callouts for so long, by *task* if that is known. Never raises."""
        tell(
            "warning",
            "callout.late",
            cpu=cpu,
            milliseconds=round(ns / 1e6, 3),
            reason="the loop was blocked" if task is None else f"task {task} blocked the loop",
        )

    def unlocked(self, c: Callout) -> None:
        """*c* was armed anew by a caller that did not hold its lock. With the lock of its CPU held, so it is told of a
        little later. Never raises.
        """
        place = self._origin(c, None)
        lock = c.lock
        if lock is None or place is None or place in self._unlocked:
            return
        self._unlocked.add(place)
        self._post(
            partial(
                tell,
                "warning",
                "callout.reset_without_lock",
                function=name_of(c.func),
                name=_name(c),
                lock=lock.name,
                armed=place,
                remedy="hold the lock of a callout when you arm it anew: else it may be running just now",
            )
        )

    def pending(self, stopped: Sequence[Callout]) -> None:
        """The end of the block has stopped these, which were pending. Never raises."""
        if not stopped:
            return
        sample = [
            f"{'' if (name := _name(c)) is None else f'{name!r} '}{name_of(c.func)}"
            f"{'' if (origin := self._origin(c, None)) is None else f' armed at {origin}'}"
            for c in islice(stopped, _SAMPLE)
        ]
        # In checking mode it is a hint at what was forgotten; else it is how most programs end.
        level: Level = "info" if self._machine.held is None else "warning"
        tell(level, "callout.pending_at_exit", count=len(stopped), callouts=sample)


def _cancellation(error: BaseException, kinds: tuple[type[BaseException], ...]) -> type[BaseException] | None:
    """Return which of *kinds* an error, or one of a group, is."""
    for kind in kinds:
        if isinstance(error, kind):
            return kind
        if isinstance(error, BaseExceptionGroup) and error.split(kind)[0] is not None:
            return kind
    return None


def _name(c: Callout) -> str | None:
    """Return what the maker of *c* called it."""
    extra = c.c_cpu.machine.extras.get(c)
    return None if extra is None else extra.name


__all__ = ["OnError", "Reporter", "check_on_error"]
