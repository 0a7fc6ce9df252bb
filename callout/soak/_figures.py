"""What a soak has done, in figures; what it holds, so that growth is seen."""

from __future__ import annotations

import os
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_FINE: Final = 3  # bits of a lateness that are kept below its highest: figures are right to an eighth


def resident() -> int | None:
    """Return how many kilobytes of memory this process has; where that cannot be known, None."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    return int(statm.read_text("ascii").split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def descriptors() -> int | None:
    """Return how many descriptors this process has open; where that cannot be known, None."""
    try:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208 - names, not paths
    except OSError:
        return None


@dataclass(frozen=True)
class Held:
    """What the process holds at one moment."""

    threads: int
    descriptors: int | None
    kilobytes: int | None

    @classmethod
    def now(cls) -> Held:
        """Look."""
        return cls(len(threading.enumerate()), descriptors(), resident())


def _bucket(ns: int) -> int:
    """Return a number that orders latenesses, and is the same for those that differ by less than an eighth."""
    shift = max(ns.bit_length() - 1 - _FINE, 0)
    return (shift << _FINE) + (ns >> shift)


def _greatest(bucket: int) -> int:
    """Return the greatest lateness of a bucket."""
    shift = max((bucket >> _FINE) - 1, 0)
    return ((bucket - (shift << _FINE) + 1) << shift) - 1


@dataclass
class Figures:
    """Sums of all rounds so far. Latenesses are counted in buckets, so a night needs no more memory than a minute."""

    rounds: int = 0
    seconds: float = 0.0
    armed: int = 0
    replaced: int = 0
    fired: int = 0
    removed: int = 0
    refused: int = 0
    unsure: int = 0
    completions: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    latest: int = 0  # ns
    first: Held | None = None
    last: Held | None = None
    _late: Counter[int] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def late(self, ns: int) -> None:
        """Count a callback that began so late. From any thread."""
        with self._lock:
            self._late[_bucket(ns)] += 1
            self.latest = max(self.latest, ns)

    def fault(self, name: str) -> None:
        """Count a fault. From any thread."""
        with self._lock:
            self.faults[name] += 1

    def quantile(self, share: float) -> int:
        """Return the lateness, in ns, that this share of callbacks has not exceeded; 0 if there was none."""
        with self._lock:
            left = share * self._late.total()
            for bucket in sorted(self._late):
                left -= self._late[bucket]
                if left <= 0:
                    return min(_greatest(bucket), self.latest)
        return 0

    def as_json(self) -> dict[str, object]:
        """Return all of it; times in seconds."""
        return {
            "rounds": self.rounds,
            "seconds": round(self.seconds, 3),
            "calls": dict(sorted(self.calls.items())),
            "armed": self.armed,
            "replaced": self.replaced,
            "fired": self.fired,
            "removed": self.removed,
            "refused": self.refused,
            "refused or removed without a word": self.unsure,
            "completions": self.completions,
            "lateness": {name: ns / 1e9 for name, ns in self._latenesses().items()},
            "faults": dict(sorted(self.faults.items())),
            "held": {
                name: None if held is None else held.__dict__
                for name, held in (("first", self.first), ("last", self.last))
            },
        }

    def lines(self) -> list[str]:
        """Return the summary, line by line."""
        late = ", ".join(f"{name} {ns / 1e6:.3f} ms" for name, ns in self._latenesses().items())
        out = [
            f"{self.rounds} rounds in {self.seconds:.1f} s, {self.calls.total():,} calls:",
            *(f"  {name:28} {number:>12,}" for name, number in sorted(self.calls.items())),
            f"{self.armed:,} armed: {self.replaced:,} replaced, {self.fired:,} fired, {self.removed:,} removed",
            f"  {self.unsure:,} refused or removed without a word; {self.refused:,} more refused",
            f"completions: {self.completions:,}",
            f"lateness: {late}",
            f"faults: {', '.join(f'{name} {number:,}' for name, number in sorted(self.faults.items())) or 'none'}",
        ]
        if self.first is not None and self.last is not None:
            first, last = self.first, self.last
            out += [
                f"{what}: {'unknown' if before is None or after is None else f'{before:,} first, {after:,} last'}"
                for what, before, after in (
                    ("resident memory, kB", first.kilobytes, last.kilobytes),
                    ("threads", first.threads, last.threads),
                    ("descriptors", first.descriptors, last.descriptors),
                )
            ]
        return out

    def _latenesses(self) -> dict[str, int]:
        return {"median": self.quantile(0.5), "p99": self.quantile(0.99), "max": self.latest}
