"""What is measured: the workloads, each a generator that yields what it waits for and returns its figure.

Where calls are counted, the loop gets a turn before the clock is read again, so that what a peer defers until then
(asyncio sweeps its cancelled timers there) is in the figure.
"""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable, Generator, Mapping
from functools import partial
from statistics import median
from typing import Any, Final, NamedTuple

from ._peer import Peer

NEVER: Final = (30.0, 90.0)  # seconds until what is not to expire would, of as many timers as this or fewer:
MANY: Final = 100_000
CALLS: Final = 500_000  # for a figure, at the least
SOON: Final = 0.005  # seconds within which everything expires
SAMPLES: Final = 500  # expiries whose lateness is looked at
WATCHED: Final = 1.0  # seconds in which they lie, and for which an idle loop is looked at
QUANTILES: Final = {"lateness": 0.5, "lateness-p90": 0.9, "lateness-p99": 0.99, "lateness-max": 1.0}  # of them
BLOCK: Final = 64  # calls of a kind that follow each other, where they are mixed

Figure = Generator[float | None, None, dict[str, float]]


def ignore(arg: object) -> None:
    """Do nothing."""


def _seconds(n: int) -> list[float]:
    rng = random.Random(n)  # the same for all peers
    longer = max(1.0, n / MANY)  # or a slow peer would not have cancelled them by then
    return [longer * rng.uniform(*NEVER) for _ in range(n)]


