"""A reset onto a CPU that has been closed, while the system is being closed."""

from __future__ import annotations

from typing import cast

import pytest

from callout import Callout, ClosedError, callout_init, callout_reset_on
from callout._core.refusal import Refusal
from callout._worlds.virtual.locks import VirtualLock
from callout.testing import VirtualSMP


def test_a_refused_reset_gives_back_the_lock_that_it_has() -> None:
    """If the lock of the second CPU refuses, that of the first is free afterwards: the close still needs it."""
    with VirtualSMP(2, free_clock=False) as vm:
        c = Callout()
        callout_init(c, 1)
        first, second = vm.machine.cpus
        second.lock = Refusal(ClosedError, "closed")

        with pytest.raises(ClosedError):
            callout_reset_on(c, 1, print, None, 1)

        assert cast("VirtualLock", first.lock).holder is None
