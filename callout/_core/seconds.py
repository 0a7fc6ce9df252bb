"""Seconds, in which the Python spelling counts time, to the nanoseconds of the engine: rounded up, never early."""

from __future__ import annotations

from datetime import timedelta
from math import ceil, inf
from typing import TYPE_CHECKING, Final

from .describe import shown
from .errors import ArgumentTypeError, ArgumentValueError
from .units import NS_PER_S

if TYPE_CHECKING:
    from .machine import Machine

Seconds = float | timedelta

LONGEST: Final = 1 << 31  # seconds: 68 years, as far as a callout can be armed
CENTURIES: Final = 1 << 33  # seconds, 272 years: no clock is so far from 0


def to_ns(call: str, seconds: object, what: str = "seconds") -> int:
    """Return a length of time in ns. Raises ArgumentTypeError, ArgumentValueError."""
    if type(seconds) is not float and type(seconds) is not int:
        seconds = _exact(call, seconds, what)
    if not 0 <= seconds <= LONGEST:
        raise ArgumentValueError(
            f"{call}: {what} must be from 0 to {LONGEST}, 68 years, not {shown(seconds)}", call=call
        )
    return ceil(seconds * NS_PER_S)


def to_time(call: str, machine: Machine, deadline: object) -> int:
    """Return a time of the system's clock in ns of the engine's. Raises ArgumentTypeError, ArgumentValueError."""
    if isinstance(deadline, timedelta):
        raise ArgumentTypeError(
            f"{call}: deadline must be a time of system.current_time(), not {deadline!r}, which is a length of time",
            call=call,
        )
    if type(deadline) is not float and type(deadline) is not int:
        deadline = _exact(call, deadline, "deadline")
    if deadline != deadline or deadline in (inf, -inf):  # noqa: PLR0124 - NaN equals nothing
        raise ArgumentValueError(f"{call}: deadline must be a time, not {deadline!r}", call=call)
    if deadline < -CENTURIES:
        return 0
    if deadline > CENTURIES:
        raise ArgumentValueError(f"{call}: deadline is more than 68 years ahead: {shown(deadline)}", call=call)
    when = ceil(deadline * NS_PER_S)
    if from_ns(when) < deadline:  # the nearest float is a little too early
        when += 1
    when -= machine.epoch
    if when - machine.platform.now() > LONGEST * NS_PER_S:
        raise ArgumentValueError(f"{call}: deadline is more than 68 years ahead: {deadline!r}", call=call)
    return max(when, 0)


def from_ns(ns: int) -> float:
    """Return *ns* in seconds."""
    return ns / NS_PER_S


def _exact(call: str, seconds: object, what: str) -> float:
    """Return as a float, or an int, what is neither, but is meant for one. No code of a subclass runs."""
    if issubclass(type(seconds), timedelta):
        return timedelta.total_seconds(seconds)  # type: ignore[arg-type]  # it is one
    if type(seconds) is not bool:
        if issubclass(type(seconds), float):
            return float.__float__(seconds)  # type: ignore[arg-type]  # it is one
        if issubclass(type(seconds), int):
            return int.__int__(seconds)  # type: ignore[arg-type]  # it is one
    raise ArgumentTypeError(f"{call}: {what} must be a number of seconds, not {shown(seconds)}", call=call)
