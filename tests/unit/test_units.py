"""Time units: late, never early."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callout import (
    C_ABSOLUTE,
    C_DIRECT_EXEC,
    C_HARDCLOCK,
    C_PRECALC,
    C_PREL,
    C_PRELGET,
    CALLOUT_RETURNUNLOCKED,
    CALLOUT_SHAREDLOCK,
    CALLOUT_TRYLOCK,
    CPU_FOREACH,
    SBT_1M,
    SBT_1MS,
    SBT_1NS,
    SBT_1S,
    SBT_1US,
    SBT_MAX,
    ArgumentTypeError,
    ArgumentValueError,
    NoSystemError,
    mp_maxid,
    mstosbt,
    nstosbt,
    sbttoms,
    sbttons,
    sbttots,
    sbttotv,
    sbttous,
    tick_sbt,
    timespec,
    timeval,
    tstosbt,
    tvtosbt,
    ustosbt,
)
from callout._core.deadline import from_seconds, precision_exponent
from callout._core.units import (
    C_ALL,
    INT_MAX,
    NEVER,
    NS_PER_S,
    check_flags,
    check_sbt,
    check_ticks,
    ns_to_sbt,
    sbt_to_ns,
)
from callout.testing import VirtualSMP

sbts = st.integers(0, SBT_MAX)
counts = st.integers(0, 1 << 62)

# (unit in a second, to sbintime, from sbintime)
UNITS: list[tuple[int, Callable[[int], int], Callable[[int], int]]] = [
    (1000, mstosbt, sbttoms),
    (1_000_000, ustosbt, sbttous),
    (1_000_000_000, nstosbt, sbttons),
]


def test_the_constants_are_the_kernels() -> None:
    """Constants have the values of sys/time.h and sys/callout.h."""
    assert SBT_1S == 0x1_0000_0000
    assert (SBT_1M, SBT_1MS, SBT_1US, SBT_1NS) == (60 * SBT_1S, 4_294_967, 4294, 4)
    assert SBT_MAX == 0x7FFF_FFFF_FFFF_FFFF
    assert (C_DIRECT_EXEC, C_HARDCLOCK, C_ABSOLUTE, C_PRECALC) == (0x0001, 0x0100, 0x0200, 0x0400)
    assert (CALLOUT_RETURNUNLOCKED, CALLOUT_SHAREDLOCK, CALLOUT_TRYLOCK) == (0x0010, 0x0020, 0x0040)


@given(sbts)
def test_a_deadline_is_never_early(sbt: int) -> None:
    """An sbintime in nanoseconds is rounded up, by less than one."""
    ns = sbt_to_ns(sbt)

    assert sbt * NS_PER_S <= ns << 32
    assert (ns - 1) << 32 < sbt * NS_PER_S


@given(counts)
def test_the_present_is_never_late(ns: int) -> None:
    """A time in sbintime is rounded down, and back in nanoseconds it is what it was."""
    sbt = ns_to_sbt(ns)

    assert sbt * NS_PER_S <= ns << 32 < (sbt + 1) * NS_PER_S
    assert sbt_to_ns(sbt) == ns


@pytest.mark.parametrize(("per_second", "to", "back"), UNITS)
@given(count=counts)
def test_units_come_back(per_second: int, to: Callable[[int], int], back: Callable[[int], int], count: int) -> None:
    """A count of units in sbintime is rounded up, by less than one, and comes back as it was."""
    sbt = to(count)

    assert (sbt - 1) * per_second < count << 32 <= sbt * per_second
    assert back(sbt) == count


@pytest.mark.parametrize(("per_second", "to", "back"), UNITS)
def test_the_smallest_unit_is_not_nothing(
    per_second: int, to: Callable[[int], int], back: Callable[[int], int]
) -> None:
    """One unit is more than no time, no time is none, and a second is a second."""
    assert to(1) > 0
    assert to(0) == back(0) == 0
    assert to(per_second) == SBT_1S
    assert back(SBT_1S) == per_second
    assert back(SBT_1S - 1) == per_second - 1


@given(counts, st.integers(0, 999_999_999))
def test_seconds_and_nanoseconds_come_back(seconds: int, ns: int) -> None:
    """A timespec in sbintime is rounded up, by less than the least sbintime, and comes back as it was."""
    sbt = tstosbt((seconds, ns))

    assert (sbt - 1) * NS_PER_S < (seconds * NS_PER_S + ns) << 32 <= sbt * NS_PER_S
    assert sbttots(sbt) == timespec(seconds, ns)
    assert tstosbt(timespec(seconds, ns)) == sbt


@given(counts, st.integers(0, 999_999))
def test_seconds_and_microseconds_come_back(seconds: int, us: int) -> None:
    """A timeval in sbintime is rounded up, by less than the least sbintime, and comes back as it was."""
    sbt = tvtosbt((seconds, us))

    assert (sbt - 1) * 1_000_000 < (seconds * 1_000_000 + us) << 32 <= sbt * 1_000_000
    assert sbttotv(sbt) == timeval(seconds, us)
    assert tvtosbt(timeval(seconds, us)) == sbt


def test_the_fields_have_the_kernels_names() -> None:
    """A pair of seconds and a fraction has the fields of struct timespec and struct timeval; it is rounded down."""
    ts, tv = sbttots(SBT_1S + SBT_1S // 2 + 1), sbttotv(2 * SBT_1S - 1)

    assert (ts.tv_sec, ts.tv_nsec) == (1, 500_000_000)
    assert (tv.tv_sec, tv.tv_usec) == (1, 999_999)


@pytest.mark.parametrize("wrong", [1, (1,), (1, 2, 3), (1.5, 0), ("1", "2"), None])
def test_what_is_no_pair_of_ints_is_no_time(wrong: object) -> None:
    """tstosbt() and tvtosbt() say what they want."""
    calls: list[tuple[Callable[[Any], int], str]] = [  # Any: the wrong types are what is tested
        (tstosbt, "tstosbt: give a pair of ints, seconds and nanoseconds"),
        (tvtosbt, "tvtosbt: give a pair of ints, seconds and microseconds"),
    ]
    for call, message in calls:
        with pytest.raises(ArgumentTypeError, match=message):
            call(wrong)


@pytest.mark.parametrize("hz", [100, 1000, 1024, 300])
def test_variables_of_the_kernel_belong_to_a_system(hz: int) -> None:
    """tick_sbt(), mp_maxid() and CPU_FOREACH() are those of the current system; without one they are errors."""
    with VirtualSMP(3, hz=hz):
        assert tick_sbt() == SBT_1S // hz
        assert mp_maxid() == 2
        assert list(CPU_FOREACH()) == [0, 1, 2]

    for call in (tick_sbt, mp_maxid, CPU_FOREACH):
        with pytest.raises(NoSystemError, match=call.__name__):
            call()


def test_never_is_later_than_all() -> None:
    """No time that can be asked for is as late as NEVER."""
    assert sbt_to_ns(SBT_MAX) < NEVER


@pytest.mark.parametrize("x", range(63))
def test_prel_can_be_read_back(x: int) -> None:
    """C_PREL(x) is a flag of its own, which C_PRELGET() reads among others."""
    assert C_PRELGET(C_PREL(x) | C_ABSOLUTE | C_DIRECT_EXEC | C_HARDCLOCK | C_PRECALC) == x
    assert C_PREL(x) & (C_ABSOLUTE | C_DIRECT_EXEC | C_HARDCLOCK | C_PRECALC) == 0
    assert C_PREL(x) & ~C_ALL == 0


def test_no_prel() -> None:
    """Without C_PREL() C_PRELGET() says -1, so that C_PREL(0) is something else."""
    assert C_PRELGET(0) == C_PRELGET(C_ABSOLUTE | C_DIRECT_EXEC) == -1


@pytest.mark.parametrize("x", [-1, 63, 1000])
def test_prel_has_a_range(x: int) -> None:
    """A power of two that makes no sense is refused."""
    with pytest.raises(ArgumentValueError, match="0 to 62"):
        C_PREL(x)


@pytest.mark.parametrize(
    ("percent", "exponent"), [(0, 63), (1, 7), (3, 5), (5, 4), (10, 3), (25, 2), (50, 1), (100, 0)]
)
def test_alloweddeviation_becomes_a_power_of_two(percent: int, exponent: int) -> None:
    """The exponent is that of tc_adjprecision(); 0 per cent is no precision at all for any interval."""
    assert precision_exponent(percent) == exponent


@pytest.mark.parametrize("ticks", [0, -5, 1, INT_MAX, True])
def test_good_ticks(ticks: int) -> None:
    """Every int that fits into C's is a count of ticks."""
    assert check_ticks("f", ticks) == ticks


