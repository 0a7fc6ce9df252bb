"""The pictures of the manual show what the engine does today."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from . import pictures

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
