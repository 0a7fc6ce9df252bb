"""Per-CPU callwheel: which callouts are due, and when to look again.

Pure data. Time is an ``int`` of nanoseconds and is always passed in; nothing here reads a clock, takes a lock or runs
a handler. The caller holds the CPU's lock.

Time is divided into slots of 2**27 ns (about 1/8 s). Every slot has a bucket, an unsorted list, and a heap holds the
keys of the buckets in use. When a slot comes, its bucket is *opened*: what is left in it goes into a small heap
sorted by time and order of arming. What is armed for a slot that is already open goes there at once.

Filing is lazy. ``Callout.filed`` is the time under which the wheel has the callout, ``Callout.time`` the time it is
due. Pushing a pending callout out changes ``time`` alone: when its entry comes up it is filed again. Stopping it
changes ``state`` alone. So an entry is *good* if the callout is still on this CPU and still filed under the entry's
time; any other is garbage. Two entries of one callout under the same time do no harm: the first that comes up takes
the callout out. A sweep runs when there is more garbage than live entries, so memory is bounded whatever the mix of
calls.

Invariants, asserted by ``check()``: a pending callout that is not in the expired queue has a good entry; ``time >=
filed``; ``size`` counts the entries; ``live`` counts the callouts that are pending in this wheel.

Rejected, after measuring: a heap with lazy deletion (every re-arm allocates and sifts) and a hierarchical wheel
(cascades). Source: kern_timeout.c, callout_process() and callout_cc_add(), whose interface this has and whose
structure it does not.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from ._state import MOVING, PENDING, QUEUED, Callout
from ._units import NEVER

if TYPE_CHECKING:
    from ._cpu import Cpu

SHIFT: Final = 27
CHUNK: Final = 2048  # entries handled under one hold of the lock
SLACK: Final = 64  # garbage that is not worth a sweep

Filed = tuple[int, int, Callout]  # filed, seq, callout


class Wheel:
    """The callouts that wait on one CPU."""

    __slots__ = ("_buckets", "_cpu", "_horizon", "_keys", "_near", "live", "size")

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self._buckets: dict[int, list[Callout]] = {}
        self._keys: list[int] = []
        self._near: list[Filed] = []
        self._horizon = 0  # slots before this key are open
        self.size = 0
        self.live = 0

    def file(self, c: Callout) -> int:
        """File *c* under its time, unless the entry it has will do. Return when to look again at the latest.

        O(1) for a time in a slot that is not open yet, O(log n) of the near ones otherwise.
        """
        time = c.time
        filed = c.filed
        if 0 < filed <= time:  # the entry it has will do
            return filed if filed >> SHIFT < self._horizon else filed >> SHIFT << SHIFT
        c.filed = time
        self.size += 1
        key = time >> SHIFT
        if key < self._horizon:
            heappush(self._near, (time, c.seq, c))
            return time
        bucket = self._buckets.get(key)
        if bucket is None:
            self._buckets[key] = [c]
            heappush(self._keys, key)
        else:
            bucket.append(c)
        return key << SHIFT

    def next_event(self) -> int:
        """Return when to look again: the earliest time, or the start of the earliest slot; ``NEVER`` if nothing
        lives.
        """
        if self.live == 0:
            return NEVER
        when = self._keys[0] << SHIFT if self._keys else NEVER
        return self._near[0][0] if self._near and self._near[0][0] < when else when

    def expire(self, now: int, due: list[Filed]) -> bool:
        """Append to *due*, in order, callouts that are due; return whether there is more to do at this time.

        At most ``CHUNK`` entries are handled. They leave the wheel; they are still pending.
        """
        budget = CHUNK
        while self._keys and self._keys[0] << SHIFT <= now:
            budget -= self._open(self._keys[0], budget)
            if budget <= 0:
                return True
        near = self._near
        while near and near[0][0] <= now:
            if budget <= 0:
                return True
            budget -= 1
            entry = heappop(near)
            self.size -= 1
            filed, seq, c = entry
            if c.cpu is not self._cpu or c.filed != filed:
                continue  # garbage
            c.filed = 0
            if not c.state & PENDING:
                continue
            if c.time > filed or c.seq != seq:
                self.file(c)  # pushed out, or armed again for the same time and so behind the others
                continue
            self.live -= 1
            due.append(entry)
        return False

    def _open(self, key: int, budget: int) -> int:
        """Move up to *budget* entries of a bucket into the near heap; return how many were handled."""
        bucket = self._buckets[key]
        chunk = bucket[-budget:]
        del bucket[-budget:]
        if not bucket:
            del self._buckets[key]
            heappop(self._keys)
            self._horizon = key + 1
        cpu, near = self._cpu, self._near
        for c in chunk:
            self.size -= 1
            if c.cpu is not cpu or c.filed >> SHIFT != key:
                continue  # garbage
            c.filed = 0
            if not c.state & PENDING:
                continue
            if c.time >> SHIFT > key:
                self.file(c)
                continue
            c.filed = c.time
            self.size += 1
            heappush(near, (c.time, c.seq, c))
        return len(chunk)

    def sweep(self) -> None:
        """Drop the garbage if there is more of it than live entries. O(size), paid for by the calls that left it."""
        if self.size <= 2 * self.live + SLACK:
            return
        cpu = self._cpu
        buckets: dict[int, list[Callout]] = {}
        for key, bucket in self._buckets.items():
            good = dict.fromkeys(c for c in bucket if c.cpu is cpu and c.filed >> SHIFT == key)
            kept = []
            for c in good:
                if c.state & PENDING:
                    kept.append(c)
                else:
                    c.filed = 0
            if kept:
                buckets[key] = kept
        near: dict[Callout, Filed] = {}
        for entry in self._near:
            filed, _, c = entry
            if c.cpu is cpu and c.filed == filed:
                if c.state & PENDING:
                    near[c] = entry
                else:
                    c.filed = 0
        self._buckets = buckets
        self._keys = sorted(buckets)
        self._near = list(near.values())
        heapify(self._near)
        self.size = len(self._near) + sum(map(len, buckets.values()))

    def clear(self) -> list[Callout]:
        """Take every pending callout out, and return them in no particular order."""
        cpu = self._cpu
        out: dict[Callout, None] = {}
        for key, bucket in self._buckets.items():
            out.update(dict.fromkeys(c for c in bucket if c.cpu is cpu and c.filed >> SHIFT == key))
        out.update(dict.fromkeys(c for filed, _, c in self._near if c.cpu is cpu and c.filed == filed))
        for c in out:
            c.filed = 0
        self._buckets.clear()
        self._keys.clear()
        self._near.clear()
        self.size = self.live = 0
        return [c for c in out if c.state & PENDING]

    def check(self) -> None:
        """Assert the invariants."""
        good: set[Callout] = set()
        for key, bucket in self._buckets.items():
            assert bucket, "an empty bucket"
            assert key >= self._horizon or key == min(self._keys), "a bucket before the horizon"
            good.update(c for c in bucket if c.cpu is self._cpu and c.filed >> SHIFT == key)
        good.update(c for filed, _, c in self._near if c.cpu is self._cpu and c.filed == filed)
        assert sorted(self._buckets) == sorted(self._keys), "keys and buckets differ"
        assert self.size == len(self._near) + sum(map(len, self._buckets.values())), "size is wrong"
        waiting = [c for c in good if c.state & PENDING and not c.state & (QUEUED | MOVING)]
        assert self.live == len(waiting), f"live is {self.live}, counted {len(waiting)}"
        assert all(c.time >= c.filed > 0 for c in waiting), "a callout is filed later than it is due"
