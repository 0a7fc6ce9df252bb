"""The callwheel against a plain dict, in random walks; and the ring of a due queue."""

from __future__ import annotations

import random
import sys
import weakref
from collections.abc import Callable
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from callout import Callout
from callout._core.arm import schedule, unschedule
from callout._core.cpu import STARTED, Cpu, Run
from callout._core.levels import CHUNK, COARSE, FEW, FINE, LAST, LEVELS
from callout._core.rawlock import RawLock
from callout._core.state import ACTIVE, MOVING, PENDING, QUEUED, Ring
from callout._core.units import NEVER
from callout._core.wheel import Bucket, Wheel, callouts_of

SLOT = 1 << COARSE
SHORT = 1 << FINE
BEGIN = 7 * SLOT + 12_345  # time does not begin at nought

# From the next nanosecond to the end of time: within a slot, at its edges, beyond it, on every level.
delays = st.one_of(
    *(st.integers(1, 300 << shift) for shift in LEVELS[:-1]),
    st.sampled_from([(256 << shift) - BEGIN % (1 << shift) + by for shift in LEVELS[:-1] for by in (-1, 0, 1)]),
    st.integers(1, 40),
    st.integers(1, 3 * SLOT),
    st.integers(1, 4).map(lambda slots: slots * SLOT - BEGIN % SLOT),
    st.integers(SLOT, 40 * SLOT),
)


class TimedCpu(Cpu):
    """A CPU, and what time it is there."""

    time = BEGIN

    def __init__(self) -> None:
        platform = SimpleNamespace(
            cpu_lock=lambda number: RawLock(),
            now=lambda: self.time,
            current_thread=lambda: 0,
            set_event=lambda number, when: None,
        )
        super().__init__(cast("Any", SimpleNamespace(platform=platform, tick=1, boot=0)), 0)


def cpu_of() -> TimedCpu:
    """Return what the wheel and the functions over it need of a CPU."""
    return TimedCpu()


def callout_on(cpu: Cpu) -> Callout:
    """Return an idle callout of *cpu*."""
    c = Callout()
    c.c_cpu = cpu
    return c


def arm(c: Callout, when: int) -> None:
    """Arm *c* the long way."""
    unschedule(c.c_cpu, c)
    schedule(c.c_cpu, c, when)


def push_out(c: Callout, when: int) -> bool:
    """Arm *c* the short way, which touches no queue, if that will do."""
    if c.state & (PENDING | MOVING | QUEUED) == PENDING and c.time <= when:
        c.c_cpu.seq += 1
        c.seq = c.c_cpu.seq
        c.time = when
        return True
    return False


