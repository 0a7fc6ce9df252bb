"""The table that is kept up to date, on a terminal, which is left as it was: whatever ends it."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import NoReturn

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from . import _table
from ._source import EndedError, SilentError, Snapshot, read


def show(path: str, interval: float) -> str:
    """Show the system at *path* until it ends, which is what is returned, in words; or until KeyboardInterrupt, or
    SystemExit after SIGTERM. Raises SourceError.
    """
    before: Snapshot | None = None
    now = read(path)
    former = signal.signal(signal.SIGTERM, _terminated)
    try:
        with Live(_picture(now, None, ""), console=Console(), screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                try:
                    before, now = now, read(path, max(interval, 1))
                except SilentError:
                    live.update(_picture(now, before, "no news: the loop of CPU 0 is blocked"), refresh=True)
                except EndedError:
                    return "the system was closed"
                else:
                    live.update(_picture(now, before, ""), refresh=True)
    finally:
        signal.signal(signal.SIGTERM, former)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _picture(now: Snapshot, before: Snapshot | None, news: str) -> Group:
    """Return all that is shown; *news* is what is wrong."""
    return Group(
        Text(_table.headline(now), style="bold"),
        Text(news or "Ctrl-C leaves", style="red" if news else "dim"),
        _grid(_table.CPU_TITLES, _table.cpus(now, before)),
        _grid(_table.CALLOUT_TITLES, _table.callouts(now)),
    )


def _grid(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, header_style="reverse", padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, justify="left" if title in _table.LEFT else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


__all__ = ["show"]
