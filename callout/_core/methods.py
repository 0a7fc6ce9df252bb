"""The methods of a callout that are called all the time: seconds and arguments as Python has them, to the engine's.

Compiled, they are functions that bind as methods do, so that no call is spent on a wrapper. What is looked at first is
what nearly every call gives: a number of seconds that is a float or an int, a plain function or a method of one. The
rest is for ``seconds`` and ``checks``, which say what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import TYPE_CHECKING

from .args import NO_ARGS, Args, packed
from .checks import GIVEN, REFUSED_CODE, check_func, machine_of, not_a_callout
from .guard import protect
from .results import ARMED, STOPPED, ResetResult, StopResult
from .seconds import LONGEST, Seconds, to_ns, to_time
from .short import arm_at, arm_new, stop_now
from .units import NS_PER_S

if TYPE_CHECKING:
    from .._api.callout import Callout
    from .cpu import Cpu


def reset(self: Callout, seconds: Seconds, /, *given: object) -> ResetResult:
    r"""Arm it to call *fn(\*args)* once, *seconds* from now, whether or not it was armed before; without *fn* it keeps
    the function and arguments that it had. Never blocks.

    ``c.reset(seconds)``, ``c.reset(seconds, fn, *args)``; *seconds* is a number or a ``timedelta``, and 0 means as soon
    as its loop comes round, never inside the call. It stays on its CPU. A scheduled run is replaced; a run that waits
    for the callout's lock is cancelled; a run in progress goes on, and the new one follows it.

    Returns ``ResetResult.ARMED`` or ``REARMED`` (it replaces a scheduled run), which are true, or ``REFUSED``, which is
    false: it is being drained, was closed, or its system is being closed.

    Raises:
        ArgumentTypeError: *seconds* is no number, or *fn* is asynchronous or no function.
        ArgumentValueError: *seconds* is negative, NaN, infinite or more than 68 years; or it is periodic and *fn* is
            given.
        NeverArmedError: it was never given a function.
        ClosedError: its system is closed.
        NotInitializedError: it is a bare ``Callout()``.

    See callout(9), ``callout_reset()``.
    """
    try:
        clock = self.c_cpu.now
    except AttributeError:
        not_a_callout("reset", self)
    when = clock() + in_ns("reset", seconds)
    if not given:
        return ARMED[arm_at("reset", self, when, None, None)]
    return ARMED[arm_at("reset", self, when, _function("reset", given[0]), _argument(given))]


def reset_at(self: Callout, deadline: float, /, *given: object) -> ResetResult:
    r"""Arm it as ``reset()`` does, to run at *deadline*, a time of ``system.current_time()``, in seconds: at once, if
    that is past. Never blocks.

    Returns and raises as ``reset()``.

    Raises:
        ArgumentTypeError: *deadline* is no number.
        ArgumentValueError: it is NaN, infinite, or more than 68 years ahead.
    """
    when = to_time("reset_at", machine_of(self, "reset_at"), deadline)
    if not given:
        return ARMED[arm_at("reset_at", self, when, None, None)]
    return ARMED[arm_at("reset_at", self, when, _function("reset_at", given[0]), _argument(given))]


def stop(self: Callout, /) -> StopResult:
    """Cancel it if its callback has not begun. Never blocks. If it has a lock, hold that.

    Returns ``StopResult.REMOVED`` (a scheduled run will not happen) or ``BOTH`` (nor will it, but an earlier one is in
    progress), which are true; or ``RUNNING`` or ``IDLE``, which are false. True never means that it may be freed: drain
    or close it for that. On the loop of its CPU, outside of its callback, a callout without a lock is never found
    running.

    Raises:
        LockNotHeldError: it has a lock, other than Giant, and the caller does not hold it (for writing).
        ClosedError: its system is closed.

    See callout(9), RETURN VALUES.
    """
    try:
        return STOPPED[stop_now("stop", self)]
    except AttributeError:
        not_a_callout("stop", self)


def later(call: str, cpu: Cpu, seconds: Seconds, func: Callable[..., object], args: tuple[object, ...]) -> Callout:
    """Make a callout on *cpu* that has no lock, and arm it to call ``func(*args)`` once, *seconds* from now."""
    return arm_new(call, cpu, in_ns(call, seconds), func, packed(args) if args else NO_ARGS, None)


def in_ns(call: str, seconds: Seconds) -> int:
    """Return a length of time in ns, rounded up. Raises as ``to_ns()`` does."""
    if type(seconds) is int and 0 <= seconds <= LONGEST:
        return seconds * NS_PER_S
    if type(seconds) is float and 0.0 <= seconds <= LONGEST:
        exact = seconds * 1e9
        delay = int(exact)
        return delay if delay >= exact else delay + 1
    return to_ns(call, seconds)


def _function(call: str, func: object) -> Callable[..., object]:
    """Return *func*, or raise what is wrong with it as a callback."""
    if type(func) is FunctionType:
        if func.__code__.co_flags & REFUSED_CODE:
            check_func(call, func, GIVEN)
    elif (
        type(func) is not MethodType
        or type(func.__func__) is not FunctionType
        or (func.__func__.__code__.co_flags & REFUSED_CODE)
    ):
        check_func(call, func, GIVEN)
    return func  # type: ignore[return-value]  # that was looked at


def _argument(given: tuple[object, ...]) -> object:
    """Return the one argument that stands for those that follow the function in *given*."""
    count = len(given)
    if count == 1:
        return NO_ARGS
    if count == 2 and type(given[1]) is not Args:
        return given[1]
    return packed(given[1:])


protect(reset, reset_at, stop)