def expire(cpu: Cpu, now: int) -> list[Callout]:
    """Take out what is due, as the clock interrupt does, and set the deadline."""
    assert isinstance(cpu, TimedCpu)
    cpu.time = now
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

    def _at(self, delay: int) -> int:
        """Return the time after a delay; nothing is armed for NEVER or later."""
        return min(self.now + delay, NEVER - 100)

    def _armed(self, c: Callout, when: int) -> None:
        self.order += 1
        self.model[c] = (c.c_cpu, when, self.order)

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
        if not push_out(c, self._at(delay)):
            arm(c, self._at(delay))
        self._armed(c, self._at(delay))

    @rule(c=callouts, delay=delays)
    def reset_the_long_way(self, c: Callout, delay: int) -> None:
        """Arm it by the long way."""
        if c in self.moving:
            return
        arm(c, self._at(delay))
        self._armed(c, self._at(delay))

    @rule(c=callouts, times=st.integers(2, 30), delay=delays)
    def reset_inwards(self, c: Callout, times: int, delay: int) -> None:
        """Arm it for earlier and earlier times."""
        if c in self.moving:
            return
        for step in range(times, 0, -1):
            arm(c, self._at(delay) + step)
        self._armed(c, self._at(delay) + 1)

    @rule(c=callouts)
    def stop(self, c: Callout) -> None:
        """Stop it."""
        unschedule(c.c_cpu, c)
        self.model.pop(c, None)
        self.moving.discard(c)

    @rule(c=callouts, delay=delays)
    def move(self, c: Callout, delay: int) -> None:
        """Arm it on the other CPU."""
        if c in self.moving:
            return
        unschedule(c.c_cpu, c)
        c.c_cpu = self.cpus[c.c_cpu is self.cpus[0]]
        schedule(c.c_cpu, c, self._at(delay))
        self._armed(c, self._at(delay))

    @rule(c=callouts)
    def defer(self, c: Callout) -> None:
        """Defer a migration: pending, but in no wheel."""
        unschedule(c.c_cpu, c)
        c.run = Run(c, c.c_cpu.softclock, STARTED, shared=False, unlocked=False)
        c.state |= PENDING | ACTIVE | MOVING
        self.model.pop(c, None)
        self.moving.add(c)

    @rule(c=callouts, delay=delays)
    def carry_out(self, c: Callout, delay: int) -> None:
        """Carry a deferred migration out, there or back here."""
        if c not in self.moving:
            return
        self.moving.discard(c)
        c.state &= ~(PENDING | MOVING)
        c.run = None
        if delay % 2:
            c.c_cpu = self.cpus[c.c_cpu is self.cpus[0]]
        schedule(c.c_cpu, c, self._at(delay))
        self._armed(c, self._at(delay))

    @rule(by=delays)
    def pass_time(self, by: int) -> None:
        """Move the time on, and take the interrupts of both CPUs."""
        self._pass(self._at(by))

    @rule()
    def pass_to_the_next_event(self) -> None:
        """Move the time on to when the wheels want to be looked at."""
        when = min(cpu.deadline for cpu in self.cpus)
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
        cpu.deadline = NEVER
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

            assert len(cpu.wheel) == len(times)
            assert cpu.wheel.wanted() == min(times, default=NEVER)
            assert cpu.deadline <= min(times, default=NEVER)


Walk.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None, derandomize=True)
TestWalk = Walk.TestCase


def test_pushing_out_touches_no_queue() -> None:
    """Pushing a pending callout out ten thousand times leaves one entry, and it comes up at the last time only."""
    cpu = cpu_of()
    c = callout_on(cpu)
    arm(c, BEGIN + 1)
    for step in range(10_000):
        assert push_out(c, BEGIN + 2 + step)

    assert len(cpu.wheel) == 1
    assert expire(cpu, BEGIN + 10_000) == []
    assert expire(cpu, BEGIN + 10_001) == [c]
    assert len(cpu.wheel) == 0


def parts(wheel: Wheel) -> tuple[int, int, int]:
    """Return how many buckets there are, how many keys of buckets, and how many callouts in the open ring."""
    return len(wheel.buckets()), len(wheel._keys), len(callouts_of(wheel._open))


