"""Where each callout was armed last: noted in checking mode, named by reports.

Kept by identity: a subclass of ``Callout`` may define ``__eq__`` and ``__hash__``, and those are not asked here.
"""

from __future__ import annotations

import weakref

from . import frames
from .guard import protected
from .state import Callout


class _Ref(weakref.ref[Callout]):
    """A reference to a callout that knows of what it is a part."""

    __slots__ = ("key", "places")

    key: int
    places: dict[int, tuple[_Ref, str]]


@protected
def _gone(ref: weakref.ref[Callout]) -> None:
    assert isinstance(ref, _Ref)
    found = ref.places.get(ref.key)
    if found is not None and found[0] is ref:
        del ref.places[ref.key]


class Origins:
    """Callout -> file, line and function."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[_Ref, str]] = {}

    def note(self, c: Callout) -> None:
        """Note that *c* is being armed by the nearest caller outside the package."""
        place = frames.place(frames.caller(2))
        key = id(c)
        old = self._places.get(key)
        if old is not None and old[0]() is c:
            self._places[key] = (old[0], place)
            return
        ref = _Ref(c, _gone)
        ref.key, ref.places = key, self._places
        self._places[key] = (ref, place)

    def get(self, c: Callout) -> str | None:
        """Return where *c* was armed, if it was."""
        found = self._places.get(id(c))
        return found[1] if found is not None and found[0]() is c else None
