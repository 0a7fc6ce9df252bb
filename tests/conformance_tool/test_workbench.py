"""The workbench: its primitives do what threading's do, and whether anything can run is always known."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from callout.conformance import KernelLock, RefusedError, Workbench


@pytest.fixture
def bench() -> Iterator[Workbench]:
    """Return a workbench, and end its threads after the test."""
    bench = Workbench()
    yield bench
    bench.close()


def spawn(bench: Workbench, target: Callable[[], object]) -> list[object]:
    """Run *target* on a thread, until nothing can run; return a list that gets its result."""
    results: list[object] = []
    bench.Thread(target=lambda: results.append(target())).start()
    bench.settle()
    return results


def advance(bench: Workbench, ticks: int) -> None:
    """Move the time."""
    for _ in range(ticks):
        bench.tick()
        bench.settle()


def test_a_timer_fires_in_its_tick_and_not_before(bench: Workbench) -> None:
    """29 ms are 29 ticks, although 0.029 is no float."""
    fired: list[float] = []
    begun = bench.monotonic()
    bench.Timer(0.029, lambda: fired.append(bench.monotonic() - begun)).start()
    bench.settle()
    advance(bench, 28)

    assert fired == []

    advance(bench, 1)

    assert fired == pytest.approx([0.029])


def test_a_cancelled_timer_does_not_fire(bench: Workbench) -> None:
    """cancel() ends the thread."""
    fired: list[int] = []
    timer = bench.Timer(0.001, fired.append, [1])
    timer.start()
    timer.cancel()
    timer.join()
    advance(bench, 3)

    assert fired == []
    assert not timer.is_alive()


def test_settle_waits_for_a_thread_that_was_woken(bench: Workbench) -> None:
    """A chain of wake-ups is followed to its end: nobody is taken for quiet who can run."""
    events = [bench.Event() for _ in range(20)]
    done: list[int] = []

    def link(number: int) -> None:
        events[number].wait()
        done.append(number)
        if number + 1 < len(events):
            events[number + 1].set()

    for number in range(len(events)):
        bench.Thread(target=link, args=[number]).start()
    bench.settle()

    assert done == []

    events[0].set()
    bench.settle()

    assert done == list(range(20))


def test_a_thread_in_a_real_lock_is_not_quiet(bench: Workbench) -> None:
    """What the workbench does not know of counts as running, so settle() waits for it."""
    real = threading.Lock()
    entered = threading.Event()
    order: list[str] = []

    def hold() -> None:
        with real:
            entered.set()
            order.append("done")

    real.acquire()
    bench.Thread(target=hold).start()
    threading.Thread(target=real.release).start()
    bench.settle()

    assert order == ["done"]


def test_locks_exclude_and_recurse(bench: Workbench) -> None:
    """A lock has one owner; an RLock may be acquired again by it."""
    lock, rlock = bench.Lock(), bench.RLock()
    lock.acquire()
    rlock.acquire()

    assert spawn(bench, lambda: lock.acquire(blocking=False)) == [False]
    assert spawn(bench, lambda: rlock.acquire(blocking=False)) == [False]
    assert rlock.acquire()
    rlock.release()
    waiting = spawn(bench, lock.acquire)
    assert waiting == []
    lock.release()
    bench.settle()
    assert waiting == [True]


def test_a_lock_times_out(bench: Workbench) -> None:
    """A timeout is over in the tick in which its time has passed."""
    lock = bench.Lock()
    lock.acquire()
    result = spawn(bench, lambda: lock.acquire(timeout=0.003))
    advance(bench, 2)
    assert result == []
    advance(bench, 1)
    assert result == [False]


@pytest.mark.parametrize("make", ["Lock", "RLock"])
def test_releasing_what_is_not_held_is_an_error(make: str, bench: Workbench) -> None:
    """As threading has it: RuntimeError."""
    for module in (threading, bench):
        with pytest.raises(RuntimeError, match="release"):
            getattr(module, make)().release()


def test_condition_variables_wake_those_that_wait(bench: Workbench) -> None:
    """notify() wakes one, notify_all() all, wait() times out."""
    condition = bench.Condition()
    woken: list[bool] = []

    def wait(timeout: float | None) -> None:
        with condition:
            woken.append(condition.wait(timeout))

    for timeout in (None, None, None, 0.002):
        bench.Thread(target=wait, args=[timeout]).start()
        bench.settle()
    with condition:
        condition.notify()
    bench.settle()
    assert woken == [True]
    advance(bench, 2)
    assert woken == [True, False]
    with condition:
        condition.notify_all()
    bench.settle()
    assert woken == [True, False, True, True]


@pytest.mark.parametrize("call", ["wait", "notify", "notify_all"])
def test_a_condition_variable_needs_its_lock(call: str, bench: Workbench) -> None:
    """As threading has it: RuntimeError."""
    for module in (threading, bench):
        with pytest.raises(RuntimeError, match="un-acquired lock"):
            getattr(module.Condition(), call)()


def test_wait_for_looks_again(bench: Workbench) -> None:
    """wait_for() returns when its predicate holds, or False after its timeout."""
    condition = bench.Condition()
    ready: list[int] = []

    def wait() -> bool:
        with condition:
            return condition.wait_for(lambda: len(ready) > 1, 0.010)

    first = spawn(bench, wait)
    for number in range(2):
        with condition:
            ready.append(number)
            condition.notify_all()
        bench.settle()
    ready.clear()
    second = spawn(bench, wait)
    advance(bench, 10)

    assert (first, second) == ([True], [False])


def test_semaphores_count(bench: Workbench) -> None:
    """As many as the value acquire it without waiting."""
    semaphore = bench.Semaphore(1)

    assert spawn(bench, semaphore.acquire) == [True]
    waiting = spawn(bench, semaphore.acquire)
    assert waiting == []
    semaphore.release()
    bench.settle()
    assert waiting == [True]
    with pytest.raises(ValueError, match=">= 0"):
        bench.Semaphore(-1)


def test_sleep_and_events_follow_the_clock(bench: Workbench) -> None:
    """Time moves by ticks only."""
    event = bench.Event()
    slept = spawn(bench, lambda: bench.sleep(0.002))
    waited = spawn(bench, lambda: event.wait(0.001))
    advance(bench, 1)
    assert (slept, waited) == ([], [False])
    advance(bench, 1)
    assert slept == [None]


def test_what_a_thread_raises_comes_out_of_settle(bench: Workbench) -> None:
    """The exception is the thread's own."""
    bench.Thread(target=lambda: int("x")).start()
    with pytest.raises(ValueError, match="invalid literal"):
        bench.settle()


