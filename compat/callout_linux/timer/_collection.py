"""Emptying a collection whose elements destroy themselves by timer.

The Unreliable Guide to Locking (Rusty Russell), "Racing Timers": a list, a lock, and elements that a timer takes out
of the list and frees. Code that destroys them all meets functions that run at this very moment and wait for the
lock. The Guide deletes each timer and, if that says 0, releases the lock and starts over. This spins, and for ever
if the 0 means that the timer was never armed.

Elements are told apart by identity, never by equality: two sessions with the same key are two sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, MutableSequence
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

import trio

from callout import (
    ArgumentTypeError,
    Event,
    callout_barrier_all,
    callout_barrier_all_sync,
    callout_drain_async,
    check_barrier_all,
    check_callback,
    check_current,
    must_await,
)

from .._base import TimerBase, refuse_not_set_up, run_function
from .._jiffies import shown

E = TypeVar("E")


class Collection(Protocol[E]):
    """What a set, a list and a deque can do."""

    def __iter__(self) -> Iterator[E]:
        """Return an iterator over the elements."""
        ...

    def remove(self, element: E, /) -> None:
        """Take an element out."""
        ...


def _take_out(collection: Collection[E], element: E) -> None:
    """Take this very element out: ``remove()`` of a sequence would take the first that equals it, and only that."""
    if isinstance(collection, MutableSequence):
        for at in [at for at, other in enumerate(collection) if other is element][::-1]:
            del collection[at]
    else:
        collection.remove(element)


@trio.lowlevel.disable_ki_protection
def _call(destroy: Callable[[E], object], element: E) -> None:
    """Run the user's code, in which Ctrl-C may be raised as usual."""
    run_function(destroy, element)


class _Destroyer(Generic[E]):
    """One emptying: what is still outstanding, and what it has come to."""

    def __init__(
        self,
        call: str,
        collection: Collection[E],
        lock: AbstractContextManager[object],
        destroy: Callable[[E], object],
        timer_of: Callable[[E], TimerBase],
    ) -> None:
        if not callable(getattr(collection, "remove", None)) or not callable(getattr(collection, "__iter__", None)):
            raise ArgumentTypeError(
                f"{call}: give a collection from which elements can be removed (a set, a list, a deque), "
                f"not {type(collection).__name__}",
                call=call,
            )
        if not callable(getattr(lock, "__enter__", None)) or not callable(getattr(lock, "__exit__", None)):
            raise ArgumentTypeError(
                f"{call}: lock must be one for `with lock:`, such as a callout.Mtx, not {shown(lock)}", call=call
            )
        check_callback(call, destroy)
        check_callback(call, timer_of)
        self._name = call
        self._collection = collection
        self._lock = lock
        self._destroy = destroy
        self._timer_of = timer_of
        self._outstanding = 1  # runs that have to end, and begin() itself; under the lock
        self._errors: list[BaseException] = []
        self._abandoned = False  # nobody waits any more: errors are the callbacks'
        self.done = Event()

    # A KeyboardInterrupt between two of these steps would lose an element, or the end of it all.
    @trio.lowlevel.enable_ki_protection
    def begin(self) -> None:
        """Destroy what is idle or pending, and have the end of each run that is in progress see to its element."""
        mine: list[E] = []
        with self._lock:
            # By identity: a sequence may have an element twice.
            timers = {id(element): (element, self._timer(element)) for element in self._collection}
            for element, timer in timers.values():
                if callout_drain_async(timer.entry, self._ended, element):
                    self._outstanding += 1
                else:
                    mine.append(element)
            for element in mine:
                self._guard(lambda element: _take_out(self._collection, element), element)
        for element in mine:
            self._guard(lambda element: _call(self._destroy, element), element)
        self._drop()

    def _timer(self, element: E) -> TimerBase:
        timer = self._timer_of(element)
        if not isinstance(timer, TimerBase):
            raise ArgumentTypeError(
                f"{self._name}: timer_of must return the timer of {shown(element)}, a timer_list, not {shown(timer)}; "
                "if none is given, it is the attribute 'timer'",
                call=self._name,
            )
        refuse_not_set_up(self._name, timer)
        check_current(self._name, timer.entry)
        return timer

    @trio.lowlevel.enable_ki_protection
    def _ended(self, element: E) -> None:
        """A function that was running has returned.

        It may have destroyed the element: look at nothing but its identity.
        """
        try:
            with self._lock:
                mine = any(other is element for other in self._collection)
                if mine:
                    self._guard(lambda element: _take_out(self._collection, element), element)
            if mine:
                self._guard(lambda element: _call(self._destroy, element), element)
        finally:
            self._drop()

    def _guard(self, step: Callable[[E], None], element: E) -> None:
        """Do a step of one element; what it raises, whatever it is, comes after all the others."""
        try:
            step(element)
        except BaseException as error:
            if self._abandoned:
                raise  # the end of a run: the engine reports it
            self._errors.append(error)

    def _drop(self) -> None:
        with self._lock:
            self._outstanding -= 1
            last = not self._outstanding
        if last:
            self.done.set()

    def result(self, abandoned: BaseException | None = None) -> None:
        """Raise what went wrong. *abandoned*: what has ended the wait, if it was not the end of the work."""
        self._abandoned = abandoned is not None
        errors = self._errors if abandoned is None else [abandoned, *self._errors]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup(f"{self._name}: several elements could not be destroyed", errors)


