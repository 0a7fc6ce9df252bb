"""What every test needs of its process."""

from __future__ import annotations

import signal
import threading


def pytest_sessionstart() -> None:
    """Have Ctrl-C mean what it means at a terminal.

    A shell starts background jobs with SIGINT ignored, Python leaves it so, and a child process inherits it: tests
    that raise it would test nothing.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
