"""The names of mutex(9), rwlock(9) and rmlock(9). Each calls the method, for a lock of its kind and nothing else.

``*_init()`` return the lock, since Python has no out parameter. ``rm_rlock()`` wants no tracker: the lock knows its
readers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from .._core.describe import shown
from .._core.errors import ArgumentTypeError
from .._core.guard import protected
from .._locks.lock import Lock
from .._locks.mutex import MTX_DEF, Mtx
from .._locks.rwlock import RmLock, RwLock

L = TypeVar("L", bound=Lock)
P = ParamSpec("P")
R = TypeVar("R")


def mtx_init(name: str, type: str | None = None, opts: int = MTX_DEF, /) -> Mtx:  # noqa: A002 - the kernel's name
    """Return a new mutex of the current system.

    *type* is its class for the order of locks, which checking mode keeps; without, its *name* is that. Never blocks.

    Raises:
        ArgumentTypeError: *type* is neither a str nor None: options come after it.
        NoSystemError, ArgumentTypeError, ArgumentValueError: as ``Mtx()``.
    """
    if type is not None and not isinstance(type, str):
        raise ArgumentTypeError(
            f"mtx_init: type must be a str or None, not {shown(type)}; options are the third argument", call="mtx_init"
        )
    return Mtx(name, opts, type=type)


def rw_init(name: str, opts: int = 0, /) -> RwLock:
    """Return a new read/write lock of the current system. Never blocks. See rwlock(9), ``rw_init_flags()``."""
    return RwLock(name, opts)


def rm_init(name: str, opts: int = 0, /) -> RmLock:
    """Return a new read-mostly lock of the current system. Never blocks. See rmlock(9), ``rm_init_flags()``."""
    return RmLock(name, opts)


def _call(call: str, kind: type[L], method: Callable[Concatenate[L, P], R]) -> Callable[Concatenate[L, P], R]:
    """Return the function *call*, which is *method* and refuses what is no *kind* of lock."""
    name = method.__name__

    @protected
    @wraps(method)
    def function(lock: L, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if not isinstance(lock, kind):
            raise ArgumentTypeError(
                f"{call}: the first argument must be a lock, of type {kind.__name__}, not {shown(lock)}", call=call
            )
        # By its name: a lock that a Slab has freed is of another class, whose methods say so.
        bound: Callable[P, R] = getattr(lock, name)
        return bound(*args, **kwargs)

    return function


mtx_lock = _call("mtx_lock", Mtx, Mtx.lock)
mtx_unlock = _call("mtx_unlock", Mtx, Mtx.unlock)
mtx_lock_spin = _call("mtx_lock_spin", Mtx, Mtx.lock_spin)
mtx_unlock_spin = _call("mtx_unlock_spin", Mtx, Mtx.unlock_spin)
mtx_trylock = _call("mtx_trylock", Mtx, Mtx.trylock)
mtx_trylock_spin = _call("mtx_trylock_spin", Mtx, Mtx.trylock)
mtx_owned = _call("mtx_owned", Mtx, Mtx.owned)
mtx_recursed = _call("mtx_recursed", Mtx, Mtx.recursed)
mtx_assert = _call("mtx_assert", Mtx, Mtx.assert_)
mtx_destroy = _call("mtx_destroy", Mtx, Mtx.destroy)
mtx_initialized = _call("mtx_initialized", Mtx, Mtx.initialized)

rw_rlock = _call("rw_rlock", RwLock, RwLock.rlock)
rw_wlock = _call("rw_wlock", RwLock, RwLock.wlock)
rw_try_rlock = _call("rw_try_rlock", RwLock, RwLock.try_rlock)
rw_try_wlock = _call("rw_try_wlock", RwLock, RwLock.try_wlock)
rw_try_upgrade = _call("rw_try_upgrade", RwLock, RwLock.try_upgrade)
rw_downgrade = _call("rw_downgrade", RwLock, RwLock.downgrade)
rw_runlock = _call("rw_runlock", RwLock, RwLock.runlock)
rw_wunlock = _call("rw_wunlock", RwLock, RwLock.wunlock)
rw_unlock = _call("rw_unlock", RwLock, RwLock.unlock)
rw_wowned = _call("rw_wowned", RwLock, RwLock.owned)
rw_assert = _call("rw_assert", RwLock, RwLock.assert_)
rw_destroy = _call("rw_destroy", RwLock, RwLock.destroy)
rw_initialized = _call("rw_initialized", RwLock, RwLock.initialized)

rm_rlock = _call("rm_rlock", RmLock, RmLock.rlock)
rm_wlock = _call("rm_wlock", RmLock, RmLock.wlock)
rm_try_rlock = _call("rm_try_rlock", RmLock, RmLock.try_rlock)
rm_runlock = _call("rm_runlock", RmLock, RmLock.runlock)
rm_wunlock = _call("rm_wunlock", RmLock, RmLock.wunlock)
rm_wowned = _call("rm_wowned", RmLock, RmLock.owned)
rm_assert = _call("rm_assert", RmLock, RmLock.assert_)
rm_destroy = _call("rm_destroy", RmLock, RmLock.destroy)
rm_initialized = _call("rm_initialized", RmLock, RmLock.initialized)

__all__ = [name for name in dir() if name.startswith(("mtx_", "rw_", "rm_"))]
