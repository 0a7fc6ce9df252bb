"""A scenario that uses what virtual CPUs do not have is told so; the same calls in other code are nobody's business."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import multiprocessing
import os
import queue
import random
import secrets
import select
import selectors
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest
import trio

from callout import Callout, Mtx, callout_init, callout_reset, open_callouts
from callout.explore import NotModelledError, explore
from callout.testing import VirtualSMP

GLOBAL_LOCK = threading.Lock()
NOT_MADE: Any = None  # the coroutine of a call that is not made
OPEN_LOCK = threading.RLock()


class Guarded:
    """An object with a real lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0

    def use(self) -> None:
        """Hold the lock."""
        with self.lock:
            self.count += 1


def holds_a_global() -> None:
    """Hold a real lock that is a global."""
    with GLOBAL_LOCK:
        pass


def holds_a_local() -> None:
    """Hold a real lock that is a local."""
    lock = OPEN_LOCK
    with lock:
        pass


def thread() -> None:
    """Start a real thread."""
    threading.Thread(target=str).start()


def pool() -> None:
    """Use a pool of real threads."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(str)


def maps() -> None:
    """Let a pool of real threads map."""
    with ThreadPoolExecutor(1) as executor:
        executor.map(str, [1])


def polls() -> None:
    """Wait for real descriptors."""
    selectors.DefaultSelector().select(1_000_000)


def fails_after() -> None:
    """Set a timeout of trio's."""
    with trio.fail_after(1):  # noqa: ASYNC100 - it is not entered
        pass


def scope() -> None:
    """Enter a scope of trio's."""
    with trio.CancelScope():  # noqa: ASYNC100 - it is not entered
        pass


async def nothing() -> None:
    """Await nothing."""


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "time": (time.time, "time is virtual there"),
    "monotonic": (time.monotonic, "sbinuptime()"),
    "perf_counter_ns": (time.perf_counter_ns, "time.perf_counter_ns(), at"),
    "now": (lambda: dt.datetime.now(dt.UTC), "datetime.now()"),
    "sleep": (lambda: time.sleep(1_000_000), "pause_sync()"),
    "random": (random.random, "random.Random(seed)"),
    "shuffle": (lambda: random.shuffle([1, 2]), "random.shuffle()"),
    "unseeded": (random.Random, "random.Random()"),
    "urandom": (lambda: os.urandom(1), "os.urandom()"),
    "secrets": (lambda: secrets.token_hex(1), "secrets.token_hex()"),
    "acquire": (GLOBAL_LOCK.acquire, "use Mtx, or vm.lock()"),
    "with a global": (holds_a_global, "`with GLOBAL_LOCK:`"),
    "with a local": (holds_a_local, "`with lock:`"),
    "with an attribute": (lambda: Guarded().use(), "`with self.lock:`"),
    "event": (lambda: threading.Event().wait(), "threading.Event.wait()"),
    "queue": (lambda: queue.Queue[int]().get(), "queue.Queue.get()"),
    "thread": (thread, "use vm.spawn()"),
    "pool": (pool, "use vm.spawn()"),
    "process": (lambda: subprocess.run(["true"], check=True), "subprocess.run()"),  # noqa: S607 - it is not run
    "asyncio": (lambda: asyncio.run(NOT_MADE), "coroutine function"),
    "trio": (lambda: trio.run(nothing), "trio.run()"),
    "clock_gettime": (lambda: time.clock_gettime(0), "time.clock_gettime(), at"),
    "clock_gettime_ns": (lambda: time.clock_gettime_ns(0), "sbinuptime()"),
    "localtime": (lambda: time.localtime(), "time.localtime(), at"),
    "gmtime": (lambda: time.gmtime(), "time is virtual there"),
    "ctime": (lambda: time.ctime(), "sbinuptime()"),
    "strftime": (lambda: time.strftime("%S"), "time.strftime(), at"),
    "select": (lambda: select.select([], [], [], 1_000_000), "pause_sync()"),
    "selectors": (polls, "pause_sync()"),
    "getrandom": (lambda: os.getrandom(1), "os.getrandom()"),
    "seed": (lambda: random.Random(1).seed(), "random.Random.seed()"),
    "system": (lambda: os.system("true"), "os.system()"),  # noqa: S605, S607 - it is not run
    "popen": (lambda: getattr(os, "popen")("true"), "os.popen()"),  # noqa: B009 - deprecated, and used all the same
    "spawn": (lambda: os.posix_spawn("true", ["true"], {}), "os.posix_spawn()"),
    "spawnv": (lambda: getattr(os, "spawnv")(0, "true", ["true"]), "os.spawnv()"),  # noqa: B009 - as above
    "getoutput": (lambda: subprocess.getoutput("true"), "subprocess.getoutput()"),  # noqa: S605, S607 - it is not run
    "processes": (lambda: multiprocessing.Pool(1), "it runs beside the schedule"),
    "map": (maps, "use vm.spawn()"),
    "simple queue": (lambda: queue.SimpleQueue[int]().put(1), "queue.SimpleQueue.put()"),
    "put_nowait": (lambda: queue.Queue[int]().put_nowait(1), "a deque under an Mtx"),
    "get_nowait": (lambda: queue.Queue[int]().get_nowait(), "queue.Queue.get_nowait()"),
    "nursery": (trio.open_nursery, "trio.open_nursery(), at"),
    "move_on_after": (lambda: trio.move_on_after(1), "tsleep() and cv_timedwait()"),
    "fail_after": (fails_after, "trio.fail_after(), at"),
    "scope": (scope, "trio.CancelScope.__enter__(), at"),
    "current_time": (trio.current_time, "sbinuptime()"),
    "current_task": (trio.lowlevel.current_task, "coroutine function"),
    "create_task": (lambda: asyncio.create_task(NOT_MADE), "vm.spawn(async_function, cpu=0)"),
    "running loop": (asyncio.get_running_loop, "coroutine function"),
    "open_callouts": (open_callouts, "callout.open_callouts(), at"),
}


