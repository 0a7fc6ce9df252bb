"""How the API is typed, as a user would use it: checked by mypy, never run.

A callback and its argument must agree. Every wrong pair carries an ignore, and mypy reports an ignore that is not
needed, so that what is accepted by mistake is found, too.
"""

from __future__ import annotations

from typing import Any, NoReturn, assert_type

from callout import (
    C_DIRECT_EXEC,
    CALLOUT_RETURNUNLOCKED,
    MTX_SPIN,
    SBT_1S,
    Callout,
    CalloutSystem,
    CpuHandle,
    Mtx,
    RmLock,
    RwLock,
    callout_active,
    callout_barrier,
    callout_barrier_sync,
    callout_deactivate,
    callout_drain,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_init_rm,
    callout_init_rw,
    callout_pending,
    callout_reset,
    callout_reset_curcpu,
    callout_reset_on,
    callout_reset_sbt,
    callout_reset_sbt_curcpu,
    callout_reset_sbt_on,
    callout_schedule,
    callout_schedule_on,
    callout_schedule_sbt,
    callout_schedule_sbt_on,
    callout_stop,
    callout_terminate,
    callout_terminate_sync,
    callout_when,
    curcpu,
    draining,
    giant,
    hz,
    mtx_init,
    mtx_lock,
    mtx_owned,
    mtx_trylock,
    open_callouts,
    rw_init,
    rw_rlock,
    rw_try_rlock,
    sbinuptime,
    ticks,
)
from callout.freebsd13 import callout_async_drain


class Connection:
    """Something with callouts."""

    def __init__(self) -> None:
        self.timer = Callout()

    def expired(self, reason: str) -> None:
        """Be a callback that is a method."""


class Subclass(Connection):
    """Something more special."""


def on_connection(connection: Connection) -> None:
    """Be a callback."""


def on_subclass(connection: Subclass) -> int:
    """Be a callback that wants something special; what it returns is nobody's business."""
    return 1


def on_nothing(arg: None) -> None:
    """Be a callback that needs no argument."""


def on_anything(arg: object) -> None:
    """Be a callback that takes everything."""


def on_two(first: int, second: int) -> None:
    """Be no callback."""


def without() -> None:
    """Be no callback either."""


async def asynchronous(arg: int) -> None:
    """Be what may not be a callback; what mypy cannot see is an error when it is armed."""