class Load(NamedTuple):
    """How many timers, and how many calls a figure is taken from at the least."""

    n: int
    calls: int

    def passes(self) -> range:
        """Return as many passes over all timers as that takes."""
        return range(max(1, self.calls // self.n))


def _time(call: Callable[[], None], n: int, wait: float | None = 0.0) -> Generator[float | None, None, float]:
    """Return nanoseconds for each of the *n* timers of a call, and of what the loop does afterwards."""
    begin = time.perf_counter_ns()
    call()
    yield wait
    return (time.perf_counter_ns() - begin) / n


def _rss() -> int:
    import psutil  # of the extra: the command line knows the workloads without it

    gc.collect()
    rss: int = psutil.Process().memory_info().rss
    return rss


def memory(peer: Peer, load: Load) -> Figure:
    """Bytes of resident memory a pending timer, its place in a list of the application included."""
    n = load.n
    delays = peer.delays(_seconds(n))
    timers: list[Any] = []
    peer.idle(delays[:10], ignore, timers)
    peer.cancel(timers)
    timers.clear()
    yield 0.0
    before = _rss()
    peer.idle(delays, ignore, timers)
    yield 0.0
    armed = _rss()
    yield from _mix(peer, delays, timers)
    mixed = _rss()
    peer.cancel(timers)
    return {"memory": (armed - before) / n, "growth": (mixed - armed) / n}


def _mix(peer: Peer, delays: list[Any], timers: list[Any]) -> Generator[float | None, None, None]:
    """Make 4 calls a timer: some begin again, others are cancelled, and new ones made in their places."""
    rng = random.Random(len(timers))
    block = min(BLOCK, len(timers))
    for turn in range(4 * len(timers) // block):
        places = rng.sample(range(len(timers)), block)
        some = [timers[place] for place in places]
        again = [delays[place] for place in places]
        if rng.random() < 0.5:
            peer.rearm(again, ignore, some)
        else:
            peer.cancel(some)
            some.clear()
            peer.idle(again, ignore, some)
        for place, timer in zip(places, some, strict=True):
            timers[place] = timer
        if turn % 16 == 0:
            yield 0.0


def arm(peer: Peer, load: Load) -> Figure:
    """Nanoseconds a new timer: made and armed, up to *n* pending."""
    n = load.n
    delays = peer.delays(_seconds(n))
    spent: list[float] = []
    for _ in load.passes():
        timers: list[Any] = []
        spent.append((yield from _time(partial(peer.arm, delays, ignore, timers), n)))
        peer.cancel(timers)
        del timers
        yield 0.0
    return {"arm": median(spent)}


def rearm(peer: Peer, load: Load) -> Figure:
    """Nanoseconds to have one of *n* pending idle timeouts begin again."""
    n = load.n
    delays = peer.delays(_seconds(n))
    timers: list[Any] = []
    peer.idle(delays, ignore, timers)
    yield 0.0
    spent: list[float] = []
    for _ in load.passes():
        spent.append((yield from _time(partial(peer.rearm, delays, ignore, timers), n)))  # noqa: PERF401 - it yields
    peer.cancel(timers)
    return {"rearm": median(spent)}


def churn(peer: Peer, load: Load) -> Figure:
    """Nanoseconds to make, arm and cancel a timer, while *n* others are pending."""
    n = load.n
    delays = peer.delays(_seconds(n))
    timers: list[Any] = []
    peer.arm(delays, ignore, timers)
    yield 0.0
    spent: list[float] = []
    for _ in load.passes():
        spent.append((yield from _time(partial(peer.churn, delays, ignore), n)))  # noqa: PERF401 - it yields
    peer.cancel(timers)
    return {"churn": median(spent)}


def cancel(peer: Peer, load: Load) -> Figure:
    """Nanoseconds to cancel one of *n* pending timers, in the order in which they were armed, and in random order."""
    n = load.n
    delays = peer.delays(_seconds(n))
    figures: dict[str, float] = {}
    for name in ("cancel", "cancel-random"):
        spent: list[float] = []
        for _ in load.passes():
            timers: list[Any] = []
            peer.arm(delays, ignore, timers)
            if name == "cancel-random":
                random.Random(n).shuffle(timers)
            yield 0.0
            spent.append((yield from _time(partial(peer.cancel, timers), n)))
            del timers
        figures[name] = median(spent)
    return figures


def expire(peer: Peer, load: Load) -> Figure:
    """Nanoseconds a callback, where *n* timers are due at once."""
    n = load.n
    rng = random.Random(n)
    delays = peer.delays([rng.uniform(0.001, SOON) for _ in range(n)])
    spent: list[float] = []
    for _ in load.passes():
        fired: list[object] = []  # two CPUs may append at once, also without a GIL

        def fire(arg: object, fired: list[object] = fired) -> None:
            fired.append(arg)
            if len(fired) == n:
                peer.wake()

        timers: list[Any] = []
        release = peer.hold()
        peer.arm(delays, fire, timers)
        time.sleep(2 * SOON)  # with the loop blocked, until all are due
        spent.append((yield from _time(release, n, None)))
        del timers
        yield 0.0
    return {"expire": median(spent)}


def gap(peer: Peer, load: Load) -> Figure:
    """Milliseconds for which another task of the loop is kept from its turn, at the longest, while *n* expire."""
    n = load.n
    fired: list[object] = []

    rng = random.Random(n)
    timers: list[Any] = []
    release = peer.hold()
    peer.arm(peer.delays([rng.uniform(0.001, SOON) for _ in range(n)]), fired.append, timers)
    time.sleep(2 * SOON)
    release()
    longest = 0
    last = time.perf_counter_ns()
    while len(fired) < n:
        yield 0.0
        now = time.perf_counter_ns()
        longest = max(longest, now - last)
        last = now
    return {"gap": longest / 1e6}


def lateness(peer: Peer, load: Load) -> Figure:
    """Microseconds from the deadline to the callback's first line, in an idle loop where *n* others are pending."""
    n = load.n
    others: list[Any] = []
    peer.arm(peer.delays(_seconds(n)), ignore, others)
    yield 0.0
    rng = random.Random(n)
    now = time.monotonic_ns
    fired: list[int] = []

    def fire(arg: object) -> None:
        fired.append(now())
        if len(fired) == SAMPLES:
            peer.wake()

    timers: list[Any] = []
    due: list[int] = []
    for _ in range(SAMPLES):
        ms = rng.randint(20, 20 + round(WATCHED * 1000))
        delays = peer.delays([ms / 1000])
        due.append(now() + ms * 1_000_000)
        peer.arm(delays, fire, timers)
    yield None
    late = sorted((at - when) / 1000 for at, when in zip(sorted(fired), sorted(due), strict=True))
    peer.cancel(others)
    return {name: late[min(int(len(late) * share), len(late) - 1)] for name, share in QUANTILES.items()}


def idle(peer: Peer, load: Load) -> Figure:
    """Milliseconds of CPU time a second, where *n* timers are pending and nothing happens."""
    n = load.n
    timers: list[Any] = []
    peer.arm(peer.delays(_seconds(n)), ignore, timers)
    yield 0.1
    begin = time.process_time_ns()
    yield WATCHED
    spent = time.process_time_ns() - begin
    peer.cancel(timers)
    return {"idle": spent / WATCHED / 1e6}


def elsewhere(peer: Peer, load: Load) -> Figure:
    """Nanoseconds a timer that another thread makes and arms, until the loop has the last."""
    n = load.n
    delays = peer.delays(_seconds(n))

    def work() -> None:
        peer.arm_elsewhere(delays, ignore)
        peer.wake()

    thread = threading.Thread(target=work)
    spent = yield from _time(thread.start, n, None)
    thread.join()
    return {"elsewhere": spent}


class Row(NamedTuple):
    """A figure, as the table shows it. The fewer the better, all of them."""

    name: str
    unit: str
    about: str


# The workloads, in the order in which a process runs them: memory first, when nothing was freed yet; last, what leaves
# timers behind that only the loop knows.
WORKLOADS: Final[Mapping[str, Callable[[Peer, Load], Figure]]] = {
    "memory": memory,
    "arm": arm,
    "rearm": rearm,
    "churn": churn,
    "cancel": cancel,
    "expire": expire,
    "gap": gap,
    "lateness": lateness,
    "idle": idle,
    "elsewhere": elsewhere,
}

ROWS: Final[Mapping[str, tuple[Row, ...]]] = {
    "memory": (
        Row("memory", "bytes", "resident memory a pending timer"),
        Row("growth", "bytes", "what that has grown by after 4 calls a timer"),
    ),
    "arm": (Row("arm", "ns", "make and arm a timer"),),
    "rearm": (Row("rearm", "ns", "have an idle timeout begin again"),),
    "churn": (Row("churn", "ns", "make, arm and cancel a timer"),),
    "cancel": (
        Row("cancel", "ns", "cancel, in the order of arming"),
        Row("cancel-random", "ns", "cancel, in random order"),
    ),
    "expire": (Row("expire", "ns", "a callback, where all are due"),),
    "gap": (Row("gap", "ms", "a task is kept waiting while all expire, at the longest"),),
    "lateness": (
        Row("lateness", "us", "from the deadline to the callback, the median"),
        Row("lateness-p90", "us", "the same, the 90th percentile"),
        Row("lateness-p99", "us", "the same, the 99th percentile"),
        Row("lateness-max", "us", "the same, the longest"),
    ),
    "idle": (Row("idle", "ms/s", "CPU time while nothing happens"),),
    "elsewhere": (Row("elsewhere", "ns", "make and arm a timer from another thread"),),
}
