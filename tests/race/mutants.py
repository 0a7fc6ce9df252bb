"""Planted bugs: each is the engine with one thing wrong, and ``explore`` must find it.

A race test counts only if it can fail. A mutant changes one expression, or some statements, in one function of the
engine. It finds them in the syntax tree, so neither comments nor the format matter; where they are not there any more,
or more than once, it raises, so that it cannot quietly stop being one.

``python -m tests.mutants`` has the mutants that nobody has to think of.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final

import pytest

from callout import Mtx
from callout._core import arm as engine
from callout._core import cpulock, drain, runs, stop
from callout._locks import parking


@dataclass(frozen=True)
class Mutant:
    """A function of the engine with one thing wrong: *old*, an expression or statements, is *new* there."""

    name: str
    function: Callable[..., Any]  # Any: all of them
    old: str
    new: str

    def __str__(self) -> str:
        return self.name

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have the engine so in a ``with`` block."""
        with planted(self.function, (self.old, self.new), name=self.name):
            yield


@contextmanager
def planted(function: Callable[..., Any], *changes: tuple[str, str], name: str = "mutant") -> Iterator[None]:
    """Have a function with these changes, one after the other, in a ``with`` block.

    It stays the same object: its importers have it changed, too. Not what is compiled: ``python -m
    tests.compiled.mutants`` plants bugs there.
    """
    if not isinstance(function, FunctionType):
        pytest.skip("what is compiled cannot be changed")
    good = function.__code__
    function.__code__ = changed(function, changes, name)
    try:
        yield
    finally:
        function.__code__ = good


def changed(function: FunctionType, changes: Iterable[tuple[str, str]], name: str) -> CodeType:
    """Return the changed code of a function."""
    good = function.__code__
    tree = ast.parse(Path(good.co_filename).read_text(encoding="utf-8"))
    change(tree, function, changes, name)
    module = compile(ast.fix_missing_locations(tree), good.co_filename, "exec", dont_inherit=True)
    return next(
        code
        for code in _codes(module)
        if (code.co_qualname, code.co_firstlineno) == (good.co_qualname, good.co_firstlineno)
    )


def change(tree: ast.Module, function: FunctionType, changes: Iterable[tuple[str, str]], name: str) -> None:
    """Change a function in the tree of its module."""
    place = place_of(tree, function)
    for old, new in changes:
        change = _Change(_parsed(old), _parsed(new))
        change.visit(place)
        if change.count != 1:
            raise LookupError(f"{name}: {function.__qualname__}() has {old!r} {change.count} times in its syntax tree")


def place_of(tree: ast.Module, function: FunctionType) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """Return where a function stands in the tree of its module."""
    first = function.__code__.co_firstlineno
    return next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _first_line(node) == first
    )


def _parsed(text: str) -> list[ast.stmt]:
    """Parse an expression, statements, or the condition of an ``if`` that is given by its first line."""
    text = text.strip()
    if text.startswith("if ") and text.endswith(":") and "\n" not in text:
        text = text.removeprefix("if ").removesuffix(":")
    return ast.parse(text).body


def _first_line(node: ast.AST) -> int:
    """Return the first line of a function as its code has it, 0 for anything else."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return 0
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)


class _Change(ast.NodeTransformer):
    """Replaces statements, or an expression, wherever they stand, and counts how often that was."""

    def __init__(self, old: list[ast.stmt], new: list[ast.stmt]) -> None:
        self.old = old
        self.new = new
        self.dump = [ast.dump(node) for node in old]
        self.count = 0

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Look at the blocks of *node* first, then at what is in them."""
        for field, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                setattr(node, field, self._block(value))
        return super().generic_visit(node)

    def _block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        at = 0
        while at < len(body):
            if [ast.dump(node) for node in body[at : at + len(self.old)]] == self.dump:
                self.count += 1
                out += self.new
                at += len(self.old)
            else:
                out.append(body[at])
                at += 1
        return out

    def visit(self, node: ast.AST) -> ast.AST:
        """Replace an expression within a statement."""
        old, new = self.old[0], self.new[0]
        if not isinstance(node, ast.expr) or len(self.old) != 1 or not isinstance(old, ast.Expr):
            seen: ast.AST = node if node in self.new else super().visit(node)
            return seen
        if ast.dump(node) != ast.dump(old.value):
            within: ast.AST = super().visit(node)
            return within
        self.count += 1
        assert isinstance(new, ast.Expr), "an expression is replaced by one"
        return new.value


