"""The diagram as a picture."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree as ET

import pytest

from callout.explore import Violation, explore
from callout.explore._diagram import ACT, CODE, FUNCTION, STEP, WRONG, Diagram, Row
from callout.explore._svg import svg
from callout.testing import VirtualSMP

SVG: Final = "{http://www.w3.org/2000/svg}"

DIAGRAM: Final = Diagram(
    ("main", "cpu0 (softclock)"),
    (
        Row(0, FUNCTION, "x.py, main():"),
        Row(0, CODE, "7: if a < b & c:"),
        Row(0, STEP, "reads a -> '\x00'"),
        Row(1, ACT, "takes timer from the queue"),
        Row(1, WRONG, "UseAfterFree: " + "a long story " * 20),
        Row(-1, WRONG, "DeadlockError: nothing can run any more"),
    ),
    ("replay: v4,scenario,cpus=1,hz=1000,paths=short:1,choices=1",),
)


def root_of(picture: str) -> ET.Element:
    """Parse a picture."""
    return ET.fromstring(picture)  # noqa: S314 - it is our own


def texts(picture: str) -> list[ET.Element]:
    """Return the lines of text of a picture."""
    return list(root_of(picture).iter(f"{SVG}text"))


def test_it_says_what_the_diagram_says() -> None:
    """Lanes, rows and notes, from top to bottom, with what XML has signs for, and without what it has none for."""
    lines = [line.text or "" for line in texts(svg(DIAGRAM, "a title"))]

    assert lines[:6] == [
        "main",
        "cpu0 (softclock)",
        "x.py, main():",
        "7: if a < b & c:",
        "reads a -> '\N{REPLACEMENT CHARACTER}'",
        "takes timer from the queue",
    ]
    assert " ".join(lines[6:]).split() == [
        *f"*** UseAfterFree: {'a long story ' * 20}".split(),
        *["***", "DeadlockError:", "nothing", "can", "run", "any", "more"],
        *DIAGRAM.notes[0].split(),
    ]


def test_it_is_a_file_of_its_own() -> None:
    """It names its size, has a title and a background, and refers to nothing outside."""
    root = root_of(svg(DIAGRAM, "schedule 3 <went> wrong"))

    assert root.tag == f"{SVG}svg"
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    assert root.findtext(f"{SVG}title") == "schedule 3 <went> wrong"
    assert root[1].tag == f"{SVG}rect"
    assert (root[1].get("width"), root[1].get("height")) == (root.get("width"), root.get("height"))
    assert not any("href" in name for each in root.iter() for name in each.attrib)


def test_each_lane_has_its_place_and_all_of_it_fits() -> None:
    """What a lane says begins in its own column; no line begins right of the picture or below it."""
    picture = svg(DIAGRAM, "a title")
    root = root_of(picture)
    at = {line.text: float(line.get("x", "")) for line in texts(picture)}

    assert at["x.py, main():"] == at["main"] < at["7: if a < b & c:"] < at["cpu0 (softclock)"]
    assert at["takes timer from the queue"] == at["cpu0 (softclock)"]
    assert all(float(line.get("x", "")) < float(root.get("width", "")) for line in texts(picture))
    assert all(float(line.get("y", "")) < float(root.get("height", "")) for line in texts(picture))


def test_what_went_wrong_is_framed_and_called_that() -> None:
    """Red is not all that tells it from the rest."""
    picture = svg(DIAGRAM, "a title")
    red = {line.get("fill") for line in texts(picture) if (line.text or "").startswith("***")}
    others = {line.get("fill") for line in texts(picture) if "story" not in (line.text or "")} - red
    frames = [each for each in root_of(picture).iter(f"{SVG}rect") if each.get("stroke")]

    assert len(red) == 1
    assert others
    assert len(frames) == 2


def test_a_violation_has_its_picture() -> None:
    """One that was not shrunk has none."""

    def scenario(vm: VirtualSMP) -> None:
        n = vm.cell(1, "n")
        n.value //= 0

    with pytest.raises(Violation) as caught:
        explore(scenario)
    with pytest.raises(Violation) as bare:
        explore(scenario, shrink=False)

    assert "*** ZeroDivisionError: integer division or modulo by zero" in [
        line.text for line in texts(caught.value.svg())
    ]
    assert root_of(caught.value.svg()).findtext(f"{SVG}title") == str(caught.value).partition("\n")[0]
    assert bare.value.svg() == ""
