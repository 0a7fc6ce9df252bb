"""One Linux timer under calls that race, and what must be true of every result.

A scenario makes a ``LinuxBench``, whose threads call the timer API, and calls ``verify()`` at the end. Meanwhile the
bench writes down when each call and each run began and ended; every arming has an ``expires`` of its own, so that a
run can be told from another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from callout import BusyError
from callout._worlds.virtual.scheduler import RunOn
from callout.testing import VirtualSMP
from callout_linux.timer import (
    add_timer,
    add_timer_on,
    mod_timer,
    mod_timer_pending,
    timer_delete,
    timer_delete_sync_blocking,
    timer_list,
    timer_pending,
    timer_reduce,
    timer_setup,
    timer_shutdown,
    timer_shutdown_sync_blocking,
    try_to_del_timer_sync,
)

ADD: Final = "add"
ADD_ON: Final = "add_on CPU 1"
MOD: Final = "mod"
MOD_PENDING: Final = "mod_pending"
REDUCE: Final = "reduce"
DEL: Final = "del"
TRY: Final = "try_to_del_sync"
SYNC: Final = "del_sync"
SHUTDOWN: Final = "shutdown"
SHUTDOWN_SYNC: Final = "shutdown_sync"
OPS: Final = (ADD, ADD_ON, MOD, MOD_PENDING, REDUCE, DEL, TRY, SYNC, SHUTDOWN, SHUTDOWN_SYNC)
STARTING: Final = (ADD, ADD_ON, MOD, REDUCE)
ARMING: Final = (*STARTING, MOD_PENDING)
REMOVING: Final = (DEL, TRY, SYNC, SHUTDOWN, SHUTDOWN_SYNC)
CLOSING: Final = (SHUTDOWN, SHUTDOWN_SYNC)
REFUSED: Final = -99

FOR_EVER: Final = 1 << 62


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
    run: Run | None  # in which it was made
    ended: int = FOR_EVER
    result: int = REFUSED


@dataclass
class Run:
    """One run of the timer's function."""

    number: int  # of the arming whose run it is
    begun: int
    ended: int = FOR_EVER


class Recorded(timer_list):
    """A timer that writes its runs down."""

    __slots__ = ("bench",)

    bench: LinuxBench

    def __call__(self, expires: int) -> None:
        """Be the callback."""
        run = Run(expires, self.bench.now())
        assert all(other.ended != FOR_EVER for other in self.bench.runs), "it runs on two CPUs at once"
        self.bench.runs.append(run)
        super().__call__(expires)
        run.ended = self.bench.now()


class LinuxBench:
    """One timer, armed once on CPU 0 as number 50, and the record of what happens to it."""

    FIRST: Final = 50

    def __init__(self, vm: VirtualSMP, *, function: tuple[str, ...] = ()) -> None:
        """*function*: what the first run does to its own timer."""
        self.vm = vm
        self.time = 0
        self.number = self.FIRST
        self.calls: list[Call] = []
        self.runs: list[Run] = []
        self.program = function
        self.timer = Recorded()
        self.timer.bench = self
        with undisturbed(vm):
            timer_setup(self.timer, self.function, 0)
            self.do(ADD)

    def now(self) -> int:
        """Return a moment later than all before."""
        self.time += 1
        return self.time

    def function(self, timer: timer_list) -> None:
        """Be the timer's function."""
        self.vm.platform.point()
        if len(self.runs) == 1:
            for op in self.program:
                self.do(op, self.runs[0])

    def do(self, op: str, run: Run | None = None) -> int:
        """Make a call, and write it down."""
        # Later than all before, or earlier for a reduce that is to have an effect.
        self.number += 1
        number = 2 * self.FIRST - self.number if op == REDUCE else self.number
        call = Call(op, number, self.now(), run)
        self.calls.append(call)
        try:
            call.result = self._call(op, number)
        except BusyError:
            pass
        call.ended = self.now()
        return call.result

    def _call(self, op: str, number: int) -> int:
        t = self.timer
        match op:
            case "add" | "add_on CPU 1":
                t.expires = number
                if op == ADD:
                    add_timer(t)
                else:
                    add_timer_on(t, 1)
                return 0
            case "mod":
                return mod_timer(t, number)
            case "mod_pending":
                return mod_timer_pending(t, number)
            case "reduce":
                return timer_reduce(t, number)
            case "del":
                return timer_delete(t)
            case "try_to_del_sync":
                return try_to_del_timer_sync(t)
            case "del_sync":
                return timer_delete_sync_blocking(t)
            case "shutdown":
                return timer_shutdown(t)
            case _:
                return timer_shutdown_sync_blocking(t)

    # -- what must be true -----------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Wait for quiescence, and check every result."""
        self.vm.settle()
        assert all(call.ended != FOR_EVER for call in self.calls), "a call has not come back"
        assert not timer_pending(self.timer), "pending, and yet nothing happens any more"
        self._sums()
        for call in self.calls:
            if call.op == TRY:
                self._try(call)
            elif call.op in CLOSING:
                self._closed(call)
            if call.op in (SYNC, SHUTDOWN_SYNC) or (call.op == TRY and call.result >= 0):
                self._nothing_of_before(call)

    def _sums(self) -> None:
        """What was started has run or was removed, once: by the results."""
        refused = {
            call.number for call in self.calls if call.result == REFUSED or (call.op, call.result) == (MOD_PENDING, 0)
        }
        assert not refused & {run.number for run in self.runs}, "what was refused has run"
        closed = min((call.begun for call in self.calls if call.op in CLOSING), default=FOR_EVER)
        started = sum(call.result == 0 and call.op in STARTING for call in self.calls)
        unsure = sum(call.result == 0 and call.op in STARTING and call.ended > closed for call in self.calls)
        gone = len(self.runs) + sum(call.result == 1 and call.op in REMOVING for call in self.calls)
        assert started - unsure <= gone <= started, f"{started} armings, and {gone} have run or were removed"

    def _try(self, call: Call) -> None:
        # A run is in progress a little before its function begins and a little after that has ended.
        assert call.result >= 0 or self.runs, "'running', and it never runs"
        assert call.result < 0 or call.run is None, "'not running', says its own function"

    def _closed(self, call: Call) -> None:
        # One run may be in progress without having come to its function; only the waiting call waits for it.
        late = [run for run in self.runs if run.ended > call.ended]
        assert len(late) <= (call.op == SHUTDOWN), "it runs after its shutdown"

    def _nothing_of_before(self, call: Call) -> None:
        """When *call* is back nothing that was armed before it runs or will run, nor what such a run has armed."""
        before = {other.number for other in self.calls if other.ended < call.begun and other.op in ARMING}
        for run in self.runs:
            if run.number in before:
                assert run.ended < call.ended, "it ran or runs, and the call is back"
                before |= {other.number for other in self.calls if other.run is run and other.op in ARMING}


# An arming from CPU 1 pulls the timer there, which costs most schedules. Of those that do the same one does it.
CPU: Final = {MOD_PENDING: 0, REDUCE: 0}


def race(*ops: str, function: tuple[str, ...] = (), cpus: tuple[int, ...] = ()) -> Callable[[VirtualSMP], None]:
    """Return the scenario in which each operation is called by a thread of its own, of CPU 1, 0 … or of *cpus*."""

    def scenario(vm: VirtualSMP) -> None:
        bench = LinuxBench(vm, function=function)
        with undisturbed(vm):
            for number, op in enumerate(ops):
                bound = cpus[number] if cpus else CPU.get(op, (number + 1) % 2)
                vm.spawn(bench.do, op, name=f"{op}.{number}", bound=bound)
        bench.verify()

    return scenario
