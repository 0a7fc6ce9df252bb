"""share(): which moment of its window a callout with a precision is due at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callout._core.deadline import share

times = st.integers(1, 1 << 70)


def roundness(time: int) -> int:
    """Return by which power of two a time can be divided."""
    return (time & -time).bit_length() - 1


@given(times, st.integers(0, 1 << 64))
def test_the_moment_is_in_the_window(when: int, precision: int) -> None:
    """It is never before the window begins, nor after it has ended."""
    assert when <= share(when, precision) <= when + precision


@given(st.integers(1, 1 << 20), st.integers(0, 300))
def test_it_is_the_roundest(when: int, precision: int) -> None:
    """No other moment of the window can be divided by as high a power of two."""
    chosen = share(when, precision)
    others = [time for time in range(when, when + precision + 1) if time != chosen]

    assert all(roundness(time) < roundness(chosen) for time in others)


@given(times)
def test_without_precision_nothing_is_moved(when: int) -> None:
    """A window of one moment is that moment."""
    assert share(when, 0) == when


@given(times, st.integers(0, 1 << 64), st.integers(0, 1 << 64), st.integers(0, 1 << 64))
def test_two_that_can_meet_at_a_chosen_moment_do(when: int, precision: int, before: int, after: int) -> None:
    """A window that lies in another and contains the other's moment has the same moment."""
    chosen = share(when, precision)
    begin = max(when, chosen - before)
    end = min(when + precision, chosen + after)

    assert share(begin, end - begin) == chosen


@pytest.mark.parametrize(
    ("when", "precision", "moment"),
    [(7, 2, 8), (8, 4, 8), (9, 7, 16), (9, 6, 12), (1000, 24, 1024), (1025, 1022, 1536)],
)
def test_some_windows(when: int, precision: int, moment: int) -> None:
    """The roundest moment of some windows, reckoned by hand."""
    assert share(when, precision) == moment
