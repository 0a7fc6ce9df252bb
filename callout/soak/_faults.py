"""What goes wrong on purpose."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

try:
    import resource
except ImportError:  # pragma: no cover - Windows
    resource = None  # type: ignore[assignment]  # looked at before it is used

FAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "raise": "callbacks raise",
        "cancel": "tasks are cancelled while they drain",
        "block": "callbacks and tasks block their loop for milliseconds",
        "descriptors": "a system is opened while there are too few descriptors",
        "close": "systems are closed while threads and tasks use them",
    }
)


class SoakError(Exception):
    """What a callback raises on purpose."""


def can_exhaust() -> bool:
    """Whether this system has a limit of descriptors that a process can lower."""
    return sys.platform != "win32" and Path("/dev/fd").is_dir()


@contextmanager
def few_descriptors(number: int) -> Iterator[None]:
    """Leave the process only so many descriptors more than it has, in a ``with`` block. No other thread may run."""
    assert can_exhaust()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/dev/fd"))  # noqa: PTH208 - names, not paths
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + number, hard))
    held: list[int] = []
    try:
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for _ in range(min(number, len(held))):
                os.close(held.pop())
        yield
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
