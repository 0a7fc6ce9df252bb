"""Makes the tables of docs/benchmark.md, and its pictures, from what ``callout bench --json`` has written.

``callout bench --json docs/benchmark.json`` measures; ``python tests/bench/page.py`` writes the page and the pictures,
test_page.py compares. In the page a comment ``<!-- bench: 1000 -->``, up to ``<!-- end -->``, is the place of a size's
table; ``<!-- made -->`` that of how the figures were made. The picture of lateness is drawn from a run of its own, in
docs/lateness.json, where there is such a file; ``<!-- made: lateness -->`` says how that was made.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from callout.bench._peer import BASE, PEERS
from callout.bench._rounds import Plan
from callout.bench._summary import Cell, columns, rows
from callout.bench._workloads import ROWS, WORKLOADS

ROOT: Final = Path(__file__).parents[2]
FIGURES: Final = ROOT / "docs" / "benchmark.json"
LATENESS: Final = ROOT / "docs" / "lateness.json"
PAGES: Final = (ROOT / "docs" / "benchmark.md", ROOT / "README.md")
PICTURE: Final = ROOT / "docs" / "benchmark.svg"
LATENESS_PICTURE: Final = ROOT / "docs" / "lateness.svg"

BY_NAME: Final = {row.name: row for rows in ROWS.values() for row in rows}


def read(file: Path = FIGURES) -> Any:  # noqa: ANN401 - what JSON is
    """Return the figures."""
    return json.loads(file.read_text("utf-8"))


def read_lateness() -> Any:  # noqa: ANN401 - as above
    """Return the figures of which the picture of lateness is drawn."""
    return read(LATENESS if LATENESS.exists() else FIGURES)


def cells_of(report: Any) -> list[Cell]:  # noqa: ANN401 - as above
    """Return the medians, as the command has them."""
    return [
        Cell(each["size"], BY_NAME[each["figure"]], each["peer"], each["value"], each[f"ratio to {BASE}"])
        for each in report["medians"]
    ]


def plan_of(report: Any) -> Plan:  # noqa: ANN401 - as above
    """Return what was measured."""
    plan = report["plan"]
    return Plan(tuple(plan["peers"]), tuple(plan["sizes"]), tuple(WORKLOADS), plan["rounds"], plan["calls"])


def table(report: Any, size: int) -> str:  # noqa: ANN401 - as above
    """Return the table of a size, as the command has it."""
    cells = [cell for cell in cells_of(report) if cell.size == size]
    present = {cell.peer for cell in cells}
    peers = [peer for peer in columns(plan_of(report)) if peer in present]
    lines = [f"| {size:,} timers | {' | '.join(peers)} |", f"| --- |{' ---: |' * len(peers)}"]
    for row in rows(plan_of(report)):
        mine = {cell.peer: cell for cell in cells if cell.row == row}
        if not mine:
            continue  # the figures are older than this row
        best = max(cell.rank() for cell in mine.values())
        bold = {peer: "**" if cell.rank() == best else "" for peer, cell in mine.items()}
        shown = [f"{bold[peer]}{mine[peer].shown()}{bold[peer]}" if peer in mine else "-" for peer in peers]
        lines.append(f"| {row.name}, {row.unit} | {' | '.join(shown)} |")
    return "\n".join(lines)


def made(report: Any) -> str:  # noqa: ANN401 - as above
    """Return how the figures were made."""
    machine, plan = report["machine"], report["plan"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items() if name[:7] != "callout")
    return (
        f"Made on {machine['date'][:10]} by `callout bench`: {plan['rounds']} rounds, {machine['cpus']} CPUs of a "
        f"shared virtual machine ({machine['platform']}), CPython {machine['python'].split()[0]}; {versions}."
    )


def missing(report: Any) -> str:  # noqa: ANN401 - as above
    """Return which peers the figures are older than."""
    names = [entry.name for entry in PEERS if entry.name not in report["plan"]["peers"]]
    return f" Not measured then: {', '.join(names)}." if names else ""


def page(text: str, report: Any) -> str:  # noqa: ANN401 - as above
    """Return a page with its places filled."""

    def fill(place: re.Match[str]) -> str:
        what = place[2]
        if what == "made":
            new = made(report) + missing(report)
        elif what == "made: lateness":
            new = made(read_lateness())
        else:
            new = table(report, int(what.partition(": ")[2]))
        return f"{place[1]}\n\n{new}\n\n<!-- end -->"

    return re.sub(r"(<!-- (made|made: lateness|bench: \d+) -->).*?<!-- end -->", fill, text, flags=re.DOTALL)


def draw() -> None:
    """Draw the pictures."""
    from callout.bench import _plot

    for report, how, file in ((read(), _plot.draw, PICTURE), (read_lateness(), _plot.draw_lateness, LATENESS_PICTURE)):
        how(plan_of(report), cells_of(report), file)


if __name__ == "__main__":
    for file in PAGES:
        file.write_text(page(file.read_text("utf-8"), read()), "utf-8")
    draw()
