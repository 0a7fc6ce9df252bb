"""The callwheel against a plain dict, in random walks; and the ring of a due queue."""

from __future__ import annotations

import random
import sys
import weakref
from collections.abc import Callable
from itertools import pairwise
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from callout._core import arm as arming
from callout._core.arm import schedule
from callout._core.cpu import Cpu
from callout._core.state import ACTIVE, MOVING, PENDING, QUEUED, Callout, Ring
from callout._core.units import NEVER
from callout._core.wheel import CHUNK, LEVELS, SHIFT, Wheel, callouts_of

SLOT = 1 << SHIFT
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


def cpu_of() -> Cpu:
    """Return what the wheel and the functions over it need of a CPU."""
    cpu: Any = SimpleNamespace(id=0, seq=0, deadline=NEVER, time=BEGIN)
    cpu.machine = SimpleNamespace(platform=SimpleNamespace(set_event=lambda number, when: None))
    cpu.now = lambda: cpu.time
    cpu.wheel = Wheel()
    return cast("Cpu", cpu)


def unschedule(cpu: Cpu, c: Callout) -> None:
    """Remove what is scheduled, and tidy the wheel, as every caller does in the end."""
    arming.unschedule(cpu, c)
    cpu.wheel.tidy()


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
    if c.state & (PENDING | MOVING | QUEUED) == PENDING and c.filed <= when:
        c.cpu.seq += 1
        c.seq = c.cpu.seq
        c.time = when
        return True
    return False


def expire(cpu: Cpu, now: int) -> list[Callout]:
    """Take out what is due, as the clock interrupt does, and set the deadline."""
    cpu.time = now  # type: ignore[attr-defined]  # see cpu_of()
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
        unschedule(c.cpu, c)
        self.model.pop(c, None)
        self.moving.discard(c)

    @rule(c=callouts, delay=delays)
    def move(self, c: Callout, delay: int) -> None:
        """Arm it on the other CPU."""
        if c in self.moving:
            return
        unschedule(c.cpu, c)
        c.cpu = self.cpus[1 - self.cpus.index(c.cpu)]
        schedule(c.cpu, c, self._at(delay))
        self._armed(c, self._at(delay))

    @rule(c=callouts)
    def defer(self, c: Callout) -> None:
        """Defer a migration: pending, but in no wheel."""
        unschedule(c.cpu, c)
        c.run = cast("Any", SimpleNamespace(move=None))
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
            c.cpu = self.cpus[1 - self.cpus.index(c.cpu)]
        schedule(c.cpu, c, self._at(delay))
        self._armed(c, self._at(delay))

    @rule(by=delays)
    def pass_time(self, by: int) -> None:
        """Move the time on, and take the interrupts of both CPUs."""
        self._pass(self._at(by))

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

            assert len(cpu.wheel) == len(times)
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

    assert len(cpu.wheel) == 1
    assert expire(cpu, BEGIN + 10_000) == []
    assert expire(cpu, BEGIN + 10_001) == [c]
    assert len(cpu.wheel) == 0


def parts(wheel: Wheel) -> tuple[int, ...]:
    """Return how much of each part of the wheel is in use."""
    return len(wheel._buckets), len(wheel._keys), len(wheel._open)


