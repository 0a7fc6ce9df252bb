"""What the process has: threads, and file descriptors, which may be fewer than two a connection."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

try:
    import resource
except ImportError:  # pragma: no cover - Windows, which has no such limit
    resource = None  # type: ignore[assignment]  # looked at before it is used

PER_CPU: Final = 8  # epoll, the timer, trio's own wake-up pair; and some in hand
SPARE: Final = 32  # for whatever else the process does meanwhile


class LimitError(Exception):
    """The hard limit of descriptors is too low for that many connections."""


@dataclass(frozen=True)
class Held:
    """What the process held at one moment."""

    threads: frozenset[threading.Thread]
    descriptors: frozenset[int] | None  # None: the system does not tell

    @classmethod
    def now(cls) -> Held:
        """Look."""
        try:
            descriptors = frozenset(int(name) for name in os.listdir("/dev/fd"))  # noqa: PTH208 - names, not paths
        except OSError:
            descriptors = None
        return cls(frozenset(threading.enumerate()), descriptors)

    def left_behind(self, before: Held) -> list[str]:
        """Return what is held now and was not before, in words."""
        out = [f"thread {thread.name!r} is still there" for thread in self.threads - before.threads]
        if self.descriptors is not None and before.descriptors is not None:
            out += [f"descriptor {fd} is still open" for fd in sorted(self.descriptors - before.descriptors)]
        return out


@contextmanager
def descriptors_for(connections: int, cpus: int, held: Held) -> Iterator[None]:
    """Raise the soft limit of descriptors as far as needed, in a ``with`` block; then put it back.

    Raises:
        LimitError: the hard limit is too low; says how many connections are possible.
    """
    if resource is None:
        yield
        return
    kind = resource.RLIMIT_NOFILE
    soft, hard = resource.getrlimit(kind)
    fixed = (64 if held.descriptors is None else len(held.descriptors)) + PER_CPU * cpus + SPARE
    need = fixed + 2 * connections
    endless = resource.RLIM_INFINITY
    if hard not in (endless, -1) and hard < need:
        possible = (hard - fixed) // 2
        raise LimitError(
            f"{connections} connections need {need} file descriptors, two each and {fixed} besides, and the hard limit "
            f"is {hard}: {f'at most {possible} connections are' if possible > 0 else 'no connection is'} possible; "
            "have the limit raised (ulimit -Hn), or use --connections"
        )
    if soft in (endless, -1) or soft >= need:
        yield
        return
    try:
        resource.setrlimit(kind, (need, hard))
    except (OSError, ValueError) as error:
        raise LimitError(
            f"{connections} connections need {need} file descriptors, and the limit of {soft} cannot be raised: {error}"
        ) from error
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))
