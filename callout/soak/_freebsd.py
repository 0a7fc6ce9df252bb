"""callout(9): every kind of callout, and every call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Final, NamedTuple

import trio

from .. import (
    ARM_IF_EARLIER,
    ARM_IF_IDLE,
    ARM_IF_PENDING,
    ARM_STAY,
    ARM_UNCHANGED,
    C_ABSOLUTE,
    C_DIRECT_EXEC,
    C_HARDCLOCK,
    C_PREL,
    CALLOUT_REMOVED,
    CALLOUT_RETURNUNLOCKED,
    CALLOUT_RUNNING,
    CALLOUT_SHAREDLOCK,
    CALLOUT_TRYLOCK,
    MTX_SPIN,
    PDROP,
    RA_RLOCKED,
    RA_WLOCKED,
    SBT_1MS,
    Callout,
    Event,
    LockNotHeldError,
    Mtx,
    RmLock,
    RwLock,
    callout_active,
    callout_arm,
    callout_arm_curcpu,
    callout_arm_on,
    callout_armed_with,
    callout_barrier,
    callout_barrier_sync,
    callout_deactivate,
    callout_dequeue,
    callout_drain,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_init_rm,
    callout_init_rw,
    callout_pending,
    callout_quiesce,
    callout_quiesce_sync,
    callout_reset,
    callout_reset_curcpu,
    callout_reset_on,
    callout_reset_sbt,
    callout_reset_sbt_curcpu,
    callout_reset_sbt_on,
    callout_running,
    callout_schedule,
    callout_schedule_curcpu,
    callout_schedule_on,
    callout_schedule_sbt,
    callout_schedule_sbt_curcpu,
    callout_schedule_sbt_on,
    callout_stop,
    callout_terminate,
    callout_terminate_sync,
    callout_terminated,
    cpu_call,
    giant,
    msleep,
    msleep_sync,
    mtx_init,
    mtx_lock,
    mtx_owned,
    mtx_unlock,
    pause,
    pause_sync,
    rm_assert,
    rm_init,
    rw_assert,
    rw_init,
    sbinuptime,
    sbttons,
    ticks,
    wakeup,
)
from ._ledger import Account, Arming, Completion
from ._round import LOOKS, PATIENCE, TICK, Round, Worker

EACH: Final = 4  # callouts of each kind and use
AHEAD: Final = (1, 1, 2, 3, 5, 20, 1000)  # ticks

Lock = Mtx | RwLock | RmLock


class Kind(NamedTuple):
    """A kind of callout."""

    name: str
    lock: Callable[[str], Lock] | None = None
    flags: int = 0
    direct: bool = False


KINDS: Final = (
    Kind("mpsafe"),
    Kind("Giant", lambda _: giant()),
    Kind("mutex", mtx_init),
    Kind("mutex, CALLOUT_TRYLOCK", mtx_init, CALLOUT_TRYLOCK),
    Kind("mutex, CALLOUT_RETURNUNLOCKED", mtx_init, CALLOUT_RETURNUNLOCKED),
    Kind("spin mutex, C_DIRECT_EXEC", lambda name: mtx_init(name, None, MTX_SPIN), direct=True),
    Kind("C_DIRECT_EXEC", direct=True),
    Kind("rwlock", rw_init),
    Kind("rwlock, CALLOUT_SHAREDLOCK", rw_init, CALLOUT_SHAREDLOCK),
    Kind("rmlock", rm_init),
    Kind("rmlock, CALLOUT_SHAREDLOCK", rm_init, CALLOUT_SHAREDLOCK),
)

# How the callouts of a kind are used. What says less than the ledger wants to know is kept from the first, where the
# balance has to be 0.
COUNTED: Final = "counted"
REPEATED: Final = "repeated"  # callout_schedule(), too: the argument of a run does not say which call has armed it
STOPPED: Final = "stopped"
DRAINED: Final = "drained"  # and terminated
USES: Final = (COUNTED, REPEATED, STOPPED, DRAINED)

Reset = Callable[[Callout, int, Callable[[Arming], object], Arming, int, int], int]
Schedule = Callable[[Callout, int, int, int], int]


class Way(NamedTuple):
    """A call that arms: how, and after how many ns the callback may run at the earliest; *flags* come to it."""

    reset: Reset
    delay: Callable[[int], int]
    facts: bool = False  # it returns facts
    if_pending: bool = False


def _in_ticks(n: int) -> int:
    return n * TICK


def _in_sbt(n: int) -> int:
    return sbttons(n * SBT_1MS)


def _until(n: int) -> int:
    return sbttons(n * SBT_1MS) - 1  # the present, from which it counts, was rounded down


def _at_tick(n: int) -> int:
    return (n - 1) * TICK  # the present tick may be over soon


# n is in ticks, x further flags; a tick is a millisecond.
RESETS: Final[Mapping[str, Way]] = {
    "callout_reset": Way(lambda c, n, f, a, cpu, x: callout_reset(c, n, f, a), _in_ticks),
    "callout_reset_on": Way(lambda c, n, f, a, cpu, x: callout_reset_on(c, n, f, a, cpu), _in_ticks),
    "callout_reset_curcpu": Way(lambda c, n, f, a, cpu, x: callout_reset_curcpu(c, n, f, a), _in_ticks),
    "callout_reset_sbt": Way(lambda c, n, f, a, cpu, x: callout_reset_sbt(c, n * SBT_1MS, 0, f, a, x), _in_sbt),
    "callout_reset_sbt, C_ABSOLUTE": Way(
        lambda c, n, f, a, cpu, x: callout_reset_sbt(c, sbinuptime() + n * SBT_1MS, 0, f, a, x | C_ABSOLUTE), _until
    ),
    "callout_reset_sbt, C_HARDCLOCK": Way(
        lambda c, n, f, a, cpu, x: callout_reset_sbt(c, n * SBT_1MS, 0, f, a, x | C_HARDCLOCK), _in_sbt
    ),
    "callout_reset_sbt, C_PREL": Way(
        lambda c, n, f, a, cpu, x: callout_reset_sbt(c, n * SBT_1MS, 0, f, a, x | C_PREL(2)), _in_sbt
    ),
    "callout_reset_sbt_on": Way(
        lambda c, n, f, a, cpu, x: callout_reset_sbt_on(c, n * SBT_1MS, 0, f, a, cpu, x), _in_sbt
    ),
    "callout_reset_sbt_curcpu": Way(
        lambda c, n, f, a, cpu, x: callout_reset_sbt_curcpu(c, n * SBT_1MS, 0, f, a, x), _in_sbt
    ),
    "callout_arm": Way(lambda c, n, f, a, cpu, x: callout_arm(c, ticks() + n, f, a), _at_tick, facts=True),
    "callout_arm_on": Way(
        lambda c, n, f, a, cpu, x: callout_arm_on(c, ticks() + n, f, a, cpu, ARM_STAY), _at_tick, facts=True
    ),
    "callout_arm_curcpu": Way(
        lambda c, n, f, a, cpu, x: callout_arm_curcpu(c, ticks() + n, f, a, ARM_UNCHANGED), _at_tick, facts=True
    ),
    "callout_arm, ARM_IF_IDLE": Way(
        lambda c, n, f, a, cpu, x: callout_arm(c, ticks() + n, f, a, ARM_IF_IDLE), _at_tick, facts=True
    ),
    "callout_arm, ARM_IF_EARLIER": Way(
        lambda c, n, f, a, cpu, x: callout_arm(c, ticks() + n, f, a, ARM_IF_EARLIER), _at_tick, facts=True
    ),
    "callout_arm, ARM_IF_PENDING": Way(
        lambda c, n, f, a, cpu, x: callout_arm(c, ticks() + n, f, a, ARM_IF_PENDING), _at_tick, True, if_pending=True
    ),
}
DIRECT: Final = tuple(name for name in RESETS if "sbt" in name)  # C_DIRECT_EXEC can be said

SCHEDULES: Final[Mapping[str, Schedule]] = {
    "callout_schedule": lambda c, n, cpu, x: callout_schedule(c, n),
    "callout_schedule_on": lambda c, n, cpu, x: callout_schedule_on(c, n, cpu),
    "callout_schedule_curcpu": lambda c, n, cpu, x: callout_schedule_curcpu(c, n),
    "callout_schedule_sbt": lambda c, n, cpu, x: callout_schedule_sbt(c, n * SBT_1MS, 0, x),
    "callout_schedule_sbt_on": lambda c, n, cpu, x: callout_schedule_sbt_on(c, n * SBT_1MS, 0, cpu, x),
    "callout_schedule_sbt_curcpu": lambda c, n, cpu, x: callout_schedule_sbt_curcpu(c, n * SBT_1MS, 0, x),
}

SEEN: Final[Mapping[str, Callable[[Callout], int]]] = {
    "callout_pending": callout_pending,
    "callout_active": callout_active,
    "callout_running": callout_running,
    "callout_terminated": callout_terminated,
    "callout_armed_with": lambda c: callout_armed_with(c, None),
}


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
            result = way.reset(self.c, n, self.fire, arming, cpu, self.flags)
        except BaseException:
            self.fails()
            raise
        replaced = bool(result & CALLOUT_REMOVED if way.facts else result)
        self.was_armed(arming, replaced=replaced, applied=replaced or not way.if_pending)

    def schedule(self, name: str, n: int, cpu: int) -> None:
        """Arm it as it was armed before."""
        arming = self.arming(0)
        try:
            replaced = bool(SCHEDULES[name](self.c, n, cpu, self.flags))
        except BaseException:
            self.fails()
            raise
        self.was_armed(arming, replaced=replaced)

    def stop(self) -> None:
        """Stop it, with its lock held."""
        since = self.silencing()
        result = callout_stop(self.c)
        if result == 1:
            self.remove()
        if result == 0:
            self.doubt()  # a queued next run may be gone
        else:
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
        self._completions: list[Completion] = []
        for kind in KINDS:
            for use in USES:
                lock = None if kind.lock is None else kind.lock(f"soak {kind.name} {use}")
                self._slots += [self._new(kind, use, lock) for _ in range(EACH)]
        self._mutex = mtx_init("soak msleep")
        self._channel = object()

    def _new(self, kind: Kind, use: str, lock: Lock | None) -> Subject:
        subject = Subject(self, kind, use, lock)
        self.accounts.append(subject)
        return subject

    # -- calls that do not wait ----------------------------------------------------------------------------------

    def call(self, worker: Worker) -> None:
        """Arm, or do to a callout what its use allows."""
        chance, s = worker.chance, worker.chance.choice(self._slots)
        what = chance.random()
        if what < 0.6:
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
            worker.calls["callout_stop"] += 1
            with s.lock or nullcontext():
                s.stop()
        else:
            worker.calls["callout_drain_async"] += 1
            self._drain_async(self._busy(worker, DRAINED))

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

    def _busy(self, worker: Worker, *uses: str) -> Subject:
        """Return a callout, of these uses or of any, that runs, if one is soon found."""
        some = worker.chance.choices([s for s in self._slots if s.use in (uses or USES)], k=LOOKS)
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
            worker.calls["callout_drain_sync"] += 1
            since = self._drains(s)
            s.removed_by(callout_drain_sync(s.c), since)
            s.refused_until_now()
        else:
            worker.calls["callout_terminate_sync"] += 1
            since = self._drains(s)
            self._terminated(s, callout_terminate_sync(s.c), since)

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
        elif what < 0.5:
            worker.calls["callout_barrier"] += 1
            await callout_barrier(s.c)
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
            worker.calls["callout_drain"] += 1
            await self._drain(worker, s)
        else:
            worker.calls["callout_terminate"] += 1
            since = self._drains(s)
            self._terminated(s, await callout_terminate(s.c), since)

    def _drains(self, s: Subject) -> tuple[int, int]:
        """Note that a drain begins. It refuses armings, and a deferred migration it removes without a word."""
        s.refusing()
        s.doubt()
        return s.silencing()

    async def _drain(self, worker: Worker, s: Subject) -> None:
        patience = worker.chance.random() * 0.001 if self.faulty("cancel", worker, 0.3) else float("inf")
        since = self._drains(s)
        with trio.move_on_after(patience) as scope:
            s.removed_by(await callout_drain(s.c), since)
        if scope.cancelled_caught:
            self.ledger.figures.fault("cancel")
            with trio.CancelScope(shield=True):
                await callout_barrier(s.c)  # until then armings may be refused
        s.refused_until_now()

    def _terminated(self, s: Subject, result: int, since: tuple[int, int]) -> None:
        """Note it, and have another callout in its place. Its armings are refused for ever."""
        s.removed_by(result, since)
        s.terminated()
        for at, each in enumerate(self._slots):
            if each is s:
                self._slots[at] = self._new(s.kind, s.use, s.lock)
        s.reset(s.ways[0], 1, 0)

    # -- the end -------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Have every callout that was not terminated run once more; then nothing is left."""
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
