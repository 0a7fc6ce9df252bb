"""The steps of acquiring and releasing a lock: their order, and what comes between them.

A lock is destroyed or freed by another thread, a signal handler raises, the process is forked: played by a raw lock
that does such a thing while it is acquired.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NoReturn

import pytest

from callout import (
    MTX_RECURSE,
    Callout,
    ForkedError,
    LockDestroyedError,
    Mtx,
    RwLock,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_reset_on,
)
from callout._core import phases
from callout._core.drain import run_blocking
from callout._core.lifecycle import fork
from callout._core.platform import Waiter
from callout._core.rawlock import RawLock
from callout._core.refusal import Refusal
from callout._locks.lock import Lock
from callout._locks.parking import acquire_parked, add_waiter
from callout.testing import VirtualSMP

from .test_robustness import Interruption


@pytest.fixture
def vm() -> Iterator[VirtualSMP]:
    """Give a system; everything is done by one thread."""
    with VirtualSMP(1, free_clock=False) as smp:
        yield smp


class Handler(Exception):  # noqa: N818 - what a signal handler raises
    """What a signal handler raises."""


def raises() -> NoReturn:
    """Be a signal handler."""
    raise Handler


class Raw(RawLock):
    """A raw lock; something is done just after it was acquired, and just before it is released."""

    def __init__(
        self, lock: Lock, acquired: Callable[[], object] = bool, releasing: Callable[[], object] = bool
    ) -> None:
        self._inner: RawLock = lock._raw
        self._acquired, self._releasing = acquired, releasing
        self.blocked = False  # somebody would have waited
        lock._raw = self

    def acquire(self, blocking: bool = True, /) -> bool:
        """Acquire the lock."""
        self.blocked |= blocking
        taken = self._inner.acquire(blocking)
        self._acquired()
        return taken

    def release(self, /) -> None:
        """Release it."""
        self._releasing()
        self._inner.release()

    def _is_owned(self, /) -> bool:
        return self._inner._is_owned()


class Seen:
    """A waiter that notes what it sees when it is woken."""

    def __init__(self, look: Callable[[], object]) -> None:
        self._look = look
        self.seen: list[object] = []

    async def wait(self) -> None:
        """Be asked to sleep, for ever."""
        raise AssertionError("it would sleep for ever")

    def set(self) -> None:
        """Wake."""
        self.seen.append(self._look())

    set_here = set


class Behind(deque[Any]):
    """A parking lot in which something is done just before each that parks is known."""

    def __init__(self, first: Callable[[], object]) -> None:
        super().__init__()
        self._first = first

    def append(self, waiter: Waiter) -> None:
        """Park, too late."""
        self._first()
        super().append(waiter)


class Stuck(deque[Any]):
    """A parking lot that a signal handler does not let anybody leave."""

    def remove(self, waiter: Waiter) -> NoReturn:
        """Leave, or not."""
        raise Handler


class Full(dict[Any, Any]):
    """Stands where it is noted which locks a thread holds: the note is cut off."""

    def setdefault(self, *_: object) -> NoReturn:
        """Begin a note."""
        raise Handler


ACQUIRE: Final[dict[str, Callable[[Any], object]]] = {
    "enter": lambda lock: lock.__enter__(),
    "try_acquire": lambda lock: lock.try_acquire(shared=False),
}
KINDS: Final = (Mtx, RwLock)


# -- destroyed meanwhile -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ACQUIRE)
def test_a_lock_that_is_destroyed_while_it_is_acquired(vm: VirtualSMP, kind: Callable[[], Any], way: str) -> None:
    """A thread that gets the raw lock of one that is gone is told so, and does not keep it."""
    lock = kind()
    raw = Raw(lock, acquired=lambda: lock.poison(Refusal(LockDestroyedError, "it was destroyed")))
    with pytest.raises(LockDestroyedError, match="it was destroyed"):
        ACQUIRE[way](lock)

    assert not raw._is_owned()
    assert not lock.holds()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_parked_at_a_lock_that_is_destroyed_is_woken_and_finds_it_gone(
    vm: VirtualSMP, kind: Callable[[], Any]
) -> None:
    """The lock is gone before anybody is woken, or that one would park again for ever."""
    lock = kind()
    waiter = Seen(lock.initialized)
    add_waiter(lock, waiter)
    lock.poison(Refusal(LockDestroyedError, "it was destroyed"))

    assert waiter.seen == [False]


# -- cut off -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ACQUIRE)
def test_an_exception_between_a_raw_lock_and_its_owner(vm: VirtualSMP, kind: Callable[[], Any], way: str) -> None:
    """What has acquired the raw lock, and could not say so, releases it."""
    lock = kind()
    raw = Raw(lock, acquired=raises)
    with pytest.raises(Handler):
        ACQUIRE[way](lock)

    assert not raw._is_owned()
    assert not lock.holds()


@pytest.mark.parametrize("way", ACQUIRE)
def test_an_exception_while_it_is_noted_releases_the_mutex(
    vm: VirtualSMP, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """It has no owner when it becomes free, and is free when those that are parked are woken."""
    m = Mtx("m")
    owners: list[object] = []
    raw = Raw(m, releasing=lambda: owners.append(m._owner))
    waiter = Seen(raw._is_owned)
    add_waiter(m, waiter)
    monkeypatch.setattr(vm.machine, "held", Full())
    with pytest.raises(Handler):
        ACQUIRE[way](m)

    assert not raw._is_owned()
    assert owners == [None]
    assert waiter.seen == [False]


def test_an_exception_while_a_second_acquiring_is_noted_leaves_the_first(
    vm: VirtualSMP, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recursive mutex is held as often as before."""
    m = Mtx("m", MTX_RECURSE)
    with m:
        with monkeypatch.context() as patch:
            patch.setattr(vm.machine, "held", Full())
            with pytest.raises(Handler):
                m.lock()
        assert m.owned()
        assert not m.recursed()
    assert not m.owned()