@pytest.mark.parametrize(("use", "says"), WRONG.values(), ids=WRONG)
def test_it_is_noticed_and_not_done(use: Callable[[], object], says: str) -> None:
    """The error names what was called, where, and what to use in its place; nothing hangs, and nothing is certified."""
    with pytest.raises(NotModelledError) as caught:
        explore(lambda vm: use() and None)

    assert says in str(caught.value)
    assert f"at {__file__}:" in str(caught.value)
    assert not GLOBAL_LOCK.locked()


@pytest.mark.parametrize("sleep", [trio.sleep, asyncio.sleep])
def test_what_another_loop_would_wait_for_is_noticed(sleep: Callable[[float], object]) -> None:
    """So the error says what can be awaited, and not that there is no loop of that kind."""

    async def scenario(vm: VirtualSMP) -> None:
        await sleep(0)  # type: ignore[misc]  # a coroutine function

    with pytest.raises(NotModelledError, match="only callout's own awaitables"):
        explore(scenario)


def locked(lock: Mtx) -> None:
    """Hold a lock of callout's."""
    with lock:
        pass


FINE: dict[str, Callable[[], object]] = {
    "logging": lambda: logging.getLogger("callout.tests").warning("a line, with the time of day"),
    "uuid": uuid.uuid4,
    "tempfile": lambda: tempfile.TemporaryFile().close(),
    "seeded": lambda: random.Random(7).randint(1, 6),
    "made, not held": threading.Lock,
    "set, not waited for": lambda: threading.Event().set(),
    "a date": lambda: dt.date(2000, 5, 26),
    "a given time": lambda: (time.gmtime(0), time.ctime(0), time.localtime(0), time.strftime("%S", time.gmtime(0))),
    "seeded again": lambda: random.Random(7).seed(8),
    "a callout's lock": lambda: locked(Mtx("m")),
}


@pytest.mark.parametrize("use", FINE.values(), ids=FINE)
def test_what_does_no_harm_is_not_noticed(use: Callable[[], object]) -> None:
    """The standard library may look at the clock, and draw random names; and a lock that is not held stops nobody."""

    def scenario(vm: VirtualSMP) -> None:
        vm.spawn(use)
        vm.spawn(use)

    assert explore(scenario).exhausted


@pytest.mark.parametrize("where", ["thread", "callback", "caught"])
def test_it_is_noticed_wherever_it_is(where: str) -> None:
    """In a thread, in a callback, and though an ``except`` has swallowed the error."""

    def look(_: object = None) -> None:
        try:
            time.time()
        except Exception:
            if where != "caught":
                raise

    def scenario(vm: VirtualSMP) -> None:
        if where == "callback":
            c = Callout()
            callout_init(c, 1)
            callout_reset(c, 1, look, None)
        else:
            vm.spawn(look)
        vm.settle()

    with pytest.raises(NotModelledError, match=r"time\.time\(\), at .* in .*look\(\)"):
        explore(scenario)


def test_only_the_first_run_is_looked_at() -> None:
    """No other has a profile function, and none is left behind."""
    looked: list[bool] = []

    def scenario(vm: VirtualSMP) -> None:
        looked.append(sys.getprofile() is not None)
        vm.spawn(vm.point)

    explore(scenario)

    assert looked[0]
    assert len(looked) > 1
    assert not any(looked[1:])
    assert sys.getprofile() is None


def test_a_profile_function_of_somebody_else_stays() -> None:
    """Then nothing is noticed: there is one for each thread."""

    def theirs(frame: FrameType, event: str, arg: object) -> None:
        """Do nothing."""

    sys.setprofile(theirs)
    try:
        explore(lambda vm: time.time() and None)
        kept = sys.getprofile()
    finally:
        sys.setprofile(None)

    assert kept is theirs
