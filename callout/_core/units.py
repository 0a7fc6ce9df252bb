"""Time units and flag values: sbintime, nanoseconds, ticks; ``C_*`` and ``CALLOUT_*`` with the kernel's values.

Inside, time is an ``int`` of nanoseconds. ``sbintime_t`` (32.32 fixed point seconds) exists only here and at the API.
Rounding is late, never early: what becomes a deadline is rounded up, what says how late it is now is rounded down.

Source: sys/time.h, sys/callout.h, kern_tc.c (tc_adjprecision).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, cast

from .describe import shown
from .errors import ArgumentTypeError, ArgumentValueError

SBT_1S: Final = 1 << 32
SBT_1M: Final = SBT_1S * 60
SBT_1MS: Final = SBT_1S // 1000
SBT_1US: Final = SBT_1S // 1_000_000
SBT_1NS: Final = SBT_1S // 1_000_000_000
SBT_MAX: Final = 0x7FFF_FFFF_FFFF_FFFF

INT_MAX: Final = 0x7FFF_FFFF
NS_PER_S: Final = 1_000_000_000
NEVER: Final = (1 << 63) - 1  # nanoseconds: later than every time that can be asked for

# Flags of callout_reset_sbt() and callout_schedule_sbt().
C_DIRECT_EXEC: Final = 0x0001
C_HARDCLOCK: Final = 0x0100
C_ABSOLUTE: Final = 0x0200
C_PRECALC: Final = 0x0400
C_PRELBITS: Final = 7
C_PRELRANGE: Final = (1 << C_PRELBITS) - 1
C_ALL: Final = C_DIRECT_EXEC | C_HARDCLOCK | C_ABSOLUTE | C_PRECALC | C_PRELRANGE << 1

# Flags of callout_init_mtx(), callout_init_rw() and callout_init_rm().
CALLOUT_RETURNUNLOCKED: Final = 0x0010
CALLOUT_SHAREDLOCK: Final = 0x0020
CALLOUT_TRYLOCK: Final = 0x0040


def C_PREL(x: int) -> int:  # noqa: N802 - the kernel's name
    """Return the flag that allows a callout to be late by its interval divided by 2**x (x from 0 to 62).

    Never blocks.

    Raises:
        ArgumentTypeError, ArgumentValueError: *x* is not an int, or not from 0 to 62.

    See callout(9), ``C_PREL()``; sys/callout.h.
    """
    power = _an_int("C_PREL", "x", x)
    if not 0 <= power <= 62:
        raise ArgumentValueError(
            f"C_PREL: x must be the power of two by which to divide the interval, 0 to 62, not {shown(x)}",
            call="C_PREL",
        )
    return (power + 1) << 1


def C_PRELGET(flags: int) -> int:  # noqa: N802 - the kernel's name
    """Return the x of the ``C_PREL(x)`` in *flags*, or -1 if there is none. Never blocks.

    Raises:
        ArgumentTypeError: *flags* is not an int.
    """
    return ((_an_int("C_PRELGET", "flags", flags) >> 1) & C_PRELRANGE) - 1


def exact_int(value: object) -> int | None:
    """Return *value* as an int of no subclass; None if it is no int. No code of a subclass runs, here or later.

    What the user gives is computed with under the lock of a CPU, where an exception or a wait would be fatal.
    """
    if type(value) is int:
        return value
    return int.__int__(cast("int", value)) if issubclass(type(value), int) else None


def _an_int(call: str, what: str, value: object) -> int:
    exact = exact_int(value)
    if exact is None:
        raise ArgumentTypeError(f"{call}: {what} must be an int, not {shown(value)}", call=call)
    return exact


def ns_to_sbt(ns: int) -> int:
    """Return *ns* nanoseconds as sbintime, rounded down. Never blocks."""
    return (ns << 32) // NS_PER_S


def sbt_to_ns(sbt: int) -> int:
    """Return *sbt* as nanoseconds, rounded up: a deadline is never early. Never blocks."""
    return -((-sbt * NS_PER_S) >> 32)


def sbttons(sbt: int) -> int:
    """Return sbintime *sbt* as nanoseconds, rounded down, as the kernel's ``sbttons()`` does. Never blocks."""
    return (_an_int("sbttons", "sbt", sbt) * NS_PER_S) >> 32


def sbttous(sbt: int) -> int:
    """Return sbintime *sbt* as microseconds, rounded down. Never blocks. See sys/time.h."""
    return (_an_int("sbttous", "sbt", sbt) * 1_000_000) >> 32


def sbttoms(sbt: int) -> int:
    """Return sbintime *sbt* as milliseconds, rounded down. Never blocks. See sys/time.h."""
    return (_an_int("sbttoms", "sbt", sbt) * 1000) >> 32