def test_what_interrupts_the_noting_of_a_lock_does_not_lose_it(vm: VirtualSMP) -> None:
    """At whatever line a finalizer holds another lock for a moment: the first is known as held, and alone."""
    held = vm.machine.held
    assert held is not None
    m, other = Mtx("m"), Mtx("other")

    def use() -> None:
        with other:
            pass

    line = 0
    while True:
        interruption = Interruption(line, use)
        with interruption.armed():
            m.lock()

        assert held == {m.me(): [m]}, interruption.where

        m.unlock()
        if not interruption.happened:
            break
        line += 1

    assert line >= 3


# -- in a forked child -------------------------------------------------------------------------------------------------


def test_a_forked_child_uses_no_lock_of_its_parent(vm: VirtualSMP, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it does with a lock, held or free, it is told why that cannot be, and waits for nobody."""
    monkeypatch.setattr(phases, "IN_CHILD", False)
    held, twice, free, rw = Mtx("held"), Mtx("twice", MTX_RECURSE), Mtx("free"), RwLock("rw")
    others = Mtx("others")
    held.lock()
    twice.lock()
    vm.spawn(others.lock)
    vm.settle()
    raw = Raw(rw)
    fork(vm.machine)
    uses = (
        held.lock,
        twice.lock,
        free.lock,
        free.unlock,
        rw.rlock,
        rw.wlock,
        rw.try_rlock,
        others.lock,
        others.trylock,
    )
    for use in uses:
        with pytest.raises(ForkedError):
            use()

    assert not raw.blocked
    assert twice.owned()
    assert not twice.recursed()


# -- parking -----------------------------------------------------------------------------------------------------------


def test_a_free_lock_needs_no_waiter(vm: VirtualSMP) -> None:
    """What can be had at once is acquired at once."""
    m = Mtx("m")

    def new_waiter() -> Waiter:
        raise AssertionError("nobody has to wait")

    run_blocking(acquire_parked(m, False, new_waiter))

    assert m.owned()
    m.unlock()


def test_a_mutex_that_is_tried_is_not_waited_for(vm: VirtualSMP) -> None:
    """try_acquire() never blocks, and does not release in between what it has acquired."""
    m = Mtx("m")
    released: list[int] = []
    raw = Raw(m, releasing=lambda: released.append(1))

    assert m.try_acquire(shared=False)
    assert not raw.blocked
    assert released == []

    m.unlock()


def test_a_release_just_before_one_parks_is_not_missed(vm: VirtualSMP) -> None:
    """Softclock tries once more when it is known to be parked, and leaves no waiter behind."""
    m = Mtx("m")
    m.lock()
    m.parked = Behind(m.unlock)
    run_blocking(acquire_parked(m, False, lambda: Seen(bool)))

    assert m.owned()
    assert not m.parked
    m.unlock()


@pytest.mark.parametrize("how", ["read", "write"])
def test_a_release_just_before_a_thread_parks_is_not_missed(
    vm: VirtualSMP, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A thread that waits for a read/write lock does so, too; cut off while it leaves, it does not hold the lock."""
    for lot in (Behind, type("Both", (Stuck, Behind), {})):
        rw = RwLock(f"rw for {lot.__name__}")
        me = rw.me
        rw.me = lambda: "another thread"
        rw.wlock()
        rw.me = me

        def release(rw: RwLock = rw) -> None:
            before, rw.me = rw.me, lambda: "another thread"
            rw.wunlock()
            rw.me = before

        rw.parked = lot(release)
        monkeypatch.setattr(vm.platform, "thread_waiter", lambda: Seen(bool))
        with pytest.raises(Handler) if lot is not Behind else nullcontext():
            if how == "read":
                rw.rlock()
            else:
                rw.wlock()

        assert rw.holds() is (lot is Behind)
        assert lot is not Behind or not rw.parked


def test_a_wait_of_a_callout_for_its_lock_is_watched(vm: VirtualSMP) -> None:
    """What softclock waits for is known with the callout; a task that waits for a lock alone is not watched."""
    waits: list[tuple[str, Callout]] = []

    def note(what: str, c: Callout) -> AbstractContextManager[object]:
        waits.append((what, c))
        return nullcontext()

    vm.machine.waits = note
    c, m = Callout(), Mtx("m")
    callout_init_mtx(c, m)
    with m:
        callout_reset(c, 1, bool, None)
        vm.tick()
        assert waits == [("lock", c)]

        async def parks() -> None:
            await acquire_parked(m, False, vm.platform.waiter)
            m.unlock()

        vm.spawn(parks, cpu=0)
        vm.settle()
        assert len(m.parked) == 2
    vm.check()

    assert waits == [("lock", c)]


# -- from one kind of hold to another ----------------------------------------------------------------------------------


def test_a_lock_is_not_free_while_it_changes_from_one_kind_to_the_other(vm: VirtualSMP) -> None:
    """Upgrade and downgrade are one step under the raw lock; those that can read now are woken after it."""
    rw = RwLock("rw")
    me = rw.me()
    steps: list[object] = []
    raw = Raw(rw, lambda: steps.append("acquired"), lambda: steps.append((rw._writer, dict(rw._readers))))
    rw.rlock()
    steps.clear()
    assert rw.try_upgrade() == 1

    assert steps == ["acquired", (me, {})]

    waiter = Seen(lambda: (raw._is_owned(), rw._writer))
    add_waiter(rw, waiter)
    steps.clear()
    rw.downgrade()

    assert steps == ["acquired", (None, {me: 1})]
    assert waiter.seen == [(False, None)]

    rw.runlock()


def test_a_mutex_that_its_holder_frees_refuses_before_it_is_free(vm: VirtualSMP) -> None:
    """A thread that has blocked at it does not get it, but finds out; and it is released once."""
    mtx = Mtx("m")
    seen: list[bool] = []
    raw = Raw(mtx, releasing=lambda: seen.append(mtx.initialized()))
    mtx.lock()
    mtx.poison(Refusal(LockDestroyedError, "it was freed"))

    assert seen == [False]
    assert not raw._is_owned()


def test_a_refusal_that_stands_for_no_lock_is_released_in_vain() -> None:
    """It is never held, so there is nothing to release."""
    refusal = Refusal(LockDestroyedError, "it was destroyed")
    refusal.release()

    assert not refusal._is_owned()


def test_a_callout_that_moves_before_the_lock_is_acquired_is_armed_where_it_is() -> None:
    """callout_reset() that has acquired the lock of a CPU that the callout has left arms it under the right one."""
    with VirtualSMP(2, free_clock=False) as smp:
        cpu, other = smp.machine.cpus
        c = Callout()
        callout_init(c, 1)
        callout_reset(c, 1000, bool, None)
        inner = cpu.lock
        moved: list[int] = []

        class Late(RawLock):
            """The lock of the CPU, and somebody who is faster."""

            def acquire(self, blocking: bool = True, /) -> bool:
                """Have the callout moved, and acquire it."""
                if not moved:
                    moved.append(0)
                    callout_reset_on(c, 1000, bool, None, 1)
                    moved.append(other.seq)
                return inner.acquire(blocking)

            def release(self, /) -> None:
                """Release it."""
                inner.release()

            def _is_owned(self, /) -> bool:
                return inner._is_owned()

        cpu.lock = Late()

        assert callout_reset(c, 2000, bool, None) == 1

        cpu.lock = inner

        assert c.c_cpu is other
        assert other.seq == c.seq == moved[1] + 1
