"""A diagram with lanes: data from which a text or a picture is drawn. This draws the text.

A row is one thing that one lane says; the rows are in the order of time. No text is cut: what is too long for its lane
goes on in the next line.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 120  # of a text with three lanes
NARROWEST: Final = 24  # with more lanes it gets wider rather than a lane narrower than that
SEPARATOR: Final = " | "

FUNCTION: Final = "function"
CODE: Final = "code"  # a line
STEP: Final = "step"  # what is done there
ACT: Final = "act"  # what is done in no code of the user's
FOLD: Final = "fold"
WRONG: Final = "wrong"
INDENT: Final = {FUNCTION: 0, CODE: 2, STEP: 6, ACT: 0, FOLD: 6, WRONG: 0}


@dataclass(frozen=True)
class Row:
    """One line of a lane."""

    lane: int  # -1: all of them
    kind: str
    text: str


@dataclass(frozen=True)
class Diagram:
    """What a text or a picture is drawn from."""

    lanes: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]  # what stands below

    def __str__(self) -> str:
        widths = widths_of(self, WIDTH)
        lines = [_line(self.lanes, widths), "-+-".join("-" * width for width in widths)] if widths else []
        for row in self.rows:
            if row.lane < 0:
                lines += wrapped(row, max(WIDTH, sum(widths)))
                continue
            for text in wrapped(row, widths[row.lane]):
                lines.append(_line([text if lane == row.lane else "" for lane in range(len(widths))], widths))
        return "\n".join([*lines, "", *self.notes])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return SEPARATOR.join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def wrapped(row: Row, width: int) -> list[str]:
    """Return a row's text as lines of at most that width. Nothing is cut."""
    indent = " " * INDENT[row.kind]
    text = f"*** {row.text}" if row.kind == WRONG else row.text
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=f"{indent}    ", break_on_hyphens=False
    ) or [""]


def widths_of(diagram: Diagram, total: int) -> list[int]:
    """Return how wide each lane is, so that together they fit: none wider than it needs, and the others alike."""
    lanes = range(len(diagram.lanes))
    needs = [
        max(
            len(diagram.lanes[lane]),
            NARROWEST,
            *(len(wrapped(row, 10_000)[0]) for row in diagram.rows if row.lane == lane),
        )
        for lane in lanes
    ]
    widths = [0 for _ in lanes]
    room = total - len(SEPARATOR) * (len(needs) - 1)
    rest = sorted(lanes, key=lambda lane: needs[lane])
    while rest:
        share = max(room // len(rest), NARROWEST)
        lane = rest.pop(0)
        widths[lane] = min(needs[lane], share)
        room -= widths[lane]
    return widths
