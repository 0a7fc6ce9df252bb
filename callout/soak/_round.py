"""One round: a system is opened, threads and tasks call, and it is closed, with nobody calling any more or under load.

What is called is in ``_freebsd`` and ``_linux``.
"""

from __future__ import annotations

import gc
import random
import threading
import time
import traceback
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from .. import Callout, CalloutSystem, ClosedError, open_callouts
from ._faults import SoakError, few_descriptors
from ._figures import descriptors
from ._ledger import Account, Ledger

HZ: Final = 1000
TICK: Final = 1_000_000  # ns
PATIENCE: Final = 30.0  # seconds, after which a call that waits never returns
LAST: Final = 30.0  # seconds for the last runs of a round; what has not run then never will
BATCH: Final = 50  # calls, between which a worker does not wait
REST: Final = 0.002  # seconds, the most that a worker rests after a batch
BLOCKED: Final = 0.003  # seconds, for which a fault blocks a loop
SLOW: Final = 0.0005  # seconds, for which a callback runs that others are to meet while it does
LOOKS: Final = 20  # callouts that are looked at to find one that runs


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    cpus: int
    threads: int
    seconds: float
    seed: int
    faults: frozenset[str]


@dataclass
class Worker:
    """A thread or a task that calls."""

    cpu: int
    chance: random.Random
    calls: Counter[str] = field(default_factory=Counter)


