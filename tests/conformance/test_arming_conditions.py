"""callout_arm(): arming for a tick on conditions, and what becomes of a callout whose condition does not hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from callout import (
    ARM_IF_EARLIER,
    ARM_IF_IDLE,
    ARM_IF_PENDING,
    ARM_UNCHANGED,
    CALLOUT_REMOVED,
    CALLOUT_RUNNING,
    callout_active,
    callout_arm,
    callout_arm_curcpu,
    callout_dequeue,
    callout_pending,
    callout_reset,
    ticks,
)

from .world import Stage

DUE: Final = 3  # ticks from now: when the callout is due at first

# (condition, for how many ticks from now it is armed) -> which arming runs, if it was pending, and if it was not
CONDITIONS: Final = {
    (0, 3): ("new", "new"),
    (ARM_IF_IDLE, 2): ("old", "new"),
    (ARM_IF_PENDING, 4): ("new", None),
    (ARM_IF_PENDING, 3): ("new", None),
    (ARM_IF_EARLIER, 2): ("new", "new"),
    (ARM_IF_EARLIER, 3): ("old", "new"),
    (ARM_IF_EARLIER, 4): ("old", "new"),
    (ARM_UNCHANGED, 2): ("new", "new"),
    (ARM_UNCHANGED, 3): ("old", "new"),
    (ARM_UNCHANGED, 4): ("new", "new"),
    (ARM_UNCHANGED | ARM_IF_PENDING, 3): ("old", None),
}


@pytest.mark.parametrize("arm", [callout_arm, callout_arm_curcpu])
@pytest.mark.parametrize("pending", [True, False])
@pytest.mark.parametrize(("condition", "count"), CONDITIONS)
def test_an_arming_replaces_what_is_pending_if_its_condition_holds(
    s: Stage, condition: int, count: int, pending: bool, arm: Callable[..., int]
) -> None:
    """Otherwise everything stays as it is; the result says what was pending in either case."""
    c = s.callout()
    begin = s.do(ticks)
    if pending:
        s.do(callout_arm, c, begin + DUE, s.seen, "old")

    assert s.do(arm, c, begin + count, s.seen, "new", condition) == (CALLOUT_REMOVED if pending else 0)

    s.tick(5)
    expected = CONDITIONS[condition, count][not pending]

    assert s.ran == ([] if expected is None else [expected])


# -- dequeuing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("careful", [False, True])
def test_dequeuing_what_does_not_run_removes_it(s: Stage, careful: bool) -> None:
    """With ``if_not_running`` a callout that is pending, and does not run, is dequeued as without it."""
    s.world.machine.careful = careful
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")

    assert s.do(callout_dequeue, c, if_not_running=True) == CALLOUT_REMOVED
    assert (callout_pending(c), callout_active(c)) == (0, 0)

    s.tick(2)

    assert s.ran == []


@pytest.mark.parametrize("careful", [False, True])
def test_dequeuing_what_runs_leaves_its_next_run_if_it_is_told_so(s: Stage, careful: bool) -> None:
    """With ``if_not_running`` nothing is done during a run, and the result says that it runs."""
    s.world.machine.careful = careful
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    s.tick()
    s.do(callout_reset, c, 1, s.seen, "next")

    assert s.do(callout_dequeue, c, if_not_running=True) == CALLOUT_RUNNING
    assert callout_pending(c)

    s.open("run")
    s.tick(2)

    assert s.ran == ["run", "next"]


@pytest.mark.parametrize("careful", [False, True])
def test_dequeuing_what_is_not_pending_leaves_it_active(s: Stage, careful: bool) -> None:
    """A callout that has run is active until it is stopped or deactivated; dequeuing removes nothing of it."""
    s.world.machine.careful = careful
    c = s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")
    s.tick()

    assert s.do(callout_dequeue, c) == 0
    assert callout_active(c)
