"""Mtx, RwLock, RmLock and Giant: which thread may do what, and real threads that wait for each other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from callout import (
    MA_NOTOWNED,
    MA_NOTRECURSED,
    MA_OWNED,
    MA_RECURSED,
    MTX_RECURSE,
    MTX_SPIN,
    RA_LOCKED,
    RA_RLOCKED,
    RA_UNLOCKED,
    RA_WLOCKED,
    RM_RECURSE,
    RW_RECURSE,
    Callout,
    CalloutError,
    CalloutSystem,
    LockClassError,
    LockDestroyedError,
    LockError,
    LockHeldError,
    LockNotHeldError,
    Mtx,
    RmLock,
    RwLock,
    callout_drain_async,
    callout_init_mtx,
    callout_init_rm,
    callout_init_rw,
    callout_reset,
    callout_stop,
    giant,
    mtx_assert,
    mtx_destroy,
    mtx_init,
    mtx_initialized,
    mtx_lock,
    mtx_lock_spin,
    mtx_owned,
    mtx_recursed,
    mtx_trylock,
    mtx_unlock,
    mtx_unlock_spin,
    open_callouts,
    rm_assert,
    rm_init,
    rm_rlock,
    rm_runlock,
    rm_wlock,
    rm_wowned,
    rm_wunlock,
    rw_assert,
    rw_destroy,
    rw_downgrade,
    rw_init,
    rw_initialized,
    rw_rlock,
    rw_runlock,
    rw_try_rlock,
    rw_try_upgrade,
    rw_try_wlock,
    rw_unlock,
    rw_wlock,
    rw_wowned,
    rw_wunlock,
)
from callout._core.platform import Waiter
from callout._core.rawlock import RawLock
from callout._locks.lock import Lock
from callout._locks.parking import acquire_parked
from callout.testing import VirtualSMP


@pytest.fixture
def vm() -> Iterator[VirtualSMP]:
    """Give a system; its threads are played by ``other``."""
    with VirtualSMP(1, free_clock=False) as smp:
        yield smp


def other(vm: VirtualSMP, func: Callable[[], object]) -> None:
    """Do something in another thread, to its end; it may keep a lock."""
    context = vm.spawn(func, name="other")
    vm.settle()

    assert context not in vm.platform.contexts, "it never ended"
    for error in vm.platform.errors:
        raise error


# -- mutexes -----------------------------------------------------------------------------------------------------------


def test_a_mutex_knows_its_owner(vm: VirtualSMP) -> None:
    """mtx_owned() is true for the thread that holds it and for no other."""
    m = mtx_init("m")

    assert not mtx_owned(m)
    mtx_lock(m)
    assert mtx_owned(m)
    seen: list[bool] = []
    other(vm, lambda: seen.append(mtx_owned(m)))
    assert seen == [False]
    mtx_unlock(m)
    assert not mtx_owned(m)


def test_a_mutex_in_a_with_block_is_released_by_whatever_way(vm: VirtualSMP) -> None:
    """Leaving ``with m:`` by an exception releases the mutex."""
    m = Mtx("m")
    with pytest.raises(ZeroDivisionError), m:
        raise ZeroDivisionError

    assert not m.owned()
    assert mtx_trylock(m) == 1


def test_taking_a_mutex_twice_is_an_error_not_a_hang(vm: VirtualSMP) -> None:
    """The owner of a plain mutex cannot acquire it again: acquiring says so, trying returns 0."""
    m = Mtx("m")
    with m:
        with pytest.raises(LockHeldError, match=r"'m': this thread holds it already \(to acquire it twice make it r"):
            mtx_lock(m)
        assert mtx_trylock(m) == 0
        assert mtx_owned(m)
    assert not mtx_owned(m)


def test_a_mutex_that_was_acquired_twice_is_released_twice() -> None:
    """Without checking mode, too, where a release has a short path."""
    with VirtualSMP(1, checking=False):
        m = Mtx("m", MTX_RECURSE)
        with m:
            with m:
                assert mtx_recursed(m)
            assert m.owned()
        assert not m.owned()
        with pytest.raises(LockNotHeldError):
            m.unlock()


def test_a_recursive_mutex_is_released_as_often_as_it_was_acquired(vm: VirtualSMP) -> None:
    """With MTX_RECURSE the owner may take it again, and others get it after the last unlock."""
    m = Mtx("m", MTX_RECURSE)
    tried: list[int] = []
    mtx_lock(m)
    assert not mtx_recursed(m)
    assert mtx_trylock(m) == 1
    assert mtx_recursed(m)
    mtx_unlock(m)
    other(vm, lambda: tried.append(mtx_trylock(m)))
    assert not mtx_recursed(m)
    mtx_unlock(m)
    other(vm, lambda: tried.append(mtx_trylock(m)))

    assert tried == [0, 1]


def test_a_stranger_cannot_unlock_a_mutex(vm: VirtualSMP) -> None:
    """A thread that does not hold a mutex cannot release it, held by another or by nobody."""
    m = Mtx("m")
    refusals: list[str] = []

    def stranger() -> None:
        with pytest.raises(LockNotHeldError, match="'m': this thread does not hold it"):
            mtx_unlock(m)
        refusals.append("stranger")

    with pytest.raises(LockNotHeldError, match="'m'"):
        mtx_unlock(m)
    with m:
        other(vm, stranger)
        assert m.owned()

    assert refusals == ["stranger"]


def test_a_spin_mutex_has_its_own_names(vm: VirtualSMP) -> None:
    """mtx_lock_spin() and mtx_unlock_spin() acquire and release a spin mutex; ``with`` does, too."""
    m = Mtx("m", MTX_SPIN)
    mtx_lock_spin(m)
    assert m.owned()
    mtx_unlock_spin(m)
    with m:
        assert m.owned()
    assert not m.owned()


def test_mtx_assert(vm: VirtualSMP) -> None:
    """mtx_assert() raises unless the mutex is held as it says."""
    m = Mtx("m", MTX_RECURSE)
    mtx_assert(m, MA_NOTOWNED)
    with pytest.raises(LockNotHeldError, match="mtx_assert: 'm' is not held"):
        mtx_assert(m, MA_OWNED)
    with m:
        mtx_assert(m, MA_OWNED)
        mtx_assert(m, MA_OWNED | MA_NOTRECURSED)
        with pytest.raises(LockHeldError, match="is held by this thread"):
            mtx_assert(m, MA_NOTOWNED)
        with pytest.raises(LockError, match="is not recursed"):
            mtx_assert(m, MA_OWNED | MA_RECURSED)
        with m:
            mtx_assert(m, MA_OWNED | MA_RECURSED)
            with pytest.raises(LockError, match="is recursed"):
                mtx_assert(m, MA_OWNED | MA_NOTRECURSED)


def test_a_destroyed_mutex_is_refused(vm: VirtualSMP) -> None:
    """After mtx_destroy() every use says that it was destroyed; its owner may destroy it, which releases it."""
    for held in (False, True):
        m = Mtx("m")
        if held:
            mtx_lock(m)
        assert mtx_initialized(m)
        mtx_destroy(m)

        assert not mtx_initialized(m)
        for use in (mtx_lock, mtx_trylock, mtx_unlock, mtx_destroy):
            with pytest.raises(LockDestroyedError, match="'m' was destroyed"):
                use(m)


def test_a_mutex_that_is_in_use_is_not_destroyed(vm: VirtualSMP) -> None:
    """A mutex that another thread holds, that is recursed or that softclock waits for is not destroyed."""
    m, recursed, waited_for = Mtx("m"), Mtx("r", MTX_RECURSE), Mtx("w")
    c = Callout()
    other(vm, lambda: mtx_lock(m))
    with pytest.raises(LockError, match="mtx_destroy: 'm' is still held"):
        mtx_destroy(m)
    with recursed, recursed, pytest.raises(LockError, match="mtx_destroy: 'r' is recursed"):
        mtx_destroy(recursed)
    callout_init_mtx(c, waited_for)
    with waited_for:
        callout_reset(c, 1, lambda _: None, None)
        vm.tick()
        with pytest.raises(LockError, match="mtx_destroy: softclock waits for 'w'"):
            mtx_destroy(waited_for)
        assert waited_for.owned()
    vm.settle()

    assert all(mtx_initialized(lock) for lock in (m, recursed, waited_for))


def test_giant_is_a_recursive_mutex(vm: VirtualSMP) -> None:
    """Giant may be acquired again by its owner."""
    with giant(), giant():
        assert mtx_recursed(giant())
    assert not mtx_owned(giant())


# -- read/write locks --------------------------------------------------------------------------------------------------


def test_readers_share_and_writers_do_not(vm: VirtualSMP) -> None:
    """While one thread reads another may read and not write; while one writes another may do neither."""
    rw = rw_init("rw")
    tried: list[tuple[int, int]] = []

    def both() -> None:
        reads = rw_try_rlock(rw)
        if reads:
            rw_runlock(rw)
        writes = rw_try_wlock(rw)
        if writes:
            rw_wunlock(rw)
        tried.append((reads, writes))

    other(vm, both)
    with rw.read():
        other(vm, both)
    with rw:
        other(vm, both)
    other(vm, both)

    assert tried == [(1, 1), (1, 0), (0, 0), (1, 1)]


def test_a_read_write_lock_knows_its_owner(vm: VirtualSMP) -> None:
    """rw_wowned() is true for the thread that writes only."""
    rw = RwLock("rw")
    seen: list[bool] = []
    with rw.read():
        assert not rw_wowned(rw)
    with rw:
        assert rw_wowned(rw)
        other(vm, lambda: seen.append(rw_wowned(rw)))
    assert not rw_wowned(rw)
    assert seen == [False]


def test_waiting_for_oneself_is_an_error_not_a_hang(vm: VirtualSMP) -> None:
    """A writer can neither write nor read again, and a reader cannot write; a reader may read again."""
    rw = RwLock("rw")
    with rw:
        with pytest.raises(LockHeldError, match="rw_wlock: this thread holds 'rw' already"):
            rw_wlock(rw)
        with pytest.raises(LockHeldError, match="rw_rlock: this thread holds 'rw' already"):
            rw_rlock(rw)
        assert (rw_try_wlock(rw), rw_try_rlock(rw)) == (0, 0)
    with rw.read():
        with pytest.raises(LockHeldError, match="rw_wlock: this thread holds 'rw' already"):
            rw_wlock(rw)
        assert rw_try_wlock(rw) == 0
        with rw.read():
            pass
        rw_assert(rw, RA_RLOCKED)
    rw_assert(rw, RA_UNLOCKED)


@pytest.mark.parametrize("lock", [lambda: RwLock("rw", RW_RECURSE), lambda: RmLock("rm", RM_RECURSE)])
def test_a_recursive_writer(vm: VirtualSMP, lock: Callable[[], RwLock]) -> None:
    """With the option the writer may write again, and others get in after the last unlock."""
    rw = lock()
    tried: list[int] = []
    with rw:
        with rw:
            pass
        other(vm, lambda: tried.append(rw.try_rlock()))
        with rw, pytest.raises(LockError, match="is recursed"):
            rw.downgrade()
    other(vm, lambda: tried.append(rw.try_rlock()))

    assert tried == [0, 1]


def test_a_stranger_cannot_unlock_a_read_write_lock(vm: VirtualSMP) -> None:
    """Only a reader releases a read lock, and only the writer the write lock; rw_unlock() releases either."""
    rw = RwLock("rw")
    refusals: list[bool] = []

    def stranger() -> None:
        for give in (rw_runlock, rw_wunlock, rw_unlock):
            with pytest.raises(LockNotHeldError, match="'rw'"):
                give(rw)
        refusals.append(True)

    stranger()
    with rw.read():
        other(vm, stranger)
        with pytest.raises(LockNotHeldError, match="rw_wunlock: this thread has no write lock"):
            rw_wunlock(rw)
    with rw:
        other(vm, stranger)
        with pytest.raises(LockNotHeldError, match="rw_runlock: this thread has no read lock"):
            rw_runlock(rw)
    rw_rlock(rw)
    rw_unlock(rw)
    rw_wlock(rw)
    rw_unlock(rw)
    rw_assert(rw, RA_UNLOCKED)

    assert refusals == [True, True, True]


def test_upgrade_and_downgrade(vm: VirtualSMP) -> None:
    """The only reader becomes the writer, one of two does not; the writer becomes a reader and lets others read."""
    rw = RwLock("rw")
    tried: list[int] = []
    with pytest.raises(LockNotHeldError, match="rw_try_upgrade: this thread has no read lock"):
        rw_try_upgrade(rw)
    with pytest.raises(LockNotHeldError, match="rw_downgrade: this thread has no write lock"):
        rw_downgrade(rw)
    rw_rlock(rw)
    assert rw_try_upgrade(rw) == 1
    assert rw_wowned(rw)
    other(vm, lambda: tried.append(rw_try_rlock(rw)))
    rw_downgrade(rw)
    assert not rw_wowned(rw)
    other(vm, lambda: tried.append(rw_try_rlock(rw)))  # and keeps it
    assert rw_try_upgrade(rw) == 0
    rw_assert(rw, RA_RLOCKED)
    rw_runlock(rw)

    assert tried == [0, 1]


def test_rw_assert(vm: VirtualSMP) -> None:
    """rw_assert() raises unless the lock is held as it says."""
    rw = RwLock("rw")
    states = {"free": RA_UNLOCKED, "read": RA_RLOCKED, "write": RA_WLOCKED}
    for state, held_as in states.items():
        if state == "read":
            rw_rlock(rw)
        elif state == "write":
            rw_wlock(rw)
        true = {held_as} | ({RA_LOCKED} if state != "free" else set())
        for what in (RA_UNLOCKED, RA_RLOCKED, RA_WLOCKED, RA_LOCKED):
            if what in true:
                rw_assert(rw, what)
            else:
                with pytest.raises((LockHeldError, LockNotHeldError), match="rw_assert: 'rw'"):
                    rw_assert(rw, what)
        if state != "free":
            rw_unlock(rw)


def test_a_destroyed_read_write_lock_is_refused(vm: VirtualSMP) -> None:
    """A lock that anybody has is not destroyed; once destroyed every use says so."""
    rw = RwLock("rw")
    with rw.read(), pytest.raises(LockError, match="rw_destroy: 'rw' is still held"):
        rw_destroy(rw)
    with rw, pytest.raises(LockError, match="rw_destroy: 'rw' is still held"):
        rw_destroy(rw)
    assert rw_initialized(rw)
    rw_destroy(rw)

    assert not rw_initialized(rw)
    for use in (rw_rlock, rw_wlock, rw_try_rlock, rw_try_wlock, rw_runlock, rw_wunlock, rw_destroy, rw_downgrade):
        with pytest.raises(LockDestroyedError, match="'rw' was destroyed"):
            use(rw)


def test_read_mostly_locks_have_names_of_their_own(vm: VirtualSMP) -> None:
    """The rm_*() functions do what the rw_*() functions do, and their errors say rm."""
    rm = rm_init("rm")
    rm_rlock(rm)
    with pytest.raises(LockHeldError, match="rm_wlock: this thread holds 'rm'"):
        rm_wlock(rm)
    rm_runlock(rm)
    rm_wlock(rm)
    assert rm_wowned(rm)
    rm_assert(rm, RA_WLOCKED)
    rm_wunlock(rm)
    with pytest.raises(LockNotHeldError, match="rm_assert: 'rm'"):
        rm_assert(rm, RA_LOCKED)


# -- checking mode -----------------------------------------------------------------------------------------------------


def test_the_locks_that_a_thread_holds_are_known(vm: VirtualSMP) -> None:
    """In checking mode the locks that a thread holds are kept, oldest first, however they are released."""
    held = vm.machine.held
    assert held is not None
    m, r, rw = Mtx("m"), Mtx("r", MTX_RECURSE), RwLock("rw")
    me = m.me()
    with m, r, r, rw:
        assert held[me] == [m, r, r, rw]
        r.unlock()
        assert held[me] == [m, r, rw]
        r.lock()
        seen: list[dict[object, list[Lock]]] = []
        other(vm, lambda: seen.append({who: [*locks] for who, locks in held.items()}))
        assert seen == [{me: [m, r, rw, r]}]
    assert held == {}


# -- real threads ------------------------------------------------------------------------------------------------------


class Telling(RawLock):
    """A raw lock that says when somebody begins to wait for it."""

    def __init__(self, lock: RawLock) -> None:
        self._lock = lock
        self.waiting = threading.Event()

    def acquire(self, blocking: bool = True, /) -> bool:
        """Take the lock."""
        if blocking:
            self.waiting.set()
        return self._lock.acquire(blocking)

    def release(self, /) -> None:
        """Release it."""
        self._lock.release()

    def _is_owned(self, /) -> bool:
        return self._lock._is_owned()


class TellingQueue(deque[Waiter]):
    """Who is parked at a lock; says when somebody is."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Event()

    def append(self, waiter: Waiter) -> None:
        """Park."""
        super().append(waiter)
        self.waiting.set()


