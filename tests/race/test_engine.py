"""What the matrix (``test_matrix.py``) has not: a callout that returns to CPU 0, and one that is initialised anew."""

from __future__ import annotations

import pytest

from callout import BusyError, Callout, callout_init, callout_reset
from callout.explore import explore
from callout.testing import VirtualSMP
from tests.race.history import BACK, DRAIN, ELSEWHERE, MPSAFE, RESET, STOP, race


@pytest.mark.parametrize(
    ("ops", "callback"),
    [
        *(((BACK,), callback) for callback in ("", BACK, RESET)),
        ((BACK, ELSEWHERE), ""),
        *((ops, callback) for ops in ((BACK, STOP), (BACK, DRAIN)) for callback in ("", BACK)),
    ],
)
def test_a_callout_that_comes_back_from_another_cpu(ops: tuple[str, ...], callback: str) -> None:
    """No schedule with one preemption breaks an invariant when a callout of CPU 1 is moved to CPU 0."""
    certificate = explore(race(MPSAFE, *ops, callback=callback, first=ELSEWHERE), bound=1, cells_only=True)

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
