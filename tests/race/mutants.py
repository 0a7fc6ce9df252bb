"""Planted bugs: each is the engine with one thing wrong, and ``explore`` must find it.

A race test counts only if it can fail. A mutant changes a few words in the source of one function of the engine;
where those words are no longer found it raises, so that it cannot quietly stop being one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, Final

from callout import Mtx
from callout._core import arm as engine
from callout._core import cpulock, drain, softclock, stop
from callout._locks import parking


@dataclass(frozen=True)
class Mutant:
    """A function of the engine with one thing wrong."""

    name: str
    function: Callable[..., Any]  # Any: all of them
    old: str
    new: str

    def __str__(self) -> str:
        return self.name

    def code(self) -> CodeType:
        """Return the changed code."""
        # Not dedented: some docstrings have lines that stand further out.
        source = inspect.getsource(self.function)
        if source.startswith(" "):
            source = f"if True:\n{source}"
        if source.count(self.old) != 1:
            raise LookupError(
                f"{self.name}: {self.function.__qualname__}() has {self.old!r} {source.count(self.old)} times"
            )
        module = compile(source.replace(self.old, self.new), self.function.__code__.co_filename, "exec")
        return next(
            code for code in module.co_consts if isinstance(code, CodeType) and code.co_name == self.function.__name__
        )

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have the engine so in a ``with`` block. The function stays the same object: its importers have it, too."""
        function = self.function
        assert isinstance(function, FunctionType)
        good = function.__code__
        function.__code__ = self.code()
        try:
            yield
        finally:
            function.__code__ = good


NO_RECHECK_AFTER_LOCK_SWITCH: Final = Mutant(
    "a run cancelled while softclock took the lock is run all the same",
    softclock.confirm,
    "if run.state == CANCELLED:",
    "if False:",
)
STARTED_TOO_LATE: Final = Mutant(
    "'not cancelled' and 'cannot be stopped now' are two steps",
    softclock.confirm,
    "run.state = STARTED",
    "cpu.busy = False; cpu.lock.release(); acquire(cpu); run.state = STARTED",
)
NO_CPU_RECHECK: Final = Mutant(
    "the callout's CPU is not looked at again under that CPU's lock",
    cpulock.lock_callout,
    "if c.cpu is cpu:",
    "if True:",
)
NO_CPU_RECHECK_OF_BOTH: Final = Mutant(
    "the callout's CPU is not looked at again under both CPUs' locks",
    cpulock.lock_callout_and,
    "if c.cpu is cpu:",
    "if True:",
)
LOCKS_IN_ANY_ORDER: Final = Mutant(
    "two CPUs are locked in the order in which one comes upon them",
    cpulock.acquire_both,
    "(cpu, other) if cpu.id < other.id else (other, cpu)",
    "(cpu, other)",
)
MOVED_WHILE_RUNNING: Final = Mutant(
    "a reset onto another CPU is not put off while the callout runs",
    engine._arm_locked,
    "if (state & MOVING or to is not cpu) and not how & STAY:",
    "if False:",
)
MOVE_NOT_STALE: Final = Mutant(
    "a put-off move leaves the entry in the old wheel good",
    engine._defer,
    "wheel.remove(c)",
    "pass",
)
MOVE_NOT_PENDING: Final = Mutant(
    "a callout with a put-off move is said not to be pending or active",
    engine._defer,
    "c.state & ~QUEUED | PENDING | ACTIVE | MOVING",
    "c.state & ~QUEUED | MOVING",
)
MOVE_NOT_PROGRAMMED: Final = Mutant(
    "the event timer of the new CPU is not programmed for a put-off move",
    softclock.end,
    "if kick and move is not None:",
    "if False:",
)
MOVE_STOPPED_SAYS_1: Final = Mutant(
    "stop answers 1 for a running callout whose put-off move it took away",
    stop.stop_locked,
    "facts |= RUNNING",
    "facts = facts or RUNNING",
)
MOVE_NOT_STOPPED: Final = Mutant(
    "a stop leaves the put-off move standing",
    engine.unschedule,
    "run.move = None",
    "pass",
)
STOP_SAYS_1_FOR_STARTED: Final = Mutant(
    "stop answers 1 for a run that has started",
    stop.stop_locked,
    "if may_cancel and run.state == WAITING:",
    "if may_cancel:",
)
GIANT_STOP_CANCELS: Final = Mutant(
    "stop without Giant cancels a run that waits for Giant",
    stop.check_stop_lock,
    "if lock is lock.machine.giant:\n        return False",
    "if lock is lock.machine.giant:\n        return True",
)
REARM_ACCEPTED: Final = Mutant(
    "an arming during a drain is accepted",
    engine._arm_locked,
    "if run is not None and run.refusing:",
    "if False:",
)
SINGLE_SLOT: Final = Mutant(
    "the second who waits for a run overwrites the first",
    drain.attach,
    "tickets.append(ticket)",
    "run.tickets = [ticket]",
)
WAITER_FORGOTTEN: Final = Mutant(
    "a drain is not woken",
    softclock.serve,
    "if ticket.waiter is not None:",
    "if False:",
)
COMPLETED_TOO_SOON: Final = Mutant(
    "completions are called before the run is ended and the refusal lifted",
    softclock.end,
    "kick = False",
    "kick = False; serve(run, run.tickets or []); run.tickets = None",
)
DRAIN_KEEPS_QUEUED_RUN: Final = Mutant(
    "the end of a drained run leaves the queued next run standing",
    softclock.answer_tickets,
    "if unschedule(cpu, c):",
    "if False:",
)
CANCELLED_IS_NOTHING: Final = Mutant(
    "drain_async answers 0 while softclock still stands at the lock with a cancelled run",
    drain.drain_async,
    "if run is None:",
    "if run is None or run.state == 1:",
)
GIANT_KEPT: Final = Mutant(
    "a drain does not release Giant while it waits",
    drain.wait,
    "depth = machine.giant.drop_all()",
    "depth = 0",
)
NO_LOOK_AFTER_GIANT: Final = Mutant(
    "a drain that had given up Giant does not look again",
    drain.wait,
    "if not depth:",
    "if True:",
)
STOPPED_IN_QUEUE_RUNS: Final = Mutant(
    "a callout that was stopped in the expired queue is run",
    engine.unschedule,
    "wheel.remove(c)",
    "state & QUEUED or wheel.remove(c)",
)
PROGRAMMED_ONCE: Final = Mutant(
    "the event timer is programmed without a second look at the deadline",
    engine.program,
    "if cpu.deadline == when:",
    "if True:",
)
WOKEN_BEFORE_FREE: Final = Mutant(
    "who releases a mutex wakes before it is free",
    Mtx.__exit__,
    """        raw = self._raw
        self._depth = 0
        self._owner = None
        try:
            raw.release()
        finally:
            if self.parked:
                self.parked.wake_all()
""",
    """        raw = self._raw
        for waiter in list(self.parked._waiters):
            self.parked.remove(waiter)
            waiter.set()
        self._depth = 0
        self._owner = None
        raw.release()
""",
)
NO_SECOND_TRY: Final = Mutant(
    "who parks at a lock does not try again first",
    parking.acquire_parked,
    "if lock.try_acquire(shared):",
    "if False:",
)
WAKES_ONE: Final = Mutant(
    "releasing a lock wakes only one of those that wait",
    parking.Parked.wake_all,
    "while waiters:",
    "for _ in waiters and [1]:",
)
