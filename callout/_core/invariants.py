"""What must be true of a callout and of a CPU whenever the CPU's lock is free.

The virtual platform looks after every step of an exploration, and so do the tests of the wheel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from .cpu import CANCELLED, STARTED, T_REFUSE, WAITING, Cpu
from .state import ACTIVE, CAREFUL, CLOSED, DIRECT, FIXED, FRESH, MOVING, PENDING, QUEUED, TRACED
from .wheel import callouts_of

if TYPE_CHECKING:
    from .._api.callout import Callout

# Where a callout is that has these of the bits PENDING, QUEUED and MOVING. No other combination is legal.
NOWHERE: Final = "not scheduled"
WHEEL: Final = "in the wheel of its CPU"
QUEUE: Final = "in the queue of a lane of its CPU"
MOVE: Final = "in the deferred migration of its run"
SCHEDULED: Final[Mapping[int, str]] = {
    0: NOWHERE,
    PENDING: WHEEL,
    PENDING | QUEUED: QUEUE,
    PENDING | MOVING: MOVE,
}
# The other bits say nothing of where it is: any of them may be set, but FRESH only alone.
OTHERS: Final = ACTIVE | DIRECT | CLOSED | CAREFUL | TRACED | FIXED


def check(c: Callout) -> None:
    """Assert what must be true of *c*. The lock of its CPU is held, or nobody else is at work."""
    state, run, cpu = c.state, c.run, c.c_cpu
    if state & FRESH:
        assert state == FRESH, "never initialised, and yet something"
        assert cpu.id == -1, "never initialised, and yet on a CPU"
        return
    assert not state & ~(PENDING | QUEUED | MOVING | OTHERS), "an unknown bit"
    where = SCHEDULED.get(state & (PENDING | QUEUED | MOVING))
    assert where is not None, "queued or moving, but not pending; or both"
    linked = c.next is not None
    assert linked is (c.prev is not None), "linked on one side only"
    assert not linked or where in (WHEEL, QUEUE), f"{where}, and in a ring"
    if where == WHEEL:
        assert linked, "in no ring"
        assert any(c is other for other in cpu.wheel.callouts()), "in the wheel of another CPU"
    if where == QUEUE:
        assert any(c is other for lane in cpu.lanes for other in callouts_of(lane.queue)), "in no queue of its CPU"
    assert (where == MOVE) is (run is not None and run.move is not None), "MOVING and the deferred migration differ"
    assert cpu.id == 0 or not state & DIRECT or c.lock is not None, "direct, without a lock, and not on CPU 0"
    if run is not None:
        assert run.callout is c, "in the run of another callout"
        assert run.cpu is cpu, "on another CPU than its run"
        assert run.lane in cpu.lanes, "run by a lane of another CPU"
        assert run.lane.run is run, "a run that no lane is at"
        assert run.state in (WAITING, CANCELLED, STARTED), "a run in no state"
        assert run.refusing is any(ticket.asks & T_REFUSE for ticket in run.tickets or ()), "refusing for nobody"
    elif state & CLOSED:
        assert where == NOWHERE, "terminated, and yet scheduled"


def check_cpu(cpu: Cpu) -> None:
    """Assert what must be true of *cpu* and of every callout that it knows. Its lock is held, or nobody is at work."""
    cpu.wheel.check()
    assert cpu.deadline <= cpu.wheel.wanted(), "the event timer would fire too late"
    filed = cpu.wheel.callouts()
    for c in filed:
        assert c.c_cpu is cpu, "in the wheel of another CPU"
        check(c)
    queued = sum(len(callouts_of(lane.queue)) for lane in cpu.lanes)
    moving = sum(lane.run is not None and lane.run.move is not None for lane in cpu.lanes)
    pending = cpu.fresh + cpu.moved - cpu.removed - cpu.begun
    assert pending == len(filed) + queued + moving, "pending is counted wrongly"
    assert cpu.seq - cpu.refiled >= cpu.fresh >= 0, "armings are counted wrongly"
    for lane in cpu.lanes:
        for c in callouts_of(lane.queue):
            assert c.c_cpu is cpu, "in a queue of another CPU"
            check(c)
        if lane.run is not None and lane.run.callout.c_cpu is cpu:  # else it was freed meanwhile
            assert lane.run.callout.run is lane.run, "a lane is at a run that its callout does not know"
            check(lane.run.callout)
