"""callout(9), DESCRIPTION: a callout's lock, and the flags of callout_init_mtx(), _rw() and _rm()."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import trio

from callout import (
    CALLOUT_RETURNUNLOCKED,
    CALLOUT_SHAREDLOCK,
    CALLOUT_TRYLOCK,
    MTX_RECURSE,
    RA_RLOCKED,
    RA_WLOCKED,
    RM_SLEEPABLE,
    RW_RECURSE,
    BusyError,
    CallbackLockError,
    Callout,
    LockClassError,
    Mtx,
    RmLock,
    RwLock,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_init_rm,
    callout_init_rw,
    callout_pending,
    callout_reset,
    callout_stop,
    curcpu,
    giant,
    rw_assert,
)

from .world import LOCKED, AnyLock, Stage


def free(s: Stage, lock: AnyLock) -> bool:
    """Whether another thread can have *lock* without waiting."""
    if isinstance(lock, Mtx):
        taken = s.t2.do(lock.trylock)
        if taken:
            s.t2.do(lock.__exit__)
    else:
        taken = s.t2.do(lock.try_wlock)
        if taken:
            s.t2.do(lock.wunlock)
    return bool(taken)


@pytest.mark.parametrize("kind", LOCKED)
def test_the_lock_is_acquired_before_the_call_and_released_after_it(s: Stage, kind: str) -> None:
    """A callback runs with its callout's lock held, of whatever kind that is, and afterwards the lock is free."""
    lock = s.lock(kind)
    c = s.callout(lock)
    owned: list[bool] = []

    def run(gate: str) -> None:
        owned.append(lock.owned())
        s.halt(gate)

    s.do(callout_reset, c, 1, run, "run")
    s.tick()

    assert owned == [True]
    assert not free(s, lock)

    s.open("run")

    assert free(s, lock)


def test_an_mpsafe_callback_runs_without_giant(s: Stage) -> None:
    """callout_init() with mpsafe true: the callback does not have Giant, and runs while another thread has it."""
    giant = s.lock("Giant")
    c = s.callout()
    owned: list[bool] = []
    s.do(callout_reset, c, 1, lambda arg: owned.append(giant.owned()), None)
    with s.t0.holding(giant):
        s.tick()

        assert owned == [False]


def test_not_mpsafe_means_giant(s: Stage) -> None:
    """callout_init() with mpsafe zero: the callback has Giant while it runs."""
    giant = s.lock("Giant")
    c = Callout()
    s.do(callout_init, c, 0)
    owned: list[bool] = []
    s.do(callout_reset, c, 1, lambda arg: owned.append(giant.owned()), None)
    s.tick()

    assert owned == [True]
    assert free(s, giant)


@pytest.mark.parametrize("kind", LOCKED)
def test_softclock_waits_for_the_lock(s: Stage, kind: str) -> None:
    """While another thread has the lock the callback does not run; it does as soon as the lock is released."""
    lock = s.lock(kind)
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.holding(lock):
        s.tick(3)

        assert s.ran == []

    assert s.ran == ["c"]


@pytest.mark.parametrize("kind", ["rw", "rm"])
def test_softclock_waits_for_readers(s: Stage, kind: str) -> None:
    """Without CALLOUT_SHAREDLOCK a callback does not run beside a reader of its lock."""
    lock = s.lock(kind)
    assert isinstance(lock, RwLock)
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.reading(lock):
        s.tick(2)

        assert s.ran == []

    assert s.ran == ["c"]


def test_what_comes_behind_a_callout_at_its_lock_is_late(s: Stage) -> None:
    """While softclock stands at one callout's lock the later ones of its CPU wait, in order."""
    lock = s.mtx()
    c, d = s.callout(lock), s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")
    s.do(callout_reset, d, 2, s.seen, "d")
    with s.t0.holding(lock):
        s.tick(3)

        assert s.ran == []

    assert s.ran == ["c", "d"]


def test_a_cancelled_run_keeps_softclock_at_the_lock(s: Stage) -> None:
    """Softclock stands at the lock of a cancelled run until that is free, and the later callouts wait."""
    lock = s.mtx()
    c, d = s.callout(lock), s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")
    s.do(callout_reset, d, 2, s.seen, "d")
    with s.t0.holding(lock):
        s.tick()
        s.do(callout_stop, c)
        s.tick(2)

        assert s.ran == []

    assert s.ran == ["d"]


