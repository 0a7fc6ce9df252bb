"""What may kill a mutant: the replay of one recording, or one test."""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Protocol

import pytest
from _pytest.runner import runtestprotocol

from callout.conformance import Scenario, load, replay, shipped
from callout.conformance._dialects.freebsd import Dialect, FreeBSD
from callout.conformance._dialects.linux import Linux
from callout.conformance._worlds.virtual import VirtualWorld
from callout.conformance._worlds.world import World
from callout.explore import Violation
from tests.mutants import operators
from tests.mutants.operators import Mutation
from tests.race.history import GIANT, MPSAFE, MUTEX, SPIN
from tests.race.lockset import lockset
from tests.race.matrix import Cell, Certificates, core

DIALECTS: Final[dict[str, Callable[[Scenario, World], Dialect]]] = {"freebsd": FreeBSD, "linux": Linux}


class Killer(Protocol):
    """One thing that passes, and may fail when something is wrong."""

    name: str
    kind: str

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
        self.kind = "recording"

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

    def failure(self) -> str:
        """Run it with its fixtures."""
        for report in runtestprotocol(self.item, log=False, nextitem=None):
            if report.failed:
                crash = getattr(report.longrepr, "reprcrash", None)
                return str(getattr(crash, "message", report.longrepr))[:500] or "failed"
        return ""


SHORT: Final = 25  # schedules
IN_SHORT: Final = (MPSAFE, MUTEX, SPIN, GIANT)


class Explored:
    """One cell of the matrix, searched with so many preemptions: no other test is asked."""

    def __init__(self, cell: Cell, bound: int) -> None:
        self.cell = cell
        self.bound = bound
        self.name = f"{cell.name}, {bound} preemptions"
        self.kind = "explored"

    def failure(self) -> str:
        """Search it."""
        try:
            with lockset():
                self.cell.explore(self.bound, shrink=False)
        except Violation as violation:
            return f"schedule {violation.number}: {violation.__cause__!r}"
        except Exception as error:
            return f"schedule 1: {error!r}"
        return ""


class Fresh:
    """A file of tests, run in a process that imports the mutant."""

    def __init__(self, mutation: Mutation, file: str) -> None:
        self.mutation = mutation
        self.file = file
        self.name = f"{file}, imported anew"
        self.kind = "fresh"

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


def explored() -> list[Explored]:
    """Return the core of the matrix, without the cells that are long: what they find, a short one mostly finds, too."""
    kept = Certificates().lines
    return [
        Explored(cell, bound)
        for cell, bound in core()
        if cell.kind in IN_SHORT and cell.way == "short" and cell.name in kept and kept[cell.name].least <= SHORT
    ]


# They plant bugs of their own, and that they find another one as well says nothing; or replay all recordings in one go.
NONE: Final = ("test_a_planted_bug_is_found", "test_a_mutant_says_when", "test_recordings.py", "test_long_way.py")


def tests(items: Iterable[pytest.Item]) -> list[Test]:
    """Return the tests as killers. Those that plant mutants themselves are none."""
    return [Test(item) for item in items if not any(name in item.nodeid for name in NONE)]
