"""The figures on a terminal: a table for each size."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ._peer import BASE
from ._rounds import Plan
from ._summary import Cell, rows


def number(value: float) -> str:
    """Return three digits of it that mean something."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 99.5 else f"{value:.1f}" if size >= 9.95 else f"{value:.2f}"


def tables(plan: Plan, cells: Sequence[Cell]) -> list[Table]:
    """Return a table for each size: what the base takes, and how many times less the others do."""
    return [_table(plan, [cell for cell in cells if cell.size == size], size) for size in plan.sizes]


def _table(plan: Plan, cells: Sequence[Cell], size: int) -> Table:
    has_base = BASE in plan.peers
    others = [peer for peer in plan.peers if peer != BASE]
    table = Table(
        title=f"{size:,} timers",
        caption=f"x: how many times less than {BASE} in the same round, the median; bold: the best"
        if has_base and others
        else None,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("")
    for peer in [BASE] * has_base + others:
        table.add_column(peer, justify="right", overflow="fold")
    for row in rows(plan):
        mine = {cell.peer: cell for cell in cells if cell.row == row}
        best = min((cell.value for cell in mine.values()), default=None)
        line = [Text(f"{row.name}, {row.unit}")]
        for peer in [BASE] * has_base + others:
            cell = mine.get(peer)
            if cell is None:
                line.append(Text("-"))
                continue
            style = "bold" if cell.value == best else ""
            shown = number(cell.value) if peer == BASE or cell.ratio is None else f"{number(cell.ratio)}x"
            line.append(Text(shown, style=style))
        table.add_row(*line)
    return table
