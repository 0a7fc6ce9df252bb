"""One callout under operations that race, and what must be true of every result: the invariants of the race tests.

A scenario makes a ``Bench``, lets its threads operate on the callout through it and calls ``verify()`` at the end.
Meanwhile the bench writes down when each call began and ended and what it returned, and when each run began and
ended; every arming has a number of its own, so that it can be told which of them ran.

The invariants, and where each is checked:

- When a drain has returned, nothing of what it waited for is queued or runs: ``_nothing_of_before``.
- Results are true: there, and by the sums of ``_sums``; each together with all others:
  ``callout/explore/_sequential.py``.
- Lists are whole: ``in_order`` looks at wheel and callout whenever the lock of a CPU is about to be released.
- Every accepted asynchronous drain calls its function exactly once: ``_completions``.
- Everything ends: ``explore`` finds deadlocks, livelocks and waits for what never comes; ``verify`` finds a CPU that
  still has work.
- Nothing is used after it was freed, and everything is freed once. That needs something to free:
  ``test_freebsd_races.py``.

All that the threads of a scenario share is the callout, its lock and this record, and the record says how each step
uses it (``Bench.moment``): that one call ended before another began, or before a run did, is an order that matters;
which of two began first is none. So a search may leave out what differs in nothing else (``cells_only``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import pytest

from callout import (
    C_DIRECT_EXEC,
    CALLOUT_RETURNUNLOCKED,
    CALLOUT_SHAREDLOCK,
    CALLOUT_TRYLOCK,
    MTX_SPIN,
    SBT_1MS,
    Callout,
    ClosedError,
    Mtx,
    RwLock,
    callout_active,
    callout_barrier,
    callout_deactivate,
    callout_drain,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_init_rw,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_reset_sbt_on,
    callout_schedule,
    callout_schedule_sbt,
    callout_stop,
    callout_terminate,
)
from callout._core.cpu import Cpu
from callout._core.invariants import check, check_cpu
from callout._core.lifecycle import close, enter, quiesce
from callout._core.phases import Phase
from callout._worlds.virtual.footprints import READS, WRITES
from callout._worlds.virtual.locks import CpuLock
from callout._worlds.virtual.scheduler import RunOn
from callout.explore import _sequential as sequential
from callout.explore._sequential import ARM, FOR_EVER, REFUSED, Asked, Happened, History, explained
from callout.freebsd13 import callout_async_drain
from callout.testing import VirtualSMP

MPSAFE: Final = "mpsafe"
MUTEX: Final = "mutex"
GIANT: Final = "Giant"
DIRECT: Final = "direct without a lock"
SPIN: Final = "direct with a spin mutex"
SHARED: Final = "rwlock, shared"
UNLOCKED: Final = "returns unlocked"
TRYLOCK: Final = "trylock"
KINDS: Final = (MPSAFE, MUTEX, SPIN, DIRECT, GIANT, SHARED, UNLOCKED, TRYLOCK)
DIRECTS: Final = (DIRECT, SPIN)
ON_CPU_0: Final = (GIANT, DIRECT, SHARED)  # by the three rules
LOCK_FLAGS: Final = {UNLOCKED: CALLOUT_RETURNUNLOCKED, TRYLOCK: CALLOUT_TRYLOCK}

RESET: Final = "reset"
ELSEWHERE: Final = "reset elsewhere"
BACK: Final = "reset on CPU 0"
SCHEDULE: Final = "schedule"
STOP: Final = "stop"
DRAIN: Final = "drain"
DRAIN_ASYNC: Final = "drain_async"
ASYNC_DRAIN: Final = "async_drain"
DEACTIVATE: Final = "deactivate"
TERMINATE: Final = "terminate"
BARRIER: Final = "barrier"
CLOSING: Final = "closing"
OPS: Final = (
    RESET,
    ELSEWHERE,
    SCHEDULE,
    STOP,
    DRAIN,
    DRAIN_ASYNC,
    ASYNC_DRAIN,
    DEACTIVATE,
    TERMINATE,
    BARRIER,
    CLOSING,
)
BARE_RESET: Final = "reset without the lock"
BARE_ELSEWHERE: Final = "reset elsewhere without the lock"
BARE_STOP: Final = "stop without Giant"
HELD_DRAIN: Final = "drain with Giant held"
RAISE: Final = "raise"  # what only a callback does
ARMING: Final = (RESET, ELSEWHERE, BACK, SCHEDULE, BARE_RESET, BARE_ELSEWHERE)
TO_CPU_1: Final = (ELSEWHERE, BARE_ELSEWHERE)
DRAINS: Final = (DRAIN, HELD_DRAIN, DRAIN_ASYNC, ASYNC_DRAIN, TERMINATE)
UNSEEN: Final = (BARRIER, RAISE)  # by the sequential reference: they change nothing
WITHOUT_LOCK: Final = (
    DRAIN,
    TERMINATE,
    BARRIER,
    DEACTIVATE,
    SCHEDULE,
    CLOSING,
    RAISE,
    BARE_RESET,
    BARE_ELSEWHERE,
    BARE_STOP,
)

KIND_OF: Final = {  # for the sequential reference
    BARE_STOP: sequential.STOP,
    HELD_DRAIN: sequential.DRAIN,
    CLOSING: sequential.CLOSE,
    **dict.fromkeys(ARMING, ARM),
}


class Oops(Exception):  # noqa: N818 - no error: it is meant
    """What a callback raises."""


def in_order(cpu: Cpu, c: Callout) -> None:
    """Assert that what the lock of *cpu* guards is in order; called whenever it is about to be released."""
    check_cpu(cpu)
    if c.c_cpu is cpu:
        check(c)


@contextmanager
def undisturbed(vm: VirtualSMP) -> Iterator[None]:
    """Let nobody else run, and nothing be explored: for what a scenario does before the race begins."""
    chooser, vm.platform.chooser = vm.platform.chooser, RunOn()
    try:
        yield
    finally:
        vm.platform.chooser = chooser


@dataclass
class Call:
    """One call of the API."""

    op: str
    number: int  # of the arming that it asks for: each call of a scenario has its own, whichever is the first
    begun: int
    in_callback: bool
    ended: int = FOR_EVER
    result: int = -99
    completed: int = 0  # when its completion was called


@dataclass
class Ran:
    """One run of the callback."""

    number: int
    begun: int
    cpu: int
    ended: int = FOR_EVER


class Bench:
    """One callout of a kind, armed once as number 0, and the record of what happens to it."""

    def __init__(
        self, vm: VirtualSMP, kind: str, *, callback: str = "", raises: bool = False, first: str = RESET
    ) -> None:
        """*callback*: the operation that the first run does on its own callout. *raises*: and then it raises. *first*:
        the arming before the race.
        """
        self.vm = vm
        self.kind = kind
        self.callback = callback
        self.raises = raises
        self.time = 0
        self.calls: dict[int, Call] = {}
        self.runs: list[Ran] = []
        self.next = 0
        self.c = Callout()
        self._runs = vm.platform.trail.number("the record of the runs")
        self._ends: list[int] = []  # in footprints: the end of each call
        with undisturbed(vm):
            for cpu in vm.machine.cpus:
                assert isinstance(cpu.lock, CpuLock)
                cpu.lock.before_release = partial(in_order, cpu, self.c)
            self.lock: Mtx | RwLock | None = None
            if kind == SHARED:
                self.lock = RwLock("rw")
                callout_init_rw(self.c, self.lock, CALLOUT_SHAREDLOCK)
            elif kind in (MPSAFE, DIRECT, GIANT):
                callout_init(self.c, kind != GIANT)
                self.lock = vm.machine.giant if kind == GIANT else None
            else:
                self.lock = Mtx("m", MTX_SPIN if kind == SPIN else 0)
                callout_init_mtx(self.c, self.lock, LOCK_FLAGS.get(kind, 0))
            self.do(first)
            self.in_callback = self.number() if callback else -1

    def number(self) -> int:
        """Return a number for a call."""
        self._ends.append(self.vm.platform.trail.number("the record of a call"))
        self.next += 1
        return self.next - 1

    def moment(self, ends: int | None = None, *, run: bool = False) -> int:
        """Return a moment later than all before: of the beginning of a call, of the end of call *ends*, of a *run*.

        Whether a call ended before another one began matters, and so does what was before a run.
        """
        platform = self.vm.platform
        platform.touch(self._runs, WRITES if run else READS)
        if ends is not None:
            platform.touch(self._ends[ends], WRITES)
        elif not run:
            for number in self._ends:
                platform.touch(number, READS)
        self.time += 1
        return self.time

    # -- what the threads do ---------------------------------------------------------------------------------------

    def do(self, op: str, number: int | None = None) -> int:
        """Do one operation on the callout, with its lock held if the operation wants it, and write it down."""
        if number is None:
            number = self.number()
        in_callback = bool(self.runs and self.runs[-1].ended == FOR_EVER) and self.vm.platform.in_callback()
        lock = None if op in WITHOUT_LOCK or (in_callback and self.kind == SHARED) else self.lock
        mine = lock is not None and not lock.owned()
        if lock is None or not mine:
            return self._do(op, number, in_callback)
        with lock:
            return self._do(op, number, in_callback)

    def _do(self, op: str, number: int, in_callback: bool) -> int:
        call = Call(op, number, self.moment(), in_callback=in_callback)
        self.calls[number] = call
        try:
            call.result = self._call(op, call)
        except ClosedError:
            assert any(other.op == CLOSING for other in self.calls.values()), "refused, and nobody closes the system"
            call.result = REFUSED
        call.ended = self.moment(ends=number)
        if op in (DRAIN, TERMINATE) and call.result != REFUSED:
            # Looking is a switch point, so look first and ask then.
            assert not callout_pending(self.c) or self._armings_since(call.begun), "drained, and still pending"
        if op == HELD_DRAIN and call.result != REFUSED:
            pending, run = callout_pending(self.c), self.c.run  # before the question whether another call has begun
            self.moment()
            if not any(other.op in (BARE_RESET, BARE_ELSEWHERE) for other in self.calls.values()):
                assert not pending, "drained, and pending, though nobody else can have had Giant"
                assert run is None, "drained, and in use, though nobody else can have had Giant"
        return call.result

    def _call(self, op: str, call: Call) -> int:
        c = self.c
        if op in ARMING:
            return self._arm(op, call)
        if op in (STOP, BARE_STOP):
            return callout_stop(c)
        if op in (DRAIN, HELD_DRAIN):
            return self.vm.run(lambda: callout_drain(c))
        if op == TERMINATE:
            return self.vm.run(lambda: callout_terminate(c))
        if op == BARRIER:
            return self.vm.run(lambda: callout_barrier(c))
        if op == ASYNC_DRAIN:
            return callout_async_drain(c, partial(self.completed_with, call))
        if op == DRAIN_ASYNC:
            return callout_drain_async(c, self.completed, call)
        assert op == DEACTIVATE
        callout_deactivate(c)
        return 0

    def _arm(self, op: str, call: Call) -> int:
        c, number = self.c, call.number
        if self.kind in DIRECTS:
            if op == SCHEDULE:
                return callout_schedule_sbt(c, SBT_1MS, 0, C_DIRECT_EXEC)
            if op in (RESET, BARE_RESET):
                return callout_reset_sbt(c, SBT_1MS, 0, self.run, number, C_DIRECT_EXEC)
            return callout_reset_sbt_on(c, SBT_1MS, 0, self.run, number, int(op != BACK), C_DIRECT_EXEC)
        if op == SCHEDULE:
            return callout_schedule(c, 1)
        if op in (RESET, BARE_RESET):
            return callout_reset(c, 1, self.run, number)
        return callout_reset_on(c, 1, self.run, number, int(op != BACK))

    async def close(self, number: int) -> None:
        """Close the system, as the end of its block does."""
        call = self.calls[number] = Call(CLOSING, number, self.moment(), in_callback=False)
        machine = self.vm.machine
        enter(machine, Phase.CANCELLING)
        await quiesce(machine)
        await close(machine)
        call.result = 0
        call.ended = self.moment(ends=number)

    def run(self, number: int) -> None:
        """The callback."""
        lock = self.lock
        if self.kind == SHARED:
            assert isinstance(lock, RwLock)
            assert lock.holds(), "the callback runs without its lock"
            assert not lock.owned(), "the callback has the lock for writing"
        else:
            assert lock is None or lock.owned(), "the callback runs without its lock"
        assert all(ran.ended < FOR_EVER for ran in self.runs), "two runs at once"
        ran = Ran(number, self.moment(run=True), self.vm.platform.current_cpu())
        is_first = not self.runs
        self.runs.append(ran)
        if is_first and self.callback:
            self.do(self.callback, self.in_callback)
        if self.kind == UNLOCKED:
            assert lock is not None
            lock.__exit__()
        self.vm.platform.point()
        ran.ended = self.moment(run=True)
        if is_first and self.raises:
            raise Oops

    def completed(self, call: Call) -> None:
        """The completion of a ``callout_drain_async()``."""
        assert not call.completed, "a completion was called twice"
        assert (self.vm.platform.current or self.vm.platform.outside).cpu_locks == 0, (
            "a completion was called with a CPU's lock held"
        )
        assert self.lock is None or not self.lock.holds(), "a completion was called with the callout's lock held"
        call.completed = self.moment(ends=call.number)
        pending, run = callout_pending(self.c), self.c.run
        if not self._armings_since(call.begun):
            assert not pending, "completed, and still pending"
            assert run is None, "completed, and still in use"

    def completed_with(self, call: Call, number: int) -> None:
        """The completion of a ``callout_async_drain()``, which gets the argument of the run."""
        # The run may have been cancelled since, by a call that held its lock: the argument is that of it all the same.
        assert self.calls[number].op in ARMING, "a completion with another argument than that of a run"
        self.completed(call)

    def _armings_since(self, moment: int) -> bool:
        self.moment()  # it looks at all that has ended
        return any(call.op in ARMING and call.ended > moment for call in self.calls.values())

    # -- what must be true of it ------------------------------------------------------------------------------------

    def verify(self) -> str:
        """Let everything end, and look at every result. Return all that was seen."""
        self.vm.settle()
        c = self.c
        for error in self.vm.errors:  # of callbacks and completions: what they have not done is a consequence
            if not isinstance(error, Oops):
                raise error
        assert c.run is None, "a run has not ended"
        assert not callout_pending(c), "it never came"
        closes = any(call.op == CLOSING for call in self.calls.values())
        for cpu in self.vm.machine.cpus:
            assert len(cpu.wheel) == 0, "something is left in a wheel"
            if not closes:
                assert isinstance(cpu.lock, CpuLock)
                assert cpu.lock.holder is None, "a CPU's lock was left held"
        if closes:
            with pytest.raises(ClosedError):
                self._arm(BARE_RESET, Call(BARE_RESET, -1, 0, in_callback=False))
        assert not isinstance(self.lock, Mtx) or self.lock._owner is None, "the callout's lock was left held"
        if self.raises:
            raised = [error for error in self.vm.errors if isinstance(error, Oops)]
            assert len(raised) == min(len(self.runs), 1), "what a callback raised was not reported once"
            self.vm.errors[:] = [error for error in self.vm.errors if error not in raised]
        numbers = [ran.number for ran in self.runs]
        if not any(call.op == SCHEDULE for call in self.calls.values()):  # that keeps the number
            assert len(numbers) == len(set(numbers)), "an arming ran twice"
        assert all(call.ended < FOR_EVER for call in self.calls.values()), "a call did not return"
        self._places()
        self._sums()
        self._completions()
        for call in self.calls.values():
            self._nothing_of_before(call)
        history = self.history()
        assert explained(history), f"no order of the calls explains all results: {history}"
        return self._seen()

    def _seen(self) -> str:
        """Return what was seen, as far as an order in it matters: the results, what came before what."""
        calls = [self.calls[number] for number in sorted(self.calls)]
        ends = [call.completed or call.ended for call in calls]
        befores = "".join(str(int(end < call.begun)) for end in ends for call in calls)
        runs = [
            (ran.number, ran.cpu, "".join("01"[end < ran.begun] + "01"[end < ran.ended] for end in ends))
            for ran in self.runs
        ]
        begun = [
            "".join("01"[call.begun < ran.begun] + "01"[call.begun < ran.ended] for call in calls) for ran in self.runs
        ]
        results = [(call.number, call.result, bool(call.completed)) for call in calls]
        return f"{results} {befores} {runs} {begun} {callout_active(self.c)}"

    def history(self) -> History:
        """Return everything that was seen, for the sequential reference, without what changes nothing."""
        calls = [call for call in self.calls.values() if call.op not in UNSEEN]
        place = {call.number: at for at, call in enumerate(calls)}
        ops = {call.op for call in calls}
        moves = not ops.isdisjoint(TO_CPU_1)
        return History(
            locked=self.lock is not None and self.kind != TRYLOCK,  # one that tries is never at its lock
            calls=tuple(
                Asked(
                    kind=KIND_OF.get(call.op, call.op),
                    cpu=None
                    if call.op in (RESET, BARE_RESET, SCHEDULE)
                    else int(call.op in TO_CPU_1 and self.kind not in ON_CPU_0),
                    cancels=self.lock is not None and call.op not in WITHOUT_LOCK,
                    sleeps_again=call.op == HELD_DRAIN,
                    begun=call.begun,
                    ended=call.ended,
                    result=call.result,
                    completed=call.completed,
                    label=at,
                    keeps=call.op == SCHEDULE,
                )
                for at, call in enumerate(calls)
            ),
            runs=tuple(Happened(place[run.number], run.begun, run.ended) for run in self.runs),
            # A deferred migration makes it active when it is carried out, whether or not it was deactivated meanwhile.
            active=None if DEACTIVATE in ops and moves else bool(callout_active(self.c)),
        )

    def _places(self) -> None:
        """Each run was on the CPU that the three rules and its arming say."""
        for ran in self.runs:
            op = self.calls[ran.number].op
            if self.kind in ON_CPU_0 or op == BACK or not any(call.op in TO_CPU_1 for call in self.calls.values()):
                assert ran.cpu == 0, "it ran on another CPU than 0"
            elif op in TO_CPU_1:
                assert ran.cpu == 1, "it ran on another CPU than it was armed for"

    def _sums(self) -> None:
        """What was armed either ran or was removed, and the results say how many were."""
        refused = any(call.op in (*DRAINS, CLOSING) for call in self.calls.values())
        moved = any(call.op in (*TO_CPU_1, BACK) for call in self.calls.values())
        armed = [call for call in self.calls.values() if call.op in ARMING]
        at_least = at_most = 0
        for call in self.calls.values():
            low, high = 0, 0
            if call.result == REFUSED or call.op in (BARRIER, DEACTIVATE, CLOSING):
                pass
            elif call.op in ARMING:
                low = high = call.result
            elif call.op in (STOP, BARE_STOP, ASYNC_DRAIN):
                low, high = {1: (1, 1), 0: (0, 1), -1: (0, 0)}[call.result]
            elif call.op in (DRAIN, TERMINATE):
                low, high = {1: (1, 1), -1: (0, int(moved))}[call.result]
            elif call.op == HELD_DRAIN:
                low, high = {1: (1, len(armed)), -1: (0, 0)}[call.result]
            else:
                high = 1
            at_least += low
            at_most += high
        gone = len(armed) - len(self.runs)
        if refused:
            at_most += len(armed)
        assert at_least <= gone, f"{at_least} or more were removed, by the results, but only {gone} did not run"
        assert gone <= at_most, f"{gone} did not run, but at most {at_most} were removed, by the results"

    def _completions(self) -> None:
        for call in self.calls.values():
            if call.op not in (DRAIN_ASYNC, ASYNC_DRAIN):
                continue
            promise = 1 if call.op == DRAIN_ASYNC else 0
            assert bool(call.completed) is (call.result == promise), f"{call.op} returned {call.result}"
            # The refusal ends with the run, a moment before the completion is called.
            waited = [ran.ended for ran in self.runs if self.calls[ran.number].ended < call.begun < ran.ended]
            if call.completed and waited:
                for other in self.calls.values():
                    if other.op in ARMING and call.ended < other.begun and other.ended < waited[-1]:
                        assert all(ran.number != other.number for ran in self.runs), "armed during a drain"

    def _nothing_of_before(self, call: Call) -> None:
        """Of what was armed before *call* began nothing happens after it returned, but what its result admits."""
        until = call.completed or call.ended
        if call.result == REFUSED or call.op == DEACTIVATE:
            return
        if call.op == CLOSING:
            assert all(ran.ended < until for ran in self.runs), "a callback ran after the system was closed"
            assert all(other.completed < until for other in self.calls.values()), "a completion after the close"
            return
        if any(other.op == SCHEDULE and other.ended > call.begun for other in self.calls.values()):
            return  # what runs later may be what that has armed
        if call.op == BARRIER:
            assert not any(ran.begun < call.begun and ran.ended > until for ran in self.runs), "a barrier did not wait"
            return
        late = [ran for ran in self.runs if ran.ended > until and self.calls[ran.number].ended < call.begun]
        locked = self.lock is not None and call.op not in WITHOUT_LOCK
        # One that is refused for good cancels nothing.
        refused = any(other.op in (TERMINATE, CLOSING) and other.begun < call.ended for other in self.calls.values())
        goes_on = call.op in ARMING and (not locked or self.kind == UNLOCKED or refused)
        goes_on = goes_on or (call.op in (STOP, BARE_STOP) and call.result == 0)
        goes_on = goes_on or (call.in_callback and not call.completed)
        allowed = int(goes_on)  # the run in progress
        assert len(late) <= allowed, f"{call.op} returned {call.result}, and then ran {late}"


def race(
    kind: str, *ops: str, callback: str = "", raises: bool = False, first: str = RESET
) -> Callable[[VirtualSMP], str]:
    """Return the scenario of operations, each of a thread of its own, that race against each other and softclock."""

    def scenario(vm: VirtualSMP) -> str:
        bench = Bench(vm, kind, callback=callback, raises=raises, first=first)
        with undisturbed(vm):
            numbers = [bench.number() for _ in ops]
            for at, (op, number) in enumerate(zip(ops, numbers, strict=True)):
                if op == CLOSING:
                    vm.spawn(bench.close, number, name="close", cpu=0)
                elif at:
                    vm.spawn(bench.do, op, number, name=f"t{at}")
        if ops and ops[0] != CLOSING:
            if ops[0] in WITHOUT_LOCK or bench.lock is None:
                vm.point()  # others may run before it begins
            bench.do(ops[0], numbers[0])
        return bench.verify()

    return scenario
