"""Ctrl-C in a main thread that runs no trio, while trio runs in another one."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import pytest
import trio

from callout import (
    Callout,
    CalloutSystem,
    Mtx,
    RwLock,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_stop,
    open_callouts,
)
from callout._core import guard
from callout._core.cpu import Cpu

from .test_robustness import Interruption, ignore, interrupt


@contextmanager
def in_another_thread(cpus: int = 1) -> Iterator[CalloutSystem]:
    """Give a system whose trio runs in another thread."""
    opened = threading.Event()
    systems: list[CalloutSystem] = []
    leave: list[Callable[[], object]] = []

    async def main() -> None:
        async with open_callouts(cpus) as system:
            over = trio.Event()
            token = trio.lowlevel.current_trio_token()
            leave.append(lambda: token.run_sync_soon(over.set))
            systems.append(system)
            opened.set()
            await over.wait()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    opened.wait()
    try:
        yield systems[0]
    finally:
        leave[0]()
        thread.join()


class Things:
    """What there is to use."""

    def __init__(self) -> None:
        self.c, self.locked, self.mtx, self.rw = Callout(), Callout(), Mtx("m"), RwLock("rw")
        callout_init(self.c, 1)
        callout_init_mtx(self.locked, self.mtx)


def with_lock(things: Things) -> None:
    """Use a callout with its lock held."""
    with things.mtx:
        callout_reset(things.locked, 100_000, ignore, None)
        callout_stop(things.locked)


def with_rw(things: Things) -> None:
    """Hold a read/write lock in both ways."""
    with things.rw:
        pass
    with things.rw.read():
        pass


OPERATIONS: Final[dict[str, Callable[[Things], object]]] = {
    "reset": lambda s: callout_reset(s.c, 100_000, ignore, None),
    "reset on": lambda s: callout_reset_on(s.c, 100_000, ignore, None, 0),
    "stop": lambda s: callout_stop(s.c),
    "drain_async": lambda s: callout_drain_async(s.c, ignore, None),
    "init": lambda s: callout_init(Callout(), 1),
    "mutex": with_lock,
    "rwlock": with_rw,
}


def check(cpu: Cpu, things: Things) -> None:
    """Assert that another thread can have every lock."""
    free: list[bool] = []

    def look() -> None:
        for lock in (cpu.lock, things.mtx._raw, things.rw._raw):
            lock.acquire()  # the CPU's own loop may hold it for a moment
            lock.release()
        free.append(things.mtx._owner is None and things.rw._writer is None and not things.rw._readers)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(60)

    assert free == [True]


@pytest.mark.pure
@pytest.mark.parametrize("name", OPERATIONS)
def test_ctrl_c_at_any_line_where_trio_is_in_another_thread(name: str) -> None:
    """Ctrl-C at any line of a call by a bound main thread arrives, once the call is over, and no lock is left held."""
    arrived = happened = line = 0
    with in_another_thread() as system, system.bound():
        things = Things()
        while True:
            interruption = Interruption(line, interrupt)
            before = happened
            came = threading.Event()
            try:
                try:
                    with interruption.armed():
                        OPERATIONS[name](things)
                finally:
                    happened += interruption.happened
                if interruption.happened:
                    came.wait(60)  # it comes again, and interrupts this
            except KeyboardInterrupt:
                arrived += 1
            check(system._machine.cpus[0], things)
            if happened == before:
                break
            line += 1

    assert arrived == happened >= 3


@pytest.mark.pure
def test_ctrl_c_that_finds_the_thread_between_python_and_a_system_call_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing looks for it there: so it is sent until the handler has run."""
    send = signal.pthread_kill
    lost: list[int] = []

    def lose_the_first(thread: int, number: int) -> None:
        if lost:
            send(thread, number)
        lost.append(number)

    with in_another_thread() as system, system.bound():
        things = Things()
        monkeypatch.setattr(signal, "pthread_kill", lose_the_first)

        def reset_and_wait() -> None:
            with Interruption(3, interrupt).armed():
                OPERATIONS["reset"](things)
            threading.Event().wait(60)

        with pytest.raises(KeyboardInterrupt):
            reset_and_wait()

    assert lost == [signal.SIGINT] * 2


