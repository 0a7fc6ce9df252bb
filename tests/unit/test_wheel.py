"""The callwheel against a plain list, in random walks; and its due queue."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from callout._core.arm import schedule, unschedule
from callout._core.cpu import Cpu
from callout._core.state import ACTIVE, MOVING, PENDING, Callout
from callout._core.units import NEVER
from callout._core.wheel import CHUNK, SHIFT, SLACK, DueQueue, Wheel

SLOT = 1 << SHIFT
BEGIN = 7 * SLOT + 12_345  # time does not begin at nought

# From the next nanosecond to some slots away: within a slot, at its edges, beyond it.
delays = st.one_of(
    st.integers(1, 40),
    st.integers(1, 3 * SLOT),
    st.integers(1, 4).map(lambda slots: slots * SLOT - BEGIN % SLOT),
    st.integers(SLOT, 40 * SLOT),
)


def cpu_of() -> Cpu:
    """Return what the wheel and the functions over it need of a CPU."""
    cpu: Any = SimpleNamespace(seq=0, deadline=NEVER)
    cpu.wheel = Wheel(cpu)
    return cast("Cpu", cpu)


def callout_on(cpu: Cpu) -> Callout:
    """Return an idle callout of *cpu*."""
    c = Callout()
    c.cpu = cpu
    return c


def arm(c: Callout, when: int) -> None:
    """Arm *c* the long way."""
    unschedule(c.cpu, c)
    schedule(c.cpu, c, when)


def push_out(c: Callout, when: int) -> bool:
    """Arm *c* the short way, which touches no queue, if that will do."""
    if c.state & PENDING and not c.state & MOVING and 0 < c.filed <= when:
        c.cpu.seq += 1
        c.seq = c.cpu.seq
        c.time = when
        return True
    return False


def expire(cpu: Cpu, now: int) -> list[Callout]:
    """Take out what is due, as the clock interrupt does, and set the deadline."""
    due: list[Callout] = []
    while True:
        before = len(due)
        more = cpu.wheel.expire(now, due)
        assert len(due) - before <= CHUNK
        cpu.wheel.check()
        for c in due[before:]:
            c.state &= ~PENDING
        if not more:
            break
    cpu.deadline = cpu.wheel.next_event()
    return due


class Walk(RuleBasedStateMachine):
    """Two CPUs, some callouts, and what a plain dict says of them: callout -> (CPU, time, order of arming)."""

    callouts: Bundle[Callout] = Bundle("callouts")

    def __init__(self) -> None:
        super().__init__()
        self.cpus = [cpu_of(), cpu_of()]
        self.now = BEGIN
        self.order = 0
        self.model: dict[Callout, tuple[Cpu, int, int]] = {}
        self.moving: set[Callout] = set()
        self.stopped_last = False

    def _armed(self, c: Callout, when: int) -> None:
        self.order += 1
        self.model[c] = (c.cpu, when, self.order)

    @initialize(target=callouts, count=st.integers(1, 12))
    def make(self, count: int) -> Any:  # noqa: ANN401 - hypothesis has no name for what multiple() returns
        """Begin with some callouts."""
        return multiple(*(callout_on(self.cpus[number % 2]) for number in range(count)))

    @rule(target=callouts, cpu=st.integers(0, 1))
    def make_one(self, cpu: int) -> Callout:
        """Add one."""
        return callout_on(self.cpus[cpu])

    @rule(c=callouts, delay=delays)
    def reset(self, c: Callout, delay: int) -> None:
        """Arm it, by the short way if that will do."""
        if c in self.moving:
            return
        if not push_out(c, self.now + delay):
            arm(c, self.now + delay)
        self._armed(c, self.now + delay)

    @rule(c=callouts, delay=delays)
    def reset_the_long_way(self, c: Callout, delay: int) -> None:
        """Arm it by the long way."""
        if c in self.moving:
            return
        arm(c, self.now + delay)
        self._armed(c, self.now + delay)

    @rule(c=callouts, times=st.integers(2, 30), delay=delays)
    def reset_inwards(self, c: Callout, times: int, delay: int) -> None:
        """Arm it for earlier and earlier times."""
        if c in self.moving:
            return
        for step in range(times, 0, -1):
            arm(c, self.now + delay + step)
        self._armed(c, self.now + delay + 1)

    @rule(c=callouts)
    def stop(self, c: Callout) -> None:
        """Stop it."""
        unschedule(c.cpu, c)
        self.model.pop(c, None)
        self.moving.discard(c)

    @rule(c=callouts, delay=delays)
    def move(self, c: Callout, delay: int) -> None:
        """Arm it on the other CPU."""
        if c in self.moving:
            return
        unschedule(c.cpu, c)
        c.filed = 0
        c.cpu = self.cpus[1 - self.cpus.index(c.cpu)]
        schedule(c.cpu, c, self.now + delay)
        self._armed(c, self.now + delay)

    @rule(c=callouts)
    def put_off(self, c: Callout) -> None:
        """Put a move off: pending, but in no wheel, though an old entry may still be there."""
        unschedule(c.cpu, c)
        c.run = cast("Any", SimpleNamespace(move=None))
        c.filed = 0
        c.state |= PENDING | ACTIVE | MOVING
        self.model.pop(c, None)
        self.moving.add(c)

    @rule(c=callouts, delay=delays)
    def carry_out(self, c: Callout, delay: int) -> None:
        """Carry a put-off move out, there or back here."""
        if c not in self.moving:
            return
        self.moving.discard(c)
        c.state &= ~(PENDING | MOVING)
        c.run = None
        if delay % 2:
            c.filed = 0
            c.cpu = self.cpus[1 - self.cpus.index(c.cpu)]
        schedule(c.cpu, c, self.now + delay)
        self._armed(c, self.now + delay)

    @rule(by=delays)
    def pass_time(self, by: int) -> None:
        """Move the time on, and take the interrupts of both CPUs."""
        self._pass(self.now + by)

    @rule()
    def pass_to_the_next_event(self) -> None:
        """Move the time on to when the wheels want to be looked at."""
        when = min(cpu.wheel.next_event() for cpu in self.cpus)
        if when != NEVER:
            self._pass(max(when, self.now))

    def _pass(self, now: int) -> None:
        self.now = now
        for cpu in self.cpus:
            expected = sorted(
                (time, order, c) for c, (where, time, order) in self.model.items() if where is cpu and time <= now
            )
            assert expire(cpu, now) == [c for _, _, c in expected]
            for _, _, c in expected:
                del self.model[c]

    @rule()
    def clear(self) -> None:
        """Empty a wheel, as the close does."""
        cpu = self.cpus[0]
        mine = {c for c, (where, _, _) in self.model.items() if where is cpu}
        cleared = cpu.wheel.clear()
        for c in cleared:
            c.state &= ~PENDING
            del self.model[c]

        assert set(cleared) == mine
        assert len(cleared) == len(mine)
        assert cpu.wheel.next_event() == NEVER

    @invariant()
    def in_order(self) -> None:
        """Both wheels keep their invariants."""
        for cpu in self.cpus:
            cpu.wheel.check()

    @invariant()
    def never_late(self) -> None:
        """Nothing is due before the wheel wants to be looked at, and an empty one wants nothing."""
        for cpu in self.cpus:
            times = [time for where, time, _ in self.model.values() if where is cpu]

            assert cpu.wheel.live == len(times)
            assert cpu.wheel.next_event() <= min(times, default=NEVER)
            assert (cpu.wheel.next_event() == NEVER) == (not times)


Walk.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None, derandomize=True)
TestWalk = Walk.TestCase


def test_pushing_out_touches_no_queue() -> None:
    """Pushing a pending callout out ten thousand times leaves one entry, and it comes up at the last time only."""
    cpu = cpu_of()
    c = callout_on(cpu)
    arm(c, BEGIN + 1)
    for step in range(10_000):
        assert push_out(c, BEGIN + 2 + step)

    assert cpu.wheel.size == 1
    assert expire(cpu, BEGIN + 10_000) == []
    assert expire(cpu, BEGIN + 10_001) == [c]
    assert cpu.wheel.size == 0


@pytest.mark.parametrize("spread", [1, SLOT, 50 * SLOT], ids=["one moment", "a slot", "many slots"])
def test_garbage_is_bounded(spread: int) -> None:
    """However often callouts are stopped and armed, the wheel has at most about twice as many entries as live ones."""
    cpu = cpu_of()
    callouts = [callout_on(cpu) for _ in range(200)]
    for round_ in range(50):
        for number, c in enumerate(callouts):
            arm(c, BEGIN + SLOT * 60 - round_ * SLOT + number * spread // 200)
            if number % 2:
                unschedule(cpu, c)

            assert cpu.wheel.size <= 2 * (cpu.wheel.live + 1) + SLACK + 1

    cpu.wheel.check()


def test_a_sweep_keeps_what_lives() -> None:
    """After a sweep every live callout comes up, once, in order, and the stopped ones do not."""
    cpu = cpu_of()
    kept = [callout_on(cpu) for _ in range(20)]
    for number, c in enumerate(kept):
        arm(c, BEGIN + (number % 7) * SLOT // 2 + 5)
    expire(cpu, BEGIN)  # opens the first slot: both parts of the wheel are in use
    for number in range(500):
        c = callout_on(cpu)
        arm(c, BEGIN + number * SLOT // 50 + 7)
        unschedule(cpu, c)

    assert cpu.wheel.size < 150
    cpu.wheel.check()
    assert expire(cpu, BEGIN + 100 * SLOT) == sorted(kept, key=lambda c: (c.time, c.seq))


def test_much_at_once_comes_in_chunks_and_in_order() -> None:
    """A slot with more entries than are handled under one hold of the lock comes out whole and in order."""
    cpu = cpu_of()
    callouts = [callout_on(cpu) for _ in range(3 * CHUNK + 7)]
    for number, c in enumerate(callouts):
        arm(c, BEGIN + 2 * SLOT + number * 7919 % 1000)
    due: list[Callout] = []

    assert cpu.wheel.expire(BEGIN + 3 * SLOT, due)
    assert len(due) <= CHUNK
    assert due + expire(cpu, BEGIN + 3 * SLOT) == sorted(callouts, key=lambda c: (c.time, c.seq))


def test_a_callout_may_have_two_entries() -> None:
    """A callout that was armed twice within one slot comes up once, also if a chunk ends between its entries."""
    cpu = cpu_of()
    c = callout_on(cpu)
    others = [callout_on(cpu) for _ in range(CHUNK - 1)]
    arm(c, BEGIN + 2 * SLOT + 900)
    unschedule(cpu, c)
    for number, other in enumerate(others):
        arm(other, BEGIN + 2 * SLOT + (850 if number == 5 else number % 700))
    arm(c, BEGIN + 2 * SLOT + 849)

    assert expire(cpu, BEGIN + 3 * SLOT).count(c) == 1
    assert cpu.wheel.size == 0


def test_an_entry_that_was_left_behind_is_not_believed() -> None:
    """A callout that went to another CPU and came back comes up at its new time, not at that of the old entry."""
    here, there = cpu_of(), cpu_of()
    c = callout_on(here)
    arm(c, BEGIN + 10)
    unschedule(here, c)
    c.filed = 0
    c.cpu = there
    schedule(there, c, BEGIN + 10)

    assert expire(here, BEGIN + 10) == []
    assert expire(there, BEGIN + 10) == [c]

    c.filed = 0
    c.cpu = here
    schedule(here, c, BEGIN + 50)

    assert expire(here, BEGIN + 49) == []
    assert expire(here, BEGIN + 50) == [c]


def test_an_empty_wheel_wants_nothing() -> None:
    """With nothing armed, or all of it stopped, the event timer is not needed."""
    cpu = cpu_of()
    c = callout_on(cpu)

    assert cpu.wheel.next_event() == NEVER

    arm(c, BEGIN + 5 * SLOT)

    assert cpu.wheel.next_event() <= BEGIN + 5 * SLOT

    unschedule(cpu, c)

    assert cpu.wheel.next_event() == NEVER
    assert expire(cpu, BEGIN + 6 * SLOT) == []


def test_check_sees_what_is_wrong() -> None:
    """check() is no formality: it fails for a wheel that has lost a callout, miscounted, or files one too late."""
    for harm in ("live", "size", "filed"):
        cpu = cpu_of()
        c = callout_on(cpu)
        arm(c, BEGIN + SLOT)
        if harm == "live":
            cpu.wheel.live += 1
        elif harm == "size":
            cpu.wheel.size -= 1
        else:
            c.time = c.filed - 1
        with pytest.raises(AssertionError):
            cpu.wheel.check()


class Queue(RuleBasedStateMachine):
    """A due queue against a plain list."""

    callouts: Bundle[Callout] = Bundle("callouts")

    def __init__(self) -> None:
        super().__init__()
        self.cpu = cpu_of()
        self.queue = DueQueue(self.cpu, -1)
        self.model: list[Callout] = []

    @rule(target=callouts)
    def make(self) -> Callout:
        """Add a callout."""
        return callout_on(self.cpu)

    @rule(c=callouts)
    def push(self, c: Callout) -> None:
        """It falls due."""
        if c in self.model:
            return
        c.state |= PENDING
        self.queue.push(c)
        self.model.append(c)

    @rule(c=callouts)
    def stop(self, c: Callout) -> None:
        """It is stopped."""
        if c in self.model:
            unschedule(self.cpu, c)
            self.model.remove(c)

    @rule(c=callouts)
    def arm_again(self, c: Callout) -> None:
        """It is armed anew, falls due and goes to the end."""
        if c in self.model:
            arm(c, BEGIN)
            self.model.remove(c)
            (due,) = expire(self.cpu, BEGIN)
            due.state |= PENDING
            self.queue.push(due)
            self.model.append(due)

    @rule()
    def pop(self) -> None:
        """Softclock takes the next."""
        c = self.queue.pop()

        assert c is (self.model.pop(0) if self.model else None)

        if c is not None:
            assert c.state & PENDING
            c.state &= ~PENDING

    @invariant()
    def nothing_is_lost(self) -> None:
        """What should be queued still is pending, and the queue is not empty then."""
        assert all(c.state & PENDING for c in self.model)
        assert len(self.queue) >= len(self.model)


Queue.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None, derandomize=True)
TestQueue = Queue.TestCase