NO_RECHECK_AFTER_LOCK_SWITCH: Final = Mutant(
    "a run cancelled while softclock acquired the lock is run all the same",
    runs.confirm,
    "run.state == CANCELLED",
    "False",
)
STARTED_TOO_LATE: Final = Mutant(
    "'not cancelled' and 'cannot be stopped now' are two steps",
    runs.confirm,
    "run.state = STARTED",
    "cpu.busy = False; cpu.lock.release(); acquire(cpu); run.state = STARTED",
)
NO_CPU_RECHECK: Final = Mutant(
    "the callout's CPU is not looked at again under that CPU's lock",
    cpulock.lock_callout,
    "c.c_cpu is cpu",
    "True",
)
NO_CPU_RECHECK_OF_BOTH: Final = Mutant(
    "the callout's CPU is not looked at again under both CPUs' locks",
    cpulock.lock_callout_and,
    "c.c_cpu is cpu",
    "True",
)
LOCKS_IN_ANY_ORDER: Final = Mutant(
    "two CPUs are locked in the order in which one comes upon them",
    cpulock.acquire_both,
    "(cpu, other) if cpu.id < other.id else (other, cpu)",
    "(cpu, other)",
)
MOVED_WHILE_RUNNING: Final = Mutant(
    "a reset onto another CPU is not deferred while the callout runs",
    engine._arm_locked,
    "(state & MOVING or to is not cpu) and not how & STAY",
    "False",
)
MOVE_NOT_STALE: Final = Mutant(
    "a deferred migration leaves the entry in the old wheel good",
    engine._defer,
    "cpu.wheel.remove(c)",
    "pass",
)
MOVE_NOT_PENDING: Final = Mutant(
    "a callout with a deferred migration is said not to be pending or active",
    engine._defer,
    "c.state & ~QUEUED | PENDING | ACTIVE | MOVING",
    "c.state & ~QUEUED | MOVING",
)
MOVE_NOT_PROGRAMMED: Final = Mutant(
    "the event timer of the new CPU is not programmed for a deferred migration",
    engine.prepare,
    "when < deadline",
    "False",
)
MOVE_STOPPED_SAYS_1: Final = Mutant(
    "stop returns 1 for a running callout whose deferred migration it removed",
    stop.stop_locked,
    "facts |= RUNNING",
    "facts = facts or RUNNING",
)
MOVE_NOT_STOPPED: Final = Mutant(
    "a stop leaves the deferred migration standing",
    engine.unschedule,
    "run.move = None",
    "pass",
)
STOP_SAYS_1_FOR_STARTED: Final = Mutant(
    "stop returns 1 for a run that has started",
    stop.stop_locked,
    "may_cancel and run.state == WAITING",
    "may_cancel",
)
GIANT_STOP_CANCELS: Final = Mutant(
    "stop without Giant cancels a run that waits for Giant",
    stop.check_stop_lock,
    "if lock is lock.machine.giant:\n    return False",
    "if lock is lock.machine.giant:\n    return True",
)
REARM_ACCEPTED: Final = Mutant(
    "an arming during a drain is accepted",
    engine._arm_locked,
    "run is not None and run.refusing",
    "False",
)
SINGLE_SLOT: Final = Mutant(
    "the second who waits for a run overwrites the first",
    drain.attach,
    "run.tickets = [*(run.tickets or ()), ticket]",
    "run.tickets = [ticket]",
)
SINGLE_PROMISE: Final = Mutant(
    "the second who is promised a completion overwrites the first",
    stop.stop_locked,
    "[*(run.tickets or ()), ticket]",
    "[ticket]",
)
WAITER_FORGOTTEN: Final = Mutant(
    "a drain is not woken",
    runs.serve,
    "ticket.waiter is not None",
    "False",
)
COMPLETED_TOO_SOON: Final = Mutant(
    "completions are called before the run is ended and the refusal lifted",
    runs.end,
    "c, cpu = run.callout, run.cpu",
    "c, cpu = run.callout, run.cpu; serve(run, run.tickets or []); run.tickets = None",
)
DRAIN_KEEPS_QUEUED_RUN: Final = Mutant(
    "the end of a drained run leaves the queued next run standing",
    runs.answer_tickets,
    "unschedule(cpu, c)",
    "False",
)
CANCELLED_IS_NOTHING: Final = Mutant(
    "drain_async returns 0 while softclock still stands at the lock with a cancelled run",
    drain.drain_async,
    "c.run is None",
    "c.run is None or c.run.state == 1",
)
GIANT_KEPT: Final = Mutant(
    "a drain does not release Giant while it waits",
    drain.wait,
    "depth = machine.giant.drop_all()",
    "depth = 0",
)
NO_LOOK_AFTER_GIANT: Final = Mutant(
    "a drain that had released Giant does not look again",
    drain.wait,
    "not depth",
    "True",
)
STOPPED_IN_QUEUE_RUNS: Final = Mutant(
    "a callout that was stopped in the expired queue is run",
    engine.unschedule,
    "cpu.wheel.remove(c)",
    "state & QUEUED or cpu.wheel.remove(c)",
)
PROGRAMMED_ONCE: Final = Mutant(
    "the clock interrupt does not program the event timer for what is due later",
    runs.scan,
    "cpu.machine.platform.set_event(cpu.id, when)",
    "pass",
)
WOKEN_BEFORE_FREE: Final = Mutant(
    "the release of a mutex wakes before it is free",
    Mtx.__exit__,
    """
self._owner, self._depth = None, 0
try:
    self._raw.release()
finally:
    if self.parked:
        wake_all(self.parked)
""",
    """
if self.parked:
    for waiter in list(self.parked):
        self.parked.remove(waiter)
        waiter.set()
self._owner, self._depth = None, 0
self._raw.release()
""",
)
WOKEN_BEFORE_FREE_UNCHECKED: Final = Mutant(
    "the release of a mutex wakes before it is free, without checking mode",
    Mtx.leave,
    """
self._owner, self._depth = None, 0
try:
    raw.release()
finally:
    if self.parked:
        wake_all(self.parked)
""",
    """
if self.parked:
    for waiter in list(self.parked):
        self.parked.remove(waiter)
        waiter.set()
self._owner, self._depth = None, 0
raw.release()
""",
)
NO_SECOND_TRY: Final = Mutant(
    "a task that parks at a lock does not try again first",
    parking.park,
    "if lock.try_acquire(shared):\n    remove_waiter(lock, waiter)\n    return",
    "pass",
)
TWO_LOTS: Final = Mutant(
    "two that park first at a lock each make a parking lot",
    parking._lot,
    "making.acquire()",
    "pass",
)
WAKES_ONE: Final = Mutant(
    "releasing a lock wakes only one of those that wait",
    parking.wake_all,
    "waiter.set()",
    "waiter.set(); return",
)
