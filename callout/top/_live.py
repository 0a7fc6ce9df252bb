"""The table that is kept up to date, on a terminal, which is left as it was: whatever ends it.

Ctrl-C, SIGTERM and Ctrl-Z are held back while it is drawn on, and come between two looks: rich would leave the other
screen there, and no cursor.
"""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Final, NoReturn

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from . import _table
from ._source import EndedError, SilentError, Snapshot, read

_HELD_BACK: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP)
_WIDEST: Final = 1000  # characters


class _SuspendedError(Exception):
    """Ctrl-Z."""


def show(path: str, interval: float) -> str:
    """Show the system at *path* until it ends, which is what is returned, in words; or until KeyboardInterrupt. Raises
    SourceError. In the main thread.
    """
    before: Snapshot | None = None
    now = read(path)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    suspends = signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL  # a shell without jobs has it ignored
    if suspends:
        signal.signal(signal.SIGTSTP, _suspended)
    try:
        with Live(_picture(now, None, ""), console=Console(), screen=True, auto_refresh=False) as live:
            while True:
                try:
                    told = _look(path, interval, mask)
                except _SuspendedError:
                    live.stop()
                    _suspend()
                    live.start(refresh=True)
                except SilentError:
                    live.update(_picture(now, before, "no news: the loop of CPU 0 is blocked"), refresh=True)
                except EndedError:
                    return "the system was closed"
                else:
                    before, now = now, told
                    live.update(_picture(now, before, ""), refresh=True)
    finally:
        if suspends:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _look(path: str, interval: float, mask: set[int]) -> Snapshot:
    """Return what the system tells after *interval*. Until then, signals come as *mask* has it."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        time.sleep(interval)
        return read(path, max(interval, 1))
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)


def _suspended(number: int, frame: FrameType | None) -> NoReturn:
    raise _SuspendedError


def _suspend() -> None:
    """Stop the process, as Ctrl-Z does, until it is continued."""
    signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTSTP)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTSTP])  # here it stops
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTSTP])
    signal.signal(signal.SIGTSTP, _suspended)


def _picture(now: Snapshot, before: Snapshot | None, news: str) -> Group:
    """Return all that is shown; *news* is what is wrong."""
    return Group(
        Text(_table.headline(now), style="bold", no_wrap=True, overflow="ellipsis"),
        Text(news or "Ctrl-C leaves", style="red" if news else "dim", no_wrap=True, overflow="ellipsis"),
        _Grid(_table.CPU_TITLES, _table.cpus(now, before)),
        _Grid(_table.CALLOUT_TITLES, _table.callouts(now)),
    )


class _Grid:
    """A table that is cut off where the terminal ends. rich would narrow every column, and no figure could be read."""

    def __init__(self, titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        self._table = Table(box=None, header_style="reverse", padding=(0, 2, 0, 0))
        for title in titles:
            self._table.add_column(title, justify="left" if title in _table.LEFT else "right", no_wrap=True)
        for row in rows:
            self._table.add_row(*map(Text, row))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return console.render(self._table, options.update(max_width=_WIDEST))


__all__ = ["show"]
