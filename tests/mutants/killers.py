"""What may kill a mutant: the replay of one recording, one test, or one search of interleavings.

Of a search counts only that a schedule goes wrong, or that none ends: neither how many schedules there are, nor what
its test looks at besides.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Final, Protocol

import pytest
from _pytest.runner import runtestprotocol

from callout.conformance import Scenario, load, replay, shipped
from callout.conformance._dialects.freebsd import Dialect, FreeBSD
from callout.conformance._dialects.linux import Linux
from callout.conformance._worlds.virtual import VirtualWorld
from callout.conformance._worlds.world import World
from callout.explore import Violation, explore
from tests.mutants import operators, plant
from tests.mutants.operators import Mutation
from tests.race.lockset import lockset
from tests.race.matrix import core
from tests.race.test_mutants import FOUND_BY

DIALECTS: Final[dict[str, Callable[[Scenario, World], Dialect]]] = {"freebsd": FreeBSD, "linux": Linux}


class Killer(Protocol):
    """One thing that passes, and may fail when something is wrong."""

    name: str
    kind: str
    family: str  # those of one family mostly miss the same mutants

    def failure(self) -> str:
        """Run it; return why it failed, or "" if it has not."""
        ...


class Recording:
    """One recording of a real kernel on virtual CPUs: the short paths, or the long way."""

    def __init__(self, api: str, scenario: Scenario, way: str) -> None:
        self.api = api
        self.scenario = scenario
        self.way = way
        self.name = f"{api} {scenario.id}, {way}"
        self.kind = self.family = "recording"

    def failure(self) -> str:
        """Replay it."""
        try:
            world = VirtualWorld(self.scenario)
            world.machine.careful = self.way == "long"
            subsystem = DIALECTS[self.api](self.scenario, world)
            try:
                mismatch = replay(self.scenario, subsystem)
            finally:
                subsystem.close()
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        return "" if mismatch is None else str(mismatch)


class Test:
    """One test."""

    def __init__(self, item: pytest.Item) -> None:
        self.item = item
        self.name = item.nodeid
        self.kind = item.nodeid.split("/")[1]
        self.family = item.nodeid.partition("[")[0]

    def failure(self) -> str:
        """Run it with its fixtures."""
        for report in runtestprotocol(self.item, log=False, nextitem=None):
            if report.failed:
                return self.why(report)
        return ""

    def why(self, report: pytest.TestReport) -> str:
        """Say why it failed."""
        crash = getattr(report.longrepr, "reprcrash", None)
        return str(getattr(crash, "message", report.longrepr))[:500] or "failed"


SECONDS: Final = 10  # of one search: a mutant may have schedules without end, and that alone is no race


@contextmanager
def hurried() -> Iterator[None]:
    """Have every search in a ``with`` block end in time, and not look for the shortest schedule."""
    defaults = explore.__kwdefaults__
    assert defaults is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(defaults, "seconds", SECONDS)
        patch.setitem(defaults, "shrink", False)
        yield


class Searched:
    """A scenario that is searched: no test is asked."""

    def __init__(self, name: str, family: str, search: Callable[[], object]) -> None:
        self.name = name
        self.family = family
        self.kind = "explored"
        self.search = search

    def failure(self) -> str:
        """Search it."""
        try:
            with lockset(), hurried():
                self.search()
        except Violation as violation:
            return f"schedule {violation.number}: {violation.__cause__!r}"
        except Exception as error:
            return f"the search ends: {error!r}"
        return ""


class Exploration(Test):
    """A test that searches."""

    def __init__(self, item: pytest.Item) -> None:
        super().__init__(item)
        self.kind = "explored"

    def failure(self) -> str:
        """Run it in a hurry."""
        with hurried():
            return super().failure()

    def why(self, report: pytest.TestReport) -> str:
        """Say which schedule went wrong; "" if it failed for something else."""
        # What the package's own plugin for pytest says of a violation.
        for title, text, _ in getattr(report.longrepr, "sections", ()):
            number = re.match(r"schedule (\d+) went wrong", text)
            if title == "explored" and number:
                return f"schedule {number[1]}: {super().why(report)}"
        return ""


class Fresh:
    """A file of tests, run in a process that imports the mutant."""

    def __init__(self, mutation: Mutation, file: str) -> None:
        self.mutation = mutation
        self.file = file
        self.name = f"{file}, imported anew"
        self.kind = self.family = "fresh"

    def failure(self) -> str:
        """Run it."""
        with tempfile.TemporaryDirectory() as folder:
            changed = Path(folder, "changed.py")
            changed.write_text(ast.unparse(self.mutation.tree()), encoding="utf-8")
            module, path = self.mutation.module, str(operators.path_of(self.mutation.module))
            command = [sys.executable, "-m", "tests.mutants.fresh", module, path, str(changed), self.file]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
        return "" if run.returncode == 0 else "\n".join(run.stdout.splitlines()[-1:]) or "failed"


# What has done its work when the import ends, and the tests of that.
AT_IMPORT: Final = (
    "callout._core.guard:protected",
    "callout._core.guard:exposed",
    "callout._core.guard:keep_interrupts_out",
)
OF_THAT: Final = ("tests/unit/test_interrupts.py",)


def fresh(mutation: Mutation) -> list[Killer]:
    """Return what runs in a process of its own for this mutant: nothing for most."""
    if f"{mutation.module}:{mutation.function}" not in AT_IMPORT:
        return []
    return [Fresh(mutation, file) for file in OF_THAT]


def recordings() -> list[Recording]:
    """Return every shipped recording, both ways."""
    return [
        Recording(api, scenario, way)
        for api in DIALECTS
        for path in shipped(api)
        for scenario in load(path)
        for way in ("short", "long")
    ]


def searched() -> list[Searched]:
    """Return the core of the matrix, and the scenarios for the planted bugs."""
    return [
        *(
            Searched(f"{cell.name}, {bound} preemptions", " + ".join(cell.row), partial(cell.explore, bound))
            for cell, bound in core()
        ),
        *(
            Searched(FOR[bug.name], bug.name, partial(explore, scenario, bound=bound))
            for bug, scenario, bound in FOUND_BY
        ),
    ]


FOR: Final = {bug.name: f"the scenario for '{bug}', {bound} preemptions" for bug, _, bound in FOUND_BY}


# They plant bugs of their own, and that they find another one as well says nothing; or replay all recordings in one go.
NONE: Final = ("test_a_planted_bug_is_found", "test_a_mutant_says_when", "test_recordings.py", "test_long_way.py")


def tests(items: Iterable[pytest.Item]) -> list[Test]:
    """Return the tests as killers. Those that plant mutants themselves are none."""
    return [Test(item) for item in items if not any(name in item.nodeid for name in NONE)]


# Of these, the scenarios are killers already; the last is about the explorer, not the engine.
SEARCHED: Final = ("test_matrix.py", "test_mutants.py", "test_explore.py")


def explorations(items: Iterable[Test]) -> list[Exploration]:
    """Return the tests that search, as killers of their own kind: they call ``explore()``, and plant nothing."""
    return [
        Exploration(test.item)
        for test in items
        if not any(name in test.name for name in SEARCHED)
        and isinstance(test.item, pytest.Function)
        and "explore" in (names := called(test.item.function))
        and "planted" not in names
    ]


def called(function: FunctionType) -> set[str]:
    """Return the names that a function mentions, and the functions of its module that it mentions, and so on."""
    found: set[str] = set()
    todo: list[CodeType] = [function.__code__]
    for code in todo:
        for inner in plant.codes(code):
            for name in inner.co_names:
                other = function.__globals__.get(name)
                if name not in found and isinstance(other, FunctionType) and other.__module__ == function.__module__:
                    todo.append(other.__code__)
                found.add(name)
    return found
