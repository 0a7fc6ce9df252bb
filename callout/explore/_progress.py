"""How far a search has come in its time: a line on the terminal, written over itself and erased in the end.

It is written to standard error, if that is a terminal and the search lasts longer than a moment. None is written where
nobody sees it, or where it would spoil a log: with ``TERM=dumb``, which says that the cursor cannot be moved, with
``CI`` set, as services that run tests have it, and under pytest. ``NO_COLOR`` is about colours, and there are none.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, Self, TextIO

FIRST: Final = 0.5  # seconds until it is shown at all
AGAIN: Final = 0.25  # and between two times
WIDTH: Final = 79


class Branches(Protocol):
    """A node of a tree, for ``part_done()``."""

    @property
    def tried(self) -> set[str]:
        """The branches that were begun; the last of them is not done."""

    @property
    def left(self) -> set[str]:
        """Those that were not."""


def wanted(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Whether somebody looks at a stream."""
    if environ.get("TERM") == "dumb" or environ.get("CI") or environ.get("PYTEST_CURRENT_TEST"):
        return False
    return stream is not None and not stream.closed and stream.isatty()


def part_done(nodes: Sequence[Branches]) -> float:
    """Return which part of a tree lies behind a search, if the branches of each node are all alike.

    Of a search with the reduction only the branches that are known so far count, and there may come more.
    """
    done, weight = 0.0, 1.0
    for node in nodes:
        branches = len(node.tried) + len(node.left)
        done += weight * (len(node.tried) - 1) / branches
        weight /= branches
    return done


class Progress:
    """The clock of a search, and the line. Without a stream there is no line."""

    def __init__(self, stream: TextIO | None = None, seconds: float | None = None) -> None:
        """*seconds* is how long the search may take, from now on."""
        self._stream = stream
        self.begun = time.monotonic()
        self._end = math.inf if seconds is None else self.begun + seconds
        self._next = math.inf if stream is None else self.begun + FIRST
        self._shown = 0  # how long the line is
        self._schedules = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._write("")
        if isinstance(error, KeyboardInterrupt):
            error.add_note(f"explore: {self._schedules:,} schedules were run")

    def is_over(self, schedules: int, where: Callable[[], str]) -> bool:
        """Return whether there is no time left. Show how many schedules were run, and where, if it is time for that."""
        now = time.monotonic()
        self._schedules = schedules
        if now >= self._next:
            self._next = now + AGAIN
            seconds = now - self.begun
            line = f"explore: {schedules:,} schedules, {schedules / seconds:,.0f} a second, {seconds:.0f} s"
            self._write(", ".join(filter(None, (line, where()))))
        return now > self._end

    def wait(self) -> float | None:
        """Return for how many seconds to wait at most until it is time to ask that again; None if it never is."""
        until = min(self._next, self._end)
        return None if until == math.inf else max(until - time.monotonic(), 0.001)

    def _write(self, line: str) -> None:
        stream = self._stream
        if stream is None or not (line or self._shown):
            return
        try:
            line = line[: _width(stream)]
            stream.write(f"\r{line.ljust(self._shown)}" if line else f"\r{' ' * self._shown}\r")
            stream.flush()
        except (OSError, ValueError):  # the terminal is gone, or the stream was closed
            self._stream = None
            self._next = math.inf
        self._shown = len(line)


def _width(stream: TextIO) -> int:
    try:
        return max(os.get_terminal_size(stream.fileno()).columns - 1, 1)  # in the last column some begin a new line
    except (OSError, ValueError, AttributeError):
        return WIDTH


def stream_for(asked: bool | None) -> TextIO | None:
    """Return where the line is written, None if nowhere; *asked* is None if the terminal decides."""
    stream = sys.stderr
    return stream if asked or (asked is None and wanted(stream, os.environ)) else None