def arming(c: Callout, connection: Connection, special: Subclass) -> None:
    """Function and argument agree in all calls that arm."""
    assert_type(callout_reset(c, 1, on_connection, connection), int)
    assert_type(callout_reset(c, 1, on_connection, special), int)
    assert_type(callout_reset(c, 1, on_subclass, special), int)
    assert_type(callout_reset(c, 1, on_nothing, None), int)
    assert_type(callout_reset(c, 1, on_anything, connection), int)
    assert_type(callout_reset(c, 1, connection.expired, "idle"), int)
    assert_type(callout_reset(c, 1, [connection].append, connection), int)
    assert_type(callout_reset(c, 1, lambda arg: arg, 1), int)
    assert_type(callout_reset_on(c, 1, on_connection, connection, 0), int)
    assert_type(callout_reset_curcpu(c, 1, on_connection, connection), int)
    assert_type(callout_reset_sbt(c, SBT_1S, 0, on_connection, connection), int)
    assert_type(callout_reset_sbt(c, SBT_1S, 0, on_connection, connection, C_DIRECT_EXEC), int)
    assert_type(callout_reset_sbt_on(c, SBT_1S, 0, on_connection, connection, 0, C_DIRECT_EXEC), int)
    assert_type(callout_reset_sbt_curcpu(c, SBT_1S, 0, on_connection, connection, C_DIRECT_EXEC), int)
    assert_type(callout_schedule(c, 1), int)
    assert_type(callout_schedule_on(c, 1, 0), int)
    assert_type(callout_schedule_sbt(c, SBT_1S, 0), int)
    assert_type(callout_schedule_sbt_on(c, SBT_1S, 0, 0, C_DIRECT_EXEC), int)

    callout_reset(c, 1, on_connection, "text")  # type: ignore[arg-type]  # no Connection
    callout_reset(c, 1, on_subclass, connection)  # type: ignore[arg-type]  # too general
    callout_reset(c, 1, on_nothing, 0)  # type: ignore[arg-type]  # not None
    callout_reset(c, 1, connection.expired, 1)  # type: ignore[arg-type]  # no str
    callout_reset(c, 1, on_two, 1)  # type: ignore[arg-type]  # two arguments
    callout_reset(c, 1, without, None)  # type: ignore[arg-type]  # none
    callout_reset(c, 1.5, on_connection, connection)  # type: ignore[call-overload]  # ticks are ints
    callout_reset(c, 1, "text", None)  # type: ignore[call-overload]  # no function
    callout_reset(c, 1, on_connection)  # type: ignore[call-overload]  # the argument is not optional
    callout_reset(connection, 1, on_connection, connection)  # type: ignore[call-overload]  # no Callout
    callout_reset_on(c, 1, on_connection, "text", 0)  # type: ignore[arg-type]  # no Connection
    callout_reset_on(c, 1, on_connection, connection, "cpu0")  # type: ignore[call-overload]  # CPUs are ints
    callout_reset_curcpu(c, 1, on_connection, "text")  # type: ignore[arg-type]  # no Connection
    callout_reset_sbt(c, SBT_1S, 0, on_connection, "text")  # type: ignore[arg-type]  # no Connection
    callout_reset_sbt(c, 0.5, 0, on_connection, connection)  # type: ignore[call-overload]  # sbintime is an int
    callout_reset_sbt_on(c, SBT_1S, 0, on_connection, "text", 0)  # type: ignore[arg-type]  # no Connection
    callout_reset_sbt_curcpu(c, SBT_1S, 0, on_connection, "text")  # type: ignore[arg-type]  # no Connection
    callout_reset(c=c, ticks=1, func=on_connection, arg=connection)  # type: ignore[call-overload]  # by position only, as in C


async def stopping(c: Callout, connection: Connection) -> None:
    """Results are ints; the awaitables must be awaited."""
    assert_type(callout_stop(c), int)
    assert_type(await callout_drain(c), int)
    assert_type(callout_drain_sync(c), int)
    assert_type(await callout_barrier(c), int)
    assert_type(callout_barrier_sync(c), int)
    assert_type(await callout_terminate(c), int)
    assert_type(callout_terminate_sync(c), int)
    assert_type(callout_drain_async(c, on_connection, connection), int)
    assert_type(callout_async_drain(c, on_anything), int)
    assert_type(callout_pending(c), int)
    assert_type(callout_active(c), int)
    callout_deactivate(c)
    async with draining(c, connection.timer):
        pass

    callout_drain_async(c, on_connection, "text")  # type: ignore[arg-type]  # no Connection
    callout_drain_async(c, without, None)  # type: ignore[arg-type]  # takes no argument
    callout_async_drain(c, without)  # type: ignore[arg-type]  # takes no argument
    callout_drain(c)  # type: ignore[unused-coroutine]  # not awaited
    callout_barrier(c)  # type: ignore[unused-coroutine]  # not awaited
    callout_terminate(c)  # type: ignore[unused-coroutine]  # not awaited


def initialising(c: Callout, mtx: Mtx, rw: RwLock, rm: RmLock) -> None:
    """Each kind of lock has its own call."""
    callout_init(c, 1)
    callout_init_mtx(c, mtx)
    callout_init_mtx(c, giant(), CALLOUT_RETURNUNLOCKED)
    callout_init_rw(c, rw)
    callout_init_rm(c, rm, 0)

    callout_init_mtx(c, rw)  # type: ignore[arg-type]  # no mutex
    callout_init_rw(c, mtx)  # type: ignore[arg-type]  # no read/write lock
    callout_init_rm(c, rw)  # type: ignore[arg-type]  # no read-mostly lock
    callout_init(c)  # type: ignore[call-arg]  # mpsafe or not?


