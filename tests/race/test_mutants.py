"""Each planted bug is found by a search of a scenario in which the engine as it is has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from callout import C_DIRECT_EXEC, SBT_1MS, Callout, callout_init, callout_reset, callout_reset_on, callout_reset_sbt
from callout.explore import Violation, explore, replay
from callout.testing import VirtualSMP
from tests.race import mutants
from tests.race.history import (
    BARE_RESET,
    DRAIN,
    DRAIN_ASYNC,
    ELSEWHERE,
    GIANT,
    HELD_DRAIN,
    MPSAFE,
    MUTEX,
    RESET,
    STOP,
    Bench,
    race,
    undisturbed,
)
from tests.race.mutants import Mutant

Scenario = Callable[[VirtualSMP], object]


def two_times(vm: VirtualSMP) -> None:
    """One thread arms a callout for late, another one for soon, on the same CPU: the soon one is not late."""
    soon, late = Callout(), Callout()
    ran_at: list[int] = []
    returned_at: list[int] = []

    def arm_soon() -> None:
        # Direct, so that it runs in the very interrupt that finds it.
        callout_reset_sbt(soon, SBT_1MS, 0, lambda _: ran_at.append(vm.platform.time), None, C_DIRECT_EXEC)
        returned_at.append(vm.platform.time)

    with undisturbed(vm):
        callout_init(soon, 1)
        callout_init(late, 1)
        vm.spawn(arm_soon)
    callout_reset(late, 1000, lambda _: None, None)
    vm.settle()

    assert ran_at[0] <= returned_at[0] + 2 * vm.machine.tick


def moved_while_cancelled(vm: VirtualSMP) -> None:
    """Armed anew, and then onto another CPU, while softclock stands at the lock with the cancelled run."""
    bench = Bench(vm, MUTEX)
    assert bench.lock is not None
    with bench.lock:
        bench.do(RESET)
        bench.do(ELSEWHERE)
    bench.verify()


def crossing(vm: VirtualSMP) -> None:
    """Two callouts go from CPU 0 to CPU 1 and back at the same time."""
    there, back = Callout(), Callout()
    with undisturbed(vm):
        callout_init(there, 1)
        callout_init(back, 1)
        callout_reset_on(back, 1000, lambda _: None, None, 1)
        vm.spawn(lambda: callout_reset_on(back, 1000, lambda _: None, None, 0))
    callout_reset_on(there, 1000, lambda _: None, None, 1)
    vm.settle()


def there_and_back(vm: VirtualSMP) -> None:
    """One callout is armed on CPU 1 and on CPU 0 at the same time."""
    c = Callout()
    with undisturbed(vm):
        callout_init(c, 1)
        vm.spawn(lambda: callout_reset_on(c, 1000, lambda _: None, None, 0))
    callout_reset_on(c, 1000, lambda _: None, None, 1)
    vm.settle()


FOUND_BY: Final[list[tuple[Mutant, Scenario, int]]] = [
    (mutants.NO_RECHECK_AFTER_LOCK_SWITCH, race(MUTEX, STOP), 2),
    (mutants.STARTED_TOO_LATE, race(MUTEX, BARE_RESET), 2),
    (mutants.NO_CPU_RECHECK, race(MPSAFE, ELSEWHERE, DRAIN), 1),
    (mutants.NO_CPU_RECHECK_OF_BOTH, there_and_back, 1),
    (mutants.LOCKS_IN_ANY_ORDER, crossing, 1),
    (mutants.MOVED_WHILE_RUNNING, race(MPSAFE, ELSEWHERE), 2),
    (mutants.MOVE_NOT_STALE, moved_while_cancelled, 2),
    (mutants.MOVE_NOT_PENDING, race(MPSAFE, ELSEWHERE), 2),
    (mutants.MOVE_NOT_PROGRAMMED, race(MPSAFE, ELSEWHERE), 2),
    (mutants.MOVE_STOPPED_SAYS_1, race(MPSAFE, STOP, callback=ELSEWHERE), 2),
    (mutants.MOVE_NOT_STOPPED, race(MPSAFE, STOP, callback=ELSEWHERE), 2),
    (mutants.STOP_SAYS_1_FOR_STARTED, race(MUTEX, STOP), 2),
    (mutants.REARM_ACCEPTED, race(MPSAFE, DRAIN_ASYNC, callback=RESET), 2),
    (mutants.SINGLE_SLOT, race(MPSAFE, DRAIN, DRAIN), 2),
    (mutants.SINGLE_PROMISE, race(MPSAFE, DRAIN_ASYNC, DRAIN_ASYNC), 2),
    (mutants.WAITER_FORGOTTEN, race(MPSAFE, DRAIN), 2),
    (mutants.COMPLETED_TOO_SOON, race(MPSAFE, DRAIN_ASYNC), 2),
    (mutants.DRAIN_KEEPS_QUEUED_RUN, race(MPSAFE, DRAIN, callback=RESET), 2),
    (mutants.GIANT_KEPT, race(GIANT, HELD_DRAIN), 2),
    (mutants.NO_LOOK_AFTER_GIANT, race(GIANT, HELD_DRAIN, RESET), 2),
    (mutants.STOPPED_IN_QUEUE_RUNS, race(MPSAFE, STOP), 2),
    (mutants.PROGRAMMED_ONCE, two_times, 2),
    (mutants.WOKEN_BEFORE_FREE, race(MUTEX, STOP), 2),
    (mutants.NO_SECOND_TRY, race(MUTEX, STOP), 2),
]


IDS: Final = [row[0].name for row in FOUND_BY]


@pytest.mark.parametrize(("mutant", "scenario", "bound"), FOUND_BY, ids=IDS)
def test_a_planted_bug_is_found(mutant: Mutant, scenario: Scenario, bound: int) -> None:
    """The search finds the bug, and the schedule that it names shows the same bug again."""
    with mutant.planted():
        with pytest.raises(Violation) as caught:
            explore(scenario, bound=bound, schedules=20_000)
        cause = caught.value.__cause__
        assert cause is not None
        with pytest.raises(type(cause)) as again:
            replay(scenario, caught.value.schedule)

    assert str(again.value) == str(cause)


@pytest.mark.parametrize(("mutant", "scenario", "bound"), FOUND_BY, ids=IDS)
def test_the_reduction_finds_what_a_plain_search_does(mutant: Mutant, scenario: Scenario, bound: int) -> None:
    """With it and without, the search ends in the same error, and with it not later."""
    found: list[tuple[type[BaseException | None], int]] = []
    for reduce in (True, False):
        with mutant.planted(), pytest.raises(Violation) as caught:
            explore(scenario, bound=bound, reduce=reduce, schedules=20_000, shrink=False)
        found.append((type(caught.value.__cause__), int(str(caught.value).split()[1])))

    (error, first), (plain_error, plain_first) = found
    assert error is plain_error
    assert first <= plain_first


@pytest.mark.parametrize(("mutant", "scenario", "bound"), FOUND_BY, ids=IDS)
def test_without_the_planted_bug_nothing_is_found(mutant: Mutant, scenario: Scenario, bound: int) -> None:
    """The scenario that finds a bug finds none when it is not there."""
    assert explore(scenario, bound=1).exhausted


def test_a_mutant_says_when_the_engine_has_changed_under_it() -> None:
    """A mutant whose words are no longer in the function raises instead of planting nothing."""
    stale = Mutant("stale", mutants.NO_CPU_RECHECK.function, "words_that_are_not_there()", "pass")

    with pytest.raises(LookupError, match="stale"), stale.planted():
        pytest.fail("planted")
