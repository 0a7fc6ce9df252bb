"""Per-CPU callwheel: which callouts are due, and when to look again.

Pure data. Time is an ``int`` of nanoseconds and is always passed in; nothing here reads a clock, acquires a lock or
runs a callback. The caller holds the CPU's lock.

Time is divided into slots, near ones short, far ones long: each of the 256 slots of a level is as long as all 256 of
the level below, and those of the lowest are 8 us. A slot in use has a *bucket*, a ring through the callouts themselves
(``Callout.prev``, ``next``), and a sorted list holds the starts of the buckets in use, some hundreds at the most. A
level is a list in which the bucket of slot number n is at n modulo 256: it never has two that are 256 slots apart. When
a slot comes, its bucket is either *distributed* over the shorter slots of the level below; or, if it holds no more than
is handled at once, *opened*: sorted by time and order of arming, it is the ring from which callouts fall due, or all of
it is due if the slot is over. What is armed for a time before the ``horizon``, where that ring ends, is put into its
place there at once. So filing and removing are exact: no entry outlives its callout's arming, nothing has to be swept,
and no user code (``__eq__``, ``__hash__``) is ever asked.

A link of a ring is a callout, unless it is the head: so it is ``Any`` here, where a cast would be a call.

Filing is lazy. Pushing a pending callout out changes ``time`` and ``seq`` alone: when its slot comes it is filed again.
In the open ring ``filed`` is the ``seq`` under which it was sorted; where they differ it was pushed out since.

Every change of what is filed is a sequence of plain stores with no call between, so it cannot be cut in two by an
exception from a signal handler. The calls come before it, in ``spot()``, which leaves at worst an empty bucket, or the
key of none. A bucket that was emptied stays until it is the first: another arming may want it, and a look at it costs
nothing.

Invariants, asserted by ``check()``: a callout is in one ring; in a bucket, ``time`` is not before the slot; in the open
ring what was not pushed out is in order, and before the horizon; no bucket begins before the horizon, except one that
is being distributed.

Rejected, after measuring: a heap with lazy deletion (every re-arm allocates and sifts); lists as buckets with lazy
stops (garbage, sweeps, and references to what the application has dropped); lists of places, each callout knowing its
own (compiled, stopping in the order of arming takes 0.4 of the time, but arm and stop in turn 1.1, and in pure Python
1.3, where a random stop takes 1.2); and a heap of the open slot only (half of the time of an expiry). Source:
kern_timeout.c, callout_process() and callout_cc_add(), whose interface this has; the levels are those of Linux's
timer.c.
"""

from __future__ import annotations

from bisect import insort
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, cast

from .levels import CHUNK, COARSER, FAN, FEW, FINE, LAST, LEVELS, SHIFT
from .state import MOVING, PENDING, QUEUED, Link, Record, Ring
from .units import NEVER

if TYPE_CHECKING:
    from .._api.callout import Callout

_by_time: Final = attrgetter("time")
_by_seq: Final = attrgetter("seq")


class Bucket(Ring):
    """The callouts of one slot."""

    __slots__ = ("begins", "level")

    def __init__(self, begins: int, level: int) -> None:
        super().__init__()
        self.begins = begins
        self.level = level


def _begins(key: int) -> int:
    """Return when the slot of a bucket begins: its key is that, less its level, so that long slots come first."""
    return key + 7 & ~7


