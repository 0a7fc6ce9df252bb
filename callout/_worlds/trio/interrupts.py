"""Ctrl-C in a main thread that runs no trio: a GUI's, a REPL's, that of a program whose trio runs in another thread.

Where trio runs in the main thread its own handler of SIGINT keeps KeyboardInterrupt out of what the engine has marked
(``_core.guard``). Elsewhere Python's handler raises between any two instructions, so also between acquiring a lock and
the ``try`` that would release it. So while such a thread is bound to a system, the handler is one that looks first: in
a marked function it does nothing, and the signal comes again a moment later, until it finds the thread elsewhere.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Final

from ..._core.guard import keep_interrupts_out, protected

_MARKS: Final[dict[CodeType, bool]] = {}  # whether KeyboardInterrupt is kept out; False: it runs the user's code
# Seconds until the signal comes again. A call is over in microseconds, so most often the first few find the thread in
# between two calls; a thread that is blocked in one is left in peace for longer and longer.
_PAUSE: Final = 0.0002
_PATIENCE: Final = 200  # times; then it grows, up to
_LONGEST_PAUSE: Final = 0.05


def _mark(f: Callable[..., object], kept_out: bool) -> None:
    _MARKS[f.__code__] = kept_out


keep_interrupts_out(lambda f: _mark(f, True), lambda f: _mark(f, False))


class _Keeper:
    """A handler of SIGINT."""

    def __init__(self) -> None:
        self.handler = self._handle  # one object, by which it is known to be the one that is installed
        self._lock = threading.Lock()  # never acquired by the handler
        self._is_over = False
        self._comes_again = False
        self._times = 0
        self._handled = 0  # how often the handler has run
        self._main = threading.get_ident()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._handled += 1
        while frame is not None and frame.f_code not in _MARKS:
            frame = frame.f_back
        if frame is None or not _MARKS[frame.f_code]:
            self._comes_again = False
            self._times = 0
            raise KeyboardInterrupt
        if not self._comes_again:
            self._comes_again = True
            _thread.start_new_thread(self._again, ())

    def _again(self) -> None:
        self._times += 1
        time.sleep(min(_PAUSE * 2.0 ** min(max(self._times - _PATIENCE, 0), 8), _LONGEST_PAUSE))
        with self._lock:
            if not self._comes_again or self._is_over:
                return
            self._comes_again = False
            handled = self._handled
            signal.pthread_kill(self._main, signal.SIGINT)
        # One that comes after the interpreter's last look for signals and before a system call that blocks interrupts
        # neither. With a GIL that is a matter of some instructions, without one of any number.
        while True:
            time.sleep(_LONGEST_PAUSE)
            with self._lock:
                if self._handled != handled or self._is_over:
                    return
                signal.pthread_kill(self._main, signal.SIGINT)

    def end(self) -> None:
        """Have nothing come any more; what was to come comes now."""
        with self._lock:
            self._is_over = True
        if signal.getsignal(signal.SIGINT) is self.handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._comes_again:
            raise KeyboardInterrupt


@contextmanager
@protected
def interrupts_kept_out() -> Iterator[None]:
    """Keep Ctrl-C out of the engine in a ``with`` block, in a main thread where Python would let it in."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        or not hasattr(signal, "pthread_kill")
    ):
        yield
        return
    keeper = _Keeper()
    signal.signal(signal.SIGINT, keeper.handler)
    try:
        yield
    finally:
        keeper.end()
