"""Where each callout was armed last: noted in checking mode, named by reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import frames
from .weak import ByIdentity

if TYPE_CHECKING:
    from .._api.callout import Callout


class Origins:
    """Callout -> file, line and function."""

    def __init__(self) -> None:
        self._places: ByIdentity[Callout, str] = ByIdentity()

    def note(self, c: Callout) -> None:
        """Note that *c* is being armed by the nearest caller outside the package."""
        self._places.set(c, frames.place(frames.caller(2)))

    def get(self, c: Callout) -> str | None:
        """Return where *c* was armed, if it was."""
        return self._places.get(c)
