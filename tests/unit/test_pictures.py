"""The pictures of the manual show what the engine does today."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from . import pictures, screenshot

pytestmark = pytest.mark.pure

DOCS: Final = pictures.ROOT / "docs"
SVG: Final = "{http://www.w3.org/2000/svg}"
made = cache(pictures.make)


def test_the_pictures_are_those_of_today() -> None:
    """Each picture is there as it would be drawn now, and no other is."""
    there = {file.name: file.read_text("utf-8") for file in pictures.PICTURES.iterdir()}

    assert there == made(), "run: python tests/unit/pictures.py"


def test_each_picture_is_shown() -> None:
    """Some page shows it, and says in words what it shows."""
    pages = "".join(page.read_text("utf-8") for page in sorted(DOCS.glob("*.md")))

    assert {Path(name).name for name in re.findall(r"!\[[^\]]+\]\((pictures/[^)]+)\)", pages)} == made().keys()


@pytest.mark.parametrize("name", ["run.svg", "wheel.svg", "rules.svg", "stop-and-free.svg"])
def test_a_picture_is_whole(name: str) -> None:
    """It is XML, with a title, and nothing of it stands beside the paper."""
    root = ET.fromstring(made()[name])  # noqa: S314 - our own

    assert root.findtext(f"{SVG}title")
    wide, high = int(root.attrib["width"]), int(root.attrib["height"])
    for part in (*root.iter(f"{SVG}text"), *root.iter(f"{SVG}rect")):
        assert 0 <= float(part.get("x", 0)) < wide
        assert 0 <= float(part.get("y", 0)) < high


def test_a_stop_has_one_result_in_each_state() -> None:
    """Whatever the schedule, the state of a callout decides what ``callout_stop()`` returns."""
    stops = pictures.live().stops

    assert stops == {
        pictures.IDLE: {-1},
        pictures.PENDING: {1},
        pictures.QUEUED: {1},
        pictures.WAITING: {1},
        pictures.STARTED: {0},
        pictures.CANCELLED: {0},
    }


def lines_of(svg: str) -> list[str]:
    """Return the lines of text in the picture of a terminal, the title of its window first."""
    lines: dict[str, str] = {}
    for part in ET.fromstring(svg).iter(f"{SVG}text"):  # noqa: S314 - our own
        lines[part.attrib["y"]] = lines.get(part.attrib["y"], "") + (part.text or "").replace("\xa0", " ")
    return [line.rstrip() for line in lines.values()]


def test_the_picture_of_the_demo_shows_what_the_demo_shows_today() -> None:
    """Its line of figures, and its table with every row: as in a run of today, but for the numbers."""
    command = ("demo", "--seconds", "0.3", "--connections", "20")
    written = screenshot.shown(command)
    today, there = (
        [re.sub(r"\d[\d.]*( ms)?|(?<= )-(?= |$)", "0", line) for line in lines_of(svg)]
        for svg in (screenshot.picture(command, written), screenshot.PICTURE.read_text("utf-8"))
    )

    assert today[1:3] == ["$ callout demo --seconds 0 --connections 0", there[2]]
    assert there[2].startswith("0 connections, 0 armed, 0 re-armed, 0 fired, 0 stopped, 0 drained, late p0 0 p0 0")
    assert there == today, "run: python tests/unit/screenshot.py"
    assert there[-1].startswith("CLEAN: ")


def test_the_picture_of_the_demo_is_shown_and_loads_nothing() -> None:
    """The README and the manual show it; all that it refers to is in it."""
    svg = screenshot.PICTURE.read_text("utf-8")

    assert "](docs/demo.svg)" in (pictures.ROOT / "README.md").read_text("utf-8")
    assert "](demo.svg)" in (DOCS / "tutorial.md").read_text("utf-8")
    assert set(re.findall(r"url\((.)", svg)) == {"#"}
    assert not re.search(r"@font-face|@import|href|<image|<script", svg)


def test_a_command_that_fails_has_no_picture() -> None:
    """Its status is told, and what it has written."""
    with pytest.raises(RuntimeError, match=r"ended with status 2: .*--no-stage is about"):
        screenshot.shown(("demo", "--no-stage"))
