"""Greenlets that are used again, for one context after the other.

A new one costs some ten microseconds, most of it for the memory of its stack, and a run of an exploration may take no
more than a few hundred: so the runs of a search share them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Self

from ..._core.errors import MissingExtraError

try:
    import greenlet
except ImportError as error:  # pragma: no cover - the test for it blocks the import in a process of its own
    raise MissingExtraError(
        "the virtual platform needs greenlet: install it with  pip install 'callout[explore]'"
    ) from error

__all__ = ["Stacks", "greenlet"]

Body = Callable[[], object]


def _serve() -> None:
    """Wait in the hub for something to call, call it, and so on."""
    body: Body | None
    while (body := greenlet.getcurrent().parent.switch()) is not None:  # type: ignore[union-attr]  # the hub is there
        body()
        body = None  # nothing of it is to be kept alive meanwhile, as an argument of this function would be


class Stacks:
    """Greenlets that have nothing to do. Inside its ``with`` block they are kept from one run to the next."""

    def __init__(self) -> None:
        self._idle: Final[list[greenlet.greenlet]] = []
        self._keeps = False

    def __enter__(self) -> Self:
        self._keeps = True
        return self

    def __exit__(self, *_: object) -> None:
        self._keeps = False
        self.rest()

    def take(self, hub: greenlet.greenlet) -> greenlet.greenlet:
        """Return one. ``switch(body)`` has it call *body*; when that has returned, *hub* goes on."""
        if self._idle:
            its = self._idle.pop()
            its.parent = hub
        else:
            its = greenlet.greenlet(_serve, hub)
            its.switch()
        return its

    def keep(self, its: greenlet.greenlet) -> None:
        """Keep one whose body is about to return."""
        self._idle.append(its)

    def rest(self) -> None:
        """A run has ended: keep nothing of it alive. Its context variables are those of its system."""
        for its in self._idle:
            its.gr_context = None
            if not self._keeps:
                its.switch(None)
        if not self._keeps:
            self._idle.clear()