def _to_sbt(call: str, what: str, count: int, per_second: int) -> int:
    """Round up, as sys/time.h has done since 2018: nstosbt(1) is not nothing."""
    return -((-_an_int(call, what, count) << 32) // per_second)


def nstosbt(ns: int) -> int:
    """Return *ns* nanoseconds as sbintime, rounded up. Never blocks. See sys/time.h."""
    return _to_sbt("nstosbt", "ns", ns, NS_PER_S)


def ustosbt(us: int) -> int:
    """Return *us* microseconds as sbintime, rounded up. Never blocks. See sys/time.h."""
    return _to_sbt("ustosbt", "us", us, 1_000_000)


def mstosbt(ms: int) -> int:
    """Return *ms* milliseconds as sbintime, rounded up. Never blocks. See sys/time.h."""
    return _to_sbt("mstosbt", "ms", ms, 1000)


class timespec(NamedTuple):  # noqa: N801 - the kernel's name
    """A time as seconds and nanoseconds."""

    tv_sec: int
    tv_nsec: int


class timeval(NamedTuple):  # noqa: N801 - the kernel's name
    """A time as seconds and microseconds."""

    tv_sec: int
    tv_usec: int


def sbttots(sbt: int, /) -> timespec:
    """Return sbintime *sbt* as a ``timespec``, rounded down. Never blocks. See sys/time.h."""
    exact = _an_int("sbttots", "sbt", sbt)
    return timespec(exact >> 32, sbttons(exact & 0xFFFF_FFFF))


def sbttotv(sbt: int, /) -> timeval:
    """Return sbintime *sbt* as a ``timeval``, rounded down. Never blocks. See sys/time.h."""
    exact = _an_int("sbttotv", "sbt", sbt)
    return timeval(exact >> 32, sbttous(exact & 0xFFFF_FFFF))


def tstosbt(ts: timespec | tuple[int, int], /) -> int:
    """Return seconds and nanoseconds as sbintime, rounded up. Never blocks. See sys/time.h.

    Raises:
        ArgumentTypeError: *ts* is not a pair of ints, such as a ``timespec``.
    """
    seconds, ns = _pair("tstosbt", "nanoseconds", ts)
    return (seconds << 32) + nstosbt(ns)


def tvtosbt(tv: timeval | tuple[int, int], /) -> int:
    """Return seconds and microseconds as sbintime, rounded up. Never blocks. See sys/time.h.

    Raises:
        ArgumentTypeError: *tv* is not a pair of ints, such as a ``timeval``.
    """
    seconds, us = _pair("tvtosbt", "microseconds", tv)
    return (seconds << 32) + ustosbt(us)


def _pair(call: str, second: str, pair: object) -> tuple[int, int]:
    if isinstance(pair, Sequence) and len(pair) == 2:
        first, rest = exact_int(pair[0]), exact_int(pair[1])
        if first is not None and rest is not None:
            return first, rest
    raise ArgumentTypeError(f"{call}: give a pair of ints, seconds and {second}, not {shown(pair)}", call=call)


# What these return is what to go on with: an int of no subclass.


def check_ticks(call: str, ticks: object) -> int:
    """Return *ticks* if it is an int that fits into C's; non-positive ones are legal and count as one."""
    exact = exact_int(ticks)
    if exact is None:
        raise ArgumentTypeError(
            f"{call}: ticks must be an int (a number of clock ticks), not {shown(ticks)}", call=call
        )
    if exact > INT_MAX:
        raise ArgumentValueError(
            f"{call}: {shown(exact)} ticks is more than an int of the kernel holds ({INT_MAX})", call=call
        )
    return exact


def check_sbt(call: str, what: str, sbt: object) -> int:
    """Return *sbt* if it is an int from 0 to ``SBT_MAX``."""
    exact = exact_int(sbt)
    if exact is None:
        raise ArgumentTypeError(
            f"{call}: {what} must be an int of sbintime (SBT_1S is a second; see mstosbt()), not {shown(sbt)}",
            call=call,
        )
    if exact < 0:
        raise ArgumentValueError(f"{call}: {what} must not be negative, got {shown(exact)}", call=call)
    if exact > SBT_MAX:
        raise ArgumentValueError(
            f"{call}: {what} {shown(exact)} is more than SBT_MAX, the largest sbintime (68 years)", call=call
        )
    return exact


def check_flags(call: str, flags: object, known: int) -> int:
    """Return *flags* if no bit but those of *known* is set."""
    exact = exact_int(flags)
    if exact is None:
        raise ArgumentTypeError(
            f"{call}: flags must be an int (or'ed together from the constants), not {shown(flags)}", call=call
        )
    if exact & ~known:
        unknown = exact & ~known
        raise ArgumentValueError(
            f"{call}: unknown flag {hex(unknown) if unknown.bit_length() <= 64 else shown(unknown)}", call=call
        )
    return exact
