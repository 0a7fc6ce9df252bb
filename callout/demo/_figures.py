"""What the demo counts.

Every CPU has its own counters, written by the thread of its loop alone, so none is ever lost; they are added up when
somebody looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

COUNTERS: Final = (
    "opened",  # connections that the server accepted
    "messages",  # that clients sent
    "resent",  # echoes that the retransmit timer sent again
    "probes",  # that the keep-alive timer sent
    "armed",  # callout_reset() found nothing scheduled
    "rearmed",  # callout_reset() replaced a scheduled run
    "fired",  # callbacks
    "early",  # callbacks before their time
    "stopped",  # callout_stop() took a scheduled run away
    "drained",  # drains of either kind
    "promised",  # callout_drain_async() said that the completion will be called
    "completed",  # completions that were
    "refused",  # connects that failed and were tried again
)

CLOSERS: Final = ("client", "server", "timer", "end of the run")


class Lateness:
    """A histogram of nanoseconds, to 3 per cent, so that a long run takes no more memory than a short one."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, ns: int) -> None:
        """Count one."""
        shift = max(ns.bit_length() - 6, 0)
        self._buckets[ns >> shift << shift] += 1

    def merge(self, other: Lateness) -> None:
        """Add what another has counted."""
        self._buckets.update(dict(other._buckets))  # a copy, made in one step: its owner may be counting

    def quantile(self, q: float) -> int | None:
        """Return the value below which a share of *q* lies, in ns; None if nothing was counted."""
        left = q * self._buckets.total()
        for value in sorted(self._buckets):
            left -= self._buckets[value]
            if left <= 0:
                return value
        return None


class Figures:
    """The counters of one CPU, or the sums of all."""

    __slots__ = ("closed_by", "late", *COUNTERS)

    opened: int
    messages: int
    resent: int
    probes: int
    armed: int
    rearmed: int
    fired: int
    early: int
    stopped: int
    drained: int
    promised: int
    completed: int
    refused: int

    def __init__(self) -> None:
        self.closed_by: dict[str, int] = dict.fromkeys(CLOSERS, 0)
        self.late = Lateness()
        for name in COUNTERS:
            setattr(self, name, 0)


def total(figures: Iterable[Figures]) -> Figures:
    """Return the sums."""
    out = Figures()
    for each in figures:
        for name in COUNTERS:
            setattr(out, name, getattr(out, name) + getattr(each, name))
        for closer, count in each.closed_by.items():
            out.closed_by[closer] += count
        out.late.merge(each.late)
    return out