@pytest.mark.parametrize("spread", [SLOT, 50 * SLOT, 1 << 50, 1 << 60], ids=["a slot", "some", "days", "years"])
def test_what_is_stopped_leaves_nothing_behind(spread: int) -> None:
    """However callouts were armed, when all are stopped no bucket, no key and no reference is left."""
    cpu = cpu_of()
    for number in range(500):
        c = callout_on(cpu)
        arm(c, BEGIN + SLOT + number * spread // 500)
        gone = weakref.ref(c)
        unschedule(cpu, c)
        del c

        assert gone() is None

    assert parts(cpu.wheel) == (0, 0, 0)
    assert cpu.wheel.next_event() == NEVER


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


def test_no_stop_does_the_work_of_others() -> None:
    """Of thousands of stops in random order none takes more lines than a few: there is nothing to be swept."""
    cpu = cpu_of()
    callouts = [callout_on(cpu) for _ in range(5000)]
    for number, c in enumerate(callouts):
        arm(c, BEGIN + 1 + number * SLOT // 100)
    random.Random(1).shuffle(callouts)

    assert max(lines_of(unschedule, cpu, c) for c in callouts) < 40
    assert parts(cpu.wheel)[0] == 0


def test_in_the_open_slot_only_integers_stay_and_only_until_their_time() -> None:
    """A callout that is stopped in the open slot is freed at once; its key goes when its time has passed."""
    cpu = cpu_of()
    keep = callout_on(cpu)
    arm(keep, BEGIN + SLOT // 2)
    c = callout_on(cpu)
    arm(c, BEGIN + 10)
    gone = weakref.ref(c)
    unschedule(cpu, c)
    del c

    assert gone() is None

    expire(cpu, BEGIN + 11)

    assert len(cpu.wheel._sorted) == 1


def test_what_was_stopped_in_the_open_slot_is_forgotten_in_chunks() -> None:
    """However many callouts were stopped in the open slot, one look forgets no more of their keys than a chunk."""
    cpu = cpu_of()
    c = callout_on(cpu)
    for number in range(3 * CHUNK):
        arm(c, BEGIN + 10 + number)
    unschedule(cpu, c)
    left = [3 * CHUNK]
    while (look := cpu.wheel.next_event()) != NEVER:
        assert look < BEGIN + 10 + 3 * CHUNK

        left.append(len(cpu.wheel._sorted))

    assert all(0 < before - after <= CHUNK for before, after in pairwise([*left, 0]))
    assert parts(cpu.wheel) == (0, 0, 0)


def test_however_far_callouts_are_spread_the_buckets_are_few() -> None:
    """Callouts for every time up to the largest need a few hundred buckets on each level, not one each."""
    cpu = cpu_of()
    callouts = [callout_on(cpu) for _ in range(5000)]
    for number, c in enumerate(callouts):
        arm(c, BEGIN + number * 12_345_678_901_234)

    assert len(cpu.wheel._buckets) <= 256 * len(LEVELS)
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
    c.time = c.filed - 1


def harm_slot(cpu: Cpu, c: Callout) -> None:
    """Have it in the wrong slot."""
    c.time = c.filed = c.filed + SLOT


def harm_state(cpu: Cpu, c: Callout) -> None:
    """Have what is not pending in the wheel."""
    c.state &= ~PENDING


def harm_ring(cpu: Cpu, c: Callout) -> None:
    """Tear the ring."""
    assert c.next is not None
    c.next.prev = None


def harm_open(cpu: Cpu, c: Callout) -> None:
    """Have it in the open slot, too."""
    cpu.wheel._open[1] = c


@pytest.mark.parametrize("harm", [harm_keys, harm_time, harm_slot, harm_state, harm_ring, harm_open])
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
    """A key or an empty bucket that is left when an exception cuts an arming short delays nothing and loses nothing."""
    cpu = cpu_of()
    c = callout_on(cpu)
    for when in (BEGIN + 5, BEGIN + 3 * SLOT, BEGIN + 400 * SLOT):  # found the place, and got no further
        cpu.wheel.spot(when, 77, BEGIN)
    arm(c, BEGIN + 3 * SLOT)
    cpu.wheel.remove(c)  # removed, and not tidied
    c.state = 0
    arm(c, BEGIN + 3 * SLOT + 1)
    cpu.wheel.check()

    assert expire(cpu, BEGIN + 3 * SLOT) == []
    assert expire(cpu, BEGIN + 3 * SLOT + 1) == [c]
    assert expire(cpu, BEGIN + 500 * SLOT) == []
    assert parts(cpu.wheel) == (0, 0, 0)


def test_a_bucket_that_is_forgotten_already_is_tidied_without_harm() -> None:
    """A bucket that was left empty for once, and opened before the wheel was tidied, is not looked for any more."""
    cpu = cpu_of()
    c = callout_on(cpu)
    arm(c, BEGIN + 3 * SLOT)
    cpu.wheel.remove(c)  # cut short: not tidied
    c.state = 0

    assert expire(cpu, BEGIN + 4 * SLOT) == []

    cpu.wheel.tidy()
    cpu.wheel.check()

    assert parts(cpu.wheel) == (0, 0, 0)


@pytest.mark.parametrize("to", ["removed", "armed elsewhere"])
def test_what_has_left_a_bucket_keeps_no_neighbour(to: str) -> None:
    """Neither a callout that was taken out, nor its wheel, refers to what was before and behind it in the bucket."""
    cpu = cpu_of()
    before, c, behind = (callout_on(cpu) for _ in range(3))
    for each in (before, c, behind):
        arm(each, BEGIN + 3 * SLOT)
    if to == "removed":
        cpu.wheel.remove(c)  # as if cut short: the wheel is not tidied
    else:
        cpu.wheel.put(c, cpu.wheel.spot(BEGIN + 9 * SLOT, 77, BEGIN), BEGIN + 9 * SLOT, 77, cpu.wheel)
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
    cpu.time = BEGIN + SLOT  # type: ignore[attr-defined]  # see cpu_of()
    arm(c, BEGIN + SLOT + 1)

    assert cpu.wheel.next_event() == BEGIN + SLOT + 1
    assert expire(cpu, BEGIN + SLOT + 1) == [c]


def test_slots_that_have_passed_are_opened_in_their_order() -> None:
    """A callout that is armed while older slots wait to be opened opens none of them, and comes out behind them."""
    cpu = cpu_of()
    callouts = [callout_on(cpu) for _ in range(3)]
    for number, c in enumerate(callouts, 1):
        cpu.time = BEGIN + SLOT * number if number == 3 else BEGIN  # type: ignore[attr-defined]  # see cpu_of()
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
        arm(c, BEGIN + 1 + (number * 300 << SHIFT))

    assert expire(cpu, BEGIN + 1) == callouts[:1]
    assert parts(cpu.wheel) == (2, 2, 0)


@pytest.mark.parametrize(("count", "left"), [(CHUNK, 0), (CHUNK + 1, 1)])
def test_a_slot_is_opened_in_chunks_and_forgotten_with_its_last_callout(count: int, left: int) -> None:
    """One look moves no more than a chunk to the open slot, and the look that moves the last one forgets the bucket."""
    cpu = cpu_of()
    for _ in range(count):
        arm(callout_on(cpu), BEGIN + 2 * SLOT)
    due: list[Callout] = []

    assert cpu.wheel.expire(BEGIN + 2 * SLOT, due)
    assert due == []
    assert parts(cpu.wheel) == (left, left, CHUNK)


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
    """What an exception has left of a slot needs no event timer, and the invariants do not ask for one."""
    cpu = cpu_of()
    c = callout_on(cpu)
    arm(c, BEGIN + 2 * SLOT)
    assert cpu.wheel.wanted() <= BEGIN + 2 * SLOT
    cpu.wheel.remove(c)  # removed, and not tidied

    assert cpu.wheel.wanted() == NEVER


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
