"""The names of mutex(9), rwlock(9) and rmlock(9). Each is the method itself.

``*_init()`` return the lock, since Python has no out parameter. ``rm_rlock()`` wants no tracker: the lock knows its
readers.
"""

from __future__ import annotations

from .._core.describe import shown
from .._core.errors import ArgumentTypeError
from .._locks.mutex import MTX_DEF, Mtx
from .._locks.rwlock import RmLock, RwLock


def mtx_init(name: str, type: str | None = None, opts: int = MTX_DEF, /) -> Mtx:  # noqa: A002 - the kernel's name
    """Return a new mutex of the current system.

    *type* is the kernel's class name for its lock order checker, unused yet. Never blocks.

    Raises:
        ArgumentTypeError: *type* is neither a str nor None: options come after it.
        NoSystemError, ArgumentTypeError, ArgumentValueError: as ``Mtx()``.
    """
    if type is not None and not isinstance(type, str):
        raise ArgumentTypeError(
            f"mtx_init: type must be a str or None, not {shown(type)}; options are the third argument", call="mtx_init"
        )
    return Mtx(name, opts)


def rw_init(name: str, opts: int = 0, /) -> RwLock:
    """Return a new read/write lock of the current system. Never blocks. See rwlock(9), ``rw_init_flags()``."""
    return RwLock(name, opts)


def rm_init(name: str, opts: int = 0, /) -> RmLock:
    """Return a new read-mostly lock of the current system. Never blocks. See rmlock(9), ``rm_init_flags()``."""
    return RmLock(name, opts)


mtx_lock = Mtx.lock
mtx_unlock = Mtx.unlock
mtx_lock_spin = Mtx.lock_spin
mtx_unlock_spin = Mtx.unlock_spin
mtx_trylock = Mtx.trylock
mtx_trylock_spin = Mtx.trylock
mtx_owned = Mtx.owned
mtx_recursed = Mtx.recursed
mtx_assert = Mtx.assert_
mtx_destroy = Mtx.destroy
mtx_initialized = Mtx.initialized

rw_rlock = RwLock.rlock
rw_wlock = RwLock.wlock
rw_try_rlock = RwLock.try_rlock
rw_try_wlock = RwLock.try_wlock
rw_try_upgrade = RwLock.try_upgrade
rw_downgrade = RwLock.downgrade
rw_runlock = RwLock.runlock
rw_wunlock = RwLock.wunlock
rw_unlock = RwLock.unlock
rw_wowned = RwLock.owned
rw_assert = RwLock.assert_
rw_destroy = RwLock.destroy
rw_initialized = RwLock.initialized

rm_rlock = RmLock.rlock
rm_wlock = RmLock.wlock
rm_try_rlock = RmLock.try_rlock
rm_runlock = RmLock.runlock
rm_wunlock = RmLock.wunlock
rm_wowned = RmLock.owned
rm_assert = RmLock.assert_
rm_destroy = RmLock.destroy
rm_initialized = RmLock.initialized

__all__ = [name for name in dir() if name.startswith(("mtx_", "rw_", "rm_"))]
