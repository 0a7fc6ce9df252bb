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

from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from .state import MOVING, PENDING, QUEUED, Callout
from .units import NEVER

if TYPE_CHECKING:
    from .cpu import Cpu

SHIFT: Final = 27
CHUNK: Final = 1024  # entries handled under one hold of the lock
SLACK: Final = 64  # garbage that is not worth a sweep

SEQ_BITS: Final = 64  # a key of the near heap is the time, and below it the order of arming


class Wheel:
    """The callouts that wait on one CPU."""

    __slots__ = ("_buckets", "_cpu", "_heap", "_horizon", "_keys", "_near", "live", "size")

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self._buckets: dict[int, list[Callout]] = {}
        self._keys: list[int] = []
        # The near heap holds ints, and a dict says whose they are: a tuple an entry would be one more object for the
        # garbage collector to visit, and 100,000 that fall due at once would stop the loop for longer than they run.
        self._heap: list[int] = []
        self._near: dict[int, Callout] = {}
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
            self._file_near(c)
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
        return min(self._heap[0] >> SEQ_BITS, when) if self._heap else when

    def _file_near(self, c: Callout) -> None:
        key = c.time << SEQ_BITS | c.seq
        self._near[key] = c
        heappush(self._heap, key)

    def expire(self, now: int, due: list[Callout]) -> bool:
        """Append to *due*, in order, callouts that are due; return whether there is more to do at this time.

        At most ``CHUNK`` entries are handled. The callouts leave the wheel; they are still pending.
        """
        budget = CHUNK
        while self._keys and self._keys[0] << SHIFT <= now:
            budget -= self._open(self._keys[0], budget)
            if budget <= 0:
                return True
        heap = self._heap
        while heap and heap[0] >> SEQ_BITS <= now:
            if budget <= 0:
                return True
            budget -= 1
            key = heappop(heap)
            self.size -= 1
            c = self._near.pop(key, None)
            if c is None or c.cpu is not self._cpu or c.filed != key >> SEQ_BITS:
                continue  # garbage
            c.filed = 0
            if not c.state & PENDING:
                continue
            if c.time << SEQ_BITS | c.seq != key:
                self.file(c)  # pushed out, or armed again for the same time and so behind the others
                continue
            self.live -= 1
            due.append(c)
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
        cpu = self._cpu
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
            self._file_near(c)
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
        near: dict[int, Callout] = {}
        for key, c in self._near.items():
            if c.cpu is cpu and c.filed == key >> SEQ_BITS:
                if c.state & PENDING:
                    near[key] = c
                else:
                    c.filed = 0
        self._buckets = buckets
        self._keys = sorted(buckets)
        self._near = near
        self._heap = list(near)
        heapify(self._heap)
        self.size = len(near) + sum(map(len, buckets.values()))

    def clear(self) -> list[Callout]:
        """Take every pending callout out, and return them in no particular order."""
        cpu = self._cpu
        out: dict[Callout, None] = {}
        for key, bucket in self._buckets.items():
            out.update(dict.fromkeys(c for c in bucket if c.cpu is cpu and c.filed >> SHIFT == key))
        out.update((c, None) for key, c in self._near.items() if c.cpu is cpu and c.filed == key >> SEQ_BITS)
        for c in out:
            c.filed = 0
        self._buckets.clear()
        self._keys.clear()
        self._near.clear()
        self._heap.clear()
        self.size = self.live = 0
        return [c for c in out if c.state & PENDING]

    def check(self) -> None:
        """Assert the invariants."""
        good: set[Callout] = set()
        for key, bucket in self._buckets.items():
            assert bucket, "an empty bucket"
            assert key >= self._horizon or key == min(self._keys), "a bucket before the horizon"
            good.update(c for c in bucket if c.cpu is self._cpu and c.filed >> SHIFT == key)
        good.update(c for key, c in self._near.items() if c.cpu is self._cpu and c.filed == key >> SEQ_BITS)
        # Not the other way round: of two entries under one key the second is garbage from when the first came up.
        assert self._near.keys() <= set(self._heap), "a callout is not in the near heap"
        assert sorted(self._buckets) == sorted(self._keys), "keys and buckets differ"
        assert self.size == len(self._heap) + sum(map(len, self._buckets.values())), "size is wrong"
        waiting = [c for c in good if c.state & PENDING and not c.state & (QUEUED | MOVING)]
        assert self.live == len(waiting), f"live is {self.live}, counted {len(waiting)}"
        assert all(c.time >= c.filed >= 0 for c in waiting), "a callout is filed later than it is due"


class DueQueue:
    """Callouts that are due, first in, first out. Stopping one, or arming it anew, leaves a dead entry behind.

    An entry is good if the callout is still queued under the entry's number, which ``Callout.filed`` has meanwhile: it
    is negative, and odd or even by queue, so that it is no time and no number of the CPU's other queue.
    """

    __slots__ = ("_callouts", "_cpu", "_head", "_tail")

    def __init__(self, cpu: Cpu, first: int) -> None:
        self._cpu = cpu
        self._callouts: deque[Callout] = deque()
        self._head = self._tail = first

    def __len__(self) -> int:
        return len(self._callouts)

    def push(self, c: Callout) -> None:
        """Append *c*, which is pending and in no queue."""
        c.state |= QUEUED
        c.filed = self._tail
        self._tail -= 2
        self._callouts.append(c)

    def pop(self) -> Callout | None:
        """Take the first that is still queued, or return None. It is no longer filed; it is still pending."""
        while self._callouts:
            c = self._callouts.popleft()
            number = self._head
            self._head -= 2
            if c.cpu is self._cpu and c.filed == number and c.state & QUEUED:
                c.filed = 0
                c.state &= ~QUEUED
                return c
        return None