def locking() -> None:
    """The calls of mutex(9) and rwlock(9), and the with statement."""
    mtx = assert_type(mtx_init("name", None, MTX_SPIN), Mtx)
    rw = assert_type(rw_init("name"), RwLock)
    mtx_lock(mtx)
    assert_type(mtx_trylock(mtx), int)
    assert_type(mtx_owned(mtx), bool)
    rw_rlock(rw)
    assert_type(rw_try_rlock(rw), int)
    with mtx as held:
        assert_type(held, Mtx)
    with rw, rw.read():
        pass

    mtx_lock(rw)  # type: ignore[arg-type]  # no mutex
    rw_rlock(mtx)  # type: ignore[arg-type]  # no read/write lock


async def task(number: int, name: str) -> None:
    """Be a task of a CPU."""


def report(error: Exception, c: Callout | None) -> None:
    """Take an error."""


def report_wrongly(error: Exception) -> None:
    """Take an error without its callout."""


async def system() -> None:
    """The system, its CPUs and its time."""
    async with open_callouts(2, 100, alloweddeviation=5, checking=True, on_error=report, expensive=0.5) as opened:
        assert_type(opened, CalloutSystem)
        assert_type(opened.cpu(0), CpuHandle)
        opened.cpu(0).start_soon(task, 1, "one")
        opened.cpu(0).call(on_anything, None)
        opened.cpu(1).call(on_two, 1, 2)
        with opened.bound(1) as bound:
            assert_type(bound, CalloutSystem)
        assert_type(opened.giant, Mtx)
        assert_type((opened.cpus, opened.hz, opened.ticks(), opened.sbinuptime()), tuple[int, int, int, int])

        opened.cpu(0).start_soon(task, 1)  # type: ignore[arg-type]  # the name is missing
        opened.cpu(0).start_soon(task, "one", 1)  # type: ignore[arg-type]  # the wrong way round
        opened.cpu(0).start_soon(on_two, 1, 2)  # type: ignore[arg-type]  # no async function
        opened.cpu(0).call(on_two, 1)  # type: ignore[arg-type]  # one is missing
    open_callouts(on_error=report_wrongly)  # type: ignore[arg-type]  # takes one argument
    assert_type((curcpu(), hz(), ticks(), sbinuptime()), tuple[int, int, int, int])
    assert_type(callout_when(SBT_1S, 0), tuple[int, int])


def always_raises(arg: int) -> NoReturn:
    """Be a callback that never returns: a plain one."""
    raise ValueError(arg)


def untyped(arg: int) -> Any:  # noqa: ANN401 - that is the point
    """Be a callback of which nothing is known."""


def no_async_callbacks(c: Callout) -> None:
    """An async function is no callback, wherever one is taken; a function that only raises is one."""
    callout_reset(c, 1, always_raises, 1)
    callout_reset(c, 1, untyped, 1)
    callout_drain_async(c, always_raises, 1)

    callout_reset(c, 1, asynchronous, 1)  # type: ignore[unused-coroutine]  # async
    callout_reset_on(c, 1, asynchronous, 1, 0)  # type: ignore[unused-coroutine]  # async
    callout_reset_curcpu(c, 1, asynchronous, 1)  # type: ignore[unused-coroutine]  # async
    callout_reset_sbt(c, SBT_1S, 0, asynchronous, 1)  # type: ignore[unused-coroutine]  # async
    callout_reset_sbt_on(c, SBT_1S, 0, asynchronous, 1, 0)  # type: ignore[unused-coroutine]  # async
    callout_reset_sbt_curcpu(c, SBT_1S, 0, asynchronous, 1)  # type: ignore[unused-coroutine]  # async
    callout_drain_async(c, asynchronous, 1)  # type: ignore[unused-coroutine]  # async
    result: int = callout_reset(c, 1, asynchronous, 1)  # type: ignore[assignment]  # async
    del result
