"""The mutants of a teardown: what the operations of a ``Teardown`` do with one known mistake in it.

Each is ``AsWritten`` with one operation changed, and is made anew for every run of a scenario. What it changes is in
``needs``: an operation, and the function that does it. Of a pattern that never does it there is no such mutant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Final

from .. import Callout, Mtx, callout_drain_async, callout_stop

if TYPE_CHECKING:
    from ._teardown import Teardown


class Call:
    """A call of ``close()`` or ``completed()``, in one thread."""

    __slots__ = ("function", "holds", "lock")

    def __init__(self, function: str, lock: Mtx) -> None:
        self.function = function
        self.lock = lock
        self.holds = False


class AsWritten:
    """The operations as they should be."""

    name: ClassVar = ""
    needs: ClassVar = ""

    def __init__(self, done: set[str]) -> None:
        """Add to *done* what the pattern does."""
        self._done = done
        self._calls: dict[object, list[Call]] = {}  # of each thread, the innermost last

    def here(self, t: Teardown) -> Call:
        """Return the call that the current thread is in."""
        calls = self._calls.get(t.vm.me())
        return calls[-1] if calls else Call("elsewhere", t.lock)

    def does(self, t: Teardown, operation: str) -> Call:
        """Note that an operation is done, and return the call that does it."""
        call = self.here(t)
        self._done.update((operation, f"{call.function}: {operation}"))
        if call.holds:
            self._done.add(f"{call.function}: {operation} under the lock")
        return call

    # -- the operations ------------------------------------------------------------------------------------------------

    def call(self, t: Teardown, function: str, body: Callable[[Teardown], object]) -> None:
        """Run the body of ``close()`` or ``completed()``."""
        self.does(t, function)
        calls = self._calls.setdefault(t.vm.me(), [])
        call = Call(function, t.lock)
        calls.append(call)
        try:
            body(t)
        finally:
            calls.pop()
        self.leave(call)

    def leave(self, call: Call) -> None:
        """Return from there."""

    @contextmanager
    def locked(self, t: Teardown) -> Iterator[None]:
        """Hold the lock for a block."""
        call = self.does(t, "locked")
        call.lock.lock()
        call.holds = True
        try:
            yield
        finally:
            if call.holds:
                self.unlock(t, call)

    def unlock(self, t: Teardown, call: Call) -> None:
        """End the block."""
        call.holds = False
        call.lock.unlock()

    def hold(self, t: Teardown, number: int) -> None:
        """Set the count."""
        self.does(t, "hold")
        t._references.value = number

    def drop(self, t: Teardown) -> bool:
        """Count one less, and return whether that was the last."""
        call = self.does(t, "drop")
        left = t._references.value - 1
        assert left >= 0, f"{call.function}() drops a reference, and none is held"
        t._references.value = left
        return left == 0

    def drain(self, t: Teardown, c: Callout) -> int:
        """Drain, and have ``completed()`` be called if anything is outstanding."""
        self.does(t, "drain")
        return callout_drain_async(c, _complete, t)

    def stop(self, t: Teardown, c: Callout) -> int:
        """Stop."""
        self.does(t, "stop")
        return callout_stop(c)


def _complete(t: Teardown) -> None:
    t.completed()


# -- the count ---------------------------------------------------------------------------------------------------------


class OneLess(AsWritten):
    """It is too small."""

    name = "one reference less"
    needs = "hold"

    def hold(self, t: Teardown, number: int) -> None:
        """Set the count."""
        super().hold(t, number - 1)


class OneMore(AsWritten):
    """It is too large."""

    name = "one reference more"
    needs = "hold"

    def hold(self, t: Teardown, number: int) -> None:
        """Set the count."""
        super().hold(t, number + 1)


class CountedLate(AsWritten):
    """It is set when the first callout has been drained, and its reference has been dropped if it had none to keep."""

    name = "the count is set after the first drain"
    needs = "close: hold"
    late: int | None = None
    drained = False

    def hold(self, t: Teardown, number: int) -> None:
        """Set the count, but later."""
        if self.here(t).function == "close":
            self.late = number
        else:
            super().hold(t, number)

    def drop(self, t: Teardown) -> bool:
        """Count one less."""
        if self.late is None:
            return super().drop(t)
        t._references.value -= 1
        return t._references.value == 0

    def drain(self, t: Teardown, c: Callout) -> int:
        """Drain; before the second one set the count."""
        if self.drained:
            self.set(t)
        self.drained = True
        return super().drain(t, c)

    def unlock(self, t: Teardown, call: Call) -> None:
        """End the block, by which time the count is set."""
        self.set(t)
        super().unlock(t, call)

    def set(self, t: Teardown) -> None:
        """Set the count, if it was not set yet."""
        late, self.late = self.late, None
        if late is not None:
            super().hold(t, late)


class CountedUnlocked(CountedLate):
    """It is set when the lock was released."""

    name = "the count is set after the unlock"
    needs = "close: hold under the lock"

    def drain(self, t: Teardown, c: Callout) -> int:
        """Drain."""
        return AsWritten.drain(self, t, c)

    def unlock(self, t: Teardown, call: Call) -> None:
        """End the block, and set the count then."""
        AsWritten.unlock(self, t, call)
        if call.function == "close":
            self.set(t)


# -- the results -------------------------------------------------------------------------------------------------------


class DrainInverted(AsWritten):
    """1 from the drain is taken to say that nothing is outstanding, as of FreeBSD 13's ``callout_async_drain()``."""

    name = "the drain's result inverted"
    needs = "drain"

    def drain(self, t: Teardown, c: Callout) -> int:
        """Drain."""
        return int(not super().drain(t, c))


