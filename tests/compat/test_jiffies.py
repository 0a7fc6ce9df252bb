"""Jiffies: comparing across the wrap, converting, rounding."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from callout import ArgumentTypeError, NoSystemError
from callout.testing import VirtualSMP
from callout_linux._jiffies import Variable
from callout_linux.timer import (
    HZ,
    MAX_JIFFY_OFFSET,
    NEXT_TIMER_MAX_DELTA,
    get_jiffies_64,
    jiffies,
    jiffies_to_msecs,
    jiffies_to_nsecs,
    jiffies_to_usecs,
    msecs_to_jiffies,
    nsecs_to_jiffies,
    nsecs_to_jiffies64,
    round_jiffies,
    round_jiffies_relative,
    round_jiffies_up,
    round_jiffies_up_relative,
    secs_to_jiffies,
    time_after,
    time_after64,
    time_after_eq,
    time_after_eq64,
    time_before,
    time_before64,
    time_before_eq,
    time_before_eq64,
    time_in_range,
    time_in_range_open,
    time_is_after_eq_jiffies,
    time_is_after_jiffies,
    time_is_before_eq_jiffies,
    time_is_before_jiffies,
    usecs_to_jiffies,
)

ULONG_MAX = (1 << 64) - 1


@pytest.fixture(params=[100, 250, 300, 1000, 1024, 4000])
def rate(request: pytest.FixtureRequest) -> Iterator[int]:
    """Make a system with that many jiffies a second current."""
    hz: int = request.param
    with VirtualSMP(1, hz=hz, free_clock=False):
        yield hz


@pytest.fixture
def vm() -> Iterator[VirtualSMP]:
    """Make a system of two CPUs, with 100 jiffies a second, current."""
    with VirtualSMP(2, hz=100, free_clock=False) as vm:
        yield vm


@pytest.mark.parametrize(
    ("early", "late"), [(1, 2), (-5, 3), (ULONG_MAX, 0), (ULONG_MAX - 3, 5), ((1 << 63) - 1, 1 << 63)]
)
def test_times_compare_across_the_wrap(early: int, late: int) -> None:
    """Of two times less than 2**63 apart the four comparisons say which is later, also across the wrap."""
    assert time_after(late, early)
    assert time_before(early, late)
    assert not time_after(early, late)
    assert not time_before(late, early)
    assert time_after_eq(late, early)
    assert time_before_eq(early, late)
    assert not time_after_eq(early, late)
    assert not time_before_eq(late, early)


def test_a_time_is_neither_before_nor_after_itself() -> None:
    """The two strict comparisons of a time with itself are false, and the other two are true."""
    assert not time_after(7, 7)
    assert not time_before(7, 7)
    assert time_after_eq(7, 7)
    assert time_before_eq(7, 7)


def test_a_range_has_its_ends_or_all_but_the_last() -> None:
    """time_in_range() contains both its ends, time_in_range_open() only the first, also across the wrap."""
    low, high = ULONG_MAX - 1, 4

    assert all(time_in_range(time, low, high) for time in (low, ULONG_MAX, 0, high))
    assert not time_in_range(5, low, high)
    assert not time_in_range(low - 1, low, high)
    assert time_in_range_open(low, low, high)
    assert not time_in_range_open(high, low, high)


def test_times_compare_with_the_present(vm: VirtualSMP) -> None:
    """time_is_before_jiffies(a) is true of what has passed, and its three relatives accordingly."""
    vm.tick(10)

    assert [time_is_before_jiffies(time) for time in (9, 10, 11)] == [True, False, False]
    assert [time_is_after_jiffies(time) for time in (9, 10, 11)] == [False, False, True]
    assert [time_is_before_eq_jiffies(time) for time in (9, 10, 11)] == [True, True, False]
    assert [time_is_after_eq_jiffies(time) for time in (9, 10, 11)] == [False, True, True]


def test_jiffies_and_hz_are_looked_up_whenever_they_are_used(vm: VirtualSMP) -> None:
    """``jiffies`` and ``HZ`` count as ints in arithmetic and comparisons, with the value of the moment."""
    before = jiffies + 2 * HZ
    vm.tick(3)

    assert before == 200
    assert jiffies == 3
    assert jiffies() == int(jiffies) == 3
    assert jiffies - 1 == 2
    assert 10 - jiffies == 7
    assert HZ // 4 == 25
    assert HZ / 8 == 12.5
    assert 1000 // HZ == 10
    assert -jiffies == -3
    assert jiffies % 2 == 1
    assert [jiffies < 4, jiffies <= 3, jiffies > 3, jiffies >= 3] == [True, True, False, True]
    assert list(range(jiffies)) == [0, 1, 2]
    assert bool(jiffies)
    assert jiffies != HZ


OPERANDS: Final = (-7, 0, 1, 2, 5, 1000)
NOT_NUMERIC: Final = {  # of int's special methods: those of every object, and what a variable has no use for
    *dir(object),
    "__getnewargs__",
    "__hash__",
    "__repr__",
}
NUMERIC: Final = sorted({name for name in dir(int) if name.startswith("__")} - NOT_NUMERIC | {"__eq__", "__format__"})
SPECS: Final = ("", "d", "5d", "<8", "08x", "#b", ",", "e", ".1f", "%")


def outcome(value: object, name: str, *args: object) -> object:
    """Return what a special method gives, or the type of what it raises."""
    try:
        return getattr(value, name)(*args)
    except (ArithmeticError, ValueError, TypeError) as error:
        return type(error)


@pytest.mark.parametrize("name", NUMERIC)
def test_every_numeric_method_of_int_is_there_and_does_the_same(vm: VirtualSMP, name: str) -> None:
    """Whatever an int can do in arithmetic, comparison, conversion or formatting, jiffies and HZ do with the same
    result, with ints and with each other.
    """
    vm.tick(3)
    assert name in vars(Variable), f"int has {name}, and a Variable has not"
    for variable, value in ((jiffies, 3), (HZ, 100)):
        if name == "__format__":
            calls: list[tuple[object, ...]] = [(spec,) for spec in SPECS]
        elif name == "__round__":
            calls = [(), (-1,), (2,)]
        elif outcome(value, name) is TypeError:  # it wants an operand
            calls = [(operand,) for operand in OPERANDS]
        else:
            calls = [()]
        for args in calls:
            if name in ("__pow__", "__rpow__") and args == (1000,):
                continue  # a number of thousands of digits
            wanted = outcome(value, name, *args)
            if wanted is not NotImplemented:
                assert outcome(variable, name, *args) == wanted, (name, args)


BINARY: Final = (
    *(operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.truediv, divmod),
    *(operator.lshift, operator.rshift, operator.and_, operator.or_, operator.xor, pow),
    *(operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne),
)


@pytest.mark.parametrize("op", BINARY)
def test_an_operator_works_from_both_sides(vm: VirtualSMP, op: Callable[[object, object], object]) -> None:
    """A variable may stand on either side of an operator, or on both."""
    vm.tick(3)

    assert op(jiffies, 7) == op(3, 7)
    assert op(7, jiffies) == op(7, 3)
    assert op(HZ, jiffies) == op(100, 3)


def test_what_is_no_number_is_no_operand(vm: VirtualSMP) -> None:
    """A string is not taken for its digits, nor a fraction for the whole number below it."""
    vm.tick(3)
    for op in (operator.lt, operator.add, operator.lshift):
        with pytest.raises(TypeError):
            op(jiffies, "5")

    assert jiffies < 3.5  # type: ignore[operator]  # that is no time in jiffies, but it is a number
    assert (jiffies != 3) is False
    assert jiffies != "3"


def test_a_variable_shows_its_number(vm: VirtualSMP) -> None:
    """print() and format codes show the number, repr() what the thing is; it serves where an index is wanted."""
    vm.tick(3)

    assert str(jiffies) == "3"
    assert f"{jiffies:04d} {HZ}" == "0003 100"
    assert "%d" % jiffies == "3"  # noqa: UP031 - C's own format codes
    assert "jiffies" in repr(jiffies)
    assert [0, 1, 2, 3][jiffies] == 3
    assert hex(HZ) == "0x64"
    assert 1000 / HZ == 10.0
    assert 1 << jiffies == 8


def test_a_variable_can_be_named_where_no_system_is_open() -> None:
    """Without a system there is no number: str() says what it is, and whatever needs the number is an error."""
    assert f"{jiffies} {HZ!s}" == f"{jiffies!r} {HZ!r}"
    uses: list[Callable[[Variable], object]] = [int, lambda j: f"{j:d}", lambda j: j + 1]
    for use in uses:
        with pytest.raises(NoSystemError, match="open_callouts"):
            use(jiffies)


@pytest.mark.parametrize(
    "call",
    [
        msecs_to_jiffies,
        usecs_to_jiffies,
        nsecs_to_jiffies,
        secs_to_jiffies,
        jiffies_to_msecs,
        jiffies_to_usecs,
        jiffies_to_nsecs,
        round_jiffies,
        round_jiffies_relative,
        round_jiffies_up,
        round_jiffies_up_relative,
        time_is_before_jiffies,
    ],
)
def test_a_conversion_takes_ints_and_variables_only(
    vm: VirtualSMP, call: Callable[[Any], object]
) -> None:  # Any: wrong
    """A fraction, a string or None is refused; ``jiffies`` and ``HZ`` count as the ints that they are."""
    vm.tick(3)

    assert call(jiffies) == call(3)
    assert type(call(jiffies)) is type(call(3))

    for wrong in (1.5, "1", None):
        with pytest.raises(ArgumentTypeError, match="give an int"):
            call(wrong)


@pytest.mark.parametrize("call", [time_after, time_before, time_after_eq, time_before_eq])
def test_what_is_no_time_is_not_compared(call: Callable[[Any, Any], bool]) -> None:  # Any: wrong ones, too
    """A comparison of what is no int says so by its own name."""
    for wrong in (1.5, "1", None):
        for pair in ((wrong, 1), (1, wrong)):
            with pytest.raises(ArgumentTypeError, match=f"{call.__name__}: give an int"):
                call(*pair)


def test_the_names_with_64_are_the_same_calls(vm: VirtualSMP) -> None:
    """A long has 64 bits, so there is no difference; get_jiffies_64() is a plain int."""
    vm.tick(3)

    assert type(get_jiffies_64()) is int
    assert get_jiffies_64() == 3
    assert time_after64(0, ULONG_MAX)
    assert time_before64(ULONG_MAX, 0)
    assert time_after_eq64(0, 0)
    assert time_before_eq64(0, 0)
    assert not time_after64(0, 0)
    assert not time_before64(0, 0)
    assert nsecs_to_jiffies64(19_999_999) == 1
    assert nsecs_to_jiffies64(-1) == ULONG_MAX * 100 // 1_000_000_000
    assert NEXT_TIMER_MAX_DELTA == (1 << 30) - 1


def test_a_timeout_is_never_shorter_than_asked_for(rate: int) -> None:
    """Milliseconds and microseconds become the least number of jiffies that lasts as long; seconds are exact."""
    for milliseconds in (0, 1, 3, 7, 10, 33, 999, 1000, 12345):
        n = msecs_to_jiffies(milliseconds)

        assert (n - 1) * 1000 < milliseconds * rate <= n * 1000 or n == milliseconds == 0

    for microseconds in (0, 1, 250, 999_999, 1_000_001):
        n = usecs_to_jiffies(microseconds)

        assert (n - 1) * 1_000_000 < microseconds * rate <= n * 1_000_000 or n == microseconds == 0

    assert secs_to_jiffies(3) == 3 * rate


def test_a_negative_timeout_is_for_ever(rate: int) -> None:
    """A negative number of milliseconds, or one beyond all bounds, is MAX_JIFFY_OFFSET."""
    assert msecs_to_jiffies(-1) == MAX_JIFFY_OFFSET
    assert usecs_to_jiffies(-1) == MAX_JIFFY_OFFSET
    assert msecs_to_jiffies(1 << 70) == MAX_JIFFY_OFFSET


def test_milliseconds_that_c_takes_for_negative_are_for_ever(rate: int) -> None:
    """The largest finite number of milliseconds is INT_MAX; whatever is more is MAX_JIFFY_OFFSET, as in Linux."""
    assert msecs_to_jiffies((1 << 31) - 1) == -(-((1 << 31) - 1) * rate // 1000)
    assert {msecs_to_jiffies(each) for each in (1 << 31, (1 << 32) - 1, 1 << 32)} == {MAX_JIFFY_OFFSET}


def test_equal_constants_hash_alike_and_what_changes_cannot_be_hashed(vm: VirtualSMP) -> None:
    """HZ is found in a set by its number and the other way round; jiffies is refused as a key."""
    assert {HZ, 100} == {100}
    assert {100, HZ} == {HZ}
    with pytest.raises(TypeError, match="unhashable"):
        hash(jiffies)


def test_nanoseconds_are_rounded_down(rate: int) -> None:
    """nsecs_to_jiffies() counts whole jiffies only, and jiffies_to_nsecs() what they last."""
    one = jiffies_to_nsecs(1)

    assert nsecs_to_jiffies(one - 1) == 0
    assert one == 1_000_000_000 // rate
    assert nsecs_to_jiffies(1_000_000_000) == rate


@pytest.mark.parametrize(
    ("hz", "msecs", "usecs"), [(100, 70, 70_000), (300, 23, 23_333), (1024, 6, 6_835), (4000, 2, 1750)]
)
def test_jiffies_in_milliseconds(hz: int, msecs: int, usecs: int) -> None:
    """Seven jiffies are so many milliseconds: rounded up only where a millisecond is a whole number of jiffies."""
    with VirtualSMP(1, hz=hz, free_clock=False):
        assert jiffies_to_msecs(7) == msecs
        assert jiffies_to_usecs(7) == usecs


def test_times_are_rounded_to_whole_seconds_of_their_cpu(vm: VirtualSMP) -> None:
    """round_jiffies() goes down in the first quarter of a second, else up; CPU n's second begins 3n jiffies earlier."""
    assert [round_jiffies(time) for time in (100, 110, 124, 125, 199)] == [100, 100, 100, 200, 200]
    assert [round_jiffies(time, 1) for time in (97, 110, 121, 122, 190)] == [97, 97, 97, 197, 197]
    assert [round_jiffies_up(time) for time in (101, 110, 199)] == [200, 200, 200]


def test_rounding_never_gives_a_time_that_has_passed(vm: VirtualSMP) -> None:
    """If the whole second has passed already, round_jiffies() gives the time itself."""
    vm.tick(105)

    assert round_jiffies(110) == 110
    assert round_jiffies(130) == 200


def test_delays_are_rounded_so_that_they_end_at_whole_seconds(vm: VirtualSMP) -> None:
    """round_jiffies_relative() and its upward relative round the time at which the delay ends."""
    vm.tick(30)

    assert round_jiffies_relative(90) == 70
    assert round_jiffies_relative(110) == 170
    assert round_jiffies_up_relative(90) == 170