def test_softclock_parks_and_leaves_its_loop_alone(s: Stage) -> None:
    """While softclock waits for a lock the loop of its CPU goes on: a cross-CPU call to it is run."""
    lock = s.mtx()
    c = s.callout(lock)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.holding(lock):
        s.tick()
        s.call(0, lambda: s.seen("call"))

        assert s.ran == ["call"]


@pytest.mark.parametrize("kind", LOCKED)
def test_returnunlocked_callbacks_release_the_lock_themselves(s: Stage, kind: str) -> None:
    """With CALLOUT_RETURNUNLOCKED the callback may release the lock and go on, and softclock does not do it again."""
    lock = s.lock(kind)
    c = s.callout(lock, CALLOUT_RETURNUNLOCKED)

    def run(gate: str) -> None:
        lock.__exit__()
        s.halt(gate)

    s.do(callout_reset, c, 1, run, "run")
    s.tick()

    assert free(s, lock)

    with s.t0.holding(lock):
        s.open("run")

        assert s.returned == ["run"]
        assert s.do(lock.owned)


@pytest.mark.parametrize("kind", LOCKED)
def test_returnunlocked_callbacks_must_do_it(s: Stage, kind: str) -> None:
    """With CALLOUT_RETURNUNLOCKED a return with the lock held is reported, and the lock is released all the same."""
    lock = s.lock(kind)
    c = s.callout(lock, CALLOUT_RETURNUNLOCKED)
    s.do(callout_reset, c, 1, s.seen, "c")
    s.tick()
    error = s.error()

    assert isinstance(error, CallbackLockError)
    assert "CALLOUT_RETURNUNLOCKED" in str(error)
    assert free(s, lock)


@pytest.mark.parametrize("kind", LOCKED)
def test_other_callbacks_must_not_release_the_lock(s: Stage, kind: str) -> None:
    """Without CALLOUT_RETURNUNLOCKED a return without the lock is reported, and the callout is as after any run."""
    lock = s.lock(kind)
    c = s.callout(lock)
    s.do(callout_reset, c, 1, lambda arg: lock.__exit__(), None)
    s.tick()
    error = s.error()

    assert isinstance(error, CallbackLockError)
    assert "CALLOUT_RETURNUNLOCKED" in str(error)
    assert free(s, lock)
    assert s.do(callout_drain_sync, c) == -1


def once_more(lock: AnyLock) -> None:
    """Acquire it a second time."""
    lock.__enter__()


def once_more_and_raise(lock: AnyLock) -> None:
    """Acquire it a second time, and fail."""
    lock.__enter__()
    raise ValueError


def downgraded(lock: AnyLock) -> None:
    """Keep the lock for reading."""
    assert isinstance(lock, RwLock)
    lock.downgrade()


def upgraded(lock: AnyLock) -> None:
    """Keep the lock for writing."""
    assert isinstance(lock, RwLock)
    assert lock.try_upgrade()


def read_once_more(lock: AnyLock) -> None:
    """Acquire it a second time for reading."""
    assert isinstance(lock, RwLock)
    lock.rlock()


@pytest.mark.parametrize("unlocked", [False, True])
@pytest.mark.parametrize(
    ("make", "flags", "keep"),
    [
        (lambda: Mtx("m", MTX_RECURSE), 0, once_more),
        (lambda: Mtx("m", MTX_RECURSE), 0, once_more_and_raise),
        (giant, 0, once_more),
        (lambda: RwLock("rw", RW_RECURSE), 0, once_more),
        (lambda: RwLock("rw"), 0, downgraded),
        (lambda: RmLock("rm"), 0, downgraded),
        (lambda: RwLock("rw"), CALLOUT_SHAREDLOCK, upgraded),
        (lambda: RwLock("rw"), CALLOUT_SHAREDLOCK, read_once_more),
    ],
    ids=["mutex", "mutex, raises", "Giant", "rw", "rw downgraded", "rm downgraded", "rw upgraded", "read twice"],
)
def test_whatever_a_callback_has_kept_of_its_lock_is_released(
    s: Stage, make: Callable[[], AnyLock], flags: int, keep: Callable[[AnyLock], None], unlocked: bool
) -> None:
    """However often and in whatever way the lock is held when the callback returns, it is reported, and then free."""
    lock = s.do(make)
    c = s.callout(lock, flags | (CALLOUT_RETURNUNLOCKED if unlocked else 0))
    s.do(callout_reset, c, 1, keep, lock)
    s.tick()
    errors = [type(error) for error in s.errors]
    s.errors.clear()

    assert errors == [ValueError, CallbackLockError][keep is not once_more_and_raise :]
    assert free(s, lock)

    s.do(callout_reset, c, 1, s.seen, "again")
    s.tick()

    assert s.ran == ["again"]
    s.errors.clear()  # with CALLOUT_RETURNUNLOCKED, that one has kept it as well