@pytest.mark.parametrize("ticks", [1.0, "1", None, 1j])
def test_ticks_are_ints(ticks: object) -> None:
    """What is no int is no count of ticks."""
    with pytest.raises(ArgumentTypeError, match="ticks must be an int"):
        check_ticks("f", ticks)


def test_ticks_fit_into_an_int_of_c() -> None:
    """More ticks than an int of C holds are refused, and the error says how many that are."""
    with pytest.raises(ArgumentValueError, match=str(INT_MAX)):
        check_ticks("f", INT_MAX + 1)


@pytest.mark.parametrize("sbt", [0, 1, SBT_MAX])
def test_good_sbts(sbt: int) -> None:
    """Nought and the largest sbintime are legal."""
    assert check_sbt("f", "sbt", sbt) == sbt


@pytest.mark.parametrize(
    ("sbt", "error", "text"),
    [
        (float("nan"), ArgumentTypeError, "must be an int"),
        (1.5, ArgumentTypeError, "must be an int"),
        (None, ArgumentTypeError, "must be an int"),
        (-1, ArgumentValueError, "must not be negative"),
        (SBT_MAX + 1, ArgumentValueError, "SBT_MAX"),
    ],
)
def test_bad_sbts(sbt: object, error: type[Exception], text: str) -> None:
    """A time that is no int, negative or over-large is refused by an error that names the call and the argument."""
    with pytest.raises(error, match=f"some_call: precision.*{text}"):
        check_sbt("some_call", "precision", sbt)


