"""What has been counted, as it was at one time: of each CPU, and of them all.

The counters of a CPU are read under its lock, in a few instructions; what is made of them is made afterwards. What its
loop counts of its own work is read as it is: a callback that ends meanwhile may be in one of these numbers already, and
not yet in another.

Source: our own. FreeBSD has kern.callout_stat, and three averages of callout_process().
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Final, NamedTuple

from .cpu import Cpu
from .cpulock import acquire
from .errors import ArgumentTypeError, ArgumentValueError
from .guard import protected
from .seconds import from_ns

if TYPE_CHECKING:
    from .machine import Machine

_FIRST: Final = 10  # bits of the ns of the first bound: 1.024 us
_LAST: Final = 34  # 17.2 s
_BOUNDS: Final = tuple(2**bits / 1e9 for bits in range(_FIRST, _LAST + 1))
_MOMENTARY: Final = frozenset({"cpu", "pending", "longest", "longest_function", "lateness"})


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often lengths of time have occurred, in seconds."""

    bounds: tuple[float, ...]
    """The upper bounds of all ranges but the last: powers of two, from 1.024 microseconds to 17.2 seconds."""
    counts: tuple[int, ...]
    """How many there are in each range: one more than there are bounds, the last for all that is longer."""
    total: float
    """The sum of them all, in seconds."""
    max: float
    """The longest of all since the system was opened; a difference of two histograms has that, too."""

    def quantile(self, q: float, /) -> float:
        """Return how long they are at most, but for a share of 1 - *q*: the bound of its range, and never more than
        ``max``. 0.0 if there are none. Never blocks.

        Raises:
            ArgumentTypeError, ArgumentValueError: *q* is no number from 0 to 1.
        """
        if isinstance(q, bool) or not isinstance(q, int | float):
            raise ArgumentTypeError(f"quantile: q must be a number from 0 to 1, not {q!r}", call="quantile")
        if not 0 <= q <= 1:
            raise ArgumentValueError(f"quantile: q must be from 0 to 1, not {q!r}", call="quantile")
        wanted = max(math.ceil(q * sum(self.counts)), 1)
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            wanted -= count
            if wanted <= 0:
                return min(bound, self.max)
        return 0.0

    def __sub__(self, earlier: Histogram) -> Histogram:
        counts = tuple(late - early for late, early in zip(self.counts, earlier.counts, strict=True))
        return Histogram(self.bounds, counts, self.total - earlier.total, self.max)

    def __add__(self, other: Histogram) -> Histogram:
        counts = tuple(one + two for one, two in zip(self.counts, other.counts, strict=True))
        return Histogram(self.bounds, counts, self.total + other.total, max(self.max, other.max))


@dataclass(frozen=True, slots=True)
class CpuStats:
    """What one CPU has done since its system was opened. Counts only grow; ``pending`` is no count."""

    cpu: int
    """Its number; -1 for the total of all."""
    pending: int
    """Callouts that are scheduled now."""
    armed: int
    """Armings of what was not scheduled."""
    rearmed: int
    """Armings that have replaced a scheduled run."""
    fired: int
    """Callbacks that were called."""
    stopped: int
    """Scheduled runs that were removed: by stops, drains and closes, and by the end of the system."""
    drained: int
    """Calls that drained a callout, those included that did not have to wait."""
    closed: int
    """Callouts that were closed for good."""
    refused: int
    """Armings that did nothing, because the callout was drained or closed, or the system was being closed."""
    migrated: int
    """Callouts that have come here from another CPU."""
    errors: int
    """Callbacks that raised, or that left their lock as it must not be."""
    parks: int
    """How often softclock had to wait for the lock of a callout."""
    wakeups: int
    """Clock interrupts."""
    parked: float
    """For how long softclock has waited for locks, in seconds."""
    busy: float
    """For how long callbacks have run, in seconds."""
    longest: float
    """How long the longest callback has run, in seconds."""
    longest_function: str | None
    """Which that was."""
    lateness: Histogram
    """By how much callbacks were called later than they were due."""

    def __sub__(self, earlier: CpuStats) -> CpuStats:
        """Return what has been done between the two; what is no count is that of the later."""
        return _with(self, {name: getattr(self, name) - getattr(earlier, name) for name in _COUNTS}, -1, earlier)

    def __add__(self, other: CpuStats) -> CpuStats:
        """Return what both have done."""
        return _with(self, {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}, 1, other)


_ROUNDING: Final = 1e-6  # seconds: what two times of one opening may differ by
_COUNTS: Final = tuple(field.name for field in fields(CpuStats) if field.name not in _MOMENTARY)


