"""What an error knows, besides its text: which call, callout, lock and CPU it is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from callout import (
    BusyError,
    Callout,
    CalloutError,
    LockNotHeldError,
    Mtx,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_stop,
)
from callout.testing import VirtualSMP


def without_the_lock(c: Callout, mtx: Mtx) -> None:
    """Stop a callout without its lock."""
    callout_init_mtx(c, mtx, 0)
    callout_stop(c)


def still_pending(c: Callout, mtx: Mtx) -> None:
    """Initialise a callout that is pending."""
    callout_init(c, 1)
    callout_reset(c, 1, print, None)
    callout_init(c, 1)


MISUSE: Final[list[tuple[Callable[[Callout, Mtx], None], type[CalloutError], str, bool]]] = [
    (without_the_lock, LockNotHeldError, "callout_stop", True),
    (still_pending, BusyError, "callout_init", False),
]


@pytest.mark.parametrize(("misuse", "kind", "call", "locked"), MISUSE)
def test_an_error_knows_what_it_is_about(
    misuse: Callable[[Callout, Mtx], None], kind: type[CalloutError], call: str, locked: bool
) -> None:
    """Its attributes are the call, the callout, the callout's lock if that is the matter, and the number of the CPU."""
    c = Callout()
    with VirtualSMP(1):
        mtx = Mtx("m")
        with pytest.raises(kind) as caught:
            misuse(c, mtx)
    error = caught.value

    assert (error.call, error.callout, error.cpu) == (call, c, 0)
    assert error.lock is (mtx if locked else None)
    assert str(error).startswith(f"{call}: ")