def _timer(element: object) -> TimerBase:
    """Be the *timer_of* of those that are given none."""
    timer: TimerBase = getattr(element, "timer", None)  # type: ignore[assignment]  # what it gives is looked at
    return timer


def destroy_all(
    collection: Collection[E],
    lock: AbstractContextManager[object],
    destroy: Callable[[E], object],
    timer_of: Callable[[E], TimerBase] = _timer,
    /,
) -> Coroutine[Any, Any, None]:
    """Empty *collection*, whose elements also destroy themselves by timer: each is destroyed once, by
    ``destroy(element)`` or by itself. ``await`` it, with no lock held.

    The rule for the timers' functions is that of the Guide: with *lock* held, take the element out of the collection;
    then destroy it. They may wait for *lock* at this moment, and they may re-arm their timer instead (which is
    refused from now on). It does not matter whether a timer was ever armed. Nobody may add elements meanwhile.
    *timer_of* gives the timer of an element (default: its attribute ``timer``).

    When this has returned the collection is empty and no timer's function runs any more. If it is cancelled the
    elements are destroyed all the same; what *destroy* raises after that is treated as a callback's exception.

    Raises:
        ArgumentTypeError, NotInitializedError: an argument is of the wrong kind, or a timer was never set up; nothing
            has changed.
        ClosedError, ArgumentValueError: a timer belongs to a system that was closed, or to another one; nothing has
            changed.
        SelfDrainError: called from a timer's function; nothing has changed.
        SleepError: in checking mode, the caller holds a lock; nothing has changed.
        BaseException: what *destroy* has raised, after all others were destroyed; a ``BaseExceptionGroup`` if it was
            several.
    """
    check_barrier_all("destroy_all")
    work = _Destroyer("destroy_all", collection, lock, destroy, timer_of)
    return must_await("destroy_all", _destroy_all(work), "destroy_all_blocking")


async def _destroy_all(work: _Destroyer[E]) -> None:
    check_barrier_all("destroy_all")  # again: since the call a lock may have been acquired
    work.begin()
    try:
        await work.done.wait()
        await callout_barrier_all()  # for functions that had removed their element before we came
    except BaseException as error:
        work.result(error)
    work.result()


def destroy_all_blocking(
    collection: Collection[E],
    lock: AbstractContextManager[object],
    destroy: Callable[[E], object],
    timer_of: Callable[[E], TimerBase] = _timer,
    /,
) -> None:
    """Do as ``destroy_all()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    check_barrier_all("destroy_all_blocking", blocking=True)
    work = _Destroyer("destroy_all_blocking", collection, lock, destroy, timer_of)
    work.begin()
    try:
        work.done.wait_sync()
        callout_barrier_all_sync()
    except BaseException as error:
        work.result(error)
    work.result()
