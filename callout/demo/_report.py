"""What a run has come to: the verdict, the table, the JSON object, the live line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from ._figures import COUNTERS, Figures
from ._options import STOP_AND_FREE
from ._resources import Held
from ._service import Service

CLEAN: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 130

NOT_SHOWN: Final = (
    "not staged: the race did not show this time, which does not make stop-and-free correct; its window is a few "
    "instructions wide"
)

SHOWN: Final = 3  # reports in full; the others are counted


@dataclass(frozen=True)
class Report:
    """A run that is over."""

    service: Service
    before: Held
    after: Held

    @property
    def used_after_free(self) -> int:
        """How many uses after free there were."""
        return max(self.service.uses_after_free, len(self.service.slab.reports))

    def reasons(self) -> list[str]:
        """Return why the run is not clean."""
        service, figures = self.service, self.service.total()
        slab = service.slab
        out = []
        if self.used_after_free:
            out.append(f"{_count(self.used_after_free, 'use')} after free")
        if service.callbacks_after_free:
            out.append(f"{_count(service.callbacks_after_free, 'callback')} after free")
        leaks = slab.leaks()
        if leaks:
            out.append(f"{_count(len(leaks), 'control block')} never freed, the first: {leaks[0]}")
        if figures.promised != figures.completed:
            out.append(f"{figures.promised} completions promised, {figures.completed} called")
        if figures.early:
            out.append(f"{_count(figures.early, 'callback')} before time")
        out += [f"a callback raised {error}" for error in service.errors]
        out += self.after.left_behind(self.before)
        return out

    def status(self) -> int:
        """Return the exit status: 1 if the run is not clean, else 130 if it was interrupted, else 0."""
        if self.reasons():
            return FAILED
        return INTERRUPTED if self.service.interrupted else CLEAN

    # -- as JSON ---------------------------------------------------------------------------------------------------

    def json(self) -> str:
        """Return everything as one JSON object."""
        service, figures = self.service, self.service.total()
        options, stage = service.options, service.stage
        reasons = self.reasons()
        return json.dumps(
            {
                "cpus": options.cpus,
                "connections": options.connections,
                "seconds": options.seconds,
                "seed": options.seed,
                "teardown": options.teardown,
                "staged": None if stage is None else stage.story,
                "interrupted": service.interrupted,
                "ramp_seconds": round(service.ramp, 3),
                "most_connections": service.most,
                **{name: getattr(figures, name) for name in COUNTERS},
                "closed_by": figures.closed_by,
                "lateness_ms": {name: _ms(figures, q) for name, q in _QUANTILES},
                "allocated": service.slab.allocated,
                "freed": service.slab.freed,
                "use_after_free": self.used_after_free,
                "callback_after_free": service.callbacks_after_free,
                "reports": service.slab.reports,
                "errors": service.errors,
                "threads": {"before": len(self.before.threads), "after": len(self.after.threads)},
                "descriptors": {"before": _len(self.before.descriptors), "after": _len(self.after.descriptors)},
                "verdict": "failed" if reasons else "clean",
                "reasons": reasons,
            }
        )

    # -- as text ---------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """Return the table, the reports and the verdict."""
        service, figures = self.service, self.service.total()
        options = service.options
        rows = [
            ("run", f"{_count(options.cpus, 'cpu')}, seed {options.seed}, teardown {options.teardown}"),
            (
                "connections",
                f"{figures.opened} opened, at most {service.most} at once, all up after {service.ramp:.1f} s",
            ),
            ("closed by", ", ".join(f"{closer} {count}" for closer, count in figures.closed_by.items())),
            ("traffic", f"{figures.messages} messages, {figures.resent} echoes resent, {figures.probes} probes"),
            ("callouts", f"{figures.armed} armed, {figures.rearmed} re-armed, {figures.fired} fired"),
            ("", f"{figures.stopped} stopped, {figures.drained} drained, {figures.completed} of them by a completion"),
            ("lateness", ", ".join(f"{name} {_in_ms(figures, q)}" for name, q in _QUANTILES)),
            ("control blocks", f"{service.slab.allocated} allocated, {service.slab.freed} freed"),
            ("use after free", str(self.used_after_free)),
            ("callback after free", str(service.callbacks_after_free)),
            ("threads", f"{len(self.before.threads)} before, {len(self.after.threads)} after"),
            ("descriptors", _descriptors(self.before, self.after)),
        ]
        lines = [f"{name:20} {value}" for name, value in rows]
        for report in service.slab.reports[:SHOWN]:
            lines += ["", f"USE AFTER FREE: {report}"]
        if self.used_after_free > SHOWN:
            lines += ["", f"and {self.used_after_free - SHOWN} more"]
        lines += ["", *self._how_it_came(), self._verdict()]
        return "\n".join(lines)

    def _how_it_came(self) -> list[str]:
        """Say openly whether the race was staged."""
        service = self.service
        if service.options.teardown != STOP_AND_FREE:
            return []
        if service.stage is not None:
            if service.stage.story is None:
                return ["staged: nothing; the run ended before a timer fired"]
            return [f"staged: {service.stage.story}"]
        if self.used_after_free:
            return ["not staged: the race showed by itself"]
        return [NOT_SHOWN]

    def _verdict(self) -> str:
        reasons = self.reasons()
        ended = "interrupted; " if self.service.interrupted else ""
        if reasons:
            return f"{ended}FAILED: " + "; ".join(reasons)
        return (
            f"{ended}CLEAN: every control block was freed once, nothing was used or called afterwards, no thread and "
            "no descriptor is left"
        )


_QUANTILES: Final = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))


def live_line(service: Service, width: int) -> str:
    """Return the figures of a run that goes on, in one line: in a short form if the long one is wider than *width*."""
    f = service.total()
    line = (
        f"{service.open} connections, {f.armed} armed, {f.rearmed} re-armed, {f.fired} fired, {f.stopped} stopped, "
        f"{f.drained} drained, late p50 {_in_ms(f, 0.5)} p99 {_in_ms(f, 0.99)}"
    )
    if len(line) > width:
        p50, p99 = (_ms(f, q) or 0 for q in (0.5, 0.99))
        line = (
            f"conn {_short(service.open)} arm {_short(f.armed)} rearm {_short(f.rearmed)} fire {_short(f.fired)} "
            f"stop {_short(f.stopped)} drain {_short(f.drained)} p50/99 {p50:.2f}/{p99:.1f}ms"
        )
    return line[:width]


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count // 1000}k" if count < 10_000_000 else f"{count // 1_000_000}M"


def _ms(figures: Figures, q: float) -> float | None:
    ns = figures.late.quantile(q)
    return None if ns is None else round(ns / 1e6, 3)


def _in_ms(figures: Figures, q: float) -> str:
    ms = _ms(figures, q)
    return "-" if ms is None else f"{ms:.2f} ms"


def _len(things: frozenset[int] | None) -> int | None:
    return None if things is None else len(things)


def _descriptors(before: Held, after: Held) -> str:
    if before.descriptors is None or after.descriptors is None:
        return "not known on this system"
    return f"{len(before.descriptors)} before, {len(after.descriptors)} after"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
