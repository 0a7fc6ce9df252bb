"""What code needs of timers that are given to it, as protocols for type checkers.

A protocol that does no input or output, or any other object that knows no loop, says ``timers: Timers`` and gets a
``CalloutSystem``, a ``callout.testing.VirtualSMP`` or, in its tests, ``callout.testing.ManualTimers``. Nothing has to
be derived from these classes, and timers of your own fit if they have these methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVarTuple, overload

from ._api.shapes import Async, Plain, Raises
from ._core.results import ResetResult, StopResult
from ._core.seconds import Seconds

Ts = TypeVarTuple("Ts")


class Timer(Protocol):
    """One timer; a ``Callout`` is one."""

    @overload
    def reset(self, seconds: Seconds, /) -> ResetResult: ...
    @overload
    def reset(self, seconds: Seconds, fn: Raises[*Ts], /, *args: *Ts) -> ResetResult: ...
    @overload
    def reset(self, seconds: Seconds, fn: Async[*Ts], /, *args: *Ts) -> object: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def reset(self, seconds: Seconds, fn: Plain[*Ts], /, *args: *Ts) -> ResetResult: ...
    def reset(self, seconds: Seconds, /, *given: object) -> object:
        r"""Arm it: ``reset(seconds)``, or ``reset(seconds, fn, *args)`` with another function than it had. It calls
        *fn(\*args)* once, *seconds* from now, whether or not it was armed before. Never blocks.

        Returns a ``ResetResult``, which is true if it will run. See ``Callout.reset()``.
        """

    @overload
    def reset_at(self, deadline: float, /) -> ResetResult: ...
    @overload
    def reset_at(self, deadline: float, fn: Raises[*Ts], /, *args: *Ts) -> ResetResult: ...
    @overload
    def reset_at(self, deadline: float, fn: Async[*Ts], /, *args: *Ts) -> object: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def reset_at(self, deadline: float, fn: Plain[*Ts], /, *args: *Ts) -> ResetResult: ...
    def reset_at(self, deadline: float, /, *given: object) -> object:
        """Do as ``reset()``, for a time of ``Timers.current_time()``: at once, if that is past. Never blocks."""

    def stop(self) -> StopResult:
        """Cancel it. True if a scheduled run will not happen. See ``Callout.stop()``. Never blocks."""
        ...

    @property
    def pending(self) -> bool:
        """Whether a run is scheduled, and has not begun."""
        ...

    @property
    def deadline(self) -> float:
        """When it will run, in seconds of ``Timers.current_time()``; ``math.inf`` if nothing is scheduled."""
        ...


class Timers(Protocol):
    """What makes timers; a ``CalloutSystem`` does."""

    @overload
    def call_later(self, seconds: Seconds, fn: Raises[*Ts], /, *args: *Ts) -> Timer: ...
    @overload
    def call_later(self, seconds: Seconds, fn: Async[*Ts], /, *args: *Ts) -> object: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def call_later(self, seconds: Seconds, fn: Plain[*Ts], /, *args: *Ts) -> Timer: ...
    def call_later(self, seconds: Seconds, fn: Callable[..., object], /, *args: object) -> object:
        r"""Make a ``Timer`` that calls *fn(\*args)* once, *seconds* from now. Never blocks. See
        ``CalloutSystem.call_later()``.
        """

    @overload
    def call_at(self, deadline: float, fn: Raises[*Ts], /, *args: *Ts) -> Timer: ...
    @overload
    def call_at(self, deadline: float, fn: Async[*Ts], /, *args: *Ts) -> object: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def call_at(self, deadline: float, fn: Plain[*Ts], /, *args: *Ts) -> Timer: ...
    def call_at(self, deadline: float, fn: Callable[..., object], /, *args: object) -> object:
        """Do so for a time of ``current_time()``: at once, if that is past. Never blocks."""

    def current_time(self) -> float:
        """Return the time of its clock, in seconds. Never blocks."""
        ...


__all__ = ["Timer", "Timers"]