class StopInverted(AsWritten):
    """1 from the stop is taken to say that it runs, and 0 that it does not."""

    name = "the stop's result inverted"
    needs = "stop"

    def stop(self, t: Teardown, c: Callout) -> int:
        """Stop."""
        return {1: 0, 0: 1}.get(result := super().stop(t, c), result)


class StopForDrain(AsWritten):
    """It is stopped, and if that says that nothing will run, nothing is outstanding."""

    name = "stop instead of drain"
    needs = "drain"

    def drain(self, t: Teardown, c: Callout) -> int:
        """Stop."""
        return int(callout_stop(c) == 0)


# -- the lock ----------------------------------------------------------------------------------------------------------


class UnlocksBeforeDrain(AsWritten):
    """``close()`` lets others in before it drains."""

    name = "unlocked before the first drain"
    needs = "close: drain under the lock"

    def drain(self, t: Teardown, c: Callout) -> int:
        """Drain."""
        call = self.here(t)
        if call.holds and call.function == "close":
            self.unlock(t, call)
        return super().drain(t, c)


class UnlocksBeforeDrop(AsWritten):
    """``completed()`` counts when it has released the lock."""

    name = "completed() unlocks before it drops its reference"
    needs = "completed: drop under the lock"

    def drop(self, t: Teardown) -> bool:
        """Count one less."""
        call = self.here(t)
        if call.holds and call.function == "completed":
            self.unlock(t, call)
        return super().drop(t)


class UnlocksAtTheEnd(AsWritten):
    """``completed()`` frees the lock that it holds, and releases it then."""

    name = "completed() unlocks when it has freed"
    needs = "completed: locked"

    def unlock(self, t: Teardown, call: Call) -> None:
        """End the block."""
        if call.function != "completed":
            super().unlock(t, call)

    def leave(self, call: Call) -> None:
        """Return from there."""
        if call.holds:
            call.lock.unlock()


class CompletesUnderTheLock(AsWritten):
    """``close()`` has the lock when it calls ``completed()``."""

    name = "completed() called under the lock"
    needs = "close: completed"

    def call(self, t: Teardown, function: str, body: Callable[[Teardown], object]) -> None:
        """Run the body."""
        call = self.here(t)
        if function == "completed" and call.function == "close" and not call.holds:
            with self.locked(t):
                super().call(t, function, body)
        else:
            super().call(t, function, body)


MUTANTS: Final = (
    OneLess,
    OneMore,
    CountedLate,
    CountedUnlocked,
    DrainInverted,
    StopInverted,
    StopForDrain,
    UnlocksBeforeDrain,
    UnlocksBeforeDrop,
    UnlocksAtTheEnd,
    CompletesUnderTheLock,
)
