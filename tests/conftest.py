"""What every test needs of its process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from typing import Final

import pytest

import callout
from callout._core.state import SEES_READS

# Under the compiled core what patches or traces the engine's own code has nothing to look at; nor has what explores it,
# but where that was compiled for it.
EXPLORING: Final = ("/tests/race/", "/tests/explore/")
PURE: Final = ("/tests/mutants/", "/tests/museum/", "/tests/examples/", *(() if SEES_READS else EXPLORING))


def pytest_sessionstart() -> None:
    """Have Ctrl-C mean what it means at a terminal.

    A shell starts background jobs with SIGINT ignored, Python leaves it so, and a child process inherits it: tests
    that raise it would test nothing.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs the pure core, if this is the compiled one."""
    if callout.core == "compiled":
        for item in items:
            if item.get_closest_marker("pure") or any(part in item.path.as_posix() for part in PURE):
                item.add_marker(pytest.mark.skip(reason="needs the pure core"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """Leave out what turns out to explore."""
    try:
        yield
    except callout.CoreError as error:
        if callout.core == "compiled" and "CALLOUT_PURE=1" in str(error):
            pytest.skip("explores, which needs the pure core")
        raise
