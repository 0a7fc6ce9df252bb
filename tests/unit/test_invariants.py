"""The invariants of a callout and of a CPU: each way in which a record can be wrong is seen, and named."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from callout import Callout
from callout._core.arm import schedule
from callout._core.cpu import STARTED, Cpu, Move, Run
from callout._core.invariants import check, check_cpu
from callout._core.rawlock import RawLock
from callout._core.state import ACTIVE, CLOSED, DIRECT, MOVING, NOWHERE, PENDING, QUEUED
from callout._core.units import NEVER

WHEN: Final = 1 << 40


def cpu_of(number: int) -> Cpu:
    """Return what the invariants look at of a CPU."""
    platform = SimpleNamespace(
        cpu_lock=lambda number: RawLock(), now=lambda: 0, current_thread=lambda: 0, set_event=lambda *_: None
    )
    return Cpu(cast("Any", SimpleNamespace(platform=platform, tick=1, boot=0)), number)


def idle(cpu: Cpu) -> Callout:
    """Return a callout that is not scheduled."""
    c = Callout()
    c.c_cpu = cpu
    c.state = 0
    return c


def armed(cpu: Cpu) -> Callout:
    """Return a callout in the wheel."""
    c = idle(cpu)
    schedule(cpu, c, WHEN)
    cpu.fresh += 1
    cpu.refiled -= 1
    c.state |= ACTIVE
    return c


def queued(cpu: Cpu) -> Callout:
    """Return a callout that is due."""
    c = idle(cpu)
    c.state = PENDING | QUEUED
    cpu.softclock.queue.append(c)
    cpu.seq += 1
    cpu.fresh += 1
    return c


def running(cpu: Cpu) -> Callout:
    """Return a callout with a run in progress."""
    c = idle(cpu)
    c.run = cpu.softclock.run = Run(c, cpu.softclock, STARTED, shared=False, unlocked=False)
    return c


def moving(cpu: Cpu) -> Callout:
    """Return a callout with a deferred migration."""
    c = running(cpu)
    assert c.run is not None
    c.run.move = Move(cpu, WHEN, 0, print, None, direct=False)
    c.state = PENDING | ACTIVE | MOVING
    cpu.seq += 1
    cpu.fresh += 1
    return c


MAKERS: Final = (idle, armed, queued, running, moving)


@pytest.mark.parametrize("make", MAKERS)
def test_what_is_right_passes(make: Callable[[Cpu], Callout]) -> None:
    """A callout in each of its places, a fresh one, and the CPU that knows them are as they must be."""
    cpu = cpu_of(0)
    c = make(cpu)

    check(c)
    check(Callout())
    check_cpu(cpu)


def test_a_callout_that_was_freed_during_its_run_is_not_looked_at() -> None:
    """A lane may be at the run of a callout that is nowhere any more: a completion may free it."""
    cpu = cpu_of(0)
    c = running(cpu)
    c.c_cpu, c.run = NOWHERE, None

    check_cpu(cpu)


def harm_fresh(cpu: Cpu) -> Callout:
    """Have it fresh."""
    c = Callout()
    c.state |= PENDING
    return c


def harm_unknown_bit(cpu: Cpu) -> Callout:
    """Have it unknown bit."""
    c = idle(cpu)
    c.state = 1 << 20
    return c


def harm_queued_and_moving(cpu: Cpu) -> Callout:
    """Have it queued and moving."""
    c = queued(cpu)
    c.state |= MOVING
    return c


def harm_one_side(cpu: Cpu) -> Callout:
    """Have it one side."""
    c = queued(cpu)
    c.prev = None
    return c


def harm_idle_in_a_ring(cpu: Cpu) -> Callout:
    """Have it idle in a ring."""
    c = queued(cpu)
    c.state = 0
    return c


def harm_nowhere(cpu: Cpu) -> Callout:
    """Have it nowhere."""
    c = idle(cpu)
    c.state = PENDING
    return c


def harm_foreign_wheel(cpu: Cpu) -> Callout:
    """Have it foreign wheel."""
    c = armed(cpu)
    c.c_cpu = cpu_of(1)
    return c


def harm_foreign_queue(cpu: Cpu) -> Callout:
    """Have it foreign queue."""
    c = queued(cpu)
    c.c_cpu = cpu_of(1)
    return c


def harm_move_without_a_bit(cpu: Cpu) -> Callout:
    """Have it move without a bit."""
    c = moving(cpu)
    c.state = 0
    return c


def harm_bit_without_a_move(cpu: Cpu) -> Callout:
    """Have it bit without a move."""
    c = idle(cpu)
    c.state = PENDING | MOVING
    return c


def harm_foreign_run(cpu: Cpu) -> Callout:
    """Have it foreign run."""
    c = idle(cpu)
    c.run = running(cpu).run
    return c


def harm_run_elsewhere(cpu: Cpu) -> Callout:
    """Have it run elsewhere."""
    c = running(cpu)
    c.c_cpu = cpu_of(1)
    return c


def harm_no_lane(cpu: Cpu) -> Callout:
    """Have it no lane."""
    c = running(cpu)
    cpu.softclock.run = None
    return c


def harm_refusing(cpu: Cpu) -> Callout:
    """Have it refusing."""
    c = running(cpu)
    assert c.run is not None
    c.run.refusing = True
    return c


def harm_closed(cpu: Cpu) -> Callout:
    """Have it closed."""
    c = armed(cpu)
    c.state |= CLOSED
    return c


def harm_closed_in_the_queue(cpu: Cpu) -> Callout:
    """Have it closed in the queue."""
    c = queued(cpu)
    c.state |= CLOSED
    return c


def harm_direct_elsewhere(cpu: Cpu) -> Callout:
    """Have it direct elsewhere."""
    c = idle(cpu_of(1))
    c.state |= DIRECT
    return c


HARMS: Final[dict[Callable[[Cpu], Callout], str]] = {
    harm_fresh: "never initialised, and yet something",
    harm_unknown_bit: "an unknown bit",
    harm_queued_and_moving: "queued or moving, but not pending; or both",
    harm_one_side: "linked on one side only",
    harm_idle_in_a_ring: "not scheduled, and in a ring",
    harm_nowhere: "in no ring",
    harm_foreign_wheel: "in the wheel of another CPU",
    harm_foreign_queue: "in no queue of its CPU",
    harm_move_without_a_bit: "MOVING and the deferred migration differ",
    harm_bit_without_a_move: "MOVING and the deferred migration differ",
    harm_foreign_run: "in the run of another callout",
    harm_run_elsewhere: "on another CPU than its run",
    harm_no_lane: "a run that no lane is at",
    harm_refusing: "refusing for nobody",
    harm_closed: "terminated, and yet scheduled",
    harm_closed_in_the_queue: "terminated, and yet scheduled",
    harm_direct_elsewhere: "direct, without a lock, and not on CPU 0",
}


@pytest.mark.parametrize(("harm", "words"), HARMS.items(), ids=[harm.__name__ for harm in HARMS])
def test_what_is_wrong_is_named(harm: Callable[[Cpu], Callout], words: str) -> None:
    """check() says of each harm what is wrong."""
    c = harm(cpu_of(0))
    with pytest.raises(AssertionError, match=words):
        check(c)


# What check_cpu() finds because it looks at the wheel, at each callout in it, at the queues, and at the runs.
KNOWN: Final = (
    harm_foreign_wheel,
    harm_foreign_queue,
    harm_refusing,
    harm_closed,
    harm_closed_in_the_queue,
)


@pytest.mark.parametrize("harm", KNOWN)
def test_a_cpu_with_a_wrong_callout_is_wrong(harm: Callable[[Cpu], Callout]) -> None:
    """check_cpu() looks at every callout that the CPU knows."""
    cpu = cpu_of(0)
    harm(cpu)
    with pytest.raises(AssertionError):
        check_cpu(cpu)


def test_a_late_deadline_is_seen() -> None:
    """A CPU whose event timer would fire after its first callout is due is wrong."""
    cpu = cpu_of(0)
    armed(cpu)
    cpu.deadline = NEVER
    with pytest.raises(AssertionError, match="too late"):
        check_cpu(cpu)


def test_a_broken_wheel_is_seen() -> None:
    """check_cpu() looks at the wheel itself."""
    cpu = cpu_of(0)
    armed(cpu)
    cpu.wheel._keys.insert(0, cpu.wheel._keys[0] + 8)
    with pytest.raises(AssertionError, match="sorted"):
        check_cpu(cpu)


def test_a_lane_at_a_run_that_its_callout_does_not_know_is_wrong() -> None:
    """A run must be known at both ends."""
    cpu = cpu_of(0)
    running(cpu).run = None
    with pytest.raises(AssertionError, match="does not know"):
        check_cpu(cpu)
