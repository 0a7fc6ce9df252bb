"""Makes the diagrams, certificates and tables of docs/racing-timers.md, by exploring the exhibits of the museum.

``python tests/unit/racing.py`` writes the page and docs/diagrams, test_racing.py compares. A place in the page is a
comment that says what belongs there, up to ``<!-- end -->``:

- ``<!-- race: R0.1 test7 -->``: the shortest schedule in which that variant goes wrong. A diagram of up to ``LONGEST``
  lines stands in the page, a longer one is a picture.
- ``<!-- clean: R0.1 order-fix all-bases -->``: what exploring these remedies has shown.
- ``<!-- index: -->``: all races, with the preemptions that each variant takes.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from callout.explore import Certificate, Violation, explore
from callout.explore._svg import svg
from callout.museum import EXHIBITS, Exhibit, Variant

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "racing-timers.md"
DIAGRAMS: Final = ROOT / "docs" / "diagrams"
LONGEST: Final = 40
BOUND: Final = 3


class Made(NamedTuple):
    """The page and its pictures, by the names of their files."""

    page: str
    pictures: dict[str, str]


def variant_of(number: str, name: str) -> tuple[Exhibit, Variant]:
    """Return an exhibit and one of its variants."""
    exhibit = EXHIBITS[number]
    return exhibit, next(variant for variant in exhibit.variants if variant.name == name)


def search(variant: Variant, bound: int) -> Certificate:
    """Explore a variant."""
    return explore(variant.scenario, cpus=variant.cpus, bound=bound, cells_only=variant.cells_only)


def race(number: str, name: str, pictures: dict[str, str]) -> str:
    """Return the shortest schedule in which a variant goes wrong."""
    exhibit, variant = variant_of(number, name)
    try:
        search(variant, variant.preemptions)
    except Violation as violation:
        diagram = violation.drawing
    else:
        raise AssertionError(f"{number} {name}: nothing was found")
    assert diagram is not None
    length, minimal = diagram.notes[-2:]
    bare = replace(diagram, notes=())
    text = str(bare).rstrip()
    caption = textwrap.fill(
        f"`callout explore {number} --variant {name}`: {length.partition(';')[0]}; {minimal}.",
        119,
        break_on_hyphens=False,
    )
    if text.count("\n") < LONGEST:
        return f"```text\n{text}\n```\n\n{caption}"
    file = f"{number}-{name}.svg"
    pictures[file] = svg(bare, f"{number}, {exhibit.title}: {variant.says}")
    return f"![{variant.says}](diagrams/{file})\n\n{caption}"


def clean(number: str, names: list[str]) -> str:
    """Return a table of what exploring some remedies has shown."""
    rows = ["| remedy | schedules | switch points | found |", "| --- | --- | --- | --- |"]
    for name in names:
        variant = variant_of(number, name)[1]
        found = search(variant, BOUND)
        assert found.exhausted, f"{number} {name}"
        rows.append(f"| `{number} {name}`: {variant.says} | {found.schedules:,} | {found.steps:,} | nothing |")
    return "\n".join(rows)


def index() -> str:
    """Return the table of all races."""
    rows = ["| race | | goes wrong, with preemptions | clean |", "| --- | --- | --- | --- |"]
    for number, exhibit in EXHIBITS.items():
        wrong = ", ".join(f"`{variant.name}` {variant.preemptions}" for variant in exhibit.buggy)
        right = ", ".join(f"`{variant.name}`" for variant in exhibit.fixed)
        rows.append(f"| {number} | {exhibit.title} | {wrong} | {right} |")
    return "\n".join(rows)


def places(text: str) -> Iterator[re.Match[str]]:
    """Yield the places of the page in which something belongs."""
    yield from re.finditer(r"(<!-- (race|clean|index): ?(.*?) ?-->\n).*?(<!-- end -->)", text, flags=re.DOTALL)


def make() -> Made:
    """Return the page as it stands, with all that is in its places made anew, and the pictures."""
    text = PAGE.read_text("utf-8")
    pictures: dict[str, str] = {}
    out, at = [], 0
    for place in places(text):
        kind, words = place[2], place[3].split()
        made = (
            index()
            if kind == "index"
            else clean(words[0], words[1:])
            if kind == "clean"
            else race(words[0], words[1], pictures)
        )
        out += [text[at : place.start()], f"{place[1]}\n{made}\n\n{place[4]}"]
        at = place.end()
    return Made("".join([*out, text[at:]]), pictures)


if __name__ == "__main__":
    done = make()
    PAGE.write_text(done.page, "utf-8")
    DIAGRAMS.mkdir(exist_ok=True)
    for old in DIAGRAMS.glob("*.svg"):
        if old.name not in done.pictures:
            old.unlink()
    for name, picture in done.pictures.items():
        (DIAGRAMS / name).write_text(picture, "utf-8")
