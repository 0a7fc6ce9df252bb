"""Every operation, and every pair of them, against softclock: explored to the end, with nothing found.

What is checked in every schedule is in ``history.py``; that the checks can fail is shown by ``test_mutants.py``, with
scenarios of the same making. Each names the number of schedules it must have at least: one that has quietly stopped
racing has fewer.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Final

import pytest

from callout import BusyError, Callout, callout_init, callout_reset
from callout.explore import explore
from callout.testing import VirtualSMP
from tests.race.history import (
    BACK,
    BARE_ELSEWHERE,
    BARE_RESET,
    BARE_STOP,
    BARRIER,
    DIRECTS,
    DRAIN,
    DRAIN_ASYNC,
    ELSEWHERE,
    GIANT,
    HELD_DRAIN,
    KINDS,
    MPSAFE,
    MUTEX,
    OPS,
    RESET,
    STOP,
    race,
)

# The schedules of each operation alone with softclock, at bound 2.
SINGLES: Final = {
    (MPSAFE, RESET): 46,
    (MPSAFE, ELSEWHERE): 87,
    (MPSAFE, STOP): 13,
    (MPSAFE, DRAIN): 13,
    (MPSAFE, DRAIN_ASYNC): 12,
    (MUTEX, RESET): 74,
    (MUTEX, ELSEWHERE): 133,
    (MUTEX, STOP): 13,
    (MUTEX, DRAIN): 14,
    (MUTEX, DRAIN_ASYNC): 13,
    (MUTEX, BARE_RESET): 48,
    (MUTEX, BARE_ELSEWHERE): 89,
    (GIANT, RESET): 74,
    (GIANT, ELSEWHERE): 70,
    (GIANT, STOP): 13,
    (GIANT, DRAIN): 14,
    (GIANT, DRAIN_ASYNC): 13,
    (GIANT, BARE_RESET): 48,
    (GIANT, BARE_ELSEWHERE): 46,
    (GIANT, BARE_STOP): 13,
    (GIANT, HELD_DRAIN): 13,
}


@pytest.mark.parametrize(("kind", "op"), SINGLES)
def test_one_operation_against_softclock(kind: str, op: str) -> None:
    """No schedule with two preemptions breaks an invariant when one operation races with softclock."""
    certificate = explore(race(kind, op), bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= SINGLES[kind, op]


def pairs(*, moving: bool) -> list[tuple[str, str, str]]:
    """Return the pairs of operations for each kind of callout: those with a migration, or the others."""
    return [
        (kind, *ops) for kind in KINDS for ops in combinations_with_replacement(OPS, 2) if (ELSEWHERE in ops) is moving
    ]


# Pairs that have 15,000 to 32,000 schedules at bound 2. Giant's are those of any mutex.
LARGE: Final = {
    (MUTEX, RESET, RESET),
    (GIANT, RESET, RESET),
    (GIANT, RESET, STOP),
    (GIANT, RESET, DRAIN_ASYNC),
}


@pytest.mark.parametrize("op", [*OPS, BARRIER])
@pytest.mark.parametrize("kind", DIRECTS)
def test_one_operation_against_the_clock_interrupt(kind: str, op: str) -> None:
    """No schedule with two preemptions breaks an invariant when one operation races with a direct callout's run."""
    certificate = explore(race(kind, op), bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 9


@pytest.mark.parametrize(("one", "other"), list(combinations_with_replacement([*OPS, BARRIER], 2)))
@pytest.mark.parametrize("kind", DIRECTS)
def test_two_operations_against_the_clock_interrupt(kind: str, one: str, other: str) -> None:
    """No schedule with one preemption breaks an invariant when two threads race with a direct callout's run."""
    certificate = explore(race(kind, one, other), bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 16


@pytest.mark.parametrize("callback", [RESET, ELSEWHERE, STOP, DRAIN_ASYNC])
@pytest.mark.parametrize("op", [*OPS, BARRIER])
@pytest.mark.parametrize("kind", DIRECTS)
def test_an_operation_against_a_direct_callback_that_operates_on_its_own_callout(
    kind: str, op: str, callback: str
) -> None:
    """No schedule with one preemption breaks an invariant when direct callback and thread both operate on it."""
    certificate = explore(race(kind, op, callback=callback), bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 3


@pytest.mark.parametrize("callback", ["", RESET])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_barrier_and_an_operation_against_softclock(kind: str, op: str, callback: str) -> None:
    """No schedule with one preemption breaks an invariant when a barrier and an operation race with softclock."""
    certificate = explore(race(kind, BARRIER, op, callback=callback), bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 35


@pytest.mark.parametrize(("kind", "one", "other"), pairs(moving=False))
def test_two_operations_against_softclock(kind: str, one: str, other: str, paths: str) -> None:
    """No schedule breaks an invariant when two threads race with softclock: with two preemptions on the short paths,
    which most calls take, but for the largest and for Giant, which is a mutex; with one the long way.
    """
    bound = 2 if paths == "short" and kind != GIANT and (kind, one, other) not in LARGE else 1
    certificate = explore(race(kind, one, other), bound=bound)

    assert certificate.exhausted
    assert certificate.schedules >= (120 if bound == 2 else 22)


@pytest.mark.parametrize(("kind", "one", "other"), pairs(moving=True))
def test_two_operations_and_a_migration_against_softclock(kind: str, one: str, other: str) -> None:
    """No schedule with one preemption breaks an invariant when one of two threads moves the callout to another CPU."""
    certificate = explore(race(kind, one, other), bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 70


@pytest.mark.parametrize("callback", [RESET, ELSEWHERE, STOP, DRAIN_ASYNC])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_operation_against_a_callback_that_operates_on_its_own_callout(kind: str, op: str, callback: str) -> None:
    """No schedule with one preemption breaks an invariant when callback and thread both operate on the callout."""
    certificate = explore(race(kind, op, callback=callback), bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 4


@pytest.mark.parametrize(
    ("ops", "callback"),
    [
        *(((BACK,), callback) for callback in ("", BACK, RESET)),
        *((ops, callback) for ops in ((BACK, ELSEWHERE), (BACK, STOP), (BACK, DRAIN)) for callback in ("", BACK)),
    ],
)
def test_a_callout_that_comes_back_from_another_cpu(ops: tuple[str, ...], callback: str) -> None:
    """No schedule with one preemption breaks an invariant when a callout of CPU 1 is moved to CPU 0."""
    certificate = explore(race(MPSAFE, *ops, callback=callback, first=ELSEWHERE), bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 16


def initialised_anew(vm: VirtualSMP) -> None:
    """Initialise a callout while softclock takes it up and runs it."""
    c, ran = Callout(), []
    callout_init(c, 1)

    def callback(_: None) -> None:
        vm.platform.point()
        ran.append("callback")

    callout_reset(c, 1, callback, None)

    def thread() -> None:
        try:
            callout_init(c, 1)
        except BusyError:
            return
        ran.append("initialised")

    vm.spawn(thread)
    vm.settle()

    assert ran in (["callback"], ["callback", "initialised"])


def test_a_callout_is_initialised_anew_only_when_it_is_idle() -> None:
    """No schedule has callout_init() accept a callout between being pending and being run, or while it runs."""
    certificate = explore(initialised_anew, bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 34
