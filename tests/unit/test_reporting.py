"""What becomes of exceptions and of log messages, whatever the application's code does when it is told."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final, cast

import pytest
import structlog
import trio
import trio.testing

from callout import (
    C_ABSOLUTE,
    C_DIRECT_EXEC,
    C_HARDCLOCK,
    C_PRECALC,
    ArgumentTypeError,
    CallbackCancelledError,
    Callout,
    CalloutSystem,
    Mtx,
    RwLock,
    callout_drain,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt_on,
    open_callouts,
)
from callout._core.levels import CHUNK
from callout._core.platform import Entry
from callout._core.units import NEVER
from callout._worlds.trio import watch
from callout._worlds.trio.platform import Loop
from callout._worlds.trio.reporting import OnError
from tests.conformance.loops import Halt, Tell, play

HOUR: Final = 3_600_000  # ticks


def fresh() -> Callout:
    """Return an mpsafe callout of the current system."""
    c = Callout()
    callout_init(c, 1)
    return c


def ignore(arg: object) -> None:
    """Be a callback that does nothing."""


def raising(error: BaseException) -> Callable[[object], None]:
    """Return a callback that raises *error*."""

    def fail(arg: object) -> None:
        raise error

    return fail


def leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


class Bad:
    """An object that cannot be shown, nor looked at."""

    def __repr__(self) -> str:
        raise RuntimeError("detached")

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)

    def __call__(self, arg: object) -> None:
        """Be a callback that fails."""
        raise ValueError(self)


class BadError(Exception):
    """An exception that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("bad")

    __str__ = __repr__


class Sink(logging.Handler):
    """Takes what the package logs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self.on: dict[str, Callable[[], object]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Take one."""
        self.records.append(record)
        for event, then in list(self.on.items()):
            if event in record.getMessage():
                then()

    def of(self, event: str) -> list[str]:
        """Return the messages of that event."""
        return [text for record in self.records if event in (text := record.getMessage())]


@pytest.fixture
def sink() -> Iterator[Sink]:
    """Give a sink of the package's log."""
    handler = Sink()
    logger = logging.getLogger("callout")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


# -- it survives -------------------------------------------------------------------------------------------------------


async def survives(func: Callable[[object], object], arg: object = None, cpu: int = 0) -> list[BaseException]:
    """Assert that a callback that fails leaves the lock free, drainers served and its CPU alive; return its errors."""
    got: list[BaseException] = []
    async with open_callouts(cpu + 1, on_error=lambda error, c: got.append(error), expensive=1e-9):
        mtx, c, later = Mtx("m"), Callout(), Tell()
        callout_init_mtx(c, mtx)
        callout_reset_on(c, 1, func, arg, cpu)
        callout_reset_on(fresh(), 3, later, None, cpu)
        await later.ran.wait()

        assert await callout_drain(c) == -1
        assert mtx.trylock() == 1

        mtx.unlock()
    return got


@pytest.mark.trio
@pytest.mark.parametrize("cpu", [0, 1])
@pytest.mark.parametrize(
    "func",
    [raising(BadError()), Bad(), partial(raising(ValueError()), Bad()), raising(KeyError(Bad()))],
    ids=["exception", "callable", "partial", "argument of the exception"],
)
async def test_reprs_that_raise(func: Callable[[object], object], cpu: int) -> None:
    """An exception, a callback or an argument whose repr raises is reported all the same, and nothing else happens."""
    if isinstance(func, partial):
        func = partial(lambda bad, arg: raising(ValueError())(arg), Bad())
    errors = await survives(func, Bad(), cpu)

    assert len(errors) == 1
    assert isinstance(errors[0], BadError | ValueError | KeyError)