class Round(ABC):
    """One of one API. Made in a task of trio; every callback of its system is one of its accounts'."""

    def __init__(self, options: Options, ledger: Ledger, number: int) -> None:
        self.options = options
        self.ledger = ledger
        self.over = False
        self.accounts: list[Account] = []  # all that there were
        self.raised: list[SoakError] = []
        self.reported: list[Exception] = []
        self.chance = random.Random(f"{options.seed} {number}")  # noqa: S311 - the order of calls
        self._number = number
        self._tasks_over = False
        self._workers: list[Worker] = []
        self._all_ended = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._scope = trio.CancelScope()

    # -- what a subclass says ------------------------------------------------------------------------------------

    @abstractmethod
    def make(self) -> None:
        """Make what is called, in the open system."""

    @abstractmethod
    def call(self, worker: Worker) -> None:
        """Make one call that does not wait."""

    @abstractmethod
    def wait_blocking(self, worker: Worker) -> None:
        """Make one call that blocks a thread."""

    @abstractmethod
    async def wait(self, worker: Worker) -> None:
        """Make one call that a task awaits."""

    @abstractmethod
    async def finish(self) -> None:
        """Nothing calls any more: have everything run once more, and then stop it."""

    def settle(self, stopped: int) -> None:
        """The system is closed: draw the balances. *stopped*: how many runs of each its end may have stopped."""
        for account in self.accounts:
            account.settle(stopped)

    # -- what both APIs do ---------------------------------------------------------------------------------------

    def does(self, worker: Worker, *others: str) -> str:
        """Return what the callback that is armed now shall do: mostly nothing."""
        if self.faulty("raise", worker, 0.02):
            return "raise"
        if self.faulty("block", worker, 0.005):
            return "block"
        return worker.chance.choice(("slow", "again", *others)) if worker.chance.random() < 0.2 else ""

    def act(self, does: str, again: Callable[[], None]) -> None:
        """Do what ``does()`` has returned, in the callback."""
        match does:
            case "again":
                again()
            case "slow":
                time.sleep(SLOW)
            case "raise":
                self.fail()
            case "block":
                self.block()
            case "last":
                self._token.run_sync_soon(self._one_ran)
            case _:
                pass

    def slept(self, call: str, begun: int, ticks: int) -> None:
        """Note that a sleep of so many ticks has ended, which began when the time was *begun*, or later."""
        slept = self.ledger.now() - begun
        if slept < ticks * TICK:
            self.ledger.problem(f"{call} for {ticks} ticks has returned after {slept} ns")

    # -- faults --------------------------------------------------------------------------------------------------

    def faulty(self, name: str, worker: Worker, share: float) -> bool:
        """Whether a fault is to happen here, for this share of the calls."""
        return name in self.options.faults and worker.chance.random() < share

    def block(self) -> None:
        """Block the loop."""
        self.ledger.figures.fault("block")
        time.sleep(BLOCKED)

    def fail(self) -> None:
        """Raise, in a callback."""
        self.ledger.figures.fault("raise")
        error = SoakError("raised on purpose")
        self.raised.append(error)
        raise error

    def on_error(self, error: Exception, c: Callout | None) -> None:
        """Be told of what a callback has raised."""
        self.reported.append(error)
        if not isinstance(error, SoakError):
            self.ledger.problem(f"a callback has raised {type(error).__name__}: {error}")

    # -- the end -------------------------------------------------------------------------------------------------

    async def each_runs(self, armings: Sequence[Callable[[], None]]) -> None:
        """Make the calls; each arms a callback that does ``last``, and all have to run."""
        self._to_run = len(armings)
        self._all_ran = trio.Event()
        for arm in armings:
            arm()
        with trio.move_on_after(LAST):
            await self._all_ran.wait()
        if self._to_run:
            self.ledger.problem(
                f"{self._to_run} of {len(armings)} that were armed at the end have not run in {LAST:g} s"
            )

    def _one_ran(self) -> None:
        self._to_run -= 1
        if not self._to_run:
            self._all_ran.set()

    async def open_without_descriptors(self) -> None:
        """Open a system that may lack descriptors: it opens or raises, and then nothing is left of it."""
        before = threads(), descriptors()
        with warnings.catch_warnings():
            # A loop of trio that could not be made whole leaves its first descriptors to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                with few_descriptors(self.chance.randrange(6 * self.options.cpus)):
                    async with open_callouts(self.options.cpus, HZ):
                        pass
            except (OSError, RuntimeError):
                self.ledger.figures.fault("descriptors")
            gc.collect()
        after = threads(), descriptors()
        if after != before:
            self.ledger.problem(f"a failed open_callouts() has left threads and descriptors: {before}, then {after}")

    # -- the round -----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End it before its time. On its loop."""
        self.over = True
        self._scope.cancel()

    async def run(self, seconds: float, *, under_load: bool) -> None:
        """Call for so long; close the system, with *under_load* while the calls go on; draw the balance."""
        figures = self.ledger.figures
        if "descriptors" in self.options.faults:
            await self.open_without_descriptors()
        crowd: list[threading.Thread] = []
        cancelled = under_load and self.chance.random() < 0.5
        checking = self.chance.random() < 0.25
        begun = time.monotonic()
        try:
            with trio.CancelScope() as system_scope:
                async with open_callouts(
                    self.options.cpus, HZ, checking=checking, on_error=self.on_error, expensive=PATIENCE
                ) as system:
                    self.make()
                    crowd = self._start(system)
                    with self._scope:
                        await trio.sleep(seconds)
                    if under_load and not self.over:
                        figures.fault("close")
                        self.ledger.closing = True
                        if cancelled:
                            system_scope.cancel()
                            await trio.lowlevel.checkpoint()
                        self._tasks_over = True  # the end of the block awaits them
                    else:
                        under_load = False
                        self.over = True
                        with trio.move_on_after(PATIENCE) as waiting:
                            await self._all_ended.wait()
                        if not waiting.cancelled_caught:
                            await self.finish()
        finally:
            self.over = True
            for thread in crowd:
                thread.join(PATIENCE)
                if thread.is_alive():
                    self.ledger.problem(f"a call of a thread did not return within {PATIENCE:g} s")
            self.ledger.closing = False
        self.settle(int(under_load))
        if Counter(map(id, self.raised)) != Counter(
            id(error) for error in self.reported if isinstance(error, SoakError)
        ):
            self.ledger.problem(f"{len(self.raised)} exceptions were raised, and {len(self.reported)} reported")
        figures.rounds += 1
        figures.seconds += time.monotonic() - begun
        for worker in self._workers:
            figures.calls += worker.calls

    def _start(self, system: CalloutSystem) -> list[threading.Thread]:
        """Start threads and tasks."""
        cpus = [number % system.cpus for number in range(self.options.threads)]
        self._workers = [
            Worker(cpu, random.Random(f"{self.options.seed} {self._number} {index}"))  # noqa: S311 - the order of calls
            for index, cpu in enumerate([*cpus, *range(system.cpus)])
        ]
        self._left = len(self._workers)
        of_threads, of_tasks = self._workers[: len(cpus)], self._workers[len(cpus) :]
        crowd = [threading.Thread(target=self._hammer, args=(system, worker), daemon=True) for worker in of_threads]
        for thread in crowd:
            thread.start()
        for worker in of_tasks:
            system.cpu(worker.cpu).start_soon(self._work, worker)
        return crowd

    def _hammer(self, system: CalloutSystem, worker: Worker) -> None:
        """Be a thread."""
        try:
            with system.bound(worker.cpu):
                while not self.over:
                    for _ in range(BATCH):
                        self.call(worker)
                    self.wait_blocking(worker)
                    time.sleep(worker.chance.random() * REST)
        except BaseException as error:
            self._ended_by(error)
        finally:
            self._token.run_sync_soon(self._one_ended)

    async def _work(self, worker: Worker) -> None:
        """Be a task."""
        try:
            while not (self.over or self._tasks_over):
                for _ in range(BATCH):
                    self.call(worker)
                if self.faulty("block", worker, 0.02):
                    self.block()
                await self.wait(worker)
                await trio.sleep(worker.chance.random() * REST)
        except trio.Cancelled:
            raise
        except BaseException as error:
            if isinstance(error, BaseExceptionGroup) and error.split(trio.Cancelled)[1] is None:
                raise  # of a nursery that was cancelled
            self._ended_by(error)
        finally:
            self._token.run_sync_soon(self._one_ended)

    def _ended_by(self, error: BaseException) -> None:
        """Say what has ended a worker, unless the system was closed on purpose."""
        if not (isinstance(error, ClosedError) and self.ledger.closing):
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.ledger.problem(
                f"a call has raised {type(error).__name__}: {error} ({where.name}, line {where.lineno})"
            )

    def _one_ended(self) -> None:
        self._left -= 1
        if not self._left:
            self._all_ended.set()


def threads() -> int:
    """Return how many threads of systems there are."""
    return sum(thread.name.startswith("callout-cpu") for thread in threading.enumerate())
