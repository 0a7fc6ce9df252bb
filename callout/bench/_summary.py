"""From samples to what is shown: medians, and medians of the ratios within a round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from ._peer import BASE
from ._rounds import Plan, Sample
from ._workloads import ROWS, Row


class Cell(NamedTuple):
    """A figure of one peer."""

    size: int
    row: Row
    peer: str
    value: float  # the median over the rounds
    ratio: float | None  # of the base to it, the median over the rounds that have both: above 1 it is ahead

    def shown(self) -> str:
        """Return what a table has of it: of the base what it takes, of the others how many times less they do."""
        return number(self.value) if self.peer == BASE or self.ratio is None else f"{number(self.ratio)}x"

    def rank(self) -> tuple[bool, float, float]:
        """Return what is greatest of the best: of nothing, else of the ratio that is shown, else of the least value."""
        return self.value <= 0, self.ratio or 0.0, -self.value


def number(value: float) -> str:
    """Return three digits of it that mean something."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 99.5 else f"{value:.1f}" if size >= 9.95 else f"{value:.2f}"


def columns(plan: Plan) -> list[str]:
    """Return the peers of a plan, the base first."""
    return sorted(plan.peers, key=lambda peer: peer != BASE)


def drawn(plan: Plan) -> int:
    """Return the size of which there are pictures."""
    return min(plan.sizes, key=lambda size: abs(size - 100_000))


def rows(plan: Plan) -> Iterator[Row]:
    """Yield the rows that a plan's workloads fill."""
    for workload in plan.workloads:
        yield from ROWS[workload]


def summarize(plan: Plan, samples: Sequence[Sample]) -> list[Cell]:
    """Return every figure of which there is a sample."""
    cells: list[Cell] = []
    for size in plan.sizes:
        for row in rows(plan):
            by_peer = {
                peer: {
                    each.turn: each.figures[row.name]
                    for each in samples
                    if (each.size, each.peer) == (size, peer) and row.name in each.figures
                }
                for peer in plan.peers
            }
            base = by_peer.get(BASE, {})
            for peer, mine in by_peer.items():
                if mine:
                    ratios = [base[turn] / value for turn, value in mine.items() if turn in base and value > 0]
                    ratio = median(ratios) if ratios else None
                    cells.append(Cell(size, row, peer, median(mine.values()), ratio))
    return cells
