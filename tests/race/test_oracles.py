"""The oracles themselves: each finds a mistake that shows nowhere else, and the reference refuses what cannot be."""

from __future__ import annotations

from typing import Final

import pytest

from callout import Callout, callout_deactivate, callout_init, callout_reset
from callout._core import stop as engine
from callout.explore import Violation, explore
from callout.explore._sequential import ARM, DRAIN, DRAIN_ASYNC, STOP, Asked, Happened, History, explained
from callout.testing import VirtualSMP
from tests.race.mutants import Mutant

# -- the lockset -------------------------------------------------------------------------------------------------------


def deactivates(vm: VirtualSMP) -> None:
    """Deactivate a callout with nobody near."""
    c = Callout()
    callout_init(c, 1)
    callout_reset(c, 1, lambda _: None, None)
    callout_deactivate(c)


WRITES_WITHOUT_THE_LOCK: Final = Mutant(
    "callout_deactivate() writes the state while the CPU's lock is not held",
    engine.deactivate,
    "c.state &= ~ACTIVE",
    "cpu.lock.release(); c.state &= ~ACTIVE; cpu.lock.acquire()",
)


def test_a_write_without_the_lock_is_found() -> None:
    """Whether or not it does any harm in the schedule."""
    with WRITES_WITHOUT_THE_LOCK.planted(), pytest.raises(Violation) as caught:
        explore(deactivates, bound=0)
    assert "Callout.state of cpu 0 is written without the lock of the callout's CPU" in str(caught.value.__cause__)
    assert explore(deactivates, bound=0).exhausted


IN_THE_WHEEL_NOT_PENDING: Final = Mutant(
    "callout_deactivate() clears PENDING, and for a moment the callout stays in the wheel",
    engine.deactivate,
    "c.state &= ~ACTIVE",
    "before = c.state; c.state = 0; cpu.lock.release(); cpu.lock.acquire(); c.state = before & ~ACTIVE",
)


def test_a_cpu_that_is_not_in_order_is_found_when_its_lock_is_released() -> None:
    """Every scenario is checked so: this one has no assertion of its own."""

    def scenario(vm: VirtualSMP) -> None:
        c = Callout()
        callout_init(c, 1)
        callout_reset(c, 1, lambda _: None, None)
        callout_deactivate(c)

    with IN_THE_WHEEL_NOT_PENDING.planted(), pytest.raises(Violation) as caught:
        explore(scenario, bound=0)
    assert isinstance(caught.value.__cause__, AssertionError)


# -- the sequential reference ------------------------------------------------------------------------------------------


def asked(kind: str, begun: int, ended: int, result: int, *, completed: int = 0, label: int = 0) -> Asked:
    """Return a call."""
    return Asked(kind, None, False, False, begun, ended, result, completed, label)


ARMED: Final = asked(ARM, 1, 2, 0)

CASES: Final[list[tuple[str, bool, History]]] = [
    ("it runs", True, History(False, (ARMED,), (Happened(0, 3, 4),))),
    ("it never ran, and nobody removed it", False, History(False, (ARMED,), ())),
    ("it runs before it was armed", False, History(False, (asked(ARM, 5, 6, 0),), (Happened(0, 3, 4),))),
    ("stopped", True, History(False, (ARMED, asked(STOP, 3, 4, 1)), ())),
    ("stopped, and it ran", False, History(False, (ARMED, asked(STOP, 3, 4, 1)), (Happened(0, 5, 6),))),
    ("stop says that it runs, and it does", True, History(False, (ARMED, asked(STOP, 4, 5, 0)), (Happened(0, 3, 6),))),
    (
        "stop says that there is nothing, while it runs",
        False,
        History(False, (ARMED, asked(STOP, 4, 5, -1)), (Happened(0, 3, 6),)),
    ),
    ("stopped twice, once each", True, History(False, (ARMED, asked(STOP, 3, 6, -1), asked(STOP, 4, 5, 1)), ())),
    ("stopped twice, both say 1", False, History(False, (ARMED, asked(STOP, 3, 6, 1), asked(STOP, 4, 5, 1)), ())),
    ("replaced", True, History(False, (ARMED, asked(ARM, 3, 4, 1, label=1)), (Happened(1, 5, 6),))),
    (
        "replaced, and both ran",
        False,
        History(False, (ARMED, asked(ARM, 3, 4, 1, label=1)), (Happened(0, 5, 6), Happened(1, 7, 8))),
    ),
    (
        "an arming says 0 and replaced one",
        False,
        History(False, (ARMED, asked(ARM, 3, 4, 0, label=1)), (Happened(1, 5, 6),)),
    ),
    ("drained while it runs", True, History(False, (ARMED, asked(DRAIN, 4, 7, -1)), (Happened(0, 3, 6),))),
    ("drained, and it still runs", False, History(False, (ARMED, asked(DRAIN, 4, 5, -1)), (Happened(0, 3, 6),))),
    (
        "armed by its run during a drain: refused",
        True,
        History(False, (ARMED, asked(DRAIN, 4, 9, -1), asked(ARM, 5, 6, 0, label=1)), (Happened(0, 3, 8),)),
    ),
    (
        "a completion after the run",
        True,
        History(False, (ARMED, asked(DRAIN_ASYNC, 4, 5, 1, completed=9)), (Happened(0, 3, 8),)),
    ),
    (
        "a completion during the run",
        False,
        History(False, (ARMED, asked(DRAIN_ASYNC, 4, 5, 1, completed=6)), (Happened(0, 3, 8),)),
    ),
    (
        "nothing outstanding, while it runs",
        False,
        History(False, (ARMED, asked(DRAIN_ASYNC, 4, 5, 0)), (Happened(0, 3, 8),)),
    ),
]


@pytest.mark.parametrize(("possible", "history"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_reference(*, possible: bool, history: History) -> None:
    """It explains the histories that some order of steps has, and no others."""
    assert explained(history) is possible


def test_a_cpu_whose_lock_is_never_released_is_found() -> None:
    """Nobody else wants it, so nothing waits."""

    def scenario(vm: VirtualSMP) -> None:
        vm.spawn(vm.machine.cpus[1].lock.acquire, name="holder")
        vm.settle()

    with pytest.raises(Violation) as caught:
        explore(scenario, bound=0)
    assert "holder has ended, and still holds the lock 'cpu1', which holder holds" in str(caught.value.__cause__)
