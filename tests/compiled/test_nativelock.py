"""The compiled core's own lock: what ``threading.RLock`` does, and nothing is lost between those that wait for it."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Final, NoReturn

import pytest

import callout
from callout._core.rawlock import RawLock
from callout._worlds.rawlocks import new_lock

pytestmark = pytest.mark.skipif(callout.core != "compiled", reason="needs the compiled core")

THREADS: Final = 4
TURNS: Final = 20_000


def make() -> RawLock:
    """Return a lock."""
    return new_lock()


def test_it_is_the_lock_of_the_compiled_core() -> None:
    """What is tested here is what runs."""
    assert type(make()).__name__ == "NativeLock"


def test_it_is_recursive() -> None:
    """Its holder may acquire it again, and it is free when it was released as often."""
    lock = make()
    held: list[bool] = []

    def look() -> None:
        taken = lock.acquire(False)
        held.append(not taken)
        if taken:
            lock.release()

    def ask() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    assert lock.acquire()
    assert lock.acquire(False)
    ask()
    lock.release()
    ask()
    lock.release()
    ask()

    assert held == [True, True, False]
    assert not lock._is_owned()


def test_only_its_holder_may_release_it() -> None:
    """As an RLock: what nobody holds, and what another thread holds, is refused and stays as it is."""
    lock = make()
    refused: list[str] = []

    def release() -> None:
        try:
            lock.release()
        except RuntimeError as error:
            refused.append(str(error))

    release()
    lock.acquire()
    thread = threading.Thread(target=release)
    thread.start()
    thread.join()

    assert refused == ["cannot release un-acquired lock"] * 2
    assert lock._is_owned()
    lock.release()


def test_threads_that_wait_for_it_exclude_each_other_and_all_get_it() -> None:
    """No wake-up is lost, and no two threads hold it at a time, however often the GIL goes from one to another."""
    lock = make()
    inside = 0
    turns = [0] * THREADS
    together = threading.Barrier(THREADS)

    def run(me: int) -> None:
        nonlocal inside
        together.wait()
        for _ in range(TURNS):
            lock.acquire()
            inside += 1
            assert inside == 1
            inside -= 1
            turns[me] += 1
            lock.release()

    threads = [threading.Thread(target=run, args=(each,)) for each in range(THREADS)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)

    assert turns == [TURNS] * THREADS


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals are sent to a thread")
def test_a_signal_handler_that_raises_ends_the_wait() -> None:
    """The thread that waited does not have the lock then, and the next that waits for it gets it."""
    lock = make()
    go_on, held = threading.Event(), threading.Event()
    main = threading.get_ident()

    def handle(*_: object) -> NoReturn:
        raise InterruptedError

    def hold() -> None:
        lock.acquire()
        held.set()
        signal.pthread_kill(main, signal.SIGUSR1)
        go_on.wait()
        lock.release()

    def wait() -> None:
        thread.start()
        held.wait()
        lock.acquire()

    before = signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=hold)
    try:
        with pytest.raises(InterruptedError):
            wait()
        assert not lock._is_owned()
        go_on.set()
        lock.acquire()
        lock.release()
    finally:
        signal.signal(signal.SIGUSR1, before)
        go_on.set()
        thread.join()