@pytest.mark.trio
@pytest.mark.parametrize("cpu", [0, 1])
@pytest.mark.parametrize("how", ["filter", "structlog"])
async def test_a_log_that_raises(
    how: str, cpu: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log that fails is no matter for the engine; that it failed is said on standard error."""

    def broken(*args: object) -> bool:
        raise OSError("the disk is full")

    logger = logging.getLogger("callout")
    if how == "filter":
        logger.addFilter(broken)
    else:
        structlog.configure(processors=[cast("structlog.typing.Processor", broken)])
    try:
        errors = await survives(raising(ValueError("x")), cpu=cpu)
    finally:
        logger.removeFilter(broken)
        structlog.reset_defaults()

    assert [repr(error) for error in errors] == ["ValueError('x')"]
    assert "the log could not be told of callout.callback_error" in capsys.readouterr().err


@pytest.mark.trio
async def test_a_log_that_raises_where_there_is_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a standard error, as in a daemon, nothing comes of it at all."""

    def broken(record: logging.LogRecord) -> bool:
        raise OSError("the disk is full")

    monkeypatch.setattr(sys, "stderr", None)
    logging.getLogger("callout").addFilter(broken)
    try:
        errors = await survives(raising(ValueError("x")))
    finally:
        logging.getLogger("callout").removeFilter(broken)

    assert [repr(error) for error in errors] == ["ValueError('x')"]


# -- what arrives ------------------------------------------------------------------------------------------------------


async def until_it_fails(func: Callable[[object], object], on_error: OnError | None = None) -> list[BaseException]:
    """Return what leaves the block when a callback raises."""

    async def body(system: CalloutSystem) -> None:
        callout_reset(fresh(), 1, func, None)
        await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await play(body, on_error=on_error)
    return leaves(caught.value)


@pytest.mark.trio
@pytest.mark.parametrize(
    "error",
    [
        StopIteration(1),
        StopAsyncIteration(1),
        GeneratorExit(),
        SystemExit(3),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        MemoryError(),
        BaseException("base"),
    ],
    ids=repr,
)
async def test_whatever_a_callback_raises_arrives_as_it_is(error: BaseException) -> None:
    """What a callback raises leaves the block as the very object, be it an Exception or not."""
    (arrived,) = await until_it_fails(raising(error))

    assert arrived is error


@pytest.mark.trio
@pytest.mark.parametrize("grouped", [False, True])
async def test_a_stray_cancelled_is_an_error(grouped: bool) -> None:
    """A callback that raises trio.Cancelled, in a group or not, is reported: it does not end the block silently."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            stray: BaseException = BaseExceptionGroup("group", [error]) if grouped else error
            (arrived,) = await shielded(until_it_fails(raising(stray)))
            assert isinstance(arrived, CallbackCancelledError)
            assert arrived.__cause__ is stray
            got: list[BaseException] = []
            done = trio.Event()

            def on_error(error: Exception, c: Callout | None) -> None:
                got.append(error)
                done.set()

            with trio.CancelScope(shield=True):
                async with open_callouts(on_error=on_error):
                    callout_reset(fresh(), 1, raising(stray), None)
                    await done.wait()
            assert isinstance(got[0], CallbackCancelledError)


async def shielded(waiting: Awaitable[list[BaseException]]) -> list[BaseException]:
    """Await it where no cancellation reaches it."""
    result: list[BaseException] = []
    with trio.CancelScope(shield=True):
        result += await waiting
    return result


@pytest.mark.trio
async def test_an_on_error_that_raises_what_is_no_exception() -> None:
    """SystemExit and StopIteration of on_error leave through the block, as they are."""
    for error in (SystemExit(4), StopIteration(5)):

        def on_error(_: Exception, c: Callout | None, error: BaseException = error) -> None:
            raise error

        assert await until_it_fails(raising(ValueError()), on_error) == [error]


# -- asynchronous on_error ---------------------------------------------------------------------------------------------


async def asynchronous(error: Exception, c: Callout | None) -> None:
    """Be what cannot be an on_error."""


class Asynchronous:
    """An object that cannot be an on_error either."""

    async def __call__(self, error: Exception, c: Callout | None) -> None:
        """Never run."""


@pytest.mark.trio
@pytest.mark.parametrize(
    "on_error", [asynchronous, Asynchronous(), partial(asynchronous)], ids=["def", "object", "partial"]
)
async def test_an_async_on_error_is_refused(on_error: OnError) -> None:
    """An async function as on_error is refused when the system is opened, with the remedy."""
    with pytest.raises(ArgumentTypeError, match=r"async function.*start_soon"):
        async with open_callouts(on_error=on_error):
            pytest.fail("opened")


@pytest.mark.trio
async def test_an_on_error_that_returns_an_awaitable_is_reported() -> None:
    """A lambda that returns a coroutine has dealt with nothing: the error and the mistake both leave the block."""
    errors = await until_it_fails(raising(ValueError("x")), lambda error, c: asynchronous(error, c))

    assert [type(error) for error in errors] == [ValueError, ArgumentTypeError]


# -- what the log says -------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_a_callback_error_has_its_traceback_and_origin(sink: Sink) -> None:
    """The message of a failed callback has a traceback, and, in checking mode, the place where it was armed."""
    tell = Tell()
    async with open_callouts(on_error=lambda error, c: tell(error), checking=True):
        callout_reset(fresh(), 1, raising(ValueError("x")), None)
        await tell.ran.wait()

    (record,) = [record for record in sink.records if "callback_error" in record.getMessage()]
    assert record.exc_info is not None
    assert "in fail" in logging.Formatter().formatException(cast("Any", record.exc_info))
    assert "test_a_callback_error_has_its_traceback_and_origin" in record.getMessage()


@pytest.mark.trio
async def test_structlog_gets_the_exception(sink: Sink) -> None:
    """Structlog as the application configured it is given the exception as exc_info."""
    events: list[structlog.typing.EventDict] = []

    def keep(logger: object, name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        events.append(event)
        raise structlog.DropEvent

    error = ValueError("x")
    structlog.configure(processors=[keep])
    try:
        await survives(raising(error))
    finally:
        structlog.reset_defaults()

    (event,) = [event for event in events if event["event"] == "callout.callback_error"]
    assert event["exc_info"] is error


@pytest.mark.trio
async def test_a_run_that_waits_for_its_lock_is_named(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Softclock that stays parked at a lock is in the log: which callout, which lock, who holds it, how long."""
    monkeypatch.setattr(watch, "_LONG", 0.0)
    async with open_callouts() as system:
        mtx, c = Mtx("the lock"), Callout()
        callout_init_mtx(c, mtx)
        go, held = threading.Event(), trio.Event()
        sink.on["callout.lock_waits"] = go.set

        def hold() -> None:
            with system.bound(), mtx:
                trio.from_thread.run_sync(held.set)
                go.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, hold)
            await held.wait()
            callout_reset(c, 1, ignore, None)

    text = sink.of("callout.lock_waits")[0]
    assert "'the lock' held by thread" in text
    assert "waiting for its lock" in text
    assert "by='task softclock of cpu 0'" in text
    assert "seconds=" in text