def on_threads(body: Callable[[CalloutSystem], None]) -> None:
    """Open a system of one real CPU, and do *body* in a thread without a loop."""

    async def main() -> None:
        async with open_callouts() as system:
            await trio.to_thread.run_sync(body, system)

    trio.run(main)


@pytest.mark.parametrize("opts", [0, MTX_SPIN, MTX_RECURSE])
def test_a_thread_waits_for_a_mutex(opts: int) -> None:
    """A thread that acquires a held mutex waits until it is released, and then holds it."""

    def body(system: CalloutSystem) -> None:
        m = Mtx("m", opts)
        m._raw = raw = Telling(m._raw)
        order: list[str] = []

        def second() -> None:
            with m:
                order.append("second")
                assert m.owned()

        with m:
            thread = threading.Thread(target=second)
            thread.start()
            raw.waiting.wait()
            order.append("first")
        thread.join()

        assert order == ["first", "second"]
        assert not m.owned()
        assert system._machine.held == {}

    on_threads(body)


@pytest.mark.parametrize("first", ["read", "write"])
@pytest.mark.parametrize("second", ["read", "write"])
def test_a_thread_waits_for_a_read_write_lock(first: str, second: str) -> None:
    """A writer waits for a reader and for a writer, a reader for a writer; a reader does not wait for a reader."""

    def body(system: CalloutSystem) -> None:
        rw = RwLock("rw")
        rw.parked = parked = TellingQueue()
        order: list[str] = []
        done = threading.Event()

        def enter(how: str) -> None:
            if how == "read":
                rw.rlock()
            else:
                rw.wlock()

        def thread() -> None:
            enter(second)
            order.append("second")
            rw.unlock()
            done.set()

        enter(first)
        waits = "write" in (first, second)
        threads = threading.Thread(target=thread)
        threads.start()
        (parked.waiting if waits else done).wait()
        order.append("first")
        rw.unlock()
        threads.join()

        assert order == (["first", "second"] if waits else ["second", "first"])
        assert not parked
        assert system._machine.held == {}

    on_threads(body)


