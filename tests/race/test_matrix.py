"""The core of the matrix: every operation, and every pair of them, on every kind of callout, with nothing found.

What is checked in every schedule is in ``history.py``; that the checks can fail is shown by ``test_mutants.py`` and by
``python -m tests.mutants --races``, with these very scenarios. The whole matrix: ``python -m tests.race.matrix``.
"""

from __future__ import annotations

from typing import Final

import pytest

from callout.explore import Violation
from tests.race.history import (
    ASYNC_DRAIN,
    BARRIER,
    CLOSING,
    DIRECT,
    DRAIN,
    DRAIN_ASYNC,
    ELSEWHERE,
    GIANT,
    KINDS,
    MPSAFE,
    MUTEX,
    RESET,
    SCHEDULE,
    SPIN,
    STOP,
    TERMINATE,
    TRYLOCK,
    UNLOCKED,
)
from tests.race.matrix import PAGE, REARMS, Cell, Certificates, cells, core, page, refusal, rows, sources

KEPT: Final = Certificates()
CORE: Final = core()


@pytest.mark.parametrize(("cell", "bound"), CORE, ids=[cell.name for cell, _ in CORE])
def test_the_core(cell: Cell, bound: int) -> None:
    """No schedule goes wrong, and they are about as many as they were: the scenario still races."""
    certificate = cell.explore(bound)

    assert certificate.exhausted
    assert certificate.schedules >= KEPT.lines[cell.name].core // 2
    assert certificate.schedules > 1 or not cell.threads


SAMPLE: Final = [line for line in KEPT.lines.values() if line.bound == 3 and 20 <= line.schedules <= 60][::24]
CELLS: Final = {cell.name: cell for cell in cells()}


@pytest.mark.parametrize("name", [line.name for line in SAMPLE])
def test_what_the_table_says_is_so(name: str) -> None:
    """A cell that is searched again has the final states of the file, and, of the same sources, as many schedules."""
    line = KEPT.lines[name]
    certificate = CELLS[name].explore(line.bound)

    assert certificate.exhausted
    assert len(certificate.final_states) == line.states
    if KEPT.about["sources"] == sources():
        assert (certificate.schedules, certificate.steps, certificate.longest) == (
            line.schedules,
            line.steps,
            line.longest,
        )


def test_the_cells_of_the_core_are_in_the_table() -> None:
    """The file has lines for cells of today's list only, in its order, and one for each cell of the core.

    Each was searched with as many preemptions as the core has, or more.
    """
    todo = "run: python -m tests.race.matrix"
    bounds = {name: line.bound for name, line in KEPT.lines.items()}

    assert list(bounds) == [cell.name for cell in cells() if cell.name in bounds], todo
    assert [cell.name for cell, bound in CORE if bounds.get(cell.name, -1) < bound] == [], todo


def test_the_page_is_made_from_the_file() -> None:
    """docs/engine-matrix.md is what the command makes of the certificates."""
    assert PAGE.read_text("utf-8") == page(KEPT), "run: python -m tests.race.matrix --page"


REFUSED: Final = [
    (row, kind, refusal(row, kind))
    for row in rows()
    for kind in KINDS
    if len(row) == 1 and "Error: " in refusal(row, kind)
]


@pytest.mark.parametrize(("row", "kind", "reason"), REFUSED, ids=[f"{row[0]}, {kind}" for row, kind, _ in REFUSED])
def test_what_is_not_allowed_is_refused(row: tuple[str, ...], kind: str, reason: str) -> None:
    """A combination that the table calls an error is that error, in the first schedule."""
    with pytest.raises(Violation) as caught:
        Cell(row, kind).explore(0)

    assert caught.value.number == 1
    assert type(caught.value.__cause__).__name__ == reason.partition(":")[0]


@pytest.mark.parametrize(
    ("cell", "bound"),
    [
        (Cell((STOP,), MPSAFE), 3),
        (Cell((RESET,), MUTEX, "long"), 2),
        (Cell((DRAIN_ASYNC, REARMS), SPIN), 2),
        (Cell((RESET, STOP), DIRECT), 1),
        (Cell((ELSEWHERE, DRAIN), MPSAFE), 1),
        (Cell((ASYNC_DRAIN, TERMINATE), UNLOCKED), 1),
        (Cell((SCHEDULE, BARRIER), TRYLOCK), 1),
        (Cell((STOP, TERMINATE), GIANT), 1),
        (Cell((RESET, CLOSING), MPSAFE), 0),
    ],
    ids=lambda value: value.name if isinstance(value, Cell) else str(value),
)
def test_what_is_left_out_ends_alike(cell: Cell, bound: int) -> None:
    """Every schedule, with none left out, has the same final states: results, runs, and what came before what."""
    reduced = cell.explore(bound)
    every = cell.explore(bound, reduce=False)

    assert reduced.exhausted
    assert every.exhausted
    assert reduced.final_states == every.final_states
    assert reduced.schedules <= every.schedules
