"""The words of the manual, the docstrings, the comments and the messages are the field's, and what they cite is public.

Read are all pages, of every Python file the comments and the strings (not the names in its code), and the titles of the
shipped recordings.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "callout").rglob("*.md")],
)
SOURCES: Final = sorted(
    [*ROOT.glob("*.py"), *(file for room in ("callout", "compat", "tests") for file in (ROOT / room).rglob("*.py"))],
)
TRACES: Final = sorted((ROOT / "callout").rglob("*.jsonl"))

# What is not written, and what is written instead.
FORBIDDEN: Final[Mapping[str, str]] = {
    r"\b(?:take|takes|taking|took|taken)(?: [\w']+){0,3} (?:lock|locks|mutex|mutexes|Giant)\b": "acquire",
    r"\b(?:lock|mutex|Giant)['`]?(?: [\w'`]+){0,3} taken\b": "acquired, held",
    r"\bg(?:ive|ives|ave|iving|iven)(?: (?:it|them|Giant|that|this|(?:the|its|a) (?:lock|mutex)))? up\b": "release",
    r"\bl(?:et|ets|etting)(?: (?:it|them|that|this|(?:the|its|a) (?:lock|mutex)))? go\b": "release",
    r"\b(?:take|takes|taking|took|taken|give|gives|gave|given)(?: (?:it|them))? back\b": "acquire again, return",
    r"\b(?:strike|strikes|striking|struck)\b": "fire, expire",
    r"\banswer(?:s|ed|ing)?\b": "return, result",
    r"\bstandstill\b": "quiescence",
    r"\bput(?:s|ting)?[ -]off\b": "deferred",
    r"\b[Ww]ho(?:so)?ever\b": "name the caller",
    r"(?:^|[.;:] |\b[Oo]nly |\b(?:by|wake|wakes|woken|serve|serves|tell|tells|told) )[Ww]ho "
    r"(?!is\b|are\b|was\b|were\b)\w+(?!.*\?)": "name the caller",
    r"\b(?:DESIGN|RACES|FINDINGS|STYLE)(?:\.md)?\b": "a public source",
    r"\bSeeds? \d\b|\b[FX]\d{1,2}\b": "a public source",
}

# Where a word is right: the file, the words around it, and why.
ALLOWED: Final[Mapping[tuple[str, str], str]] = {}

# Files that are not read: path -> why.
NOT_READ: Final[Mapping[str, str]] = {
    "tests/unit/test_words.py": "it has the forbidden words in it",
}


def paragraphs(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the prose of *file*, paragraph by paragraph, each on one line, with the number of its first line."""
    text = file.read_text("utf-8")
    if file.suffix == ".md":
        yield from pieces(text, 1)
        return
    if file.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            yield number, json.loads(line).get("title", "")
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from pieces(node.value, node.lineno)
    comment: list[str] = []
    begun = last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            if comment and token.start[0] != last + 1:
                yield begun, " ".join(comment)
                comment = []
            begun, last = (begun if comment else token.start[0]), token.start[0]
            comment.append(token.string.lstrip("# "))
    if comment:
        yield begun, " ".join(comment)


def pieces(text: str, line: int) -> Iterator[tuple[int, str]]:
    """Yield the paragraphs of *text*, which begins in *line*."""
    for piece in re.finditer(r"(?:.+\n?)+", text):
        yield line + text.count("\n", 0, piece.start()), " ".join(piece[0].split())


def found_in(name: str, prose: Iterable[tuple[int, str]]) -> list[str]:
    """Return each forbidden word in the *prose* of the file *name*, with its line and what to write instead."""
    out = []
    for line, text in prose:
        for pattern, instead in FORBIDDEN.items():
            for hit in re.finditer(pattern, text):
                context = text[max(0, hit.start() - 60) : hit.end() + 60]
                if not any(name == where and words in context for where, words in ALLOWED):
                    out.append(f"{name}:{line}: {hit[0]!r} (write: {instead}) in: {context}")
    return out


def name_of(file: Path) -> str:
    """Return the path of *file* from the root of the repository."""
    return file.relative_to(ROOT).as_posix()


READ: Final = [file for file in [*PAGES, *SOURCES, *TRACES] if not name_of(file).startswith(tuple(NOT_READ))]


@pytest.mark.parametrize("file", READ, ids=name_of)
def test_the_words_are_the_fields(file: Path) -> None:
    """No page, comment, docstring or message has a forbidden word or cites what a reader cannot open."""
    found = found_in(name_of(file), paragraphs(file))

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "It takes the callout's lock.",
        "The lock was taken by another thread.",
        "Softclock gave the mutex up.",
        "It lets go of the lock.",
        "Giant is taken back afterwards.",
        "The timer strikes.",
        "A stop answers 1.",
        "It comes to a standstill.",
        "The move is put off; a put-off move.",
        "Whoever waits is woken.",
        "Who parks appends first.",
        "Only who holds it may stop.",
        "It wakes who waits.",
        "See DESIGN 5.3.",
        "The numbers are those of Seed 4.",
        "Shown by R4.1; F12.",
    ],
)
def test_a_forbidden_word_is_found(text: str) -> None:
    """Each of these sentences is reported."""
    assert found_in("page.md", [(1, text)])


@pytest.mark.parametrize(
    "text",
    [
        "It acquires the lock, takes an argument, and a migration takes place.",
        "The log says which thread holds the lock, and who waits for it.",
        "Who runs it?",
        "The same seed 7 gives the same order.",
        "The caller that holds the lock gets 1; the lock is released.",
        "A deferred migration is given to the new CPU.",
    ],
)
def test_an_innocent_sentence_is_not(text: str) -> None:
    """None of these sentences is reported."""
    assert found_in("page.md", [(1, text)]) == []


def test_prose_is_joined_across_lines(tmp_path: Path) -> None:
    """A forbidden word that is broken over two lines of a docstring, a comment or a page is found, with its line."""
    source = tmp_path / "module.py"
    source.write_text(
        '"""One.\n\nThe move is put\noff.\n"""\n\nx = 1\n# a lock is\n# taken\ny = "it is struck"\n', "utf-8"
    )
    page = tmp_path / "page.md"
    page.write_text("# Words\n\nThe lock is let\ngo.\n", "utf-8")

    assert [found.split(": ")[0] for found in found_in("m", paragraphs(source))] == ["m:3", "m:10", "m:8"]
    assert [found.split(": ")[0] for found in found_in("p", paragraphs(page))] == ["p:3"]


def test_each_exception_is_needed() -> None:
    """What is allowed is there: an exception that allows nothing any more is to be removed."""
    unneeded = [
        (name, words) for name, words in ALLOWED if not any(words in text for _, text in paragraphs(ROOT / name))
    ]

    assert unneeded == []
    assert [name for name in NOT_READ if not (ROOT / name).exists()] == []