@pytest.mark.trio
async def test_a_mutex_that_was_destroyed_while_softclock_waited_is_an_error() -> None:
    """A callout whose lock is gone does not run: its block ends with the error, and does not hang."""
    system: CalloutSystem | None = None
    ran: list[int] = []

    async def main() -> None:
        nonlocal system
        async with open_callouts() as system:
            m, c = Mtx("m"), Callout()
            callout_init_mtx(c, m)
            callout_reset(c, 1, ran.append, 1)
            mtx_destroy(m)
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await main()

    assert caught.group_contains(LockDestroyedError, match="'m' was destroyed")
    assert ran == []


@pytest.mark.trio
@pytest.mark.parametrize("kind", [Mtx, RwLock])
async def test_a_task_cancelled_while_parked_passes_the_wake_up_on(kind: Callable[[str], Mtx | RwLock]) -> None:
    """If who was woken is cancelled before it has the lock, the next one that is parked is woken instead."""
    async with open_callouts(checking=False) as system:
        lock = kind("lock")
        got: list[str] = []
        first = trio.CancelScope()

        async def park(name: str, scope: trio.CancelScope) -> None:
            with scope:
                await acquire_parked(lock, False, system._platform.waiter)
                got.append(name)
                lock.release_as(shared=False)

        assert lock.try_acquire(shared=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(park, "first", first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(park, "second", trio.CancelScope())
            await trio.testing.wait_all_tasks_blocked()
            assert len(lock.parked) == 2
            lock.release_as(shared=False)  # wakes the first, if not both
            first.cancel()  # which is cancelled before it has a turn
            await trio.testing.wait_all_tasks_blocked()

            assert got == ["second"]
        assert not lock.parked


@pytest.mark.trio
async def test_a_task_cancelled_while_parked_is_forgotten() -> None:
    """Who is cancelled before it is woken is not woken later, and does not stand in anybody's way."""
    async with open_callouts(checking=False) as system:
        lock = Mtx("lock")
        assert lock.try_acquire(shared=False)
        with trio.move_on_after(0) as scope:
            await acquire_parked(lock, False, system._platform.waiter)

        assert scope.cancelled_caught
        assert not lock.parked
        lock.release_as(shared=False)
        assert lock.trylock() == 1
        lock.unlock()


# -- wrong arguments, and locks that are gone --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Mtx, RwLock, RmLock])
def test_a_lock_is_made_with_a_name_and_options_that_are_known(vm: VirtualSMP, kind: Callable[..., object]) -> None:
    """What is no name, no number or an unknown option is one error each, which says what to give."""
    for args, error, words in [
        ((5,), TypeError, "name must be a str, not 5"),
        (("m", None), TypeError, "opts must be an int, "),
        (("m", "x"), TypeError, "not 'x'"),
        (("m", 1 << 20), ValueError, "unknown option 0x100000; use "),
    ]:
        with pytest.raises(error, match=words) as caught:
            kind(*args)

        assert isinstance(caught.value, CalloutError)
        assert str(caught.value).startswith(f"{caught.value.call}: ")


@pytest.mark.parametrize(
    ("kind", "init"), [(Mtx, callout_init_mtx), (RwLock, callout_init_rw), (RmLock, callout_init_rm)]
)
def test_no_callout_is_given_a_lock_that_was_destroyed(
    vm: VirtualSMP, kind: Callable[[], Any], init: Callable[..., None]
) -> None:
    """A callout is not initialised with a lock that nobody could acquire."""
    lock = kind()
    lock.destroy()
    c = Callout()
    with pytest.raises(LockDestroyedError, match=f"{init.__name__}: "):
        init(c, lock)

    assert c.c_cpu.id == -1


@pytest.mark.parametrize("shared", [False, True])
def test_softclock_has_no_read_write_lock_that_its_thread_holds(vm: VirtualSMP, shared: bool) -> None:
    """What a task of the loop holds counts as refused, however recursive the lock is, and is held as before."""
    lock = RwLock("rw", RW_RECURSE)
    lock.rlock()
    assert not lock.try_acquire(shared)
    lock.runlock()
    lock.wlock()
    assert not lock.try_acquire(shared)
    lock.wunlock()

    assert not lock.holds()


@pytest.mark.parametrize("kind", [lambda: Mtx("m", MTX_RECURSE), lambda: RwLock("rw", RW_RECURSE)])
def test_a_lock_is_dropped_however_often_it_is_held(vm: VirtualSMP, kind: Callable[[], Mtx | RwLock]) -> None:
    """drop_all() says how often this thread held it, and another may have it then."""
    lock = kind()
    lock.__enter__()
    lock.__enter__()
    assert lock.drop_all() == 2
    assert not lock.holds()
    assert lock.drop_all() == 0
    if isinstance(lock, RwLock):
        lock.rlock()
        lock.rlock()
        assert lock.drop_all() == 2
        assert not lock.holds()


def test_the_spin_names_are_told_apart(vm: VirtualSMP) -> None:
    """A mutex of the other kind is refused with the name of the call that fits."""
    plain, spin = Mtx("plain"), Mtx("spin", MTX_SPIN)
    for act, instead in [
        (plain.lock_spin, "use mtx_lock"),
        (plain.unlock_spin, "use mtx_unlock"),
        (spin.lock, "use mtx_lock_spin"),
        (spin.unlock, "use mtx_unlock_spin"),
    ]:
        with pytest.raises(LockClassError, match=f"{instead}$"):
            act()


@pytest.mark.trio
@pytest.mark.parametrize("call", ["stop", "close_soon", "callout_stop", "callout_drain_async"])
async def test_of_a_lock_that_was_destroyed_no_call_says_to_acquire_it(call: str) -> None:
    """It says that it was destroyed; to drain and to close need no lock."""
    async with open_callouts() as system:
        lock = system.mutex("gone")
        c = system.call_later(1000, print, lock=lock)
        lock.destroy()
        calls: dict[str, Callable[[], object]] = {
            "stop": c.stop,
            "close_soon": lambda: c.close_soon(print),
            "callout_stop": lambda: callout_stop(c),
            "callout_drain_async": lambda: callout_drain_async(c, print, None),
        }
        with pytest.raises(LockDestroyedError, match=f"^{call}: lock 'gone' was destroyed"):
            calls[call]()
        assert c.pending
        await c.aclose()
        assert c.closed
