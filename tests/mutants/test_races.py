"""What the matrix finds by itself: the list is complete, and a sample is found again.

All of them: ``python -m tests.mutants --races``.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.mutants import found, plant
from tests.mutants.found import FOUND, SURVIVES, UNREACHED, Row
from tests.mutants.killers import recordings, searched
from tests.mutants.operators import Mutation, parse
from tests.mutants.races import all_races, rule

ROOT: Final = Path(__file__).parents[2]
ROWS: Final = found.read()
MUTANTS: Final = {mutation.name: mutation for mutation in all_races()}
SEARCHED: Final = {killer.name: killer for killer in searched()}
SAMPLE: Final = [
    row
    for row in ROWS
    if row.outcome == FOUND and row.scenario in SEARCHED and row.schedules and int(row.schedules) <= 30
][7::40]


@contextmanager
def planted(mutation: Mutation) -> Iterator[None]:
    """Have the engine with this mutant in a ``with`` block."""
    into = plant.engine_functions()
    assert plant.plant(plant.compiled(mutation.module, mutation.tree()), into)
    try:
        yield
    finally:
        plant.plant(plant.compiled(mutation.module, parse(mutation.module)), into)


def test_every_race_has_its_row() -> None:
    """The file has each mutant that is a race by the rules of today, in their order, and nothing else."""
    assert [(row.mutant, row.rule) for row in ROWS] == [(name, rule(mutation)) for name, mutation in MUTANTS.items()], (
        "run: python -m tests.mutants --races --page"
    )


def test_each_rule_has_mutants_that_are_found() -> None:
    """None of the rules is empty, and some mutants of each are found."""
    rules = {row.rule for row in ROWS}

    assert rules == {row.rule for row in ROWS if row.outcome == FOUND}
    assert Counter(row.outcome for row in ROWS)[FOUND] > 100


def test_a_reason_is_one_for_what_is_not_found() -> None:
    """Each entry of the list of reasons is a mutant, or a function with one, that no search finds."""
    known = found.reasons()
    lasting = [row.mutant for row in ROWS if row.outcome in (SURVIVES, UNREACHED)]
    names = {*lasting, *(name.partition(" | ")[0] for name in lasting)}

    assert [name for name in known if name not in names] == []
    assert [name for name, reason in known.items() if len(reason.split()) < 4] == []


def test_what_is_not_found_has_its_reason() -> None:
    """Every race was run, and each that no search finds has a reason why it is no hole."""
    assert found.holes(ROWS) == []


def test_a_reason_names_what_finds_it() -> None:
    """Each reason ends with a test that exists, or with a recording that is shipped."""
    shipped = {f"the recording {recording.scenario.id}" for recording in recordings()}
    named = {reason.rpartition(": ")[2] for reason in found.reasons().values()}
    tests = [name.partition("::") for name in named - shipped]

    assert [
        f"{file}::{test}" for file, _, test in tests if f"def {test}(" not in (ROOT / file).read_text(encoding="utf-8")
    ] == []


def test_all_were_found_again_since_the_engine_or_the_file_has_changed() -> None:
    """A row is kept by its mutant's name, and after a change that may be the name of another one."""
    assert found.AGAIN.read_text(encoding="utf-8") == found.state({each.module for each in MUTANTS.values()}), (
        "run: python -m tests.mutants --races --again"
    )


def test_each_search_that_is_named_exists() -> None:
    """A search that was renamed finds nothing under its old name."""
    named = {row.scenario for row in ROWS if row.outcome == FOUND} - {*SEARCHED}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/race"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert named - {*done.stdout.splitlines()} == set()


def test_the_page_is_made_from_the_file() -> None:
    """docs/engine-mutants.md is what the command makes of the rows."""
    assert found.PAGE.read_text("utf-8") == found.page(ROWS), "run: python -m tests.mutants --races --page"


@pytest.mark.parametrize("row", SAMPLE, ids=[row.mutant for row in SAMPLE])
def test_a_race_is_found_again(row: Row) -> None:
    """The search that the table names finds the mutant. After how many schedules is the reduction's affair.

    That it finds nothing in the engine as it is, ``tests/race`` says.
    """
    with planted(MUTANTS[row.mutant]):
        assert SEARCHED[row.scenario].failure().startswith("schedule ")
