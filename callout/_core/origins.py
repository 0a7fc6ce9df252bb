"""Where each callout was armed last: noted in checking mode, named by reports.

Kept by identity: a subclass of ``Callout`` may define ``__eq__`` and ``__hash__``, and those are not asked here.
"""

from __future__ import annotations

import weakref
from collections import deque

from . import frames
from .state import Callout


class _Ref(weakref.ref[Callout]):
    """A reference to a callout that knows under what it is kept."""

    __slots__ = ("key",)

    key: int


class Origins:
    """Callout -> file, line and function."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[_Ref, str]] = {}
        # References to what is gone. A callback that is written in Python would lose a Ctrl-C that comes meanwhile.
        self._gone: deque[weakref.ref[Callout]] = deque()

    def note(self, c: Callout) -> None:
        """Note that *c* is being armed by the nearest caller outside the package."""
        place = frames.place(frames.caller(2))
        key = id(c)
        old = self._places.get(key)
        if old is not None and old[0]() is c:
            self._places[key] = (old[0], place)
            return
        self._forget_gone()
        ref = _Ref(c, self._gone.append)
        ref.key = key
        self._places[key] = (ref, place)

    def _forget_gone(self) -> None:
        while self._gone:
            try:
                ref = self._gone.popleft()
            except IndexError:  # another thread was faster
                return
            assert isinstance(ref, _Ref)
            found = self._places.get(ref.key)
            if found is not None and found[0] is ref:
                del self._places[ref.key]

    def get(self, c: Callout) -> str | None:
        """Return where *c* was armed, if it was."""
        found = self._places.get(id(c))
        return found[1] if found is not None and found[0]() is c else None
