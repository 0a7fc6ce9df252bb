"""Per-CPU callwheel: which callouts are due, and when to look again.

Pure data. Time is an ``int`` of nanoseconds and is always passed in; nothing here reads a clock, acquires a lock or
runs a callback. The caller holds the CPU's lock.

Time is divided into slots, near ones short, far ones long: each of the 256 slots of a level is as long as all 256 of
the level below. A slot in use has a *bucket*, a ring through the callouts themselves (``Callout.prev``, ``next``), and
a sorted list holds the starts of the buckets in use, some hundreds at the most. When a long slot comes, its bucket is
distributed over shorter ones; when a slot of the lowest level comes, its bucket is *opened*: what is in it is sorted
by time and order of arming, in a heap of integers beside a dict that says whose they are. What is armed for a slot that
is open already goes there at once. So filing and removing are exact: no entry outlives its callout's arming, nothing
has to be swept, and no user code (``__eq__``, ``__hash__``) is ever asked. Only integers stay in the heap, of the open
slot, until their time has passed.

Filing is lazy. ``Callout.filed`` is the time under which the wheel has the callout, ``Callout.time`` the time it is
due. Pushing a pending callout out changes ``time`` alone: when its slot comes it is filed again.

Every change of what is filed is a sequence of plain stores with no call between, so it cannot be cut in two by an
exception from a signal handler. The calls come before it, in ``spot()``, which leaves at worst a key of no callout; or
after it, in ``tidy()``, which forgets an empty bucket, and what was left empty for once does no harm.

Invariants, asserted by ``check()``: a callout is in one bucket or in the open slot, never in both; ``time >= filed``;
no bucket begins before the horizon, except one that is being opened.

Rejected, after measuring: a heap with lazy deletion (every re-arm allocates and sifts), and lists as buckets with lazy
stops (garbage, sweeps, and references to what the application has dropped). Source: kern_timeout.c, callout_process()
and callout_cc_add(), whose interface this has; the levels are those of Linux's timer.c.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from heapq import heappop, heappush
from typing import Final

from .state import MOVING, PENDING, QUEUED, Callout, Link, Ring
from .units import NEVER

SHIFT: Final = 29  # a slot of the lowest level is 2**29 ns, about half a second
FAN: Final = 8  # a level has 2**8 slots
LEVELS: Final = (29, 37, 45, 53, 61)
CHUNK: Final = 1024  # callouts handled under one hold of the lock

SEQ_BITS: Final = 64  # a key of the open slot is the time, and below it the order of arming


class Bucket(Ring):
    """The callouts of one slot."""

    __slots__ = ("begins", "key")

    def __init__(self, key: int) -> None:
        super().__init__()
        self.key = key
        self.begins = _begins(key)


def _begins(key: int) -> int:
    """Return when the slot of a bucket begins: its key is that, less its level, so that long slots come first."""
    return key + 7 & ~7


class Wheel:
    """The callouts that wait on one CPU."""

    __slots__ = ("_buckets", "_horizon", "_keys", "_open", "_sorted", "emptied")

    def __init__(self) -> None:
        self._buckets: dict[int, Bucket] = {}
        self._keys: list[int] = []  # of the buckets, sorted
        # A tuple an entry would be one more object for the garbage collector to visit, and 100,000 that fall due at
        # once would stop the loop for longer than they run.
        self._sorted: list[int] = []
        self._open: dict[int, Callout] = {}
        self._horizon = 0  # slots that begin before this are open
        self.emptied: Ring | None = None  # the ring from which the last callout was taken, to be tidied

    # -- filing ------------------------------------------------------------------------------------------------------

    def spot(self, time: int, seq: int, now: int) -> Bucket | None:
        """Find the place for *time*: a bucket, or None for the open slot, where the key is put already."""
        horizon = self._horizon
        if time >= horizon:
            # The slot in which we are is open, unless a bucket waits to be opened first.
            edge = (now >> SHIFT) + 1 << SHIFT
            if edge > horizon and (not self._keys or _begins(self._keys[0]) >= edge):
                self._horizon = horizon = edge
        if time < horizon:
            heappush(self._sorted, time << SEQ_BITS | seq)
            return None
        level = 0
        shift = SHIFT
        while (time >> shift) - (horizon >> shift) >> FAN:
            level += 1
            shift += FAN
        key = (time >> shift << shift) - level
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = Bucket(key)
            insort(self._keys, key)
            self._buckets[key] = bucket
        return bucket

    def put(self, c: Callout, spot: Bucket | None, time: int, seq: int, source: Wheel) -> None:
        """File *c* under *time* at the place that ``spot()`` has found; *source* has it so far, if any has."""
        before, after = c.prev, c.next
        if before is not None and after is not None:
            before.next, after.prev = after, before
            if before is after:
                source.emptied = before  # type: ignore[assignment]  # alone in its ring is only the head
        elif c.key:
            del source._open[c.key]
        c.time = c.filed = time
        c.seq = seq
        if spot is None:
            c.prev = c.next = None
            c.key = key = time << SEQ_BITS | seq
            self._open[key] = c
        else:
            c.key = 0
            last = spot.prev
            c.prev, c.next = last, spot
            last.next = spot.prev = c

    def remove(self, c: Callout) -> None:
        """Take *c* out, from wherever it is filed or queued."""
        before, after = c.prev, c.next
        if before is not None and after is not None:
            before.next, after.prev = after, before
            c.prev = c.next = None
            if before is after:
                self.emptied = before  # type: ignore[assignment]  # as above
        elif c.key:
            del self._open[c.key]
            c.key = 0

    def tidy(self) -> None:
        """Forget the bucket from which ``put()`` or ``remove()`` has taken the last callout."""
        head, self.emptied = self.emptied, None
        if type(head) is Bucket and not head and self._buckets.get(head.key) is head:
            del self._buckets[head.key]
            at = bisect_left(self._keys, head.key)
            if at < len(self._keys) and self._keys[at] == head.key:
                del self._keys[at]

    # -- time passes ---------------------------------------------------------------------------------------------------

    def next_event(self) -> int:
        """Return when to look again: the earliest time, or when the next slot begins; ``NEVER`` if nothing waits.

        Of keys that stand for nothing any more at most ``CHUNK`` are forgotten; where there are more the result is the
        time of such a key, and the rest is forgotten at the next looks.
        """
        heap, live = self._sorted, self._open
        budget = CHUNK
        while heap and heap[0] not in live and budget:
            heappop(heap)
            budget -= 1
        when = _begins(self._keys[0]) if self._keys else NEVER
        return min(heap[0] >> SEQ_BITS, when) if heap else when

    def expire(self, now: int, due: list[Callout]) -> bool:
        """Append to *due*, in order, callouts that are due; return whether there is more to do at this time.

        At most ``CHUNK`` callouts are handled. Those in *due* have left the wheel; they are still pending.
        """
        budget = CHUNK
        keys, heap, live = self._keys, self._sorted, self._open
        while budget > 0:
            if keys and _begins(keys[0]) <= now:
                budget -= self._distribute(keys[0], budget)
                continue
            if not heap or heap[0] >> SEQ_BITS > now:
                return False
            budget -= 1
            key = heap[0]
            c = live.get(key)
            if c is None:
                pass  # stopped, or filed elsewhere since
            elif c.time << SEQ_BITS | c.seq != key:  # pushed out, or armed again for the same time: behind the others
                self._file_again(c)
            else:
                del live[key]
                c.key = 0
                due.append(c)
            heappop(heap)  # last: without its key a callout that is still in the open slot would never come up
        return True

    def _distribute(self, key: int, budget: int) -> int:
        """File up to *budget* callouts of the first bucket anew; return how many were handled, one at least."""
        bucket = self._buckets.get(key)
        begins = _begins(key)
        self._horizon = max(self._horizon, begins if begins > key else begins + (1 << SHIFT))
        handled = 0
        if bucket is not None:
            while handled < budget:
                c = bucket.next
                if c is bucket:
                    break
                assert isinstance(c, Callout)
                handled += 1
                self._file_again(c)
        if bucket is None or bucket.next is bucket:
            self._buckets.pop(key, None)
            if self._keys and self._keys[0] == key:
                del self._keys[0]
        return max(handled, 1)

    def _file_again(self, c: Callout) -> None:
        time, seq = c.time, c.seq
        self.put(c, self.spot(time, seq, 0), time, seq, self)
        self.emptied = None  # it is being distributed, and forgotten when that is done

    # -- the end -------------------------------------------------------------------------------------------------------

    def clear(self) -> list[Callout]:
        """Take every callout out, and return them in no particular order."""
        out = self.callouts()
        for c in out:
            c.prev = c.next = None
            c.key = 0
        self._buckets.clear()
        self._keys.clear()
        self._open.clear()
        self._sorted.clear()
        return out

    def callouts(self) -> list[Callout]:
        """Return every callout that is filed, in no particular order."""
        out = list(self._open.values())
        for bucket in self._buckets.values():
            out += callouts_of(bucket)
        return out

    def wanted(self) -> int:
        """Return when the interrupt has to look at the latest: ``next_event()``, but for what was cut short."""
        begins = (bucket.begins for bucket in self._buckets.values() if bucket)
        return min((*begins, *(key >> SEQ_BITS for key in self._open)), default=NEVER)

    def __len__(self) -> int:
        return len(self.callouts())

    def check(self) -> None:
        """Assert the invariants."""
        assert self._keys == sorted(self._keys), "the keys of the buckets are not sorted"
        assert self._buckets.keys() <= set(self._keys), "a bucket that will never be opened"
        assert self._open.keys() <= set(self._sorted), "a callout of the open slot that will never come up"
        for key, bucket in self._buckets.items():
            begins = _begins(key)
            length = 1 << LEVELS[begins - key]
            assert begins + length > self._horizon or begins == _begins(self._keys[0]), "a bucket before the horizon"
            for c in callouts_of(bucket):
                assert begins <= c.filed < begins + length, "in the wrong slot"
                assert c.key == 0, "in a bucket, and in the open slot"
        for key, c in self._open.items():
            assert (c.key, c.filed) == (key, key >> SEQ_BITS), "filed under another key"
            assert c.prev is c.next is None, "in the open slot, and in a ring"
            assert c.filed < self._horizon, "in the open slot, for a time beyond it"
        for c in self.callouts():
            assert c.state & (PENDING | QUEUED | MOVING) == PENDING, "filed, but not pending in the wheel"
            assert c.time >= c.filed >= 0, "filed later than it is due"


def callouts_of(ring: Ring) -> list[Callout]:
    """Return the callouts of a ring, in its order."""
    out: list[Callout] = []
    link: Link | None = ring.next
    while link is not ring:
        assert isinstance(link, Callout), "a ring within a ring"
        assert link.next is not None, "a torn ring"
        assert link.next.prev is link, "a torn ring"
        out.append(link)
        link = link.next
    return out
