"""The ledger: what became of every arming, and what may not be.

Each callout has an account. Every arming ends in exactly one way: its callback begins (fired), another arming takes its
place (replaced), or a call removes it (removed). So when a callout is quiescent::

    armed - replaced - fired - removed == 0

What a result does not tell is kept apart. An arming that overlaps a drain may have been refused, for one; a stop that
returns 0 may have removed a queued next run. Each of these leaves the balance at most one too high, never too low, so
it must be from 0 to their number, *unsure*. Callouts that are never stopped nor drained have no such calls: there it
is 0, to the last arming.

Besides the balance, each run is looked at when it begins: see ``Account.enter()``.

The lock of an account guards its numbers. It is never held during a call of the package.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from ._figures import Figures

MANY: Final = 20  # problems are kept in words up to this number, and counted beyond it


class Ledger:
    """All accounts of a run: what was found, and the figures."""

    def __init__(self, now: Callable[[], int]) -> None:
        """*now* tells the time in nanoseconds: that of the systems."""
        self.now = now
        self.figures = Figures()
        self.problems: list[str] = []
        self.found = 0
        self.where = ""  # goes before what is found: the round
        self.closing = False  # the system is being closed: it refuses armings
        self._lock = threading.Lock()

    def problem(self, text: str) -> None:
        """Note what may not be. From any thread."""
        with self._lock:
            self.found += 1
            if len(self.problems) < MANY:
                self.problems.append(f"{self.where}: {text}" if self.where else text)


class Arming:
    """One call that arms, and the argument of its callback."""

    __slots__ = ("account", "does", "earliest", "over", "returned", "runs", "void")

    def __init__(self, account: Account, earliest: int, does: str, over: int, void: bool) -> None:
        self.account = account
        self.earliest = earliest  # ns; before that it may not run
        self.does = does  # what its callback does
        self.over = over  # how many refusals were over when the call was made
        self.void = void  # made after the callout was closed: it must be refused
        self.returned = 0  # ns; when the call has returned
        self.runs = 0


class Account:
    """One callout's."""

    def __init__(self, ledger: Ledger, name: str, *, single: bool = True) -> None:
        """*single*: no call repeats an arming's argument, so each runs at most once, and never before its time."""
        self.ledger = ledger
        self.name = name
        self.single = single
        self.armed = self.replaced = self.fired = self.removed = self.refused = self.unsure = 0
        self.closed = False  # it is never armed again
        self.dead = False  # and never runs again: it was terminated
        self._lock = threading.Lock()
        self._begun = self._returned = 0  # calls that arm
        self._refusals_begun = self._refusals_over = 0
        self.runs = False  # its callback runs at present
        self._silent_since = 0  # ns; what was armed before that was removed
        self._silent_at = -1  # how many calls that arm had begun then, if none was under way

    # -- calls ---------------------------------------------------------------------------------------------------

    def arming(self, delay: int, does: str = "") -> Arming:
        """Note that a call begins which arms the callout, to run *delay* ns from now and not before."""
        with self._lock:
            self._begun += 1
            return Arming(self, self.ledger.now() + delay, does, self._refusals_over, self.closed)

    def was_armed(self, arming: Arming, *, replaced: bool, applied: bool = True, refused: bool | None = None) -> None:
        """Note that the call has returned, and whether it has *replaced* what was scheduled. *applied* false: its
        conditions did not hold. *refused*: whether it was, if the call tells that.
        """
        with self._lock:
            arming.returned = self.ledger.now()
            self._returned += 1
            may_be_refused = self.ledger.closing or self._refusals_begun != arming.over
            if arming.void:
                self.refused += 1
                if replaced:
                    self.ledger.problem(f"{self.name}: an arming after its termination has replaced something")
                if refused is False:
                    self.ledger.problem(f"{self.name}: an arming after its termination was not refused")
            elif refused:
                self.refused += 1
                self.unsure += 1  # a run that was at its lock is cancelled all the same
                if not may_be_refused:
                    self.ledger.problem(f"{self.name}: an arming was refused, and nothing refuses any")
            elif applied:
                self.armed += 1
                self.replaced += replaced
                self.unsure += may_be_refused and refused is None

    def fails(self) -> None:
        """Note that a call that arms has raised: it has changed nothing."""
        with self._lock:
            self._returned += 1

    def remove(self, number: int = 1) -> None:
        """Note that a call has removed what was scheduled."""
        with self._lock:
            self.removed += number

    def doubt(self) -> None:
        """Note a call that may have removed what was scheduled, without saying so."""
        with self._lock:
            self.unsure += 1

    def refusing(self) -> None:
        """Note that armings may be refused from now on."""
        with self._lock:
            self._refusals_begun += 1

    def refused_until_now(self) -> None:
        """Note that one call, at least, refuses armings no more."""
        with self._lock:
            self._refusals_over += 1

    def silencing(self) -> tuple[int, int]:
        """Note that a call begins after which nothing runs that was armed before; ``silent()`` gets the result."""
        with self._lock:
            return self.ledger.now(), self._begun if self._begun == self._returned else -1

    def silent(self, since: tuple[int, int]) -> None:
        """Note that this call has returned, and that nothing runs."""
        with self._lock:
            self._silent_since = max(self._silent_since, since[0])
            self._silent_at = max(self._silent_at, since[1])

    def close(self) -> None:
        """Note that a call has returned after which the callout is never armed again."""
        with self._lock:
            self.closed = True

    def terminated(self) -> None:
        """Note that it is never armed again, and never runs again."""
        with self._lock:
            self.closed = self.dead = True

    # -- runs ----------------------------------------------------------------------------------------------------

    def enter(self, arming: Arming | None = None, *, locked: bool = True) -> None:
        """Note that a callback begins, of *arming* if that is known; *locked*: with the callout's lock held."""
        now = self.ledger.now()
        problem = self.ledger.problem
        with self._lock:
            self.fired += 1
            if self.runs:
                problem(f"{self.name}: its callback runs twice at the same time")
            self.runs = True
            if not locked:
                problem(f"{self.name}: its callback runs without its lock")
            if self.dead:
                problem(f"{self.name}: its callback runs after it was terminated")
            if self._silent_at == self._begun:
                problem(f"{self.name}: its callback runs after a stop or drain, and was not armed since")
            if arming is None or not self.single:
                return
            arming.runs += 1
            if arming.void:
                problem(f"{self.name}: an arming after its termination has run")
            if arming.runs > 1:
                problem(f"{self.name}: an arming has run {arming.runs} times")
            if arming.returned and arming.returned < self._silent_since:
                problem(f"{self.name}: an arming has run after the stop or drain that came after it had returned")
            if now < arming.earliest:
                problem(f"{self.name}: its callback runs {arming.earliest - now} ns early")
        self.ledger.figures.late(max(now - arming.earliest, 0))

    def leave(self) -> None:
        """Note that the callback ends."""
        with self._lock:
            self.runs = False

    # -- the end -------------------------------------------------------------------------------------------------

    def settle(self, stopped: int = 0) -> None:
        """Draw the balance of a callout that is neither pending nor running; add it to the figures.

        *stopped*: how many runs the end of the system may have stopped, without a word.
        """
        balance = self.armed - self.replaced - self.fired - self.removed
        sums = (
            f"{self.armed} armed, {self.replaced} replaced, {self.fired} fired, {self.removed} removed, "
            f"{self.unsure + stopped} unsure"
        )
        if balance < 0:
            self.ledger.problem(f"{self.name}: {-balance} more ends than armings ({sums})")
        elif balance > self.unsure + stopped:
            self.ledger.problem(f"{self.name}: {balance - self.unsure - stopped} armings lost ({sums})")
        figures = self.ledger.figures
        figures.armed += self.armed
        figures.replaced += self.replaced
        figures.fired += self.fired
        figures.removed += self.removed
        figures.refused += self.refused
        figures.unsure += balance


class Completion:
    """The function of an asynchronous drain or close: whether it was promised, and how often it was called."""

    def __init__(self, account: Account, *, closes: bool = False) -> None:
        self.account = account
        self.closes = closes
        self.promised: bool | None = None  # None: the call has not returned
        self.calls = 0

    def __call__(self, _: object) -> None:
        """Be called."""
        self.calls += 1
        if self.closes:
            self.account.terminated()
        else:
            self.account.refused_until_now()

    def settle(self) -> None:
        """Say what is wrong, when no more can be called."""
        if self.promised is not None and self.calls != self.promised:
            self.account.ledger.problem(
                f"{self.account.name}: a completion was {'promised' if self.promised else 'not promised'}, "
                f"and called {self.calls} times"
            )