def test_the_handler_is_there_only_while_bound() -> None:
    """The handler of SIGINT is the one that was there before, after the block, and one of the application's stays."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with in_another_thread() as system:
        with system.bound():
            inside = signal.getsignal(signal.SIGINT)
            with system.bound():
                assert signal.getsignal(signal.SIGINT) is inside
        assert inside is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with system.bound():
                assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_the_users_own_code_arrives_at_once() -> None:
    """Outside of the package's calls Ctrl-C is what it always was."""
    with in_another_thread() as system:
        after: list[int] = []
        with suppress(KeyboardInterrupt), system.bound():
            interrupt()
            after.append(1)

    assert after == []


STORM: Final = """
import os, signal, threading
import trio
from callout import *

opened = threading.Event()
systems = []

async def main():
    async with open_callouts() as system:
        systems.append(system)
        opened.set()
        await trio.sleep_forever()

threading.Thread(target=trio.run, args=(main,), daemon=True).start()
opened.wait()
system = systems[0]

go = threading.Semaphore(0)

def fire():  # one at a time, so that none comes where none is expected
    while True:
        go.acquire()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

hits = calls = 0
with system.bound():
    c, m = Callout(), Mtx("m")
    callout_init(c, 1)
    threading.Thread(target=fire, daemon=True).start()
    while hits < 20 or not calls:
        try:
            go.release()
            while True:
                with m:
                    pass
                callout_stop(c)
                callout_reset(c, 1000, print, None)
                calls += 1
        except KeyboardInterrupt:
            hits += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    free = []
    def look():
        with system.bound():
            free.append(m.trylock())
            callout_stop(c)
            free.append(callout_reset(c, 1, free.append, 2))
    t = threading.Thread(target=look)
    t.start()
    t.join(60)
    print(free[:2], hits >= 20, flush=True)
    os._exit(0)
"""


@pytest.mark.slow
def test_a_storm_of_interrupts() -> None:
    """After many interrupts at any instruction every lock is free, and the system works."""
    done = subprocess.run([sys.executable, "-c", STORM], capture_output=True, text=True, timeout=200, check=False)

    assert done.stdout == "[1, 0] True\n", done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.pure
def test_an_interrupt_in_the_last_call_of_the_block() -> None:
    """An interrupt that comes in the last call of the block is raised at its end, and not again after it."""
    with in_another_thread() as system:
        things: list[Things] = []

        def body() -> None:
            with system.bound():
                things.append(Things())
                with Interruption(4, interrupt).armed():
                    callout_reset(things[0].c, 100_000, ignore, None)

        with pytest.raises(KeyboardInterrupt):
            body()
        check(system._machine.cpus[0], things[0])

        assert callout_pending(things[0].c) == 1


@pytest.mark.pure
def test_every_marked_function_is_protected_where_trio_runs() -> None:
    """KeyboardInterrupt is kept out of the engine, whenever a function was marked, but not out of the user's code."""
    protected = trio.lowlevel.currently_ki_protected
    seen: dict[str, bool] = {}

    def note(name: str) -> None:
        seen[name] = protected()

    @guard.protected
    def marked_late() -> None:
        note("marked late")
        exposed_late()

    @guard.exposed
    def exposed_late() -> None:
        note("exposed late")

    async def main() -> None:
        note("the task")
        marked_late()
        async with open_callouts(checking=False) as system:
            platform = system._machine.platform
            set_event = platform.set_event

            def watched(cpu: int, when: int) -> None:
                seen.setdefault("the engine", protected())
                set_event(cpu, when)

            platform.set_event = watched  # type: ignore[method-assign]
            over = trio.Event()

            def callback(_: None) -> None:
                note("a callback")
                over.set()

            c = Callout()
            callout_init(c, 1)
            callout_reset(c, 1, callback, None)
            await over.wait()

    trio.run(main)

    assert seen == {
        "the task": False,
        "marked late": True,
        "exposed late": False,
        "the engine": True,
        "a callback": False,
    }
