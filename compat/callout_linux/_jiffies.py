"""Time as Linux counts it: jiffies, the clock ticks of the current system.

``jiffies`` and ``HZ`` are variables in C, and one for the whole machine. Here every system has its own, so they are
objects that look the value up whenever they are used: in arithmetic and comparisons, with ``int()``, or by calling
them. ``jiffies + HZ`` is a plain int.

Source: include/linux/jiffies.h; kernel/time/time.c; kernel/time/timer.c for ``round_jiffies()`` (Linux 6.12, 64 bits).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar, cast

from callout import ArgumentTypeError, ClosedError, ForkedError, NoSystemError, curcpu, hz, ticks

T = TypeVar("T")

BITS_PER_LONG: Final = 64
INT_MAX: Final = 0x7FFF_FFFF
_SIGN: Final = 1 << BITS_PER_LONG - 1
_MASK: Final = (1 << BITS_PER_LONG) - 1

MAX_JIFFY_OFFSET: Final = (_SIGN - 1 >> 1) - 1
NEXT_TIMER_MAX_DELTA: Final = (1 << 30) - 1
MAX_SCHEDULE_TIMEOUT: Final = _SIGN - 1


def looked_up(call: str, read: Callable[[], T]) -> T:
    """Return what *read* gives. Where no system is open, or where it was closed, the error names *call*: its user does
    not know what that is made of.
    """
    try:
        return read()
    except (NoSystemError, ClosedError, ForkedError) as error:
        raise type(error)(str(error).replace(error.call, call, 1), call=call) from None


class Variable:
    """An int that is looked up each time it is used.

    ``v()`` and ``int(v)`` give it, and every operator does with it what it does with an int; ``str()`` and format
    codes show the number, ``repr()`` says what it is. It cannot be hashed, since its value changes: use ``v()`` as a
    key.
    """

    __slots__ = ("_name", "_read")

    def __init__(self, name: str, read: Callable[[], int]) -> None:
        self._name = name
        self._read = partial(looked_up, name, read)

    def __call__(self) -> int:
        """Return the value. Never blocks. Raises NoSystemError where no system is open."""
        return self._read()

    def __repr__(self) -> str:
        return f"<{self._name}: an int that is looked up each time it is used>"

    def __str__(self) -> str:
        try:
            return str(self._read())
        except (NoSystemError, ClosedError, ForkedError):  # in a message of somebody who only wants to name it
            return repr(self)

    def __format__(self, spec: str) -> str:
        return format(self._read(), spec) if spec else str(self)

    def __int__(self) -> int:
        return self._read()

    __index__ = __trunc__ = __floor__ = __ceil__ = __pos__ = __int__

    def __float__(self) -> float:
        return float(self._read())

    def __bool__(self) -> bool:
        return bool(self._read())

    def __round__(self, digits: int | None = None) -> int:
        return round(self._read(), digits)

    __hash__ = None  # type: ignore[assignment]  # it equals ints, and a key must not change

    def __eq__(self, other: object) -> bool:
        return self._read() == (other._read() if isinstance(other, Variable) else other)

    def __lt__(self, other: int | Variable) -> bool:
        return self._read() < other

    def __le__(self, other: int | Variable) -> bool:
        return self._read() <= other

    def __gt__(self, other: int | Variable) -> bool:
        return self._read() > other

    def __ge__(self, other: int | Variable) -> bool:
        return self._read() >= other

    def __neg__(self) -> int:
        return -self._read()

    def __abs__(self) -> int:
        return abs(self._read())

    def __invert__(self) -> int:
        return ~self._read()

    def __add__(self, other: int | Variable) -> int:
        return self._read() + other

    def __radd__(self, other: int) -> int:
        return other + self._read()

    def __sub__(self, other: int | Variable) -> int:
        return self._read() - other

    def __rsub__(self, other: int) -> int:
        return other - self._read()

    def __mul__(self, other: int | Variable) -> int:
        return self._read() * other

    def __rmul__(self, other: int) -> int:
        return other * self._read()

    def __floordiv__(self, other: int | Variable) -> int:
        return self._read() // other

    def __rfloordiv__(self, other: int) -> int:
        return other // self._read()

    def __mod__(self, other: int | Variable) -> int:
        return self._read() % other

    def __rmod__(self, other: int) -> int:
        return other % self._read()

    def __lshift__(self, other: int | Variable) -> int:
        return self._read() << other

    def __rlshift__(self, other: int) -> int:
        return other << self._read()

    def __rshift__(self, other: int | Variable) -> int:
        return self._read() >> other

    def __rrshift__(self, other: int) -> int:
        return other >> self._read()

    def __and__(self, other: int | Variable) -> int:
        return self._read() & other

    def __rand__(self, other: int) -> int:
        return other & self._read()

    def __or__(self, other: int | Variable) -> int:
        return self._read() | other

    def __ror__(self, other: int) -> int:
        return other | self._read()

    def __xor__(self, other: int | Variable) -> int:
        return self._read() ^ other

    def __rxor__(self, other: int) -> int:
        return other ^ self._read()

    def __truediv__(self, other: int | Variable) -> float:
        return self._read() / other

    def __rtruediv__(self, other: int) -> float:
        return other / self._read()

    def __divmod__(self, other: int | Variable) -> tuple[int, int]:
        return divmod(self._read(), other)

    def __rdivmod__(self, other: int) -> tuple[int, int]:
        return divmod(other, self._read())

    def __pow__(self, other: int | Variable, modulo: int | None = None) -> int:
        result: int = pow(self._read(), int(other), modulo)  # mypy: a negative exponent would give a float
        return result

    def __rpow__(self, other: int) -> int:
        result: int = pow(other, self._read())  # as above
        return result


class Constant(Variable):
    """A variable that has one value for as long as the system is the current one, and so the hash of that."""

    __slots__ = ()

    def __hash__(self) -> int:  # type: ignore[override]  # a constant may be a key
        return hash(self._read())


jiffies: Final = Variable("jiffies", ticks)
HZ: Final = Constant("HZ", hz)


def exact_int(value: object) -> int | None:
    """Return *value* as an int of no subclass, whose code could do anything; None if it is no int."""
    return int.__int__(cast("int", value)) if issubclass(type(value), int) else None


def shown(value: object) -> str:
    """Return how a message shows *value*: Python refuses to write very long ints in decimal, and a repr may fail."""
    exact = exact_int(value)
    if exact is not None and exact.bit_length() > 256:
        return f"an int of {exact.bit_length()} bits"
    try:
        return repr(value)
    except Exception:
        return f"an object of type {type(value).__qualname__}"


def check_jiffies(call: str, what: str, value: object) -> int:
    """Return *value* as a signed 64-bit number of jiffies: an ``unsigned long`` that has wrapped lies in the past."""
    if isinstance(value, Variable):
        return value()
    exact = exact_int(value)
    if exact is None:
        raise ArgumentTypeError(
            f"{call}: {what} must be an int, a time in jiffies such as jiffies + 10, not {shown(value)}", call=call
        )
    return ((exact + _SIGN) & _MASK) - _SIGN


# -- comparing -----------------------------------------------------------------------------------------------------
# C compares the sign of a difference of unsigned longs, so that times compare well across the wrap.


def _before(call: str, a: int | Variable, b: int | Variable) -> bool:
    return bool((_an_int(call, a) - _an_int(call, b)) & _SIGN)


def time_after(a: int | Variable, b: int | Variable, /) -> bool:
    """Return whether time *a*, in jiffies, is after *b*, also if one of them has wrapped at 2**64. Never blocks."""
    return _before("time_after", b, a)


def time_before(a: int | Variable, b: int | Variable, /) -> bool:
    """Return whether time *a*, in jiffies, is before *b*, also if one of them has wrapped. Never blocks."""
    return _before("time_before", a, b)


def time_after_eq(a: int | Variable, b: int | Variable, /) -> bool:
    """Return whether time *a*, in jiffies, is *b* or after it, also if one of them has wrapped. Never blocks."""
    return not _before("time_after_eq", a, b)


def time_before_eq(a: int | Variable, b: int | Variable, /) -> bool:
    """Return whether time *a*, in jiffies, is *b* or before it, also if one of them has wrapped. Never blocks."""
    return not _before("time_before_eq", b, a)


def get_jiffies_64() -> int:
    """Return ``jiffies`` as a plain int. Never blocks. Raises NoSystemError where no system is open."""
    return looked_up("get_jiffies_64", ticks)


time_after64 = time_after
time_before64 = time_before
time_after_eq64 = time_after_eq
time_before_eq64 = time_before_eq


def time_in_range(a: int | Variable, b: int | Variable, c: int | Variable, /) -> bool:
    """Return whether time *a*, in jiffies, is in [*b*, *c*], also if some have wrapped. Never blocks."""
    return time_after_eq(a, b) and time_before_eq(a, c)


def time_in_range_open(a: int | Variable, b: int | Variable, c: int | Variable, /) -> bool:
    """Return whether time *a*, in jiffies, is in [*b*, *c*), also if some have wrapped. Never blocks."""
    return time_after_eq(a, b) and time_before(a, c)


def time_is_before_jiffies(a: int | Variable, /) -> bool:
    """Return whether time *a*, in jiffies, has passed. Never blocks."""
    return time_after(looked_up("time_is_before_jiffies", ticks), a)


def time_is_after_jiffies(a: int | Variable, /) -> bool:
    """Return whether time *a*, in jiffies, is still to come. Never blocks."""
    return time_before(looked_up("time_is_after_jiffies", ticks), a)


def time_is_before_eq_jiffies(a: int | Variable, /) -> bool:
    """Return whether time *a*, in jiffies, is now or has passed. Never blocks."""
    return time_after_eq(looked_up("time_is_before_eq_jiffies", ticks), a)


def time_is_after_eq_jiffies(a: int | Variable, /) -> bool:
    """Return whether time *a*, in jiffies, is now or still to come. Never blocks."""
    return time_before_eq(looked_up("time_is_after_eq_jiffies", ticks), a)


# -- converting ----------------------------------------------------------------------------------------------------


def _an_int(call: str, value: object) -> int:
    """Return *value* if it is an int, or ``jiffies`` or ``HZ``."""
    if isinstance(value, Variable):
        return value()
    exact = exact_int(value)
    if exact is None:
        raise ArgumentTypeError(f"{call}: give an int, not {shown(value)}", call=call)
    return exact


def _to_jiffies(call: str, count: object, per_second: int) -> int:
    """Round up, so that a timeout is never early; a negative one, seen as unsigned, is for ever."""
    count = _an_int(call, count)
    if count < 0:
        return MAX_JIFFY_OFFSET
    return min(-(-count * looked_up(call, hz) // per_second), MAX_JIFFY_OFFSET)


def msecs_to_jiffies(m: int | Variable, /) -> int:
    """Return *m* milliseconds in jiffies, rounded up; a negative number gives ``MAX_JIFFY_OFFSET``, and so does one
    from 2**31 up, which C takes for negative. Never blocks.
    """
    m = _an_int("msecs_to_jiffies", m)
    return MAX_JIFFY_OFFSET if m > INT_MAX else _to_jiffies("msecs_to_jiffies", m, 1000)


def usecs_to_jiffies(u: int | Variable, /) -> int:
    """Return *u* microseconds in jiffies, rounded up; a negative number gives ``MAX_JIFFY_OFFSET``. Never blocks."""
    return _to_jiffies("usecs_to_jiffies", u, 1_000_000)


def nsecs_to_jiffies(n: int | Variable, /) -> int:
    """Return *n* nanoseconds in jiffies, rounded **down**, as Linux does here and only here; a negative number counts
    as unsigned. Never blocks.
    """
    return (_an_int("nsecs_to_jiffies", n) & _MASK) * looked_up("nsecs_to_jiffies", hz) // 1_000_000_000


# A long has 64 bits here, so the names with 64 in them are other spellings.
nsecs_to_jiffies64 = nsecs_to_jiffies


def secs_to_jiffies(s: int | Variable, /) -> int:
    """Return *s* seconds in jiffies. Never blocks."""
    return _an_int("secs_to_jiffies", s) * looked_up("secs_to_jiffies", hz)


def _from_jiffies(call: str, j: int | Variable, per_second: int) -> int:
    """Round down, but up where a unit is a whole number of jiffies, as Linux does."""
    j = _an_int(call, j)
    rate = looked_up(call, hz)
    if rate > per_second and rate % per_second == 0:
        return -(-j * per_second // rate)
    return j * per_second // rate


def jiffies_to_msecs(j: int | Variable, /) -> int:
    """Return *j* jiffies in milliseconds: rounded up if a millisecond is a whole number of jiffies, else down.

    Never blocks.
    """
    return _from_jiffies("jiffies_to_msecs", j, 1000)


def jiffies_to_usecs(j: int | Variable, /) -> int:
    """Return *j* jiffies in microseconds, rounded down. Never blocks."""
    return _from_jiffies("jiffies_to_usecs", j, 1_000_000)


def jiffies_to_nsecs(j: int | Variable, /) -> int:
    """Return *j* jiffies in nanoseconds: a jiffy is a whole number of them, rounded down once. Never blocks."""
    return _an_int("jiffies_to_nsecs", j) * (1_000_000_000 // looked_up("jiffies_to_nsecs", hz))


# -- rounding: timers that need not be exact fall due together, once a second ---------------------------------------


def _round(call: str, j: int | Variable, cpu: int | None, up: bool) -> int:
    """Round to a whole second: down in its first quarter unless *up*, else up; each CPU's second begins three jiffies
    earlier.
    """
    j = _an_int(call, j)
    rate = looked_up(call, hz)
    skew = 3 * (looked_up(call, curcpu) if cpu is None else _an_int(call, cpu))
    into = (j + skew) % rate
    rounded = j - into
    if up or into >= rate // 4:
        rounded += rate
    return rounded if time_is_after_jiffies(rounded) else j


def _round_relative(call: str, j: int | Variable, cpu: int | None, up: bool) -> int:
    now = looked_up(call, ticks)
    return _round(call, _an_int(call, j) + now, cpu, up) - now


def round_jiffies(j: int | Variable, cpu: int | None = None, /) -> int:
    """Return the time *j*, in jiffies, rounded to a whole second as CPU *cpu* (default: this one) counts them. Never
    blocks.

    Down in the first quarter of a second, else up; *j* itself if the result would have passed. With *cpu* it is
    ``__round_jiffies()`` of Linux.
    """
    return _round("round_jiffies", j, cpu, up=False)


def round_jiffies_relative(j: int | Variable, cpu: int | None = None, /) -> int:
    """Return the delay *j*, in jiffies, such that it ends at a whole second. Never blocks. See ``round_jiffies()``."""
    return _round_relative("round_jiffies_relative", j, cpu, up=False)


def round_jiffies_up(j: int | Variable, cpu: int | None = None, /) -> int:
    """Return the time *j*, in jiffies, rounded up to a whole second: never earlier.

    Never blocks. See ``round_jiffies()``.
    """
    return _round("round_jiffies_up", j, cpu, up=True)


def round_jiffies_up_relative(j: int | Variable, cpu: int | None = None, /) -> int:
    """Return the delay *j*, in jiffies, such that it ends at a whole second, never earlier.

    Never blocks. See ``round_jiffies()``.
    """
    return _round_relative("round_jiffies_up_relative", j, cpu, up=True)
