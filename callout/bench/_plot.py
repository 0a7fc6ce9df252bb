"""The figures as a picture: a panel for each, a bar for each peer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

from ._rounds import Plan
from ._summary import Cell, number, rows

COLUMNS: Final = 3
OURS: Final = "#2b6cb0"
THEIRS: Final = "#a0aec0"


def draw(plan: Plan, cells: Sequence[Cell], size: int, file: Path) -> None:
    """Write the figures of one size as SVG."""
    panels = [row for row in rows(plan) if any(cell.row == row and cell.size == size for cell in cells)]
    lines = -(-len(panels) // COLUMNS)
    # Text stays text, and two drawings of the same figures are the same.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "callout", "font.size": 8}):
        figure = Figure(figsize=(10, 0.5 + lines * (0.6 + 0.2 * len(plan.peers))), layout="constrained")
        figure.suptitle(f"{size:,} timers: the shorter the better")
        axes = figure.subplots(lines, COLUMNS, squeeze=False).flat
        for ax, row in zip(axes, panels, strict=False):
            mine = [cell for cell in cells if cell.row == row and cell.size == size]
            bars = ax.barh(
                [cell.peer for cell in mine],
                [cell.value for cell in mine],
                color=[OURS if cell.peer.startswith("callout") else THEIRS for cell in mine],
            )
            ax.bar_label(bars, [number(cell.value) for cell in mine], padding=2)
            ax.invert_yaxis()
            ax.margins(x=0.2)
            ax.set_title(f"{row.name}, {row.unit}")
            ax.spines[["top", "right"]].set_visible(False)
        for ax in list(figure.axes)[len(panels) :]:
            ax.set_visible(False)
        figure.savefig(file, format="svg", metadata={"Date": None})