@pytest.mark.trio
@pytest.mark.parametrize("by", ["task", "thread"])
async def test_a_drain_that_waits_is_named(sink: Sink, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """A drain that waits for long is in the log: for which callout, who waits, how long."""
    monkeypatch.setattr(watch, "_LONG", 0.0)
    async with open_callouts(2) as system:
        c, halt = fresh(), Halt()
        sink.on["callout.drain_waits"] = halt.let_go
        callout_reset_on(c, 1, halt, None, 1)
        await halt.there.wait()

        def drain() -> None:
            threading.current_thread().name = "the drainer"
            with system.bound():
                callout_drain_sync(c)

        if by == "task":
            await callout_drain(c)
        else:
            thread = threading.Thread(target=drain)
            thread.start()
            await trio.to_thread.run_sync(thread.join)

    text = sink.of("callout.drain_waits")[0]
    assert f"call='callout_drain{'_sync' if by == 'thread' else ''}'" in text
    assert "Halt" in text
    assert ("the drainer" if by == "thread" else "test_a_drain_that_waits_is_named") in text


@pytest.mark.trio
async def test_the_watch_of_an_idle_system_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch over long waits looks at nothing, and sets no timer, unless something waits, or has."""
    monkeypatch.setattr(watch, "_LONG", 0.0)
    async with open_callouts(2) as system:
        c, halt = fresh(), Halt()
        await trio.testing.wait_all_tasks_blocked()

        assert system._watch._until == math.inf

        callout_reset_on(c, 1, halt, None, 1)
        await halt.there.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(callout_drain, c)
            await trio.testing.wait_all_tasks_blocked()

            assert system._watch._until < math.inf

            halt.let_go()


@pytest.mark.trio
async def test_a_late_callout_is_named(sink: Sink) -> None:
    """A callout that is late because a task blocked the loop is in the log, with that task's name in checking mode."""
    async with open_callouts(expensive=1e-6, checking=True) as system:
        tell = Tell()
        blocked = threading.Event()

        async def blocks() -> None:
            callout_reset(fresh(), 1, tell, None)
            before = system.ticks()
            while system.ticks() < before + 20:  # the loop stands for 20 ms
                blocked.is_set()

        system.cpu(0).start_soon(blocks)
        await tell.ran.wait()

    text = sink.of("callout.late")[0]
    assert "blocks blocked the loop" in text
    assert "cpu=0" in text


@pytest.mark.trio
async def test_late_callouts_are_said_once(sink: Sink) -> None:
    """One blocked loop is one line in the log, however many interrupts its late callouts take."""
    async with open_callouts(expensive=1e-6, checking=False) as system:
        tell = Tell()
        for c in [fresh() for _ in range(3 * CHUNK)]:
            callout_reset(c, 1, ignore, None)
        callout_reset(fresh(), 2, tell, None)
        before = system.ticks()
        while system.ticks() < before + 20:  # the loop stands for 20 ms
            pass
        await tell.ran.wait()

    assert len(sink.of("callout.late")) == 1


@pytest.mark.trio
@pytest.mark.parametrize("checking", [True, False])
@pytest.mark.parametrize("cpu", [0, 1])
@pytest.mark.parametrize("direct", [C_DIRECT_EXEC, 0])
async def test_a_time_that_is_past_is_not_late(sink: Sink, checking: bool, cpu: int, direct: int) -> None:
    """A callout that is armed for a time long ago is not said to be late: no loop was blocked since it was armed."""
    long_ago = time.monotonic() / 2
    async with open_callouts(2, expensive=long_ago, checking=checking):
        for flags in (C_ABSOLUTE, C_ABSOLUTE | C_HARDCLOCK, C_PRECALC):
            tell = Tell()
            callout_reset_sbt_on(fresh(), 0, 0, tell, None, cpu, flags | direct)
            await tell.ran.wait()

    assert sink.of("callout.late") == []


@pytest.mark.parametrize(
    ("settings", "due"),
    [
        ([(100, 50)], 100),
        ([(100, 500)], 500),  # for a time that is past: from now on
        ([(100, 50), (90, 400)], 100),  # what is overdue stays so
        ([(100, 50), (90, 60)], 90),
        ([(100, 50), (100, 400)], 100),
        ([(100, 50), (300, 200)], 300),  # what was overdue was stopped
        ([(100, 50), (NEVER, 200)], NEVER),
        ([(100, 500), (NEVER, 600), (100, 700)], 700),
    ],
)
def test_since_when_an_interrupt_is_due(settings: list[tuple[int, int]], due: int) -> None:
    """The interrupt is due since the earliest time at which the event timer, as it was set so far, could have fired."""
    loop = silent_loop(lambda: False)
    for when, now in settings:
        loop.set_event(when, now)

    assert loop.due == due


@pytest.mark.parametrize(("when", "due"), [(10, 700), (800, 800), (2000, 2000), (NEVER, NEVER)])
def test_what_an_interrupt_sets_is_due_since_it_began(when: int, due: int) -> None:
    """What a clock interrupt finds, or arms, waits for the end of that interrupt, and for nothing before it."""

    def hardclock() -> bool:
        loop.set_event(when, 900)
        return False

    loop = silent_loop(hardclock)
    loop.set_event(100, 50)

    assert loop.clock_interrupt(700) is False
    assert loop.due == due

    loop.set_event(5, 950)

    assert loop.due == min(due, 950)


def silent_loop(hardclock: Callable[[], bool]) -> Loop:
    """Return a loop that does not run, with an event timer that does nothing."""

    class Timer:
        def set(self, when: int) -> None: ...

        async def expired(self) -> None: ...

        def wake(self) -> None: ...

        def close(self) -> None: ...

    async def softclock() -> None: ...

    loop = Loop(Entry(hardclock, lambda: None, softclock), ignore)
    loop.timer = Timer()
    return loop


@pytest.mark.trio
@pytest.mark.parametrize(("checking", "level"), [(True, logging.WARNING), (False, logging.INFO)])
async def test_what_was_pending_at_the_end_is_named(sink: Sink, checking: bool, level: int) -> None:
    """Callouts that the end of the block has stopped are counted in the log, and some are named, with their origin."""
    async with open_callouts(checking=checking):
        for _ in range(7):
            callout_reset(fresh(), HOUR, ignore, None)

    (record,) = [record for record in sink.records if "pending_at_exit" in record.getMessage()]
    assert record.levelno == level
    assert "count=7" in record.getMessage()
    assert "ignore" in record.getMessage()
    assert ("test_what_was_pending_at_the_end_is_named" in record.getMessage()) == checking


# -- reprs -------------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_the_repr_of_a_lock_names_its_owner() -> None:
    """A lock that is held says by whom."""
    async with open_callouts(checking=False):
        mtx, rw = Mtx("m"), RwLock("rw")
        me = f"thread {threading.current_thread().name!r}"
        with mtx, rw.read():
            assert repr(mtx) == f"<Mtx 'm' held by {me}>"
            assert repr(rw) == f"<RwLock 'rw' held by {me}>"
        assert repr(mtx) == "<Mtx 'm'>"
        with rw:
            assert repr(rw) == f"<RwLock 'rw' held by {me}>"
