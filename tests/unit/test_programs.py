"""The eleven programs of the manual are there, are short, and are found from the table that lists them.

Each stands behind a mark, ``<!-- program: a -->``. It is executed, as every block is, and what follows it runs it.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from .test_docs import anchor_of

DOCS: Final = Path(__file__).parents[2] / "docs"
NAMES: Final = "abcdefghijk"
MOST: Final = 15
NO_CODE: Final = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


class Program(NamedTuple):
    """One of them."""

    name: str
    place: str  # as a link of timers.md leads there
    code: str


def programs() -> list[Program]:
    """Return what is marked in the pages."""
    out = []
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text("utf-8")
        for mark in re.finditer(r"^<!-- program: (\w+) -->\n\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            *_, heading = re.findall(r"^##+ (.+)$", text[: mark.start()], re.MULTILINE)
            out.append(
                Program(mark[1], f"{'' if page.name == 'timers.md' else page.name}#{anchor_of(heading)}", mark[2])
            )
    return sorted(out)


def lines_of(code: str) -> int:
    """Return how many lines of *code* are neither empty, nor a comment, nor of an import or an assertion."""
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(code).readline)
        if token.type not in NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Assert):
            assert node.end_lineno
            lines -= {*range(node.lineno, node.end_lineno + 1)}
    return len(lines)


PROGRAMS: Final = programs()


def test_all_eleven_are_there() -> None:
    """Each once."""
    assert "".join(program.name for program in PROGRAMS) == NAMES


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: str(program.name))
def test_a_program_is_short(program: Program) -> None:
    """It has 15 lines at most, besides imports and assertions, and some of them are about timers."""
    assert lines_of(program.code) <= MOST
    assert re.search(r"call_later|callout\(|start_every|nursery\.task", program.code)


def test_the_table_leads_to_each() -> None:
    """Its rows have the letters, and link to the headings under which the programs stand."""
    table = re.findall(r"^\| (\w) \| \[[^\]]+\]\(([^)]+)\) \|", (DOCS / "timers.md").read_text("utf-8"), re.MULTILINE)

    assert table == [(program.name, program.place) for program in PROGRAMS]


def test_what_counts_as_a_line() -> None:
    """Code does, in each of its lines; empty lines, comments, imports and assertions do not."""
    code = (
        "from a import (\n    b,\n)\n\n# why\nb(\n    1,  # so\n)\nassert (\n    b\n)\nif b:\n    import c\n    c()\n"
    )

    assert lines_of(code) == 5
