"""mutex(9), rwlock(9), rmlock(9): what their manual pages say of locks by themselves, by the C names."""

from __future__ import annotations

from typing import Any

import pytest

from callout import (
    MA_NOTOWNED,
    MA_NOTRECURSED,
    MA_OWNED,
    MA_RECURSED,
    MTX_DEF,
    MTX_RECURSE,
    MTX_SPIN,
    RA_LOCKED,
    RA_RLOCKED,
    RA_UNLOCKED,
    RA_WLOCKED,
    RM_RECURSE,
    RW_RECURSE,
    LockClassError,
    LockDestroyedError,
    LockError,
    LockHeldError,
    LockNotHeldError,
    Mtx,
    RmLock,
    RwLock,
    mtx_assert,
    mtx_destroy,
    mtx_init,
    mtx_initialized,
    mtx_lock,
    mtx_lock_spin,
    mtx_owned,
    mtx_recursed,
    mtx_trylock,
    mtx_trylock_spin,
    mtx_unlock,
    mtx_unlock_spin,
    rm_assert,
    rm_destroy,
    rm_init,
    rm_initialized,
    rm_rlock,
    rm_runlock,
    rm_try_rlock,
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

from .world import Actor, Stage

# -- mutex(9) ----------------------------------------------------------------------------------------------------------


def new_mtx(s: Stage, opts: int = MTX_DEF) -> Mtx:
    """Return a new mutex."""
    return s.do(mtx_init, "m", None, opts)


def test_one_thread_at_a_time_has_a_mutex(s2: Stage) -> None:
    """mtx_lock() of a mutex that another thread holds returns when that thread has released it."""
    m = new_mtx(s2)
    s2.t0.do(mtx_lock, m)
    second = s2.t1.begin(mtx_lock, m)

    assert second.blocked

    s2.t0.do(mtx_unlock, m)
    s2.world.settle()
    second.result()

    assert (s2.t0.do(mtx_owned, m), s2.t1.do(mtx_owned, m)) == (False, True)

    s2.t1.do(mtx_unlock, m)


def test_a_spin_mutex_has_calls_of_its_own(s2: Stage) -> None:
    """A spin mutex is locked with mtx_lock_spin(), excludes as any other, and mtx_lock() refuses it, and so on."""
    spin, plain = new_mtx(s2, MTX_SPIN), new_mtx(s2)
    s2.t0.do(mtx_lock_spin, spin)
    second = s2.t1.begin(mtx_lock_spin, spin)

    assert second.blocked
    assert s2.t2.do(mtx_trylock_spin, spin) == 0

    s2.t0.do(mtx_unlock_spin, spin)
    s2.world.settle()
    second.result()
    s2.t1.do(mtx_unlock_spin, spin)

    for call, m in ((mtx_lock, spin), (mtx_unlock, spin), (mtx_lock_spin, plain), (mtx_unlock_spin, plain)):
        with pytest.raises(LockClassError):
            s2.do(call, m)


def test_trylock_does_not_wait(s2: Stage) -> None:
    """mtx_trylock() returns 1 with the mutex, or 0 at once if another thread has it."""
    m = new_mtx(s2)

    assert s2.t0.do(mtx_trylock, m) == 1
    assert s2.t1.do(mtx_trylock, m) == 0
    assert s2.t0.do(mtx_trylock, m) == 0  # not recursive

    s2.t0.do(mtx_unlock, m)

    assert s2.t1.do(mtx_trylock, m) == 1

    s2.t1.do(mtx_unlock, m)


def test_a_recursive_mutex_is_free_after_as_many_unlocks(s2: Stage) -> None:
    """With MTX_RECURSE the owner may acquire the mutex again, and must release it as often."""
    m = new_mtx(s2, MTX_RECURSE)
    s2.t0.do(mtx_lock, m)

    assert not s2.t0.do(mtx_recursed, m)

    s2.t0.do(mtx_lock, m)

    assert s2.t0.do(mtx_trylock, m) == 1
    assert s2.t0.do(mtx_recursed, m)
    assert not s2.t1.do(mtx_recursed, m)

    s2.t0.do(mtx_unlock, m)
    s2.t0.do(mtx_unlock, m)

    assert s2.t1.do(mtx_trylock, m) == 0

    s2.t0.do(mtx_unlock, m)

    assert s2.t1.do(mtx_trylock, m) == 1

    s2.t1.do(mtx_unlock, m)


def test_a_mutex_knows_its_owner(s2: Stage) -> None:
    """Acquiring a mutex twice and releasing what another thread holds, or nobody, are errors that change nothing."""
    m = new_mtx(s2)
    with pytest.raises(LockNotHeldError):
        s2.t0.do(mtx_unlock, m)
    s2.t0.do(mtx_lock, m)
    with pytest.raises(LockHeldError):
        s2.t0.do(mtx_lock, m)
    with pytest.raises(LockNotHeldError):
        s2.t1.do(mtx_unlock, m)

    assert s2.t0.do(mtx_owned, m)

    s2.t0.do(mtx_unlock, m)


def test_mtx_assert(s2: Stage) -> None:
    """mtx_assert() passes exactly what it says: held, held once, held more often, not held; by this thread."""
    m = new_mtx(s2, MTX_RECURSE)

    def passes(who: Actor) -> list[int]:
        passed = []
        for what in (MA_OWNED, MA_OWNED | MA_NOTRECURSED, MA_OWNED | MA_RECURSED, MA_NOTOWNED):
            try:
                who.do(mtx_assert, m, what)
            except LockError:
                continue
            passed.append(what)
        return passed

    assert passes(s2.t0) == [MA_NOTOWNED]

    s2.t0.do(mtx_lock, m)

    assert passes(s2.t0) == [MA_OWNED, MA_OWNED | MA_NOTRECURSED]
    assert passes(s2.t1) == [MA_NOTOWNED]

    s2.t0.do(mtx_lock, m)

    assert passes(s2.t0) == [MA_OWNED, MA_OWNED | MA_RECURSED]

    s2.t0.do(mtx_unlock, m)
    s2.t0.do(mtx_unlock, m)


def test_a_destroyed_mutex_is_refused(s2: Stage) -> None:
    """mtx_destroy() of a mutex that is free or the caller's makes every later use an error; of another's it is one."""
    free, mine, theirs = new_mtx(s2), new_mtx(s2), new_mtx(s2)
    s2.t0.do(mtx_lock, mine)
    s2.t1.do(mtx_lock, theirs)

    s2.t0.do(mtx_destroy, free)
    s2.t0.do(mtx_destroy, mine)
    with pytest.raises(LockError, match="still held"):
        s2.t0.do(mtx_destroy, theirs)

    assert [mtx_initialized(m) for m in (free, mine, theirs)] == [False, False, True]
    for m in (free, mine):
        with pytest.raises(LockDestroyedError):
            s2.t0.do(mtx_lock, m)
        with pytest.raises(LockDestroyedError):
            s2.t0.do(mtx_destroy, m)

    s2.t1.do(mtx_unlock, theirs)


# -- rwlock(9) ---------------------------------------------------------------------------------------------------------


def test_readers_share_and_writers_exclude(s2: Stage) -> None:
    """Any number of threads may have the read lock; the write lock is had by one, and beside no reader."""
    rw = s2.do(rw_init, "rw")
    s2.t0.do(rw_rlock, rw)
    s2.t1.do(rw_rlock, rw)
    writer = s2.t2.begin(rw_wlock, rw)

    assert writer.blocked

    s2.t0.do(rw_runlock, rw)
    s2.world.settle()

    assert writer.blocked

    s2.t1.do(rw_runlock, rw)
    s2.world.settle()
    writer.result()
    readers = [who.begin(rw_rlock, rw) for who in (s2.t0, s2.t1)]

    assert s2.t2.do(rw_wowned, rw)
    assert all(reader.blocked for reader in readers)

    s2.t2.do(rw_wunlock, rw)
    s2.world.settle()
    for who, reader in zip((s2.t0, s2.t1), readers, strict=True):
        reader.result()
        who.do(rw_unlock, rw)


def test_rw_tries_do_not_wait(s2: Stage) -> None:
    """rw_try_rlock() and rw_try_wlock() return 1 with the lock, or 0 at once."""
    rw = s2.do(rw_init, "rw")

    assert s2.t0.do(rw_try_rlock, rw) == 1
    assert s2.t1.do(rw_try_rlock, rw) == 1
    assert s2.t2.do(rw_try_wlock, rw) == 0

    s2.t0.do(rw_runlock, rw)
    s2.t1.do(rw_runlock, rw)

    assert s2.t2.do(rw_try_wlock, rw) == 1
    assert s2.t0.do(rw_try_rlock, rw) == 0
    assert s2.t0.do(rw_try_wlock, rw) == 0

    s2.t2.do(rw_unlock, rw)


def test_the_only_reader_can_upgrade(s2: Stage) -> None:
    """rw_try_upgrade() makes the only reader the writer, and leaves a reader what it is beside others."""
    rw = s2.do(rw_init, "rw")
    s2.t0.do(rw_rlock, rw)
    s2.t1.do(rw_rlock, rw)

    assert s2.t0.do(rw_try_upgrade, rw) == 0

    s2.t1.do(rw_runlock, rw)

    assert s2.t0.do(rw_try_upgrade, rw) == 1
    assert s2.t0.do(rw_wowned, rw)

    s2.t0.do(rw_wunlock, rw)
    with pytest.raises(LockNotHeldError):
        s2.t0.do(rw_try_upgrade, rw)


def test_a_writer_can_downgrade(s2: Stage) -> None:
    """rw_downgrade() makes the writer a reader and lets waiting readers in."""
    rw = s2.do(rw_init, "rw")
    s2.t0.do(rw_wlock, rw)
    reader = s2.t1.begin(rw_rlock, rw)

    assert reader.blocked

    s2.t0.do(rw_downgrade, rw)
    s2.world.settle()
    reader.result()

    assert not s2.t0.do(rw_wowned, rw)

    s2.t0.do(rw_runlock, rw)
    s2.t1.do(rw_runlock, rw)
    with pytest.raises(LockNotHeldError):
        s2.t0.do(rw_downgrade, rw)


def test_a_recursive_rwlock(s2: Stage) -> None:
    """Read locks recurse always; the write lock does with RW_RECURSE, and is an error without."""
    rw, recursive = s2.do(rw_init, "rw"), s2.do(rw_init, "recursive", RW_RECURSE)
    s2.t0.do(rw_rlock, rw)
    s2.t0.do(rw_rlock, rw)
    s2.t0.do(rw_runlock, rw)

    assert s2.t1.do(rw_try_wlock, rw) == 0

    s2.t0.do(rw_runlock, rw)
    s2.t0.do(rw_wlock, rw)
    with pytest.raises(LockHeldError):
        s2.t0.do(rw_wlock, rw)
    s2.t0.do(rw_wunlock, rw)

    s2.t0.do(rw_wlock, recursive)
    s2.t0.do(rw_wlock, recursive)
    s2.t0.do(rw_wunlock, recursive)

    assert s2.t1.do(rw_try_wlock, recursive) == 0

    s2.t0.do(rw_wunlock, recursive)

    assert s2.t1.do(rw_try_wlock, recursive) == 1

    s2.t1.do(rw_wunlock, recursive)


def test_a_thread_that_would_wait_for_itself(s2: Stage) -> None:
    """Asking for the write lock as a reader, or for the read lock as the writer, is an error and no hang."""
    rw = s2.do(rw_init, "rw")
    s2.t0.do(rw_rlock, rw)
    with pytest.raises(LockHeldError):
        s2.t0.do(rw_wlock, rw)
    s2.t0.do(rw_runlock, rw)
    s2.t0.do(rw_wlock, rw)
    with pytest.raises(LockHeldError):
        s2.t0.do(rw_rlock, rw)
    with pytest.raises(LockNotHeldError):
        s2.t0.do(rw_runlock, rw)
    with pytest.raises(LockNotHeldError):
        s2.t1.do(rw_wunlock, rw)
    s2.t0.do(rw_wunlock, rw)


@pytest.mark.parametrize("kind", ["rw", "rm"])
def test_rw_and_rm_assert(s2: Stage, kind: str) -> None:
    """rw_assert() and rm_assert() pass exactly what they say: read lock, write lock, either, none; by this thread."""
    lock: Any = s2.do(rw_init if kind == "rw" else rm_init, kind)  # Any: of either kind, each with its own calls
    check = rw_assert if kind == "rw" else rm_assert

    def passes(who: Actor) -> list[int]:
        passed = []
        for what in (RA_LOCKED, RA_RLOCKED, RA_WLOCKED, RA_UNLOCKED):
            try:
                who.do(check, lock, what)
            except LockError:
                continue
            passed.append(what)
        return passed

    assert passes(s2.t0) == [RA_UNLOCKED]

    with s2.t0.reading(lock):
        assert passes(s2.t0) == [RA_LOCKED, RA_RLOCKED]
        assert passes(s2.t1) == [RA_UNLOCKED]

    with s2.t0.holding(lock):
        assert passes(s2.t0) == [RA_LOCKED, RA_WLOCKED]


@pytest.mark.parametrize("kind", ["rw", "rm"])
def test_a_destroyed_rw_or_rm_lock_is_refused(s2: Stage, kind: str) -> None:
    """rw_destroy() and rm_destroy() refuse a lock that somebody has, and afterwards every use is an error."""
    lock: Any = s2.do(RwLock if kind == "rw" else RmLock, kind)  # Any: of either kind, each with its own calls
    destroy, initialized = (rw_destroy, rw_initialized) if kind == "rw" else (rm_destroy, rm_initialized)
    with s2.t1.reading(lock), pytest.raises(LockError, match="still held"):
        s2.t0.do(destroy, lock)

    assert initialized(lock)

    s2.t0.do(destroy, lock)

    assert not initialized(lock)
    for use in (lock.rlock, lock.wlock, lock.try_rlock, lock.try_wlock):
        with pytest.raises(LockDestroyedError):
            s2.t0.do(use)


# -- rmlock(9) ---------------------------------------------------------------------------------------------------------


def test_a_read_mostly_lock(s2: Stage) -> None:
    """Readers of a read-mostly lock share it, without a tracker; a writer waits for them, and they for it."""
    rm = s2.do(rm_init, "rm")
    s2.t0.do(rm_rlock, rm)

    assert s2.t1.do(rm_try_rlock, rm) == 1

    writer = s2.t2.begin(rm_wlock, rm)

    assert writer.blocked

    s2.t0.do(rm_runlock, rm)
    s2.t1.do(rm_runlock, rm)
    s2.world.settle()
    writer.result()

    assert s2.t2.do(rm_wowned, rm)
    assert s2.t0.do(rm_try_rlock, rm) == 0

    s2.t2.do(rm_wunlock, rm)

    assert s2.t0.do(rm_try_rlock, rm) == 1

    s2.t0.do(rm_runlock, rm)


def test_a_recursive_read_mostly_lock(s2: Stage) -> None:
    """With RM_RECURSE the writer may acquire the lock again, and must release it as often; without, it may not."""
    rm, recursive = s2.do(rm_init, "rm"), s2.do(rm_init, "recursive", RM_RECURSE)
    s2.t0.do(rm_wlock, rm)
    with pytest.raises(LockHeldError):
        s2.t0.do(rm_wlock, rm)
    s2.t0.do(rm_wunlock, rm)

    s2.t0.do(rm_wlock, recursive)
    s2.t0.do(rm_wlock, recursive)
    s2.t0.do(rm_wunlock, recursive)

    assert s2.t1.do(rm_try_rlock, recursive) == 0

    s2.t0.do(rm_wunlock, recursive)

    assert s2.t1.do(rm_try_rlock, recursive) == 1

    s2.t1.do(rm_runlock, recursive)
