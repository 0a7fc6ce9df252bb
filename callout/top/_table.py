"""What ``callout top`` shows: a row for each CPU, and one for each callout that is due next. Texts only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from .._core.describe import length_of_time
from ._source import Snapshot

CPU_TITLES: Final = ("CPU", "PENDING", "FIRED/S", "ARMED/S", "REARMED/S", "STOPPED/S", "BUSY", "P99 LATE", "ERRORS")
CALLOUT_TITLES: Final = ("DUE IN", "CPU", "STATE", "CALLOUT", "LOCK")
LEFT: Final = frozenset({"STATE", "CALLOUT", "LOCK"})  # the other columns stand right
_SHOWN: Final = 60  # characters of a name


def headline(now: Snapshot) -> str:
    """Return what there is to say of the whole system, in a line."""
    stats, total = now["stats"], now["stats"]["total"]
    longest = total["longest_function"]
    by = f", longest callback {length_of_time(total['longest'])} ({clean(longest)})" if longest else ""
    return f"up {length_of_time(stats['uptime'])}, {total['pending']:,} pending, {total['fired']:,} fired{by}"


def cpus(now: Snapshot, before: Snapshot | None) -> list[tuple[str, ...]]:
    """Return a row for each CPU; rates are those since *before*, or since the system was opened."""
    stats = now["stats"]
    earlier = [None] * len(stats["cpus"]) if before is None else before["stats"]["cpus"]
    time = stats["uptime"] - (0 if before is None else before["stats"]["uptime"])
    return [_cpu(cpu, early, time) for cpu, early in zip(stats["cpus"], earlier, strict=False)]


def _cpu(cpu: dict[str, Any], early: dict[str, Any] | None, time: float) -> tuple[str, ...]:  # Any: JSON
    def since(name: str) -> float:
        return float(cpu[name] - (0 if early is None else early[name]))

    rates = (f"{since(name) / time if time > 0 else 0.0:,.0f}" for name in ("fired", "armed", "rearmed", "stopped"))
    busy = f"{100 * since('busy') / time if time > 0 else 0.0:.1f} %"
    counts = cpu["lateness"]["counts"]
    if early is not None:
        counts = [now - then for now, then in zip(counts, early["lateness"]["counts"], strict=True)]
    late = _quantile(cpu["lateness"]["bounds"], counts)
    return (str(cpu["cpu"]), f"{cpu['pending']:,}", *rates, busy, late, f"{cpu['errors']:,}")


def _quantile(bounds: Sequence[float], counts: Sequence[int]) -> str:
    wanted = math.ceil(max(0.99 * sum(counts), 1))
    for bound, count in zip(bounds, counts, strict=False):
        wanted -= count
        if wanted <= 0:
            return f"< {length_of_time(bound)}"
    return f"> {length_of_time(bounds[-1])}" if sum(counts) else "-"


def callouts(now: Snapshot) -> list[tuple[str, ...]]:
    """Return a row for each callout, in the order in which they are due."""
    rows: list[tuple[str, ...]] = []
    for each in now["callouts"]:
        name = each["function"] if each["name"] is None else f"{each['name']} ({each['function']})"
        lock = "" if each["lock"] is None else each["lock"]
        if each["lock_owner"] is not None:
            lock += f" held by {each['lock_owner']}"
        rows.append(
            (length_of_time(each["due_in"]), str(each["cpu"]), ", ".join(each["state"]), clean(name), clean(lock))
        )
    return rows


def clean(name: str) -> str:
    """Return a name without what a terminal could take for commands, and not too long."""
    text = "".join(char if char.isprintable() else "?" for char in name)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def plain(now: Snapshot) -> str:
    """Return it all as text."""
    return "\n".join(
        [headline(now), "", *_aligned(CPU_TITLES, cpus(now, None)), "", *_aligned(CALLOUT_TITLES, callouts(now)), ""]
    )


def _aligned(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
    return [
        "  ".join(
            cell.ljust(width) if title in LEFT else cell.rjust(width)
            for title, cell, width in zip(titles, row, widths, strict=True)
        ).rstrip()
        for row in (titles, *rows)
    ]


__all__ = ["CALLOUT_TITLES", "CPU_TITLES", "LEFT", "callouts", "clean", "cpus", "headline", "plain"]
