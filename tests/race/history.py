"""One callout under operations that race, and what must be true of every answer: the invariants of the race tests.

A scenario makes a ``Bench``, lets its threads operate on the callout through it and calls ``verify()`` at the end.
Meanwhile the bench writes down when each call began and ended and what it answered, and when each run began and
ended; every arming has a number of its own, so that it can be told which of them ran.

I1 to I7 are those of Seed 4; where each is checked:

- I3, drains: ``_nothing_of_before``. I5, truthful answers: there, and by the sums of ``_sums``.
- I4, lists: ``in_order`` looks at wheel and callout whenever the lock of a CPU is about to be released.
- I6, completions: ``_completions``.
- I7, progress: ``explore`` finds deadlocks, livelocks and who waits for what never comes; ``verify`` finds a CPU that
  still has work.
- Every answer, together with all others: ``sequential.py`` has the reference.
- I1 and I2 need something to free: ``test_seed4.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from callout import (
    C_DIRECT_EXEC,
    MTX_SPIN,
    SBT_1MS,
    Callout,
    Mtx,
    callout_barrier,
    callout_drain,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_reset_sbt_on,
    callout_stop,
)
from callout._core.cpu import Cpu
from callout._core.invariants import check, check_cpu
from callout._worlds.virtual.platform import CpuLock
from callout._worlds.virtual.scheduler import RunOn
from callout.testing import VirtualSMP
from tests.race.sequential import ARM, FOR_EVER, Asked, Happened, History, explained

MPSAFE: Final = "mpsafe"
MUTEX: Final = "mutex"
GIANT: Final = "Giant"
KINDS: Final = (MPSAFE, MUTEX, GIANT)
DIRECT: Final = "direct without a lock"
SPIN: Final = "direct with a spin mutex"
DIRECTS: Final = (DIRECT, SPIN)
ON_CPU_0: Final = (GIANT, DIRECT)  # by the three rules

RESET: Final = "reset"
ELSEWHERE: Final = "reset elsewhere"
BACK: Final = "reset on CPU 0"
STOP: Final = "stop"
DRAIN: Final = "drain"
DRAIN_ASYNC: Final = "drain_async"
BARRIER: Final = "barrier"
OPS: Final = (RESET, ELSEWHERE, STOP, DRAIN, DRAIN_ASYNC)
BARE_RESET: Final = "reset without the lock"
BARE_ELSEWHERE: Final = "reset elsewhere without the lock"
BARE_STOP: Final = "stop without Giant"
HELD_DRAIN: Final = "drain with Giant held"
ARMING: Final = (RESET, ELSEWHERE, BACK, BARE_RESET, BARE_ELSEWHERE)
TO_CPU_1: Final = (ELSEWHERE, BARE_ELSEWHERE)
DRAINS: Final = (DRAIN, HELD_DRAIN, DRAIN_ASYNC)
WITHOUT_LOCK: Final = (DRAIN, BARRIER, BARE_RESET, BARE_ELSEWHERE, BARE_STOP)

KIND_OF: Final = {BARE_STOP: STOP, HELD_DRAIN: DRAIN}  # for the sequential reference


def in_order(cpu: Cpu, c: Callout) -> None:
    """Assert that what the lock of *cpu* guards is in order; called whenever it is about to be released."""
    check_cpu(cpu)
    if c.cpu is cpu:
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
    number: int  # of the arming that it asks for
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

    def __init__(self, vm: VirtualSMP, kind: str, *, callback: str = "", first: str = RESET) -> None:
        """*callback*: the operation that the first run does on its own callout. *first*: the arming before the race."""
        self.vm = vm
        self.kind = kind
        self.callback = callback
        self.time = 0
        self.calls: list[Call] = []
        self.runs: list[Ran] = []
        self.c = Callout()
        with undisturbed(vm):
            for cpu in vm.machine.cpus:
                assert isinstance(cpu.lock, CpuLock)
                cpu.lock.before_release = partial(in_order, cpu, self.c)
            self.lock: Mtx | None = None
            if kind in (MUTEX, SPIN):
                self.lock = Mtx("m", MTX_SPIN if kind == SPIN else 0)
                callout_init_mtx(self.c, self.lock)
            else:
                callout_init(self.c, kind != GIANT)
                self.lock = vm.machine.giant if kind == GIANT else None
            self.do(first)

    def now(self) -> int:
        """Return a moment later than all before."""
        self.time += 1
        return self.time

    # -- what the threads do ---------------------------------------------------------------------------------------

    def do(self, op: str) -> int:
        """Do one operation on the callout, with its lock held if the operation wants it, and write it down."""
        lock = None if op in WITHOUT_LOCK else self.lock
        mine = lock is not None and not lock.owned()
        if lock is None:
            self.vm.platform.point()  # others may run before it begins
        elif mine:
            lock.__enter__()
        call = Call(op, len(self.calls), self.now(), in_callback=bool(self.runs and self.runs[-1].ended == FOR_EVER))
        call.in_callback = call.in_callback and self.vm.platform.in_loop()
        self.calls.append(call)
        call.result = self._call(op, call)
        call.ended = self.now()
        if op == DRAIN:  # looking is a switch point, so look first and ask then
            assert not callout_pending(self.c) or self._armings_since(call.begun), "drained, and still pending"
        if op == HELD_DRAIN and not any(other.op in (BARE_RESET, BARE_ELSEWHERE) for other in self.calls):
            assert not callout_pending(self.c), "drained, and pending, though nobody else can have had Giant"
            assert self.c.run is None, "drained, and in use, though nobody else can have had Giant"
        if lock is not None and mine:
            lock.__exit__()
        return call.result

    def _call(self, op: str, call: Call) -> int:
        c = self.c
        if op in ARMING and self.kind in DIRECTS:
            if op in (RESET, BARE_RESET):
                return callout_reset_sbt(c, SBT_1MS, 0, self.run, call.number, C_DIRECT_EXEC)
            return callout_reset_sbt_on(c, SBT_1MS, 0, self.run, call.number, int(op != BACK), C_DIRECT_EXEC)
        if op == BARRIER:
            return self.vm.run(lambda: callout_barrier(c))
        if op in (RESET, BARE_RESET):
            return callout_reset(c, 1, self.run, call.number)
        if op in (ELSEWHERE, BARE_ELSEWHERE, BACK):
            return callout_reset_on(c, 1, self.run, call.number, int(op != BACK))
        if op in (STOP, BARE_STOP):
            return callout_stop(c)
        if op in (DRAIN, HELD_DRAIN):
            return self.vm.run(lambda: callout_drain(c))
        return callout_drain_async(c, self.completed, call)

    def run(self, number: int) -> None:
        """The callback."""
        assert self.lock is None or self.lock.owned(), "the callback runs without its lock"
        assert all(ran.ended < FOR_EVER for ran in self.runs), "two runs at once"
        ran = Ran(number, self.now(), self.vm.platform.current_cpu())
        self.runs.append(ran)
        self.vm.platform.point()
        if self.callback and number == 0:
            self.do(self.callback)
            self.vm.platform.point()
        ran.ended = self.now()

    def completed(self, call: Call) -> None:
        """The completion of a ``callout_drain_async()``."""
        assert not call.completed, "a completion was called twice"
        assert (self.vm.platform.current or self.vm.platform.outside).cpu_locks == 0, (
            "a completion was called with a CPU's lock held"
        )
        assert self.lock is None or not self.lock.owned(), "a completion was called with the callout's lock held"
        call.completed = self.now()
        pending, run = callout_pending(self.c), self.c.run
        if not self._armings_since(call.begun):
            assert not pending, "completed, and still pending"
            assert run is None, "completed, and still in use"

    def _armings_since(self, moment: int) -> bool:
        return any(call.op in ARMING and call.ended > moment for call in self.calls)

    # -- what must be true of it ------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Let everything end, and look at every answer that was given."""
        self.vm.settle()
        c = self.c
        assert c.run is None, "a run has not ended"
        assert not callout_pending(c), "it never came"
        for cpu in self.vm.machine.cpus:
            assert len(cpu.wheel) == 0, "something is left in a wheel"
            assert isinstance(cpu.lock, CpuLock)
            assert cpu.lock.holder is None, "a CPU's lock was left taken"
        assert self.lock is None or self.lock._owner is None, "the callout's lock was left taken"
        numbers = [ran.number for ran in self.runs]
        assert len(numbers) == len(set(numbers)), "an arming ran twice"
        assert all(call.ended < FOR_EVER for call in self.calls), "a call did not return"
        self._places()
        self._sums()
        self._completions()
        for call in self.calls:
            self._nothing_of_before(call)
        history = self.history()
        assert explained(history), f"no order of the calls explains all answers: {history}"

    def history(self) -> History:
        """Return everything that was seen, for the sequential reference. A barrier changes nothing: it is left out."""
        calls = [call for call in self.calls if call.op != BARRIER]
        place = {call.number: at for at, call in enumerate(calls)}
        return History(
            locked=self.lock is not None,
            calls=tuple(
                Asked(
                    kind=ARM if call.op in ARMING else KIND_OF.get(call.op, call.op),
                    cpu=None
                    if call.op in (RESET, BARE_RESET)
                    else int(call.op in TO_CPU_1 and self.kind not in ON_CPU_0),
                    cancels=self.lock is not None and call.op not in WITHOUT_LOCK,
                    sleeps_again=call.op == HELD_DRAIN,
                    begun=call.begun,
                    ended=call.ended,
                    result=call.result,
                    completed=call.completed,
                )
                for call in calls
            ),
            runs=tuple(Happened(place[run.number], run.begun, run.ended) for run in self.runs),
        )

    def _destination(self, op: str) -> int:
        return int(op in TO_CPU_1 and self.kind not in ON_CPU_0)

    def _places(self) -> None:
        """Each run was on the CPU that the three rules and its arming say."""
        for ran in self.runs:
            op = self.calls[ran.number].op
            if self.kind in ON_CPU_0 or op == BACK or not any(call.op in TO_CPU_1 for call in self.calls):
                assert ran.cpu == 0, "it ran on another CPU than 0"
            elif op in TO_CPU_1:
                assert ran.cpu == 1, "it ran on another CPU than it was armed for"

    def _sums(self) -> None:
        """What was armed either ran or was removed, and the answers say how many were."""
        drained = any(call.op in DRAINS for call in self.calls)
        moved = any(call.op in (*TO_CPU_1, BACK) for call in self.calls)
        armed = [call for call in self.calls if call.op in ARMING]
        at_least = at_most = 0
        for call in self.calls:
            low, high = 0, 0
            if call.op in ARMING:
                low = high = call.result
            elif call.op in (STOP, BARE_STOP):
                low, high = {1: (1, 1), 0: (0, 1), -1: (0, 0)}[call.result]
            elif call.op == DRAIN:
                low, high = {1: (1, 1), -1: (0, int(moved))}[call.result]
            elif call.op == BARRIER:
                pass
            elif call.op == HELD_DRAIN:
                low, high = {1: (1, len(armed)), -1: (0, 0)}[call.result]
            else:
                high = 1
            at_least += low
            at_most += high
        gone = len(armed) - len(self.runs)
        if drained:
            at_most += len(armed)  # refused
        assert at_least <= gone, f"{at_least} or more were removed, by the answers, but only {gone} did not run"
        assert gone <= at_most, f"{gone} did not run, but at most {at_most} were removed, by the answers"

    def _completions(self) -> None:
        for call in self.calls:
            if call.op != DRAIN_ASYNC:
                continue
            assert bool(call.completed) is (call.result == 1), "1 promises a completion, 0 that there is none"
            # The refusal ends with the run, a moment before the completion is called.
            waited = [ran.ended for ran in self.runs if self.calls[ran.number].ended < call.begun < ran.ended]
            if call.completed and waited:
                for other in self.calls:
                    if other.op in ARMING and call.ended < other.begun and other.ended < waited[-1]:
                        assert all(ran.number != other.number for ran in self.runs), "armed during a drain"

    def _nothing_of_before(self, call: Call) -> None:
        """Of what was armed before *call* began nothing happens after its answer, but what the answer admits."""
        until = call.completed or call.ended
        if call.op == BARRIER:
            assert not any(ran.begun < call.begun and ran.ended > until for ran in self.runs), "a barrier did not wait"
            return
        late = [ran for ran in self.runs if ran.ended > until and self.calls[ran.number].ended < call.begun]
        locked = self.lock is not None and call.op not in WITHOUT_LOCK
        goes_on = call.op in ARMING and not locked
        goes_on = goes_on or (call.op in (STOP, BARE_STOP) and call.result == 0)
        goes_on = goes_on or (call.in_callback and not call.completed)
        allowed = int(goes_on)  # the run in progress
        assert len(late) <= allowed, f"{call.op} answered {call.result}, and then ran {late}"


def race(kind: str, *ops: str, callback: str = "", first: str = RESET) -> Callable[[VirtualSMP], None]:
    """Return the scenario of operations, each of a thread of its own, that race against each other and softclock."""

    def scenario(vm: VirtualSMP) -> None:
        bench = Bench(vm, kind, callback=callback, first=first)
        with undisturbed(vm):
            for number, op in enumerate(ops[1:], 1):
                vm.spawn(bench.do, op, name=f"t{number}")
        bench.do(ops[0])
        bench.verify()

    return scenario