@pytest.mark.parametrize("kind", ["rw", "rm"])
def test_sharedlock_acquires_the_lock_for_reading(s: Stage, kind: str) -> None:
    """With CALLOUT_SHAREDLOCK the callback has the read lock: it runs beside a reader, and a writer waits for it."""
    lock = s.lock(kind)
    assert isinstance(lock, RwLock)
    c = s.callout(lock, CALLOUT_SHAREDLOCK)

    def run(gate: str) -> None:
        rw_assert(lock, RA_RLOCKED)
        s.halt(gate)

    s.do(callout_reset, c, 1, run, "run")
    with s.t0.reading(lock):
        s.tick()

        assert s.ran == ["run"]

    writer = s.t1.begin(lock.wlock)

    assert writer.blocked

    s.open("run")

    writer.result()
    s.t1.do(lock.wunlock)
    assert s.errors == []


@pytest.mark.parametrize("kind", ["rw", "rm"])
def test_sharedlock_waits_for_a_writer(s: Stage, kind: str) -> None:
    """A CALLOUT_SHAREDLOCK callback does not run while another thread writes."""
    lock = s.lock(kind)
    c = s.callout(lock, CALLOUT_SHAREDLOCK)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.holding(lock):
        s.tick(2)

        assert s.ran == []

    assert s.ran == ["c"]


@pytest.mark.parametrize("kind", ["mtx", "spin", "Giant"])
def test_sharedlock_means_nothing_for_a_mutex(s: Stage, kind: str) -> None:
    """A mutex's callback owns it, with CALLOUT_SHAREDLOCK too, and on the CPU that it would have without."""
    lock = s.lock(kind)
    c = s.callout(lock, CALLOUT_SHAREDLOCK)
    owned: list[bool] = []
    s.do(callout_reset, c, 1, lambda arg: owned.append(lock.owned()), None)
    s.tick()

    assert owned == [True]
    assert free(s, lock)


@pytest.mark.parametrize("kind", ["rw", "rm"])
def test_sharedlock_and_returnunlocked_together(s: Stage, kind: str) -> None:
    """A callback with both flags releases the read lock itself."""
    lock = s.lock(kind)
    assert isinstance(lock, RwLock)
    c = s.callout(lock, CALLOUT_SHAREDLOCK | CALLOUT_RETURNUNLOCKED)
    s.do(callout_reset, c, 1, lambda arg: lock.runlock(), None)
    s.tick()

    assert s.errors == []
    assert free(s, lock)


@pytest.mark.parametrize("kind", LOCKED)
def test_trylock_runs_at_once_if_the_lock_is_free(s: Stage, kind: str) -> None:
    """A CALLOUT_TRYLOCK callout whose lock is free runs at its time with the lock held."""
    lock = s.lock(kind)
    c = s.callout(lock, CALLOUT_TRYLOCK)
    owned: list[bool] = []
    s.do(callout_reset, c, 2, lambda arg: owned.append(lock.owned()), None)
    s.tick(2)

    assert owned == [True]
    assert free(s, lock)


@pytest.mark.parametrize("kind", LOCKED)
def test_trylock_never_waits(s: Stage, kind: str) -> None:
    """A CALLOUT_TRYLOCK callout whose lock is held stays pending, its CPU goes on, it tries again a tick later."""
    lock = s.lock(kind)
    c, d = s.callout(lock, CALLOUT_TRYLOCK), s.callout()
    s.do(callout_reset, c, 1, s.seen, "c")
    s.do(callout_reset, d, 1, s.seen, "d")
    with s.t0.holding(lock):
        s.tick(3)

        assert s.ran == ["d"]
        assert callout_pending(c)

    assert s.ran == ["d"]

    s.tick()

    assert s.ran == ["d", "c"]


