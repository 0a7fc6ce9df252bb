"""The figures on a terminal: a table for each size."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ._peer import BASE
from ._rounds import Plan
from ._summary import Cell, columns, rows


def tables(plan: Plan, cells: Sequence[Cell]) -> list[Table]:
    """Return a table for each size: what the base takes, and how many times less the others do."""
    return [_table(plan, [cell for cell in cells if cell.size == size], size) for size in plan.sizes]


def _table(plan: Plan, cells: Sequence[Cell], size: int) -> Table:
    peers = columns(plan)
    table = Table(
        title=f"{size:,} timers",
        caption=f"x: how many times less than {BASE} in the same round, the median; bold: the best"
        if peers[0] == BASE and len(peers) > 1
        else None,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("")
    for peer in peers:
        table.add_column(peer, justify="right", overflow="fold")
    for row in rows(plan):
        mine = {cell.peer: cell for cell in cells if cell.row == row}
        best = max((cell.rank() for cell in mine.values()), default=None)
        line = [Text(f"{row.name}, {row.unit}")]
        for peer in peers:
            cell = mine.get(peer)
            line.append(Text("-") if cell is None else Text(cell.shown(), "bold" if cell.rank() == best else ""))
        table.add_row(*line)
    return table
