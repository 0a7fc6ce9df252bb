"""callout(9): every kind of callout, and every call; and for the same callouts the methods of Python."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Final

import trio

from .. import (
    C_DIRECT_EXEC,
    CALLOUT_REMOVED,
    CALLOUT_RETURNUNLOCKED,
    CALLOUT_RUNNING,
    CALLOUT_SHAREDLOCK,
    PDROP,
    RA_RLOCKED,
    RA_WLOCKED,
    Callout,
    Event,
    LockNotHeldError,
    Mtx,
    RmLock,
    StopResult,
    aclose_all,
    callout_barrier,
    callout_barrier_sync,
    callout_deactivate,
    callout_dequeue,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_init_rm,
    callout_init_rw,
    callout_pending,
    callout_quiesce,
    callout_quiesce_sync,
    callout_running,
    callout_stop,
    callout_terminate,
    callout_terminate_sync,
    close_all_soon,
    cpu_call,
    drain_all,
    msleep,
    msleep_sync,
    mtx_init,
    mtx_lock,
    mtx_owned,
    mtx_unlock,
    pause,
    pause_sync,
    rm_assert,
    rw_assert,
    wakeup,
)
from ._calls import DIRECT, DRAINS, DRAINS_SYNC, KINDS, RESETS, SCHEDULES, SEEN, Kind, Lock, told
from ._ledger import Account, Arming, Completion
from ._python import Beat, Fresh, Set, Timed
from ._round import LOOKS, PATIENCE, Round, Worker

EACH: Final = 4  # callouts of each kind and use
AHEAD: Final = (1, 1, 2, 3, 5, 20, 1000)  # ticks

# How the callouts of a kind are used. What says less than the ledger wants to know is kept from the first, where the
# balance has to be 0.
COUNTED: Final = "counted"
REPEATED: Final = "repeated"  # callout_schedule(), too: the argument of a run does not say which call has armed it
STOPPED: Final = "stopped"
DRAINED: Final = "drained"  # and terminated
USES: Final = (COUNTED, REPEATED, STOPPED, DRAINED)
IN_SET: Final = "in a set"  # drained and closed together with others


class Subject(Account):
    """A callout and its account."""

    def __init__(self, of: FreeBSD, kind: Kind, use: str, lock: Lock | None) -> None:
        super().__init__(of.ledger, f"{kind.name}, {use}", single=use != REPEATED)
        self.round = of
        self.kind = kind
        self.use = use
        self.lock = lock
        self.flags = C_DIRECT_EXEC if kind.direct else 0
        self.ways = DIRECT if kind.direct else tuple(RESETS)
        self.set: Set | None = None
        self.mates: Sequence[Subject] = (self,)  # of the same set
        self.may_stop_itself = use == STOPPED and not kind.flags & CALLOUT_SHAREDLOCK
        self.c = Callout()
        if lock is None or kind.name == "Giant":
            callout_init(self.c, int(lock is None))
        elif isinstance(lock, Mtx):
            callout_init_mtx(self.c, lock, kind.flags)
        elif isinstance(lock, RmLock):
            callout_init_rm(self.c, lock, kind.flags)
        else:
            callout_init_rw(self.c, lock, kind.flags)

    def reset(self, name: str, n: int, cpu: int, does: str = "") -> None:
        """Arm it, *n* ticks from now."""
        way = RESETS[name]
        arming = self.arming(way.delay(n), does)
        try:
            result, refused = told(way.reset(self.c, n, self.fire, arming, cpu, self.flags))
        except BaseException:
            self.fails()
            raise
        replaced = bool(result & CALLOUT_REMOVED if way.facts else result)
        self.was_armed(arming, replaced=replaced, applied=replaced or not way.if_pending, refused=refused)

    def schedule(self, name: str, n: int, cpu: int) -> None:
        """Arm it as it was armed before."""
        arming = self.arming(0)
        try:
            replaced, refused = told(SCHEDULES[name](self.c, n, cpu, self.flags))
        except BaseException:
            self.fails()
            raise
        self.was_armed(arming, replaced=bool(replaced), refused=refused)

    def stop(self, name: str = "callout_stop") -> None:
        """Stop it, with its lock held."""
        since = self.silencing()
        if name == "c.stop":
            result = self.c.stop()
            removed, runs = bool(result), result in {StopResult.BOTH, StopResult.RUNNING}
        else:
            number = callout_stop(self.c)
            removed, runs = number == 1, number == 0
            if runs:
                self.doubt()  # a queued next run may be gone
        if removed:
            self.remove()
        if not runs:
            self.silent(since)

    def dequeue(self, *, if_not_running: bool) -> None:
        """Remove what is scheduled."""
        since = self.silencing()
        facts = callout_dequeue(self.c, if_not_running=if_not_running)
        if facts & CALLOUT_REMOVED:
            self.remove()
        if not facts & CALLOUT_RUNNING:
            self.silent(since)

    def removed_by(self, result: int, since: tuple[int, int]) -> None:
        """Note what a wait has returned that leaves the callout idle: whether it has removed a run."""
        if result > 0:
            self.remove()
        self.silent(since)

    def holds_its_lock(self) -> bool:
        """Whether this thread does, as the callback should."""
        if self.lock is None:
            return True
        if isinstance(self.lock, Mtx):
            return bool(mtx_owned(self.lock))
        what = RA_RLOCKED if self.kind.flags & CALLOUT_SHAREDLOCK else RA_WLOCKED
        try:
            rm_assert(self.lock, what) if isinstance(self.lock, RmLock) else rw_assert(self.lock, what)
        except LockNotHeldError:
            return False
        return True

    def fire(self, arming: Arming) -> None:
        """Be the callback."""
        self.enter(arming, locked=self.holds_its_lock())
        try:
            if arming.does == "stop":
                self.stop()
            elif arming.does == "deactivate":
                callout_deactivate(self.c)
            else:
                self.round.act(arming.does, partial(self.reset, self.ways[0], 1, 0))
        finally:
            self.leave()
            if self.kind.flags & CALLOUT_RETURNUNLOCKED:
                assert isinstance(self.lock, Mtx)
                mtx_unlock(self.lock)


class FreeBSD(Round):
    """A round of callout(9)."""

    def make(self) -> None:
        """Make callouts of each kind for each use, and the locks of these."""
        self._slots: list[Subject] = []
        self._replacing = threading.Lock()  # held while others come in the place of what was closed
        self._completions: list[Completion] = []
        for kind in KINDS:
            for use in USES:
                lock = None if kind.lock is None else kind.lock(f"soak {kind.name} {use}")
                self._slots += [self._new(kind, use, lock) for _ in range(EACH)]
        lock = mtx_init("soak set")
        for its in (None, lock):
            self._slots += self._new_set(KINDS[0] if its is None else KINDS[2], its)
            self.accounts += [Beat(self.ledger, its, 3, cpu) for cpu in range(self.options.cpus)]
        self._mutex = mtx_init("soak msleep")
        self._channel = object()

    def _new_set(self, kind: Kind, lock: Lock | None) -> list[Subject]:
        together = Set(self.ledger, f"set, {kind.name}")
        members = [Subject(self, kind, IN_SET, lock) for _ in range(EACH)]
        for s in members:
            s.set, s.mates = together, members
        together.members += members
        self.accounts.append(together)
        return members

    def _new(self, kind: Kind, use: str, lock: Lock | None) -> Subject:
        subject = Subject(self, kind, use, lock)
        self.accounts.append(subject)
        return subject

    # -- calls that do not wait ----------------------------------------------------------------------------------

    def call(self, worker: Worker) -> None:
        """Arm, or do to a callout what its use allows."""
        chance, s = worker.chance, worker.chance.choice(self._slots)
        what = chance.random()
        if what < 0.02:
            self._make_fresh(worker)
        elif what < 0.6:
            self._arm(worker, s)
        elif what < 0.7:
            name = chance.choice(tuple(SEEN))
            SEEN[name](s.c)
            worker.calls[name] += 1
        elif what < 0.75:
            callout_deactivate(s.c)
            worker.calls["callout_deactivate"] += 1
        elif s.use in {COUNTED, REPEATED} or what < 0.8:
            worker.calls["callout_dequeue"] += 1
            s.dequeue(if_not_running=chance.random() < 0.3)
        elif s.use == STOPPED or what < 0.95:
            name = chance.choice(("callout_stop", "c.stop"))
            worker.calls[name] += 1
            with s.lock or nullcontext():
                s.stop(name)
        elif s.set is not None:
            worker.calls["close_all_soon"] += 1
            self._close_soon(s, s.set)
        elif chance.random() < 0.2:
            worker.calls["c.close_soon"] += 1
            s = self._busy(worker, DRAINED)
            self._close_soon(s, s)
        else:
            worker.calls["callout_drain_async"] += 1
            self._drain_async(self._busy(worker, DRAINED))

    def _make_fresh(self, worker: Worker) -> None:
        """Make a callout that is armed, and perhaps stop it at once."""
        chance = worker.chance
        fresh = Fresh(self.ledger, chance.choice((None, self._mutex)))
        self.accounts.append(fresh)
        name = chance.choice(("call_later", "call_at"))
        worker.calls[name] += 1
        fresh.make(name, chance.choice(AHEAD), chance.randrange(self.options.cpus))
        if chance.random() < 0.5:
            with fresh.lock or nullcontext():
                fresh.remove(bool(fresh.c.stop()))

    def _arm(self, worker: Worker, s: Subject) -> None:
        chance = worker.chance
        n, cpu = chance.choice(AHEAD), chance.randrange(self.options.cpus)
        if s.use == REPEATED and s.armed and chance.random() < 0.5:
            name = chance.choice(tuple(SCHEDULES))
            worker.calls[name] += 1
            s.schedule(name, n, cpu)
            return
        does = self.does(worker, "deactivate", *(("stop",) if s.may_stop_itself else ()))
        name = chance.choice(s.ways)
        worker.calls[name] += 1
        if chance.random() < 0.2:
            with s.lock or nullcontext():  # what is due meanwhile waits, and is cancelled there
                s.reset(name, n, cpu, does)
        else:
            s.reset(name, n, cpu, does)

    def _drain_async(self, s: Subject) -> None:
        completion = Completion(s)
        self._completions.append(completion)
        s.refusing()
        s.doubt()  # what it has removed it does not say
        with s.lock or nullcontext():
            completion.promised = bool(callout_drain_async(s.c, completion, None))
        if not completion.promised:
            s.refused_until_now()

    def _close_soon(self, s: Subject, account: Account) -> None:
        """Close it, or the set that it is in: *account* is that of what is closed."""
        completion = Completion(account, closes=True)
        self._completions.append(completion)
        for each in s.mates:
            each.refusing()
            each.doubt()  # what it has removed it does not say
        with s.lock or nullcontext():
            if account is s:
                completion.promised = s.c.close_soon(completion, None)
            else:
                completion.promised = close_all_soon([each.c for each in s.mates], completion, None)
        for each in s.mates:
            each.close()
        if completion.promised:
            self._replace(s)

    def _replace(self, s: Subject) -> None:
        """Have others in the place of what was closed, unless another call has. Its armings are refused for ever."""
        with self._replacing:
            if s in self._slots:
                new = [self._new(s.kind, s.use, s.lock)] if s.set is None else self._new_set(s.kind, s.lock)
                for each, instead in zip(s.mates, new, strict=True):
                    self._slots[self._slots.index(each)] = instead
        for each in s.mates:
            each.reset(each.ways[0], 1, 0)
            each.reset("c.reset", 1, 0)

    def _busy(self, worker: Worker, *uses: str) -> Subject:
        """Return a callout, of these uses or of any, that runs, if one is soon found."""
        some = worker.chance.choices([s for s in self._slots if not uses or s.use in uses], k=LOOKS)
        return next((s for s in some if callout_running(s.c)), some[0])

    # -- calls that wait -----------------------------------------------------------------------------------------

    def wait_blocking(self, worker: Worker) -> None:
        """Wait for a callout, or for nothing, in a thread."""
        chance, s = worker.chance, self._busy(worker)
        what = chance.random()
        if what < 0.1:
            worker.calls["pause_sync"] += 1
            n, begun = chance.choice((1, 2, 3)), self.ledger.now()
            pause_sync("soak", n)
            self.slept("pause_sync", begun, n)
        elif what < 0.2:
            worker.calls["msleep_sync"] += 1
            mtx_lock(self._mutex)
            begun = self.ledger.now()
            if msleep_sync(self._channel, self._mutex, PDROP, "soak", 2):
                self.slept("msleep_sync", begun, 2)
        elif what < 0.3:
            worker.calls["wakeup"] += 1
            wakeup(self._channel)
        elif what < 0.4:
            worker.calls["cpu_call"] += 1
            event = Event()
            cpu_call(chance.randrange(self.options.cpus), event.set)
            worker.calls["Event.wait_sync"] += 1
            if not event.wait_sync(PATIENCE):
                self.ledger.problem(f"a cross-CPU call did not run within {PATIENCE:g} s")
        elif what < 0.6:
            worker.calls["callout_barrier_sync"] += 1
            callout_barrier_sync(s.c)
        elif s.use != DRAINED:
            worker.calls["callout_quiesce_sync"] += 1
            since = s.silencing()
            s.removed_by(callout_quiesce_sync(s.c) & CALLOUT_REMOVED, since)
        elif what < 0.95:
            name, drain = chance.choice(DRAINS_SYNC)
            worker.calls[name] += 1
            since = self._drains(s)
            s.removed_by(drain(s.c), since)
            s.refused_until_now()
        elif what < 0.975:
            worker.calls["callout_terminate_sync"] += 1
            since = self._drains(s)
            self._terminated(s, callout_terminate_sync(s.c), since)
        else:
            worker.calls["c.close_sync"] += 1
            since = self._drains(s)
            s.c.close_sync()
            self._terminated(s, 0, since)

    async def wait(self, worker: Worker) -> None:
        """Wait for a callout, or for nothing, in a task."""
        chance, s = worker.chance, self._busy(worker)
        what = chance.random()
        if what < 0.1:
            worker.calls["pause"] += 1
            n, begun = chance.choice((1, 2, 3)), self.ledger.now()
            await pause("soak", n)
            self.slept("pause", begun, n)
        elif what < 0.2:
            worker.calls["msleep"] += 1
            mtx_lock(self._mutex)
            begun = self.ledger.now()
            if await msleep(self._channel, self._mutex, PDROP, "soak", 2):
                self.slept("msleep", begun, 2)
        elif what < 0.3:
            worker.calls["Event.wait"] += 1
            event = Event()
            cpu_call(chance.randrange(self.options.cpus), event.set)
            if not await event.wait(PATIENCE):
                self.ledger.problem(f"a cross-CPU call did not run within {PATIENCE:g} s")
        elif what < 0.36:
            timed = Timed(self.ledger)
            self.accounts.append(timed)
            if chance.random() < 0.7:
                worker.calls["start_later"] += 1
                await timed.live(chance.choice((0, 1, 2)), chance.choice((0, 1, 3)), chance.random() * 0.003)
            else:
                worker.calls["start_every"] += 1
                await timed.beat(chance.choice((1, 2)), chance.random() * 0.003, chance.random() * 0.01)
        elif what < 0.5:
            worker.calls["callout_barrier"] += 1
            await callout_barrier(s.c)
        elif s.set is not None and chance.random() < 0.9:
            worker.calls["drain_all"] += 1
            await self._drain_all(s.mates, s.set)
        elif s.set is not None:
            worker.calls["aclose_all"] += 1
            await self._close_all(s, s.set)
        elif s.use != DRAINED:
            worker.calls["callout_quiesce"] += 1
            since = s.silencing()
            try:
                facts = await callout_quiesce(s.c)
            except trio.Cancelled:
                s.doubt()
                raise
            s.removed_by(facts & CALLOUT_REMOVED, since)
        elif what < 0.95:
            name, drain = chance.choice(DRAINS)
            worker.calls[name] += 1
            await self._drain(worker, s, drain)
        elif what < 0.975:
            worker.calls["callout_terminate"] += 1
            since = self._drains(s)
            self._terminated(s, await callout_terminate(s.c), since)
        else:
            worker.calls["c.aclose"] += 1
            since = self._drains(s)
            await s.c.aclose()
            self._terminated(s, 0, since)

    def _drains(self, s: Subject) -> tuple[int, int]:
        """Note that a drain begins. It refuses armings, and a deferred migration it removes without a word."""
        s.refusing()
        s.doubt()
        return s.silencing()

    async def _drain(self, worker: Worker, s: Subject, drain: Callable[[Callout], Awaitable[int]]) -> None:
        patience = worker.chance.random() * 0.001 if self.faulty("cancel", worker, 0.3) else float("inf")
        since = self._drains(s)
        with trio.move_on_after(patience) as scope:
            s.removed_by(await drain(s.c), since)
        if scope.cancelled_caught:
            self.ledger.figures.fault("cancel")
            with trio.CancelScope(shield=True):
                await callout_barrier(s.c)  # until then armings may be refused
        s.refused_until_now()

    async def _drain_all(self, subjects: Sequence[Subject], account: Set) -> None:
        since = [self._drains(s) for s in subjects]
        for s in subjects:
            s.doubt()  # what is armed between the end of its own drain and that of the others' is removed, too
        try:
            account.remove(await drain_all([s.c for s in subjects]))
        except trio.Cancelled:
            for s in subjects:
                s.doubt()
            raise
        for s, begun in zip(subjects, since, strict=True):
            s.silent(begun)
            s.refused_until_now()

    async def _close_all(self, s: Subject, account: Set) -> None:
        """Close the set that it is in."""
        for each in s.mates:
            each.refusing()
            each.doubt()  # what it has removed it does not say
        await aclose_all([each.c for each in s.mates])
        account.terminated()
        self._replace(s)

    def _terminated(self, s: Subject, result: int, since: tuple[int, int]) -> None:
        """Note it, and have another callout in its place."""
        s.removed_by(result, since)
        s.terminated()
        self._replace(s)

    # -- the end -------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Have every callout that was not terminated run once more; then nothing is left."""
        for account in self.accounts:
            if isinstance(account, Fresh):
                account.remove(await account.c.drain())
            elif isinstance(account, Beat):
                assert account.p is not None
                account.remove(await account.p.drain())
        subjects = list(self._slots)
        for s in subjects:
            since = s.silencing()
            s.removed_by(await callout_quiesce(s.c) & CALLOUT_REMOVED, since)
        await self.each_runs([partial(s.reset, s.ways[0], 1, 0, "last") for s in subjects])
        for s in subjects:
            await callout_barrier(s.c)
            if callout_pending(s.c) or callout_running(s.c):
                self.ledger.problem(f"{s.name}: it is pending or running, and nothing calls any more")

    def settle(self, stopped: int) -> None:
        """Draw the balances, those of the completions included."""
        super().settle(stopped)
        for completion in self._completions:
            completion.settle()
            self.ledger.figures.completions += completion.calls