def _with(one: CpuStats, counts: dict[str, int | float], sign: int, two: CpuStats) -> CpuStats:
    longer = two if sign > 0 and two.longest > one.longest else one
    return CpuStats(
        cpu=-1 if sign > 0 else one.cpu,
        pending=one.pending + two.pending if sign > 0 else one.pending,
        longest=longer.longest,
        longest_function=longer.longest_function,
        lateness=one.lateness + two.lateness if sign > 0 else one.lateness - two.lateness,
        **counts,  # type: ignore[arg-type]  # the counts, by their names
    )


@dataclass(frozen=True, slots=True)
class SystemStats:
    """What the CPUs of a system have done since it was opened. ``later - earlier`` is what they have done between."""

    taken: float
    """When this was so, in seconds of ``system.current_time()``."""
    uptime: float
    """How long the system had been open then, in seconds; of a difference, the time between the two."""
    cpus: tuple[CpuStats, ...]
    """What each CPU has done, in the order of their numbers."""

    @property
    def total(self) -> CpuStats:
        """What all of them have done together. Its ``cpu`` is -1."""
        first, *others = self.cpus
        total = _with(first, {name: getattr(first, name) for name in _COUNTS}, 1, _NOTHING)
        for cpu in others:
            total += cpu
        return total

    def __sub__(self, earlier: SystemStats) -> SystemStats:
        """Return what was done between *earlier* and this. Both must be of one system."""
        if not isinstance(earlier, SystemStats):
            return NotImplemented
        opened, before = self.taken - self.uptime, earlier.taken - earlier.uptime
        if len(earlier.cpus) != len(self.cpus) or abs(opened - before) > _ROUNDING:
            raise ArgumentValueError("stats: these are of two systems, so they have no difference", call="stats")
        if earlier.taken > self.taken:
            raise ArgumentValueError("stats: write `later - earlier`, and this is earlier - later", call="stats")
        return SystemStats(
            self.taken, self.taken - earlier.taken, tuple(a - b for a, b in zip(self.cpus, earlier.cpus, strict=True))
        )

    def to_dict(self) -> dict[str, object]:
        """Return all of it as dicts, lists, numbers and strings, for JSON."""
        return asdict(self) | {"cpus": [_listed(cpu) for cpu in self.cpus], "total": _listed(self.total)}


def _listed(cpu: CpuStats) -> dict[str, object]:
    histogram = cpu.lateness
    return asdict(cpu) | {
        "lateness": asdict(histogram) | {"bounds": list(histogram.bounds), "counts": list(histogram.counts)}
    }


_NO_TIMES: Final = Histogram(_BOUNDS, (0,) * (len(_BOUNDS) + 1), 0.0, 0.0)
_NOTHING: Final = CpuStats(
    cpu=-1,
    pending=0,
    longest=0.0,
    longest_function=None,
    lateness=_NO_TIMES,
    **dict.fromkeys(_COUNTS, 0),
)


class _Counters(NamedTuple):
    """The counters of a CPU that its lock guards, at one time."""

    seq: int
    fresh: int
    moved: int
    removed: int
    begun: int
    refiled: int
    cancelled: int
    migrated: int
    drained: int
    closed: int
    refused: int


@protected
def _read(cpu: Cpu) -> _Counters:
    acquire(cpu, "stats")
    try:
        return _Counters(
            cpu.seq,
            cpu.fresh,
            cpu.moved,
            cpu.removed,
            cpu.begun,
            cpu.refiled,
            cpu.cancelled,
            cpu.migrated,
            cpu.drained,
            cpu.closed,
            cpu.refused,
        )
    finally:
        cpu.busy = False
        cpu.lock.release()


def _stats_of(cpu: Cpu) -> CpuStats:
    at = _read(cpu)
    tally = cpu.tally
    late = list(tally.late)
    counts = (sum(late[: _FIRST + 1]), *late[_FIRST + 1 : _LAST + 1], sum(late[_LAST + 1 :]))
    return CpuStats(
        cpu=cpu.id,
        pending=at.fresh + at.moved - at.removed - at.begun,
        armed=at.fresh,
        rearmed=at.seq - at.refiled - at.fresh,
        fired=sum(late),
        stopped=at.removed + at.cancelled,
        drained=at.drained,
        closed=at.closed,
        refused=at.refused,
        migrated=at.migrated,
        errors=tally.errors,
        parks=tally.parks,
        wakeups=tally.wakeups,
        parked=from_ns(tally.parked),
        busy=from_ns(tally.spent),
        longest=from_ns(tally.longest),
        longest_function=tally.longest_function,
        lateness=Histogram(_BOUNDS, counts, from_ns(tally.total_late), from_ns(tally.latest)),
    )


def stats(machine: Machine) -> SystemStats:
    """Return what the CPUs of *machine* have done."""
    now = machine.platform.now()
    return SystemStats(
        from_ns(now + machine.epoch), from_ns(now - machine.boot), tuple(_stats_of(cpu) for cpu in machine.cpus)
    )


__all__ = ["CpuStats", "Histogram", "SystemStats", "stats"]
