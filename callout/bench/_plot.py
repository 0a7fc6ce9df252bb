"""The figures as pictures: all, a panel for each and in it a bar for each peer; and lateness, a line for each peer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

from ._rounds import Plan
from ._summary import Cell, drawn, number, rows
from ._workloads import ROWS

COLUMNS: Final = 3
SHORTEST: Final = 1.0  # us: there is no room for 0 on this scale
OURS: Final = "#2b6cb0"
THEIRS: Final = "#a0aec0"
# Text stays text, and two drawings of the same figures are the same.
STYLE: Final = {"svg.fonttype": "none", "svg.hashsalt": "callout", "font.size": 8}
MARKS: Final = {  # of a quantile: how it is drawn, and what it is
    "lateness": ("o", "median"),
    "lateness-p90": ("|", "90 %"),
    "lateness-p99": ("d", "99 %"),
    "lateness-max": (">", "the latest"),
}


def draw(plan: Plan, cells: Sequence[Cell], file: Path) -> None:
    """Write the figures of one size as SVG."""
    size = drawn(plan)
    panels = [row for row in rows(plan) if any(cell.row == row and cell.size == size for cell in cells)]
    lines = -(-len(panels) // COLUMNS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 0.5 + lines * (0.6 + 0.2 * len(plan.peers))), layout="constrained")
        figure.suptitle(f"{size:,} timers: the shorter the better")
        axes = figure.subplots(lines, COLUMNS, squeeze=False).flat
        for ax, row in zip(axes, panels, strict=False):
            mine = [cell for cell in cells if cell.row == row and cell.size == size]
            bars = ax.barh(
                [cell.peer for cell in mine],
                [cell.value for cell in mine],
                color=[colour(cell.peer) for cell in mine],
            )
            ax.bar_label(bars, [number(cell.value) for cell in mine], padding=2)
            ax.invert_yaxis()
            ax.margins(x=0.2)
            ax.set_title(f"{row.name}, {row.unit}")
            ax.spines[["top", "right"]].set_visible(False)
        for ax in list(figure.axes)[len(panels) :]:
            ax.set_visible(False)
        _save(figure, file)


def draw_lateness(plan: Plan, cells: Sequence[Cell], file: Path) -> None:
    """Write how late callbacks were as SVG: of each peer the quantiles that were measured."""
    size = drawn(plan)
    late = [cell for cell in cells if cell.size == size and cell.row in ROWS["lateness"]]
    peers = list(dict.fromkeys(cell.peer for cell in late))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 0.9 + 0.32 * len(peers)), layout="constrained")
        ax = figure.subplots()
        for place, peer in enumerate(peers):
            mine = {cell.row.name: max(cell.value, SHORTEST) for cell in late if cell.peer == peer}
            first, last = min(mine.values()), max(mine.values())
            ax.hlines(place, first, last, color=colour(peer))
            for name, value in mine.items():
                mark, words = MARKS[name]
                ax.plot(value, place, mark, color=colour(peer), label="" if place else words)
            for value, to, side in ((first, -6, "right"), (last, 6, "left")):
                ax.annotate(number(value), (value, place), (to, 0), textcoords="offset points", ha=side, va="center")
        ax.set_title(f"from the deadline to the callback, us, {size:,} timers pending: the further left the better")
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.margins(x=0.1, y=0.1)
        ax.set_yticks(range(len(peers)), peers)
        ax.invert_yaxis()
        ax.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=len(MARKS))
        _save(figure, file)


def colour(peer: str) -> str:
    """Return the colour of a peer."""
    return OURS if peer.startswith("callout") else THEIRS


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, format="svg", metadata={"Date": None})
