"""The timers of Linux, as ``callout_linux`` has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import trio

from callout_linux.timer import (
    add_timer,
    add_timer_global,
    add_timer_local,
    add_timer_on,
    del_timer,
    del_timer_sync,
    del_timer_sync_blocking,
    jiffies,
    mod_timer,
    mod_timer_pending,
    schedule_timeout,
    schedule_timeout_blocking,
    timer_delete,
    timer_delete_sync,
    timer_delete_sync_blocking,
    timer_list,
    timer_pending,
    timer_reduce,
    timer_setup,
    timer_shutdown,
    timer_shutdown_sync,
    timer_shutdown_sync_blocking,
    try_to_del_timer_sync,
)

from .. import BusyError
from ._ledger import Account, Arming
from ._round import LOOKS, TICK, Round, Worker

EACH: Final = 20  # timers of each use
AHEAD: Final = (0, 1, 1, 2, 3, 5, 20, 1000)  # jiffies

SHARED: Final = "shared"
SHUT_DOWN: Final = "shut down"  # now and then
USES: Final = (SHARED, SHUT_DOWN)

# What arms a timer for that many jiffies from now, and returns whether it was pending.
MODS: Final[Mapping[str, Callable[[timer_list, int], int]]] = {
    "mod_timer": lambda t, n: mod_timer(t, jiffies() + n),
    "mod_timer_pending": lambda t, n: mod_timer_pending(t, jiffies() + n),
    "timer_reduce": lambda t, n: timer_reduce(t, jiffies() + n),
}
ADDS: Final[Mapping[str, Callable[[timer_list, int], None]]] = {
    "add_timer": lambda t, cpu: add_timer(t),
    "add_timer_local": lambda t, cpu: add_timer_local(t),
    "add_timer_global": lambda t, cpu: add_timer_global(t),
    "add_timer_on": add_timer_on,
}
DELETES: Final[Mapping[str, Callable[[timer_list], int]]] = {
    "timer_delete": timer_delete,
    "del_timer": del_timer,
    "try_to_del_timer_sync": lambda t: max(try_to_del_timer_sync(t), 0),
}


class Subject(Account):
    """A timer and its account. Its function does not learn which call has armed it."""

    def __init__(self, of: Linux, use: str) -> None:
        super().__init__(of.ledger, f"timer, {use}", single=False)
        self.round = of
        self.use = use
        self.does = ""  # what its function does the next time
        self.timer = timer_list()
        timer_setup(self.timer, self.fire, 0)

    def modify(self, name: str, n: int) -> None:
        """Arm it, pending or not, as the call has it."""
        arming = self.arming(n * TICK)
        try:
            pending = bool(MODS[name](self.timer, n))
        except BaseException:
            self.fails()
            raise
        self.was_armed(arming, replaced=pending, applied=pending or name != "mod_timer_pending")

    def add(self, name: str, n: int, cpu: int) -> None:
        """Start it, which is an error if it is pending."""
        arming = self.arming(n * TICK)
        self.timer.expires = jiffies() + n
        try:
            ADDS[name](self.timer, cpu)
        except BusyError:
            self.fails()
        except BaseException:
            self.fails()
            raise
        else:
            self.was_armed(arming, replaced=False)

    def fire(self, _: timer_list) -> None:
        """Be the function."""
        self.enter()
        does, self.does = self.does, ""
        try:
            self.round.act(does, partial(self.modify, "mod_timer", 1))
        finally:
            self.leave()


class Fresh(Account):
    """A timer that is set up, added once and perhaps deleted: of this one the function knows what has armed it."""

    def __init__(self, of: Linux) -> None:
        super().__init__(of.ledger, "fresh timer")
        self.timer = timer_list()
        timer_setup(self.timer, self.fire, 0)

    def add(self, name: str, n: int, cpu: int) -> None:
        """Start it."""
        self.of = self.arming(n * TICK)  # first: a tick may pass between the two
        self.timer.expires = jiffies() + n
        try:
            ADDS[name](self.timer, cpu)
        except BaseException:
            self.fails()
            raise
        self.was_armed(self.of, replaced=False)

    def fire(self, _: timer_list) -> None:
        """Be the function."""
        self.enter(self.of)
        self.leave()

    of: Arming


class Linux(Round):
    """A round of Linux timers."""

    def make(self) -> None:
        """Make the timers."""
        self._slots = [self._new(use) for use in USES for _ in range(EACH)]

    def _new(self, use: str) -> Subject:
        subject = Subject(self, use)
        self.accounts.append(subject)
        return subject

    def call(self, worker: Worker) -> None:
        """Arm a timer, look at it or delete it."""
        chance, s = worker.chance, worker.chance.choice(self._slots)
        n, cpu = chance.choice(AHEAD), chance.randrange(self.options.cpus)
        what = chance.random()
        if what < 0.05:
            name = chance.choice(tuple(ADDS))
            worker.calls[name] += 1
            fresh = Fresh(self)
            self.accounts.append(fresh)
            fresh.add(name, n, cpu)
        elif what < 0.6:
            s.does = s.does or self.does(worker)
            name = chance.choice(tuple(MODS))
            worker.calls[name] += 1
            s.modify(name, n)
        elif what < 0.7:
            name = chance.choice(tuple(ADDS))
            worker.calls[name] += 1
            s.add(name, n, cpu)
        elif what < 0.8:
            worker.calls["timer_pending"] += 1
            timer_pending(s.timer)
        else:
            name = chance.choice(tuple(DELETES))
            worker.calls[name] += 1
            s.remove(DELETES[name](s.timer))

    def _busy(self, worker: Worker) -> Subject:
        """Return a timer that runs, if one is soon found."""
        some = worker.chance.choices(self._slots, k=LOOKS)
        return next((s for s in some if s.runs), some[0])

    def wait_blocking(self, worker: Worker) -> None:
        """Wait for a timer, or for nothing, in a thread."""
        chance, s = worker.chance, self._busy(worker)
        what = chance.random()
        if what < 0.1:
            worker.calls["schedule_timeout_blocking"] += 1
            n, begun = chance.choice((1, 2, 3)), self.ledger.now()
            schedule_timeout_blocking(n)
            self.slept("schedule_timeout_blocking", begun, n)
        elif s.use == SHARED or what < 0.9:
            since = s.silencing()
            if what < 0.5:
                worker.calls["timer_delete_sync_blocking"] += 1
                s.remove(timer_delete_sync_blocking(s.timer))
            else:
                worker.calls["del_timer_sync_blocking"] += 1
                s.remove(del_timer_sync_blocking(s.timer))
            s.silent(since)
        else:
            since = self._shuts_down(worker, s)
            worker.calls["timer_shutdown_sync_blocking"] += 1
            s.remove(timer_shutdown_sync_blocking(s.timer))
            self._shut_down(s, since)

    async def wait(self, worker: Worker) -> None:
        """Wait for a timer, or for nothing, in a task."""
        chance, s = worker.chance, self._busy(worker)
        what = chance.random()
        if what < 0.1:
            worker.calls["schedule_timeout"] += 1
            n, begun = chance.choice((1, 2, 3)), self.ledger.now()
            await schedule_timeout(n)
            self.slept("schedule_timeout", begun, n)
        elif s.use == SHARED or what < 0.9:
            await self._delete(worker, s)
        else:
            since = self._shuts_down(worker, s)
            worker.calls["timer_shutdown_sync"] += 1
            try:
                s.remove(await timer_shutdown_sync(s.timer))
            except trio.Cancelled:
                s.doubt()
                raise
            self._shut_down(s, since)

    async def _delete(self, worker: Worker, s: Subject) -> None:
        """Delete a timer and wait, or wait until a fault ends that."""
        name, delete = worker.chance.choice(
            (("timer_delete_sync", timer_delete_sync), ("del_timer_sync", del_timer_sync))
        )
        worker.calls[name] += 1
        since = s.silencing()
        patience = worker.chance.random() * 0.001 if self.faulty("cancel", worker, 0.3) else float("inf")
        told = False
        try:
            with trio.move_on_after(patience) as scope:
                s.remove(await delete(s.timer))
                told = True
        finally:
            if not told:
                s.doubt()
        if scope.cancelled_caught:
            self.ledger.figures.fault("cancel")
        else:
            s.silent(since)

    def _shuts_down(self, worker: Worker, s: Subject) -> tuple[int, int]:
        """Note that armings are refused from now on; say so to the timer, or not yet."""
        s.refusing()
        since = s.silencing()
        if worker.chance.random() < 0.5:
            worker.calls["timer_shutdown"] += 1
            s.remove(timer_shutdown(s.timer))
        return since

    def _shut_down(self, s: Subject, since: tuple[int, int]) -> None:
        """Note it, and have another timer in its place."""
        s.silent(since)
        s.terminated()
        for at, each in enumerate(self._slots):
            if each is s:
                self._slots[at] = self._new(s.use)
        s.modify("mod_timer", 0)

    async def finish(self) -> None:
        """Have every timer that was not shut down run once more; then nothing is left."""
        for account in self.accounts:
            if isinstance(account, Fresh):
                account.remove(await timer_delete_sync(account.timer))
        subjects = list(self._slots)
        for s in subjects:
            s.does = ""
            s.remove(await timer_delete_sync(s.timer))
            s.does = "last"
        await self.each_runs([partial(s.modify, "mod_timer", 0) for s in subjects])
        for s in subjects:
            s.remove(await timer_delete_sync(s.timer))
