"""Threads, locks and a clock with the interface of ``threading`` and ``time``, whose every wait is known.

With them, whether anything can still run is a question that has an answer. A thread is quiet while it waits for
something that is not so; since what it waits for is a predicate that can be asked again, a thread that has been woken
and has not run yet is not quiet. No wake-up can be missed, and nothing sleeps or polls.

One condition variable guards everything: whoever changes what another may wait for does so under it, and notifies.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

NS_PER_TICK: Final = 1_000_000


class ThrownAway(BaseException):
    """Ends a thread of a workbench that is closed, whatever it waits for."""


class _Wait:
    """What a thread waits for."""

    def __init__(self, over: Callable[[], bool], what: str) -> None:
        self.over = over
        self.what = what
        self.reported = False


class Workbench:
    """Stands in for the modules ``threading`` and ``time`` in code that is to be judged.

    It has ``Lock``, ``RLock``, ``Condition``, ``Event``, ``Semaphore``, ``Thread``, ``Timer``, ``current_thread`` and
    ``get_ident`` of the one, and ``monotonic``, ``monotonic_ns`` and ``sleep`` of the other, used as there. Time stands
    still, except that ``tick()`` moves it by ``TICK`` seconds; all timeouts are in this time.
    """

    TICK: Final = NS_PER_TICK / 1e9
    """A tick, in seconds."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._now = 1_000  # in ticks; not 0, which code may take for "never"
        self._threads: dict[int, WorkbenchThread] = {}
        self._starting: set[WorkbenchThread] = set()
        self._waits: dict[int, _Wait] = {}
        self._errors: deque[BaseException] = deque()
        self.closing = False

    # -- what the code under judgement uses ----------------------------------------------------------------------

    def Lock(self) -> WorkbenchLock:
        """Return a lock, as ``threading.Lock()``."""
        return WorkbenchLock(self, recursive=False)

    def RLock(self) -> WorkbenchLock:
        """Return a lock that its owner may acquire again, as ``threading.RLock()``."""
        return WorkbenchLock(self, recursive=True)

    def Condition(self, lock: WorkbenchLock | None = None) -> WorkbenchCondition:
        """Return a condition variable, as ``threading.Condition()``."""
        return WorkbenchCondition(self, lock or self.RLock())

    def Event(self) -> WorkbenchEvent:
        """Return an event, as ``threading.Event()``."""
        return WorkbenchEvent(self)

    def Semaphore(self, value: int = 1) -> WorkbenchSemaphore:
        """Return a semaphore, as ``threading.Semaphore()``."""
        return WorkbenchSemaphore(self, value)

    def Thread(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> WorkbenchThread:
        """Return a thread, as ``threading.Thread()``. What it raises fails the scenario."""
        return WorkbenchThread(self, target, name, args, kwargs)

    def Timer(
        self,
        interval: float,
        function: Callable[..., object],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> WorkbenchTimer:
        """Return a timer, as ``threading.Timer()``: a thread that waits *interval* seconds, then calls *function*."""
        return WorkbenchTimer(self, interval, function, args or (), kwargs)

    def current_thread(self) -> threading.Thread:
        """Return the current thread."""
        return threading.current_thread()

    def get_ident(self) -> int:
        """Return the number of the current thread."""
        return threading.get_ident()

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.monotonic_ns() / 1e9

    def monotonic_ns(self) -> int:
        """Return the time in nanoseconds."""
        with self.changed:
            return self._now * NS_PER_TICK

    def sleep(self, seconds: float) -> None:
        """Block for *seconds*."""
        with self.changed:
            self.wait(lambda: False, self.deadline(seconds))

    # -- what whoever judges uses --------------------------------------------------------------------------------

    def tick(self) -> None:
        """Move the time by one tick. Never blocks."""
        with self.changed:
            self._now += 1
            self.changed.notify_all()

    def settle(self) -> None:
        """Block until no thread of the workbench can run, and raise what one of them has raised meanwhile."""
        with self.changed:
            self.changed.wait_for(lambda: self._errors or self._quiet())
            if self._errors:
                raise self._errors.popleft()

    def waiting(self) -> list[tuple[WorkbenchThread, str]]:
        """Return the threads that have begun to wait for something with a name since the last call, and the name."""
        found = []
        with self.changed:
            for ident, wait in self._waits.items():
                if wait.what and not wait.reported and not wait.over() and ident in self._threads:
                    wait.reported = True
                    found.append((self._threads[ident], wait.what))
        return found

    def close(self) -> None:
        """End all threads, whatever they wait for, and block until they have ended."""
        with self.changed:
            self.closing = True
            self.changed.notify_all()
            threads = [*self._threads.values(), *self._starting]
        for thread in threads:
            thread.real_join()

    # -- what the primitives use ---------------------------------------------------------------------------------

    def deadline(self, timeout: float | None) -> int | None:
        """Return the tick in which so many seconds from now are over. ``changed`` is held."""
        return None if timeout is None else self._now + -(-round(max(timeout, 0) * 1e9) // NS_PER_TICK)

    def wait(self, ready: Callable[[], bool], due: int | None = None, what: str = "") -> bool:
        """Block the current thread until *ready*, or until a tick; return *ready*. ``changed`` is held.

        *what*: the name of what it waits for, for ``waiting()``.
        """

        def over() -> bool:
            return ready() or (due is not None and self._now >= due)

        if not over():
            me = threading.get_ident()
            self._waits[me] = _Wait(over, what)
            self.changed.notify_all()
            try:
                self.changed.wait_for(lambda: self.closing or over())
            finally:
                del self._waits[me]
            if not over():
                raise ThrownAway
        return ready()

    def _quiet(self) -> bool:
        return not self._starting and all(
            ident in self._waits and not self._waits[ident].over() for ident in self._threads
        )

    def fail(self, error: BaseException) -> None:
        """Have ``settle()`` raise *error*."""
        with self.changed:
            self._errors.append(error)
            self.changed.notify_all()

    def starts(self, thread: WorkbenchThread) -> None:
        """Count a thread as running from now on, though it has yet to begin."""
        with self.changed:
            if self.closing:
                raise ThrownAway
            self._starting.add(thread)

    def starts_not(self, thread: WorkbenchThread) -> None:
        """Do not count a thread as running: it could not be started."""
        with self.changed:
            self._starting.discard(thread)

    def begins(self, thread: WorkbenchThread) -> None:
        """Know the current thread by its number."""
        with self.changed:
            self._threads[threading.get_ident()] = thread
            self._starting.discard(thread)

    def ends(self, error: BaseException | None) -> None:
        """Forget the current thread."""
        with self.changed:
            thread = self._threads.pop(threading.get_ident())
            thread.over = True
            if error is not None and not self.closing:
                self._errors.append(error)
            self.changed.notify_all()


class WorkbenchThread(threading.Thread):
    """A thread of a workbench."""

    def __init__(
        self,
        bench: Workbench,
        target: Callable[..., object] | None,
        name: str | None,
        args: Iterable[Any],
        kwargs: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(None, target, name, args, kwargs, daemon=True)
        self.bench = bench
        self.actor = "cpu0"
        """Under which name it logs."""
        self.over = False

    def start(self) -> None:
        """Start it."""
        self.bench.starts(self)
        try:
            super().start()
        except BaseException:
            self.bench.starts_not(self)
            raise

    def run(self) -> None:
        """Do its work, and keep what that raises for ``settle()``."""
        self.bench.begins(self)
        error: BaseException | None = None
        try:
            self.work()
        except ThrownAway:
            pass
        except BaseException as caught:  # raised again in settle()
            error = caught
        finally:
            self.bench.ends(error)

    def work(self) -> None:
        """Call the target."""
        super().run()

    def join(self, timeout: float | None = None) -> None:
        """Block until it has ended."""
        with self.bench.changed:
            self.bench.wait(lambda: self.over, self.bench.deadline(timeout))

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self.ident is not None and not self.over

    def real_join(self) -> None:
        """Block until it has ended, outside the workbench's time."""
        super().join()


class WorkbenchTimer(WorkbenchThread):
    """A timer of a workbench."""

    def __init__(
        self,
        bench: Workbench,
        interval: float,
        function: Callable[..., object],
        args: Iterable[Any],
        kwargs: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(bench, function, None, args, kwargs)
        self.interval = interval
        self._due: int | None = None
        self._over = False

    def start(self) -> None:
        """Start it: the interval begins now, not when its thread comes to run."""
        with self.bench.changed:
            self._due = self.bench.deadline(self.interval)
        super().start()

    def cancel(self) -> None:
        """End it, unless the interval is over."""
        with self.bench.changed:
            self._over = True
            self.bench.changed.notify_all()

    def work(self) -> None:
        """Wait, then call the function."""
        with self.bench.changed:
            cancelled = self.bench.wait(lambda: self._over, self._due)
        if not cancelled:
            super().work()


class WorkbenchLock:
    """A lock of a workbench."""

    def __init__(self, bench: Workbench, *, recursive: bool) -> None:
        self._bench = bench
        self._recursive = recursive
        self._owner: int | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire it."""
        me = threading.get_ident()
        with self._bench.changed:
            if not (self._recursive and self._owner == me):
                patience = 0 if not blocking else None if timeout < 0 else timeout
                if not self._bench.wait(lambda: self._owner is None, self._bench.deadline(patience)):
                    return False
            self._owner = me
            self._depth += 1
            return True

    def release(self) -> None:
        """Release it."""
        with self._bench.changed:
            if self._bench.closing:
                return  # threads unwind, through waits that they never came back from
            if self._owner is None or (self._recursive and self._owner != threading.get_ident()):
                raise RuntimeError(
                    "release unlocked lock" if self._owner is None else "cannot release un-acquired lock"
                )
            self._depth -= 1
            if not self._depth:
                self._owner = None
                self._bench.changed.notify_all()

    def locked(self) -> bool:
        """Whether it is held."""
        return self._owner is not None

    def held_here(self) -> bool:
        """Whether the current thread holds it."""
        return self._owner == threading.get_ident()

    def drop(self) -> int:
        """Release it, however often it is held; return how often. ``changed`` is held."""
        depth, self._depth, self._owner = self._depth, 0, None
        self._bench.changed.notify_all()
        return depth

    def regain(self, depth: int) -> None:
        """Acquire it as often as it was held. ``changed`` is held."""
        self._bench.wait(lambda: self._owner is None)
        self._owner, self._depth = threading.get_ident(), depth

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, t: type[BaseException] | None, v: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


class WorkbenchCondition:
    """A condition variable of a workbench."""

    def __init__(self, bench: Workbench, lock: WorkbenchLock) -> None:
        self._bench = bench
        self._lock = lock
        self._waiters: deque[object] = deque()
        self.acquire = lock.acquire
        self.release = lock.release

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, block until notified, acquire the lock; return whether it was notified in time."""
        self._check("wait on")
        ticket = object()
        with self._bench.changed:
            self._waiters.append(ticket)
            depth = self._lock.drop()
            notified = self._bench.wait(lambda: ticket not in self._waiters, self._bench.deadline(timeout))
            if not notified:
                self._waiters.remove(ticket)
            self._lock.regain(depth)
            return notified

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until *predicate*; return what it said last."""
        due = None if timeout is None else self._bench.monotonic() + timeout
        while not (result := predicate()):
            left = None if due is None else due - self._bench.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake *n* of those that wait."""
        self._check("notify")
        with self._bench.changed:
            for _ in range(min(n, len(self._waiters))):
                self._waiters.popleft()
            self._bench.changed.notify_all()

    def notify_all(self) -> None:
        """Wake all that wait."""
        self.notify(len(self._waiters))

    def _check(self, what: str) -> None:
        if not self._lock.held_here():
            raise RuntimeError(f"cannot {what} un-acquired lock")

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(self, t: type[BaseException] | None, v: BaseException | None, tb: TracebackType | None) -> None:
        self._lock.release()


class WorkbenchEvent:
    """An event of a workbench."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._is_set = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it."""
        with self._bench.changed:
            self._is_set = True
            self._bench.changed.notify_all()

    def clear(self) -> None:
        """Unset it."""
        with self._bench.changed:
            self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set; return whether it is."""
        with self._bench.changed:
            return self._bench.wait(self.is_set, self._bench.deadline(timeout))


class WorkbenchSemaphore:
    """A semaphore of a workbench."""

    def __init__(self, bench: Workbench, value: int) -> None:
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        self._bench = bench
        self._value = value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take one, as soon as there is one."""
        with self._bench.changed:
            if not self._bench.wait(lambda: self._value > 0, self._bench.deadline(timeout if blocking else 0)):
                return False
            self._value -= 1
            return True

    def release(self, n: int = 1) -> None:
        """Give *n* back."""
        with self._bench.changed:
            self._value += n
            self._bench.changed.notify_all()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, t: type[BaseException] | None, v: BaseException | None, tb: TracebackType | None) -> None:
        self.release()
