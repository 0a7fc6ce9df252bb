"""Emptying a collection whose elements destroy themselves by timer.

The Unreliable Guide to Locking (Rusty Russell), "Racing Timers": a list, a lock, and elements that a timer takes out
of the list and frees. Whoever wants to destroy them all meets functions that run at this very moment and wait for the
lock. The Guide deletes each timer and, if that says 0, lets go of the lock and starts over. This spins, and for ever
if the 0 means that the timer was never armed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

from callout import Event, callout_barrier_all, callout_barrier_all_sync, callout_drain_async

from .._base import TimerBase, refuse_not_set_up

E = TypeVar("E")


class Collection(Protocol[E]):
    """What a set, a list and a deque can do."""

    def __iter__(self) -> Iterator[E]:
        """Return an iterator over the elements."""
        ...

    def remove(self, element: E, /) -> None:
        """Take an element out."""
        ...


class _Destroyer(Generic[E]):
    """One emptying: what is still outstanding, and what it has come to."""

    def __init__(
        self, collection: Collection[E], lock: AbstractContextManager[object], destroy: Callable[[E], object]
    ) -> None:
        self._collection = collection
        self._lock = lock
        self._destroy = destroy
        self._outstanding = 1  # runs that have to end, and begin() itself; under the lock
        self._errors: list[Exception] = []
        self.done = Event()

    def begin(self, call: str, timer_of: Callable[[E], TimerBase]) -> None:
        """Destroy what is idle or pending, and have the end of each run that is in progress see to its element."""
        mine: list[E] = []
        with self._lock:
            timers = [(element, timer_of(element)) for element in self._collection]
            for _, timer in timers:
                refuse_not_set_up(call, timer)
            for element, timer in timers:
                if callout_drain_async(timer.entry, self._ended, element):
                    self._outstanding += 1
                else:
                    self._collection.remove(element)
                    mine.append(element)
        for element in mine:
            self._destroy_one(element)
        self._drop()

    def _ended(self, element: E) -> None:
        """A function that was running has returned.

        It may have destroyed the element: look at nothing but its identity.
        """
        with self._lock:
            mine = any(other is element for other in self._collection)
            if mine:
                self._collection.remove(element)
        if mine:
            self._destroy_one(element)
        self._drop()

    def _destroy_one(self, element: E) -> None:
        try:
            self._destroy(element)
        except Exception as error:  # the caller gets it, after the others were destroyed
            self._errors.append(error)

    def _drop(self) -> None:
        with self._lock:
            self._outstanding -= 1
            last = not self._outstanding
        if last:
            self.done.set()

    def result(self) -> None:
        """Raise what went wrong."""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            raise ExceptionGroup("destroy_all: several elements could not be destroyed", self._errors)


def _timer(element: object) -> TimerBase:
    timer: TimerBase = element.timer  # type: ignore[attr-defined]  # the default of *timer_of*; others have to give their own
    return timer


async def destroy_all(
    collection: Collection[E],
    lock: AbstractContextManager[object],
    destroy: Callable[[E], object],
    timer_of: Callable[[E], TimerBase] = _timer,
    /,
) -> None:
    """Empty *collection*, whose elements also destroy themselves by timer: each is destroyed once, by
    ``destroy(element)`` or by itself.

    The rule for the timers' functions is that of the Guide: with *lock* held, take the element out of the collection;
    then destroy it. They may wait for *lock* at this moment, and they may re-arm their timer instead (which is
    refused from now on). It does not matter whether a timer was ever armed. Nobody may add elements meanwhile. *lock*
    must not be held by the caller; *timer_of* gives the timer of an element (default: its attribute ``timer``).

    When this has returned the collection is empty and no timer's function runs any more. If it is cancelled the
    elements are destroyed all the same.

    Raises:
        NotInitializedError: a timer was never set up; nothing has changed.
        Exception: what *destroy* has raised, after all others were destroyed; an ``ExceptionGroup`` if it was several.
    """
    work = _Destroyer(collection, lock, destroy)
    work.begin("destroy_all", timer_of)
    await work.done.wait()
    await callout_barrier_all()  # for functions that had taken their element out before we came
    work.result()


def destroy_all_blocking(
    collection: Collection[E],
    lock: AbstractContextManager[object],
    destroy: Callable[[E], object],
    timer_of: Callable[[E], TimerBase] = _timer,
    /,
) -> None:
    """Do as ``destroy_all()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    work = _Destroyer(collection, lock, destroy)
    work.begin("destroy_all_blocking", timer_of)
    work.done.wait_sync()
    callout_barrier_all_sync()
    work.result()
