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


def _serve(body: Body | None) -> None:
    """Call *body*, wait in the hub for another one, call that, and so on."""
    while body is not None:
        body()
        body = None  # nothing of it is to be kept alive meanwhile
        body = greenlet.getcurrent().parent.switch()  # type: ignore[union-attr]  # every one has a parent, the hub


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
        if not self._idle:
            return greenlet.greenlet(_serve, hub)
        its = self._idle.pop()
        its.parent = hub
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
