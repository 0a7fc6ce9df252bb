"""What threads may share without the platform's missing a use of it."""

from __future__ import annotations

from typing import Final

from ..._api.callout import Callout
from ..._locks.lock import Lock


class Visible:
    """A thing all of whose uses the platform sees."""

    __slots__ = ()


_VALUES: Final = (type(None), bool, int, float, str, bytes)
_THINGS: Final = (Lock, Callout, Visible)
_OURS: Final = ("callout._", "builtins", "typing")


def is_visible(value: object) -> bool:
    """Return whether *value* cannot change, or only in steps that the platform sees."""
    kind = type(value)
    if kind in _VALUES:
        return True
    if kind is tuple:
        return all(map(is_visible, value))  # type: ignore[call-overload]  # it is a tuple
    # A class of the user's may have attributes, of which nothing is known.
    return isinstance(value, _THINGS) and all(each.__module__.startswith(_OURS) for each in kind.__mro__)