def test_close_ends_threads_in_whatever_they_wait_for() -> None:
    """Locks, condition variables, events, joins and sleeps are left, through finally blocks that release what they do
    not hold any more.
    """
    bench = Workbench()
    lock, condition, event = bench.Lock(), bench.Condition(), bench.Event()
    lock.acquire()
    sleeper = bench.Thread(target=bench.sleep, args=[1e6])
    left: list[str] = []

    def waits(name: str, wait: Callable[[], object]) -> None:
        try:
            wait()
        finally:
            left.append(name)

    def in_condition() -> None:
        with condition:
            condition.wait()

    def in_lock() -> None:
        with lock:
            pass

    ways = {"lock": in_lock, "condition": in_condition, "event": event.wait, "join": sleeper.join}
    threads = [sleeper, *(bench.Thread(target=waits, args=way) for way in ways.items())]
    for thread in threads:
        thread.start()
    bench.settle()
    bench.close()

    assert sorted(left) == sorted(ways)
    assert not any(thread.is_alive() for thread in threads)


def test_a_thread_that_cannot_be_started_is_not_waited_for(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """start() raises what threading raises, and settle() does not take the thread for running."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    thread = bench.Thread()
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"):
        thread.start()
    monkeypatch.undo()
    bench.settle()


def test_kernel_locks_refuse_misuse(bench: Workbench) -> None:
    """A second acquire, a release by another, and reading a mutex are programming errors; Giant recurses."""
    mtx, giant, rw = (KernelLock(bench, name, kind) for name, kind in (("L", "mtx"), ("Giant", "giant"), ("R", "rw")))
    mtx.acquire()
    giant.acquire()
    giant.acquire()
    rw.acquire(shared=True)

    wrongs: tuple[Callable[[], None], ...] = (
        mtx.acquire,
        lambda: mtx.acquire(shared=True),
        lambda: KernelLock(bench, "M", "mtx").acquire(shared=True),
        lambda: KernelLock(bench, "M", "mtx").release(),
        rw.release,
        rw.acquire,
    )
    for wrong in wrongs:
        with pytest.raises(RefusedError):
            wrong()
    assert giant.release_all() == 2
    assert giant.release_all() == 0
    assert spawn(bench, lambda: (rw.try_acquire(), rw.try_acquire(shared=True), mtx.try_acquire())) == [
        (False, True, False)
    ]


def test_readers_and_writers_exclude_each_other(bench: Workbench) -> None:
    """Readers share; a writer waits for all of them, and they for it."""
    rw = KernelLock(bench, "R", "rw")
    rw.acquire(shared=True)

    def read() -> bool:
        rw.acquire(shared=True)
        rw.release(shared=True)
        return True

    def write() -> bool:
        rw.acquire()
        return rw.owned()

    assert spawn(bench, read) == [True]
    writer = spawn(bench, write)
    assert writer == []
    rw.release(shared=True)
    bench.settle()
    assert writer == [True]
