"""Which mutants are races: those that a schedule shows, and a test with one thread perhaps not.

By rule, so that none is chosen or left out by hand. They are in the modules through which threads, softclock and the
clock interrupt meet, and:

- ``order``: two neighbours change places of which one synchronizes, or a lock is released too early, or not acquired;
- ``call``: a call is left out: what acquires, releases, files, wakes, programs or publishes;
- ``state``: a store to a field that a CPU's lock guards is left out;
- ``look``: a check of what another thread may have changed meanwhile is not made, or always comes out the same way;
  what is only told, to statistics and traces, is no race;
- ``planted``: the bugs of ``tests/race/mutants.py``, which were thought of one by one.

Those among them whose statement no cell of the matrix executes are named as such: other scenarios of ``tests/race`` are
about them, or they are no race.
"""

from __future__ import annotations

import ast
import re
from types import FunctionType
from typing import Final

from callout._core.cpu import GUARDED
from tests.mutants.operators import Mutation, all_mutations, parse
from tests.race import mutants as planted_bugs
from tests.race.mutants import Mutant

MODULES: Final = frozenset(
    f"callout.{name}"
    for name in (
        "_core.arm",
        "_core.calls",
        "_core.cpulock",
        "_core.drain",
        "_core.periodic",
        "_core.runs",
        "_core.sets",
        "_core.softclock",
        "_core.stop",
        "_locks.mutex",
        "_locks.parking",
    )
)
# What only statistics and traces tell: the engine never looks at it, so no schedule shows it.
TOLD: Final = frozenset({"closed", "drained", "migrated", "refused", "stopped"})
_TELLS: Final = re.compile(r"\btell\(|\b(?:cpu|to)\.plain\b")
FIELDS: Final = frozenset(field for fields in GUARDED.values() for field in fields) - TOLD
# What is looked at, under these names: the fields, and what was read of them.
LOOKED_AT: Final = frozenset(
    {"state", "run", "cancels", "move", "tickets", "refusing", "busy", "open", "idle", "queue", "removed", "ended"}
    | {"c_cpu", "cpu", "lock", "owned", "_owner", "_depth", "taken", "parked", "waiters", "deadline", "depth"}
)
PLANTED: Final = "planted"


def rule(mutation: Mutation) -> str:
    """Return by which rule a mutant is a race; "" if it is none."""
    if mutation.operator == PLANTED:
        return PLANTED
    if mutation.module not in MODULES or mutation.function == "_tell" or _TELLS.search(mutation.source):
        return ""
    if mutation.operator in ("swapped", "early", "unlocked"):
        return "order"
    source = mutation.source.partition(" #")[0]
    if mutation.operator == "deleted":
        if re.fullmatch(r"(await )?[\w.\[\]]+\(.*\)", source):
            return "call"
        return "state" if FIELDS & set(re.findall(r"\.(\w+)(?= *(?:[|&+-]?=[^=]|,|\s*\(of))", source)) else ""
    return "look" if LOOKED_AT & set(re.findall(r"\w+", source.partition(" (of ")[0])) else ""


def planted() -> list[Mutation]:
    """Return the planted bugs as mutants."""
    return [_as_mutation(bug) for bug in vars(planted_bugs).values() if isinstance(bug, Mutant)]


def _as_mutation(bug: Mutant) -> Mutation:
    function = bug.function
    assert isinstance(function, FunctionType)

    def edit(tree: ast.Module) -> None:
        planted_bugs.change(tree, function, [(bug.old, bug.new)], bug.name)

    first, *rest = planted_bugs.place_of(parse(function.__module__), function).body
    statement = rest[0] if rest and isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) else first
    return Mutation(function.__module__, function.__qualname__, bug.name, PLANTED, statement.lineno, edit)


def all_races() -> list[Mutation]:
    """Return every mutant that is a race."""
    return [*planted(), *(mutation for mutation in all_mutations() if rule(mutation))]
