"""The diagram as a picture: one SVG file that needs nothing else, for a browser or a page of documentation.

The background is light and painted, so that it can be read on a dark page. What went wrong is red, and says so.
"""

from __future__ import annotations

import re
import textwrap
from itertools import accumulate
from typing import Final
from xml.sax.saxutils import escape

from ._diagram import ACT, CODE, FOLD, FUNCTION, STEP, WRONG, Diagram, widths_of, wrapped

COLUMNS: Final = 132  # of text
ADVANCE: Final = 7.25  # of a character, in pixels
SIZE: Final = 12
LINE: Final = 16
MARGIN: Final = 16
GAP: Final = 20  # between lanes

COLOUR: Final = {
    FUNCTION: "#57606a",
    CODE: "#0a3069",
    STEP: "#1f2328",
    ACT: "#1f2328",
    FOLD: "#57606a",
    WRONG: "#a40e26",
}

_NO_XML: Final = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def svg(diagram: Diagram, title: str) -> str:
    """Return the picture as the text of a file."""
    widths = [width * ADVANCE for width in widths_of(diagram, COLUMNS)]
    lefts = list(accumulate((width + GAP for width in widths), initial=float(MARGIN)))
    whole = max(sum(widths) + GAP * (len(widths) - 1), 640.0)
    out: list[str] = []
    top = MARGIN + LINE
    for name, left in zip(diagram.lanes, lefts, strict=False):
        out.append(_text(left, top, name, "#1f2328", ' font-weight="bold"'))
    top += LINE // 2
    out.append(f'<line x1="{MARGIN}" y1="{top}" x2="{MARGIN + whole:g}" y2="{top}" stroke="#8c959f"/>')
    begun, lines_go = top, len(out)
    for row in diagram.rows:
        left = MARGIN if row.lane < 0 else lefts[row.lane]
        width = whole if row.lane < 0 else widths[row.lane]
        lines = wrapped(row, max(int(width / ADVANCE), 1))
        if row.kind == WRONG:
            out.append(
                f'<rect x="{left - 4:g}" y="{top + 4}" width="{width + 8:g}" height="{LINE * len(lines) + 1}" '
                'fill="#ffebe9" stroke="#cf222e"/>'
            )
        for line in lines:
            top += LINE
            out.append(_text(left, top, line, COLOUR[row.kind], ' font-weight="bold"' if row.kind == WRONG else ""))
    out[lines_go:lines_go] = [  # behind what is written
        f'<line x1="{left - GAP / 2:g}" y1="{begun}" x2="{left - GAP / 2:g}" y2="{top + 6}" stroke="#d0d7de"/>'
        for left in lefts[1:-1]
    ]
    top += LINE // 2
    for note in diagram.notes:
        for line in textwrap.wrap(note, int(whole / ADVANCE), subsequent_indent="    ", break_on_hyphens=False):
            top += LINE
            out.append(_text(MARGIN, top, line, "#57606a"))
    wide, high = int(whole) + 2 * MARGIN, top + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{wide}" height="{high}" '
        f'viewBox="0 0 {wide} {high}" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{SIZE}">\n'
        f"<title>{_escaped(title)}</title>\n"
        f'<rect width="{wide}" height="{high}" fill="#ffffff"/>\n' + "\n".join(out) + "\n</svg>\n"
    )


def _text(left: float, top: float, text: str, colour: str, more: str = "") -> str:
    """Return a line of text. Its indentation is part of its place, since spaces at the beginning are not drawn."""
    bare = text.lstrip(" ")
    at = left + (len(text) - len(bare)) * ADVANCE
    return f'<text x="{at:g}" y="{top}" fill="{colour}"{more}>{_escaped(bare)}</text>'


def _escaped(text: str) -> str:
    return escape(_NO_XML.sub("\ufffd", text))
