"""What a user has in hand: a callout."""

from __future__ import annotations

from .._core.state import FIELDS, Record
from .._core.subclass import keep_fields


class Callout(Record):
    """One callout: a function, its argument, and when and where to call it.

    Making one never blocks. It is unusable until ``callout_init()`` or a relative has bound it to the current system.
    It may be embedded in any object; it holds no resources of its own while it is neither pending nor running, and
    nothing of the package refers to it then. It cannot be copied or pickled. A subclass may have anything of its own,
    but not under the names of the engine's fields, which nobody else may write either: ``arg``, ``c_cpu``, ``filed``,
    ``flags``, ``func``, ``lock``, ``next``, ``precision``, ``prev``, ``run``, ``seq``, ``state`` and ``time``.
    """

    __slots__ = ()

    def __init_subclass__(cls, **more: object) -> None:
        """Refuse a subclass that has something of its own under the name of a field."""
        super().__init_subclass__(**more)
        if "_plain" not in vars(cls):  # else it is of a platform, and is meant to
            keep_fields(cls, Callout, FIELDS)


__all__ = ["Callout"]
