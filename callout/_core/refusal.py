"""A lock that refuses: it stands where a lock was, and raises when that is acquired.

So no short path pays for a check: a callout that was never initialised, a system that was closed, a forked child, a
lock that was destroyed and memory that was freed are all found out where a lock is acquired anyway.
"""

from __future__ import annotations

from typing import NoReturn

from . import frames
from .errors import CalloutError
from .rawlock import RawLock


class Refusal(RawLock):
    """Raises one error whenever it is acquired."""

    __slots__ = ("_error", "_inner", "_text")

    def __init__(self, error: type[CalloutError], text: str, inner: RawLock | None = None) -> None:
        """*inner* is the lock that this one replaces: its holder must be able to release it."""
        self._error, self._text, self._inner = error, text, inner

    def refuse(self, call: str = "") -> NoReturn:
        """Raise the error; the text names *call*, or else the function of callout(9) that was called."""
        if not call:
            entry = frames.entry()
            call = entry if entry.startswith("callout_") else ""
        raise self._error(f"{call}: {self._text}" if call else self._text, call=call)

    def acquire(self, blocking: bool = True, /) -> NoReturn:
        """Raise the error."""
        self.refuse()

    def release(self, /) -> None:
        """Release the lock that was replaced, if it is still held: this one is never."""
        if self._inner is not None and self._inner._is_owned():
            self._inner.release()

    def _is_owned(self, /) -> bool:
        return False