class Wheel:
    """The callouts that wait on one CPU."""

    __slots__ = ("_keys", "_levels", "_open", "coarse", "coarser", "fine", "horizon")

    def __init__(self) -> None:
        # The buckets of each level, by the number of their slot since the beginning of time.
        self._levels: tuple[list[Bucket | None], ...] = tuple([None] * (LAST + 1) for _ in LEVELS)
        # For up to half a second, two minutes, and nine hours ahead: the short paths look into the second themselves.
        # What is found may be the bucket of another slot.
        self.fine, self.coarse, self.coarser = self._levels[1:4]
        self._keys: list[int] = []  # of the buckets, sorted
        self._open = Ring()
        self.horizon = 0  # slots that begin before this are open

    # -- filing ------------------------------------------------------------------------------------------------------

    def bucket_of(self, time: int) -> Bucket | None:
        """Return a bucket that is there, for up to half a second or nine hours ahead, into whose slot *time* falls."""
        bucket = self.fine[time >> FINE & LAST]
        if bucket is None or (time - bucket.begins) >> FINE:
            bucket = self.coarser[time >> COARSER & LAST]
            if bucket is not None and (time - bucket.begins) >> COARSER:
                return None
        return bucket

    def spot(self, time: int, seq: int, now: int) -> Link:
        """Find the place for *time* and *seq*: what it is put before."""
        horizon = self.horizon
        if time >= horizon:
            # The slot in which we are is open, unless a bucket waits to be opened first.
            edge = (now >> SHIFT) + 1 << SHIFT
            if edge > horizon and (not self._keys or _begins(self._keys[0]) >= edge):
                self.horizon = horizon = edge
        if time < horizon:
            return self._place(time, seq)
        level = 0
        shift = SHIFT
        while (time >> shift) - (horizon >> shift) >> FAN:
            level += 1
            shift += FAN
        number = time >> shift
        buckets = self._levels[level]
        bucket = buckets[number & LAST]
        if bucket is None:
            begins = number << shift
            bucket = Bucket(begins, level)
            insort(self._keys, begins - level)
            buckets[number & LAST] = bucket
        return bucket

    def _place(self, time: int, seq: int) -> Link:
        """Find the place in the open ring, from its end: what is armed now is behind all that is due by then."""
        at: Link = self._open
        while at.prev is not self._open:
            before: Any = at.prev
            if before.time < time or (before.time == time and before.seq <= seq):
                break
            at = before
        return at

    def put(self, c: Callout, at: Link, time: int, seq: int) -> None:
        """File *c* under *time* at the place that ``spot()`` has found, wherever it was so far."""
        before, after = c.prev, c.next
        if before is not None and after is not None:
            if at is c:
                at = after
            before.next, after.prev = after, before
        c.time = time
        c.seq = c.filed = seq
        last = at.prev
        c.prev, c.next = last, at
        last.next = at.prev = c  # type: ignore[union-attr]  # what it is put before is in a ring

    def remove(self, c: Callout) -> None:
        """Take *c* out, from wherever it is filed or queued."""
        before, after = c.prev, c.next
        if before is not None and after is not None:
            before.next, after.prev = after, before
            c.prev = c.next = None

    # -- time passes ---------------------------------------------------------------------------------------------------

    def _first(self) -> Bucket | None:
        """Return the first bucket, which may have been emptied; None if there is none."""
        while self._keys:
            bucket = self._bucket(self._keys[0])
            if bucket is not None:
                return bucket
            del self._keys[0]  # cut short before it had a bucket
        return None

    def _bucket(self, key: int) -> Bucket | None:
        level = -key & 7
        shift = LEVELS[level]
        return self._levels[level][_begins(key) >> shift & LAST]

    def _forget(self, bucket: Bucket) -> None:
        """Forget the first bucket."""
        shift = LEVELS[bucket.level]
        self._levels[bucket.level][bucket.begins >> shift & LAST] = None
        del self._keys[0]

    def next_event(self) -> int:
        """Return when to look again, after ``expire()`` has returned False: no callout is due before that.

        ``NEVER`` if nothing waits.
        """
        while (bucket := self._first()) is not None and bucket.next is bucket:
            self._forget(bucket)
        when = NEVER
        front: Any = self._open.next
        if front is not self._open:
            when = front.time  # expire() leaves no callout there that was pushed out
        for looks, key in enumerate(self._keys):
            begins = _begins(key)
            if begins >= when:
                break
            if looks == FEW:
                return begins
            bucket = self._bucket(key)
            when = min(when, begins if bucket is None else _look(bucket))
        return when

    def expire(self, now: int, due: list[Callout]) -> bool:
        """Append to *due*, in order, callouts that are due; return whether there is more to do at this time.

        At most ``CHUNK`` callouts are handled. Those in *due* have left the wheel; they are still pending.
        """
        budget = CHUNK
        while budget > 0:
            ring = self._open
            if ring.next is not ring:
                c: Any = ring.next
                if c.filed != c.seq:  # pushed out, or armed again for the same time: behind the others
                    self._file_again(c)
                elif c.time > now:
                    return False
                else:
                    after = c.next
                    due.append(c)
                    ring.next, after.prev = after, ring
                    c.prev = c.next = None
                budget -= 1
                continue
            bucket = self._first()
            if bucket is None or bucket.begins > now:
                return False
            budget -= self._advance(bucket, now, due, budget)
        return True

    def _advance(self, bucket: Bucket, now: int, due: list[Callout], budget: int) -> int:
        """Open the first bucket, or distribute it; return how many callouts were handled, one at least. The ring that
        was opened before it is empty.
        """
        level = bucket.level
        shift = LEVELS[level]
        ends = (bucket.begins >> shift) + 1 << shift
        most = 0
        if level == 0:
            most = NEVER - 1  # what is due within the same 8 us is sorted at once, however much it is
        elif level == 1 and (len(self._keys) == 1 or _begins(self._keys[1]) >= ends):
            most = CHUNK
        if most:
            some = _some(bucket, most + 1)
            if len(some) <= most:
                handled = max(len(some), 1)
                some.sort(key=_by_seq)
                some.sort(key=_by_time)  # sorting is stable
                while some and some[-1].time >= ends:  # pushed out
                    self._file_again(some.pop())
                if ends <= now and handled <= budget:
                    self._take_all(bucket, some, ends, due)
                else:
                    self._open_up(bucket, some, ends)
                return handled
        return self._distribute(bucket, level - 1, ends, budget)

    def _take_all(self, bucket: Bucket, callouts: list[Callout], ends: int, due: list[Callout]) -> None:
        """Append the callouts of a bucket, sorted, to *due*: its slot is over."""
        due += callouts
        for c in callouts:
            before, after = c.prev, c.next
            before.next, after.prev = after, before  # type: ignore[union-attr]  # it is in a ring
            c.prev = c.next = None
        self._forget(bucket)
        self.horizon = max(self.horizon, ends)

    def _open_up(self, bucket: Bucket, callouts: list[Callout], ends: int) -> None:
        """Have the callouts of a bucket, sorted, be the open ring."""
        for c in callouts:  # each to the end; if this is cut short the ring is whole
            before, after = c.prev, c.next
            before.next, after.prev = after, before  # type: ignore[union-attr]  # it is in a ring
            last = bucket.prev
            c.prev, c.next = last, bucket
            last.next = bucket.prev = c
            c.filed = c.seq
        horizon = max(self.horizon, ends)
        shift = LEVELS[bucket.level]
        buckets, place, keys = self._levels[bucket.level], bucket.begins >> shift & LAST, self._keys
        buckets[place] = None
        del keys[0]
        self._open = bucket
        self.horizon = horizon

    def _distribute(self, bucket: Bucket, level: int, ends: int, budget: int) -> int:
        """File up to *budget* callouts of the first bucket on the level below it."""
        self.horizon = max(self.horizon, bucket.begins)
        shift = LEVELS[level]
        slots = self._levels[level]
        handled = 0
        while handled < budget:
            if bucket.next is bucket:
                self._forget(bucket)
                break
            c: Any = bucket.next
            handled += 1
            time = c.time
            below = slots[time >> shift & LAST] if time < ends else None
            elsewhere = below is None or time - below.begins >> shift
            at: Link = self.spot(time, c.seq, 0) if elsewhere else below  # type: ignore[assignment]  # it is there
            self.put(c, at, time, c.seq)
        return max(handled, 1)

    def _file_again(self, c: Callout) -> None:
        time, seq = c.time, c.seq
        self.put(c, self.spot(time, seq, 0), time, seq)

    # -- the end -------------------------------------------------------------------------------------------------------

    def clear(self) -> list[Callout]:
        """Take every callout out, and return them in no particular order."""
        out = self.callouts()
        for c in out:
            c.prev = c.next = None
        for buckets in self._levels:
            buckets[:] = [None] * len(buckets)
        self._keys.clear()
        self._open = Ring()
        return out

    def callouts(self) -> list[Callout]:
        """Return every callout that is filed, in no particular order."""
        rings = [self._open, *self.buckets()]
        return [c for ring in rings for c in callouts_of(ring)]

    def buckets(self) -> list[Bucket]:
        """Return every bucket."""
        return [bucket for buckets in self._levels for bucket in buckets if bucket is not None]

    def wanted(self) -> int:
        """Return when the first callout is due."""
        return min((c.time for c in self.callouts()), default=NEVER)

    def __len__(self) -> int:
        return len(self.callouts())

    def check(self) -> None:
        """Assert the invariants."""
        assert self._keys == sorted(self._keys), "the keys of the buckets are not sorted"
        keys = set(self._keys)
        for level, buckets in enumerate(self._levels):
            for place, bucket in enumerate(buckets):
                if bucket is None:
                    continue
                begins = bucket.begins
                assert bucket.level == level, "a bucket in the place of another"
                assert begins >> LEVELS[level] & LAST == place, "a bucket in the place of another"
                assert begins >> LEVELS[level] << LEVELS[level] == begins, "a bucket that begins within a slot"
                assert begins - level in keys, "a bucket that will never be opened"
                length = 1 << LEVELS[level]
                assert begins >= self.horizon or (level and begins + length > self.horizon), "before the horizon"
                for c in callouts_of(bucket):
                    assert begins <= c.time, "in the wrong slot"
        kept = [c for c in callouts_of(self._open) if c.filed == c.seq]
        assert kept == sorted(kept, key=lambda c: (c.time, c.seq)), "the open ring is not sorted"
        assert all(c.time < self.horizon for c in kept), "in the open ring, for a time beyond it"
        for c in self.callouts():
            assert c.state & (PENDING | QUEUED | MOVING) == PENDING, "filed, but not pending in the wheel"
            assert c.time >= 0, "filed for a time before all"


def _look(bucket: Bucket) -> int:
    """Return when to look at a bucket: when its first callout is due, or if there are many, when its slot begins."""
    few = _some(bucket, FEW + 1)
    return bucket.begins if len(few) > FEW else min([c.time for c in few], default=NEVER)


def _some(bucket: Bucket, most: int) -> list[Callout]:
    """Return up to so many callouts of a bucket."""
    out: list[Callout] = []
    c: Any = bucket.next
    while c is not bucket and most > 0:
        out.append(c)
        c = c.next
        most -= 1
    return out


def callouts_of(ring: Ring) -> list[Callout]:
    """Return the callouts of a ring, in its order."""
    out: list[Callout] = []
    link: Link | None = ring.next
    while link is not ring:
        assert isinstance(link, Record), "a ring within a ring"
        assert link.next is not None, "a torn ring"
        assert link.next.prev is link, "a torn ring"
        out.append(cast("Callout", link))
        link = link.next
    return out
