"""docs/racing-timers.md shows what the museum shows today."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from functools import cache

import pytest

from callout.museum import EXHIBITS

from . import racing

pytestmark = pytest.mark.pure

HINT = "run: python tests/unit/racing.py"
made = cache(racing.make)


def test_the_page_has_the_schedules_and_certificates_of_today() -> None:
    """Every diagram, count and table of the page is what exploring the museum gives."""
    assert racing.PAGE.read_text("utf-8") == made().page, HINT


def test_the_pictures_are_those_of_today() -> None:
    """Each picture that the page shows is there, as it would be drawn now, and no other."""
    there = {file.name: file.read_text("utf-8") for file in racing.DIAGRAMS.glob("*.svg")}

    assert there == made().pictures, HINT
    assert set(re.findall(r"\]\(diagrams/(.*?)\)", made().page)) == there.keys()


def test_the_pictures_are_whole() -> None:
    """Each is XML, with a title and the line that went wrong."""
    for picture in made().pictures.values():
        root = ET.fromstring(picture)  # noqa: S314 - our own

        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.findtext("{http://www.w3.org/2000/svg}title")
        assert any("***" in (text.text or "") for text in root.iter("{http://www.w3.org/2000/svg}text"))


def test_the_page_tells_of_every_race() -> None:
    """Each exhibit has a place in the text, or at least a sentence, besides its row in the table."""
    text = racing.PAGE.read_text("utf-8").partition("<!-- index:")[0]

    assert [number for number in EXHIBITS if not re.search(rf"\b{re.escape(number)}\b", text)] == []
