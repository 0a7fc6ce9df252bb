"""How the commands look, and how they end: the line of progress, colour, Ctrl-C and SIGTERM.

On a terminal rich draws, if it is installed (the extra ``cli``); it honours ``NO_COLOR`` and ``TERM``. Without it there
is the same text, with a bar of plain characters; in a pipe there is text, and no progress. Nothing of rich is imported
before a terminal is there to be drawn on.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Final, Self, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

INTERRUPTED: Final = 130  # the exit status after Ctrl-C, as a shell says of it: 128 + SIGINT
TERMINATED: Final = 143  # 128 + SIGTERM
REDRAW: Final = 0.1  # seconds between two drawings of the progress
BAR: Final = 20  # characters

GOOD: Final = "green"
BAD: Final = "bold red"
STRESSED: Final = "bold"


def is_terminal(stream: TextIO | None) -> bool:
    """Whether *stream* is a terminal whose cursor can be moved."""
    return (
        stream is not None
        and not stream.closed
        and stream.isatty()
        and os.environ.get("TERM", "").lower() not in {"dumb", "unknown"}  # the names that rich knows, too
    )


def console_for(stream: TextIO | None) -> Console | None:
    """Return what draws on *stream*; None if that is no terminal, or rich is not installed."""
    if not is_terminal(stream):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream)


def say(text: str, style: str = "", stream: TextIO | None = None) -> None:
    """Print *text* on *stream*, by default standard output; on a terminal in that style, if rich is installed."""
    stream = stream or sys.stdout
    console = console_for(stream) if style else None
    if console is None:
        print(text, file=stream, flush=is_terminal(stream))
    else:
        console.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)


class Line:
    """The last line of a terminal, written over itself. On what is no terminal nothing is written."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream if is_terminal(stream) else None
        self._drawn = False

    @property
    def seen(self) -> bool:
        """Whether somebody sees it."""
        return self._stream is not None

    def draw(self, text: str) -> None:
        """Have it say *text*, as much as there is room for."""
        if self.seen:
            self._drawn = True
            self._write(f"\r{text[: width()]}\x1b[K")

    def clear(self) -> None:
        """Erase it."""
        if self._drawn:
            self._drawn = False
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        try:
            if self._stream is not None:
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone, or the stream was closed
            self._stream = None


def width() -> int:
    """Return how many characters a line of the terminal may have: in the last column some begin a new line."""
    return max(shutil.get_terminal_size().columns - 1, 1)


class Progress:
    """How far a command is: a bar and a text on standard error, in a ``with`` block, on a terminal only."""

    def __init__(self, total: float) -> None:
        """*total*: what ``show()`` is given at the end."""
        self._total = total
        self._line = Line(sys.stderr)
        self._drawn: RichProgress | None = None
        self._due = 0.0

    def __enter__(self) -> Self:
        console = console_for(sys.stderr)
        if console is not None:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._drawn = Progress(
                BarColumn(BAR),
                TimeElapsedColumn(),
                TextColumn("{task.description}", markup=False),
                console=console,
                transient=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._drawn.add_task("", total=self._total)
            self._drawn.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()

    def show(self, done: float, text: str) -> None:
        """Show how much is done, unless that was shown a moment ago."""
        if not self._line.seen or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + REDRAW
        if self._drawn is None:
            bar = "#" * (int(BAR * done / self._total) if self._total else 0)
            self._line.draw(f"[{bar:{BAR}}] {text}")
        else:
            self._drawn.start()  # it may have been cleared
            self._drawn.update(self._task, completed=done, description=text, refresh=True)

    def clear(self) -> None:
        """Erase it, until it is shown the next time."""
        if self._drawn is None:
            self._line.clear()
        else:
            self._drawn.stop()


@contextmanager
def termination_as_interrupt() -> Iterator[list[int]]:
    """Have SIGTERM do what Ctrl-C does, in a ``with`` block of the main thread; a signal that came is in the list."""
    came: list[int] = []
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield came  # then it is not ours
        return

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if callable(signal.getsignal(signal.SIGINT)):
            signal.raise_signal(signal.SIGINT)  # its handler knows where an exception may be raised
        else:
            raise KeyboardInterrupt  # a shell that starts something in the background has it ignored

    signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
