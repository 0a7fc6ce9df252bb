"""The callout record, and what stands where a CPU's lock is expected when there is none."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import cast

import pytest

from callout import Callout, ClosedError, NotInitializedError
from callout._core.cpu import NOWHERE
from callout._core.rawlock import RawLock
from callout._core.refusal import Refusal
from callout._core.state import ACTIVE, PENDING


def test_a_fresh_record_is_nowhere() -> None:
    """A callout that was never initialised is on a CPU that has no number and whose lock cannot be acquired."""
    c = Callout()

    assert c.c_cpu is NOWHERE
    assert c.c_cpu.id < 0
    assert not c.state & (PENDING | ACTIVE)
    assert c.func is None
    with pytest.raises(NotInitializedError, match="callout_init"):
        c.c_cpu.lock.acquire()
    with pytest.raises(NotInitializedError, match="callout_init"):
        c.c_cpu.lock.acquire(False)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_refusal_raises_each_time_it_is_acquired(blocking: bool) -> None:
    """Taking a refusal raises its error with its text, as often as one tries."""
    refusal = Refusal(ClosedError, "it is gone")
    for _ in range(3):
        with pytest.raises(ClosedError, match=r"^it is gone$"):
            refusal.acquire(blocking)


def test_a_refusal_passes_the_release_on() -> None:
    """A thread that acquired the lock before it was replaced can release it through the refusal that stands
    there now.
    """
    lock = threading.RLock()
    lock.acquire()
    Refusal(ClosedError, "it is gone", cast("RawLock", lock)).release()

    assert not lock._is_owned()  # type: ignore[attr-defined]  # typeshed does not have it


def test_a_refusal_without_a_lock_takes_a_release() -> None:
    """Giving up a refusal that replaced nothing does nothing."""
    Refusal(ClosedError, "it is gone").release()


def test_a_record_is_flat() -> None:
    """A callout has its slots and no dict, and nothing keeps it alive."""
    c = Callout()
    with pytest.raises(AttributeError):
        c.note = 1  # type: ignore[attr-defined]  # the error is the test
    reference = weakref.ref(c)
    del c
    gc.collect()

    assert reference() is None