@pytest.mark.parametrize("spread", [SLOT, 50 * SLOT, 1 << 50, 1 << 60], ids=["a slot", "some", "days", "years"])
def test_what_is_stopped_leaves_nothing_behind(spread: int) -> None:
    """However callouts were armed, no reference is left of one that was stopped, and the next look forgets the rest."""
    cpu = cpu_of()
    for number in range(500):
        c = callout_on(cpu)
        arm(c, BEGIN + SLOT + number * spread // 500)
        gone = weakref.ref(c)
        unschedule(cpu, c)
        del c

        assert gone() is None

    assert cpu.wheel.next_event() == NEVER
    assert parts(cpu.wheel) == (0, 0, 0)


def test_a_bucket_that_was_emptied_is_used_again() -> None:
    """A timeout that is armed and cancelled all the time, for a time that moves on, makes no bucket for each."""
    cpu = cpu_of()
    c = callout_on(cpu)
    for number in range(5000):
        arm(c, BEGIN + 100 * SLOT + number * SLOT // 1000)
        unschedule(cpu, c)

    assert parts(cpu.wheel)[0] <= 6


def lines_of(func: Callable[..., object], *args: object) -> int:
    """Return how many lines a call executes."""
    lines = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:  # noqa: ANN401 - typeshed has no public name for it
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        func(*args)
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.pure
def test_no_stop_does_the_work_of_others() -> None:
    """Of thousands of stops in random order none takes more lines than a few: there is nothing to be swept."""
    cpu = cpu_of()
    callouts = [callout_on(cpu) for _ in range(5000)]
    for number, c in enumerate(callouts):
        arm(c, BEGIN + 1 + number * SLOT // 100)
    random.Random(1).shuffle(callouts)

    assert max(lines_of(unschedule, cpu, c) for c in callouts) < 25


def test_what_is_stopped_in_the_open_ring_is_freed_at_once() -> None:
    """Also if it has fallen due with others, or was put between them."""
    cpu = cpu_of()
    keep = [callout_on(cpu) for _ in range(3)]
    for number, c in enumerate(keep):
        arm(c, BEGIN + 2 * SHORT + 100 * number)
    expire(cpu, BEGIN + 2 * SHORT)

    for when in (BEGIN + 2 * SHORT + 150, BEGIN + 2 * SHORT + 1):
        c = callout_on(cpu)
        arm(c, when)
        assert c in callouts_of(cpu.wheel._open)
        gone = weakref.ref(c)
        unschedule(cpu, c)
        del c

        assert gone() is None

    assert expire(cpu, BEGIN + 3 * SHORT) == keep[1:]


def test_what_is_armed_for_the_open_ring_is_put_into_its_place() -> None:
    """Before what is due later, behind what is due at the same time, whatever was pushed out meanwhile."""
    cpu = cpu_of()
    callouts = [callout_on(cpu) for _ in range(6)]
    base = BEGIN + 4 * SHORT
    for c, when in zip(callouts, (10, 20, 30, 40), strict=False):
        arm(c, base + when)
    expire(cpu, base)
    push_out(callouts[1], base + 35)
    arm(callouts[4], base + 35)
    push_out(callouts[0], base + 30)
    arm(callouts[5], base + 5)
    cpu.wheel.check()

    assert expire(cpu, base + 50) == [callouts[number] for number in (5, 2, 0, 1, 4, 3)]


def test_what_is_armed_again_where_it_stands_stays_in_the_ring() -> None:
    """The place that was found for a callout may be before itself."""
    cpu = cpu_of()
    callouts = [callout_on(cpu) for _ in range(3)]
    for number, c in enumerate(callouts):
        arm(c, BEGIN + 2 * SHORT + 100 * number)
    expire(cpu, BEGIN + 2 * SHORT - 1)
    cpu.seq += 1
    c = callouts[1]
    at = cpu.wheel.spot(c.time - 1, cpu.seq, BEGIN)
    assert at is c
    cpu.wheel.put(c, at, c.time - 1, cpu.seq)
    cpu.wheel.check()

    assert expire(cpu, BEGIN + 3 * SHORT) == callouts


def test_the_wheel_is_looked_at_once_for_a_callout_alone() -> None:
    """At its very time, however far ahead: no slot of it is opened before that."""
    cpu = cpu_of()
    c = callout_on(cpu)
    arm(c, BEGIN + 12_345 * SLOT)
    expire(cpu, BEGIN + 1)

    assert cpu.deadline == BEGIN + 12_345 * SLOT

    push_out(c, BEGIN + 54_321 * SLOT)
    expire(cpu, BEGIN + 12_345 * SLOT)

    assert cpu.deadline == BEGIN + 54_321 * SLOT


def test_where_many_share_a_slot_the_wheel_is_looked_at_when_it_begins() -> None:
    """It would take too long to find the first of them."""
    cpu = cpu_of()
    for number in range(FEW + 1):
        arm(callout_on(cpu), 100 * SLOT + 1000 + number)
    expire(cpu, BEGIN)

    assert cpu.deadline == 100 * SLOT

    for number in range(3 * FEW):
        arm(callout_on(cpu), (50 + number) * SLOT + 1000)
    cpu.deadline = cpu.wheel.next_event()

    assert cpu.deadline == 50 * SLOT + 1000


def test_however_far_callouts_are_spread_the_buckets_are_few() -> None:
    """Callouts for every time up to the largest need a few hundred buckets on each level, not one each."""
    cpu = cpu_of()
    callouts = [callout_on(cpu) for _ in range(5000)]
    for number, c in enumerate(callouts):
        arm(c, BEGIN + number * 12_345_678_901_234)

    assert parts(cpu.wheel)[0] <= 256 * len(LEVELS)
    cpu.wheel.check()


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


def harm_keys(cpu: Cpu, c: Callout) -> None:
    """Have a bucket that is never opened."""
    cpu.wheel._keys.clear()


def harm_time(cpu: Cpu, c: Callout) -> None:
    """File a callout for later than it is due."""
    c.time -= SLOT


def harm_place(cpu: Cpu, c: Callout) -> None:
    """Have a bucket in the place of another."""
    for bucket in cpu.wheel.buckets():
        bucket.level += 1


def harm_state(cpu: Cpu, c: Callout) -> None:
    """Have what is not pending in the wheel."""
    c.state &= ~PENDING


def harm_ring(cpu: Cpu, c: Callout) -> None:
    """Tear the ring."""
    assert c.next is not None
    c.next.prev = None


def harm_open(cpu: Cpu, c: Callout) -> None:
    """Have it in the open ring, before its slot has begun."""
    cpu.wheel.remove(c)
    cpu.wheel._open.append(c)
    c.filed = c.seq


def harm_order(cpu: Cpu, c: Callout) -> None:
    """Have two in the open ring in the wrong order."""
    harm_open(cpu, c)
    cpu.wheel.horizon = c.time + 1
    other = callout_on(cpu)
    other.state = PENDING
    cpu.wheel._open.append(other)


def harm_horizon(cpu: Cpu, c: Callout) -> None:
    """Have its slot be past."""
    cpu.wheel.horizon = c.time + SLOT


HARMS = [harm_keys, harm_time, harm_place, harm_state, harm_ring, harm_open, harm_order, harm_horizon]


@pytest.mark.parametrize("harm", HARMS)
def test_check_sees_what_is_wrong(harm: Callable[[Cpu, Callout], None]) -> None:
    """check() is no formality: it fails for each way in which a wheel can be wrong."""
    cpu = cpu_of()
    c = callout_on(cpu)
    arm(c, BEGIN + 2 * SLOT)
    cpu.wheel.check()
    harm(cpu, c)
    with pytest.raises(AssertionError):
        cpu.wheel.check()


def test_what_was_cut_short_does_no_harm() -> None:
    """A place that was found and not used, when an exception cuts an arming short, delays nothing and loses nothing."""
    cpu = cpu_of()
    c = callout_on(cpu)
    for when in (BEGIN + 5, BEGIN + 3 * SLOT, BEGIN + 400 * SLOT):
        cpu.wheel.spot(when, 77, BEGIN)
    arm(c, BEGIN + 3 * SLOT + 1)
    cpu.wheel.check()

    assert expire(cpu, BEGIN + 3 * SLOT) == []
    assert expire(cpu, BEGIN + 3 * SLOT + 1) == [c]
    assert expire(cpu, BEGIN + 500 * SLOT) == []
    assert parts(cpu.wheel) == (0, 0, 0)


@pytest.mark.parametrize("to", ["removed", "armed elsewhere"])
def test_what_has_left_a_bucket_keeps_no_neighbour(to: str) -> None:
    """Neither a callout that was taken out, nor its wheel, refers to what was before and behind it in the bucket."""
    cpu = cpu_of()
    before, c, behind = (callout_on(cpu) for _ in range(3))
    for each in (before, c, behind):
        arm(each, BEGIN + 3 * SLOT)
    if to == "removed":
        cpu.wheel.remove(c)
    else:
        cpu.wheel.put(c, cpu.wheel.spot(BEGIN + 9 * SLOT, 77, BEGIN), BEGIN + 9 * SLOT, 77)
    cpu.wheel.clear()
    gone = [weakref.ref(before), weakref.ref(behind)]
    del before, behind, each

    assert [ref() for ref in gone] == [None, None]


@pytest.mark.parametrize("slots", [1, 2, 300], ids=["next slot", "the one behind", "far"])
def test_what_is_armed_for_the_slot_in_which_we_are_is_exact(slots: int) -> None:
    """The wheel is looked at when the callout is due, not when its slot began, whatever is armed for later slots."""
    cpu = cpu_of()
    later = callout_on(cpu)
    arm(later, (BEGIN // SLOT + 1 + slots) * SLOT)
    c = callout_on(cpu)
    cpu.time = BEGIN + SLOT
    arm(c, BEGIN + SLOT + 1)

    assert cpu.deadline == BEGIN + SLOT + 1
    assert expire(cpu, BEGIN + SLOT + 1) == [c]


def test_slots_that_have_passed_are_opened_in_their_order() -> None:
    """A callout that is armed while older slots wait to be opened opens none of them, and comes out behind them."""
    cpu = cpu_of()
    callouts = [callout_on(cpu) for _ in range(3)]
    for number, c in enumerate(callouts, 1):
        cpu.time = BEGIN + SLOT * number if number == 3 else BEGIN
        arm(c, BEGIN + SLOT * number + 1)
    cpu.wheel.check()

    assert expire(cpu, BEGIN + 3 * SLOT + 1) == callouts


@pytest.mark.parametrize("level", range(len(LEVELS) - 1))
def test_what_is_due_when_its_slot_begins_is_not_late(level: int) -> None:
    """A slot, short or long, is opened at its very beginning."""
    cpu = cpu_of()
    c = callout_on(cpu)
    when = 3 << LEVELS[level] + 3
    arm(c, when)

    assert expire(cpu, when - 1) == []
    assert expire(cpu, when) == [c]


def test_a_look_leaves_later_slots_alone() -> None:
    """What has not begun is neither opened nor sorted, however often the wheel is looked at."""
    cpu = cpu_of()
    callouts = [callout_on(cpu) for _ in range(3)]
    for number, c in enumerate(callouts):
        arm(c, BEGIN + 1 + (number * 300 << COARSE))

    assert expire(cpu, BEGIN + 1) == callouts[:1]
    assert parts(cpu.wheel) == (2, 2, 0)


@pytest.mark.parametrize(("count", "left"), [(CHUNK, 0), (CHUNK + 1, 1)])
def test_a_long_slot_is_distributed_in_chunks_and_forgotten_with_its_last_callout(count: int, left: int) -> None:
    """One look moves no more than a chunk, and the look that finds no more forgets the bucket."""
    cpu = cpu_of()
    for _ in range(count):
        arm(callout_on(cpu), 20 * SLOT)
    due: list[Callout] = []

    assert cpu.wheel.expire(20 * SLOT, due)
    assert due == []
    assert [len(callouts_of(bucket)) for bucket in cpu.wheel.coarse if bucket is not None] == [left]
    assert cpu.wheel.expire(20 * SLOT, due)
    assert not [bucket for bucket in cpu.wheel.coarse if bucket is not None]
    assert len(due + expire(cpu, 20 * SLOT)) == count


@pytest.mark.parametrize(("count", "opened"), [(CHUNK, True), (CHUNK + 1, False)])
def test_a_slot_with_more_than_a_chunk_is_not_sorted_at_once(count: int, opened: bool) -> None:
    """It is distributed, a chunk at a look; with a chunk or less it is the open ring then, sorted."""
    cpu = cpu_of()
    begins = 100 * SHORT + (BEGIN >> FINE << FINE)
    callouts = [callout_on(cpu) for _ in range(count)]
    for number, c in enumerate(callouts):
        arm(c, begins + number * 7919 % SHORT)
    due: list[Callout] = []

    cpu.wheel.expire(begins, due)

    assert (len(callouts_of(cpu.wheel._open)) + len(due) == count) is opened
    assert due + expire(cpu, begins + SHORT) == sorted(callouts, key=lambda c: (c.time, c.seq))


def test_a_slot_with_shorter_ones_in_use_is_distributed() -> None:
    """What was armed when its time was near is in a shorter slot, and falls due between those of the longer one."""
    cpu = cpu_of()
    begins = 100 * SHORT + (BEGIN >> FINE << FINE)
    callouts = [callout_on(cpu) for _ in range(3)]
    arm(callouts[0], begins + 100_000)
    arm(callouts[2], begins + 300_000)
    cpu.time = begins - 500_000
    expire(cpu, begins - 500_000)
    cpu.wheel.fine[begins >> FINE & LAST] = bucket = Bucket(begins, 1)  # as if there were none before
    for c in (callouts[0], callouts[2]):
        cpu.wheel.remove(c)
        bucket.append(c)
    arm(callouts[1], begins + 200_000)
    assert callouts[1] not in callouts_of(bucket)
    cpu.wheel.check()

    assert expire(cpu, begins + 150_000) == callouts[:1]
    assert expire(cpu, begins + 250_000) == callouts[1:2]
    assert expire(cpu, begins + 350_000) == callouts[2:]


def test_a_key_without_a_bucket_does_no_harm() -> None:
    """When an arming was cut short between key and bucket, the next look forgets the key."""
    cpu = cpu_of()
    c = callout_on(cpu)
    cpu.wheel._keys.append((BEGIN // SLOT + 1) * SLOT)
    arm(c, BEGIN + 2 * SLOT)

    assert expire(cpu, BEGIN + SLOT) == []
    assert parts(cpu.wheel) == (1, 1, 0)
    assert expire(cpu, BEGIN + 2 * SLOT) == [c]


def test_a_wheel_that_was_cleared_wants_nothing_and_can_be_used() -> None:
    """However many callouts were taken out at once, nothing is looked for any more, and each can be armed again."""
    cpu = cpu_of()
    callouts = [callout_on(cpu) for _ in range(2 * CHUNK)]
    for number, c in enumerate(callouts):
        arm(c, BEGIN + 1 + number)
    for c in cpu.wheel.clear():
        c.state &= ~PENDING

    assert cpu.wheel.next_event() == NEVER

    for c in callouts:
        arm(c, BEGIN + SLOT)

    assert expire(cpu, BEGIN + SLOT) == callouts


def test_an_empty_bucket_is_not_waited_for() -> None:
    """A slot from which all were stopped needs no event timer, also between others."""
    cpu = cpu_of()
    callouts = [callout_on(cpu) for _ in range(3)]
    for number, c in enumerate(callouts, 10):
        arm(c, number * SLOT)
    unschedule(cpu, callouts[1])
    unschedule(cpu, callouts[0])

    assert cpu.wheel.wanted() == cpu.wheel.next_event() == 12 * SLOT


class Queue(RuleBasedStateMachine):
    """A due queue against a plain list."""

    callouts: Bundle[Callout] = Bundle("callouts")

    def __init__(self) -> None:
        super().__init__()
        self.cpu = cpu_of()
        self.queue = Ring()
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
        c.state |= PENDING | QUEUED
        self.queue.append(c)
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
            due.state |= PENDING | QUEUED
            self.queue.append(due)
            self.model.append(due)

    @rule()
    def pop(self) -> None:
        """Softclock takes the next."""
        if not self.model:
            assert not self.queue
            return
        c = self.queue.next

        assert c is self.model.pop(0)
        assert isinstance(c, Callout)

        unschedule(self.cpu, c)

    @invariant()
    def nothing_is_lost(self) -> None:
        """What should be queued is, in order, and nothing else."""
        assert callouts_of(self.queue) == self.model


Queue.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None, derandomize=True)
TestQueue = Queue.TestCase