@given(st.integers(0, C_ALL))
def test_known_flags_pass(flags: int) -> None:
    """Flags of which each bit is known are returned as they are."""
    assert check_flags("f", flags & C_ALL, C_ALL) == flags & C_ALL


@pytest.mark.parametrize("bit", [0x1000, 0x8000, 1 << 40])
def test_unknown_flags_are_named(bit: int) -> None:
    """An unknown bit is refused by an error that names it and not the known ones."""
    with pytest.raises(ArgumentValueError, match=f"some_call: unknown flag {bit:#x}$"):
        check_flags("some_call", bit | C_ABSOLUTE, C_ALL)


def test_flags_are_ints() -> None:
    """What is no int is no flag."""
    with pytest.raises(ArgumentTypeError, match="flags must be an int"):
        check_flags("f", "C_ABSOLUTE", C_ALL)


@pytest.mark.parametrize(
    ("seconds", "ns"),
    [(math.inf, 1 << 62), (1e300, 1 << 62), ((1 << 62) // 10**9, 1 << 62), (1.5, 1_500_000_000), (0, 0)],
)
def test_a_wait_of_more_than_a_century_has_no_end(seconds: float, ns: int) -> None:
    """Seconds are nanoseconds, and those that are too many, or infinite, are a time that nobody will see."""
    assert from_seconds(seconds) == ns
