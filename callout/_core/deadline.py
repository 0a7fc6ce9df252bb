"""From what a call asks for to a time in nanoseconds: the one place where time is rounded.

Rounding is late, never early: what becomes a deadline is rounded up, what says how much time has passed is rounded
down. Times saturate where the kernel's types do.

Source: kern_timeout.c, callout_when(); kern_tc.c, tc_adjprecision().
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from .units import C_ABSOLUTE, C_HARDCLOCK, C_PRECALC, C_PRELGET, NS_PER_S, SBT_MAX, sbt_to_ns

if TYPE_CHECKING:
    from .machine import Machine

FAR: Final = sbt_to_ns(SBT_MAX)  # no callout is ever armed for later than this
_LONGEST: Final = 1 << 62  # ns: a wait of more than a century
_SIGN: Final = 1 << 63  # ticks wrap as a long of C does: what is further ahead than this lies in the past


def tick_length(hz: int) -> tuple[int, bool]:
    """Return the length of a clock tick in nanoseconds, rounded up, and whether it is exact."""
    return -(-NS_PER_S // hz), NS_PER_S % hz == 0


def ticks_since_boot(machine: Machine, now: int) -> int:
    """Return how many whole ticks have passed at the time *now*."""
    return (now - machine.boot) * machine.hz // NS_PER_S


def start_of_tick(machine: Machine, tick: int) -> int:
    """Return when clock tick number *tick* begins."""
    return machine.boot - (-tick * NS_PER_S // machine.hz)


def after_ticks(machine: Machine, now: int, ticks: int) -> int:
    """Return the time *ticks* ticks after *now*; non-positive ticks count as one."""
    return now - (-max(ticks, 1) * NS_PER_S // machine.hz)


def at_tick(machine: Machine, tick: int, now: int) -> int:
    """Return the start of clock tick number *tick*; one that has begun counts as the next."""
    next_tick = ticks_since_boot(machine, now) + 1
    ahead = ((tick - next_tick + _SIGN) & 2 * _SIGN - 1) - _SIGN
    return min(start_of_tick(machine, next_tick + max(ahead, 0)), FAR)


def at_sbt(machine: Machine, sbt: int, precision: int, flags: int) -> tuple[int, int]:
    """Return time and precision as callout_when() reckons them, but never early."""
    when = sbt_to_ns(sbt)
    pr = sbt_to_ns(precision)
    if flags & (C_ABSOLUTE | C_PRECALC):
        return when, pr
    if flags & C_HARDCLOCK:
        when = max(when, machine.tick)
    shift = C_PRELGET(flags)
    pr = max(pr, when >> (machine.precexp if shift < 0 else shift))
    when += machine.platform.now()
    if flags & C_HARDCLOCK:
        tick = ticks_since_boot(machine, when)
        start = start_of_tick(machine, tick)
        when = start if start >= when else start_of_tick(machine, tick + 1)
    return min(when, FAR), pr


def from_seconds(seconds: float) -> int:
    """Return *seconds*, which may be infinite, in nanoseconds."""
    return _LONGEST if seconds >= _LONGEST // NS_PER_S else ceil(seconds * NS_PER_S)


def precision_exponent(alloweddeviation: int) -> int:
    """Return by which power of two an interval is divided to give its default precision.

    *alloweddeviation* is the tunable ``kern.timecounter.alloweddeviation``, per cent; 0 means exact.
    """
    if alloweddeviation == 0:
        return 63
    times = (99 + alloweddeviation) // alloweddeviation
    return (times + (times >> 1)).bit_length() - 1


def share(when: int, precision: int) -> int:
    """Return the time from *when* to *when* + *precision* that most other windows contain: the roundest one."""
    bits = ((when - 1) ^ (when + precision)).bit_length() - 1
    return (when + precision) >> bits << bits