@pytest.mark.parametrize("kind", LOCKED)
def test_a_refused_trylock_callout_can_be_stopped(s: Stage, kind: str) -> None:
    """The stop of a CALLOUT_TRYLOCK callout whose lock the caller holds returns 1, and it does not run."""
    lock = s.lock(kind)
    c = s.callout(lock, CALLOUT_TRYLOCK)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.holding(lock):
        s.tick(3)

        assert s.do(callout_stop, c) == 1

    s.tick(3)

    assert s.ran == []


@pytest.mark.parametrize("kind", ["rw", "rm"])
def test_trylock_with_sharedlock(s: Stage, kind: str) -> None:
    """With both flags readers do not refuse a callout, and a writer does."""
    lock = s.lock(kind)
    assert isinstance(lock, RwLock)
    c = s.callout(lock, CALLOUT_SHAREDLOCK | CALLOUT_TRYLOCK)
    s.do(callout_reset, c, 1, s.seen, "c")
    with s.t0.reading(lock):
        s.tick()

        assert s.ran == ["c"]

    s.do(callout_reset, c, 1, s.seen, "again")
    with s.t0.holding(lock):
        s.tick(2)

        assert s.ran == ["c"]

    s.tick()

    assert s.ran == ["c", "again"]


def test_a_sleepable_read_mostly_lock_is_refused(s: Stage) -> None:
    """callout_init_rm() refuses a lock that was made with RM_SLEEPABLE."""
    lock = s.do(RmLock, "rm", RM_SLEEPABLE)

    with pytest.raises(LockClassError, match="await"):
        s.do(callout_init_rm, Callout(), lock)


@pytest.mark.parametrize("init", [callout_init_mtx, callout_init_rw, callout_init_rm])
def test_other_sleepable_locks_are_refused(s: Stage, init: type) -> None:
    """A lock that a task can hold across an await cannot be a callout's lock."""
    with pytest.raises(LockClassError, match="await"):
        s.do(init, Callout(), trio.Lock())


def test_each_init_takes_its_own_kind_of_lock(s: Stage) -> None:
    """A mutex is no lock for callout_init_rw(), a read/write lock none for callout_init_rm(), and so on."""
    mtx, rw, rm = s.lock("mtx"), s.lock("rw"), s.lock("rm")
    inits: dict[Callable[..., None], AnyLock] = {callout_init_mtx: mtx, callout_init_rw: rw, callout_init_rm: rm}
    for init, own in inits.items():
        for lock in (mtx, rw, rm):
            if lock is not own:
                with pytest.raises(LockClassError, match="the lock must be"):
                    s.do(init, Callout(), lock)


def test_init_of_a_callout_in_use_is_an_error(s: Stage) -> None:
    """A callout that is pending or running cannot be initialised; it can when it is idle, and is as new then."""
    c = s.callout()
    s.do(callout_reset, c, 1, s.halt, "run")
    with pytest.raises(BusyError, match="pending"):
        s.do(callout_init, c, 1)
    s.tick()
    with pytest.raises(BusyError, match="running"):
        s.do(callout_init, c, 1)
    s.open("run")
    s.do(callout_init, c, 0)
    s.do(callout_reset, c, 1, s.seen, "anew")
    s.tick()

    assert s.ran == ["run", "anew"]


def test_the_exclusive_lock_of_a_callback_is_the_write_lock(s: Stage) -> None:
    """A callback under a read/write lock or read-mostly lock has it for writing."""
    for lock in (s.lock("rw"), s.lock("rm")):
        assert isinstance(lock, RwLock)
        c = s.callout(lock)
        s.do(callout_reset, c, 1, partial(rw_assert, lock), RA_WLOCKED)
        s.tick()

        assert s.errors == []


def test_a_callback_may_take_its_lock_again_only_if_it_is_recursive(s: Stage) -> None:
    """A callback owns its lock: Giant it may acquire again, another mutex it may not."""
    giant, mtx = s.lock("Giant"), s.lock("mtx")
    for lock in (giant, mtx):
        c = s.callout(lock)

        def run(arg: AnyLock) -> None:
            with arg:
                s.seen(curcpu())

        s.do(callout_reset, c, 1, run, lock)
        s.tick()

    assert s.ran == [0]
    assert "holds it already" in str(s.error())
