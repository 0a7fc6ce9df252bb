"""The page of the benchmark says what was measured: nothing in its tables is written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from callout.bench._peer import PEERS
from callout.bench._summary import drawn, number
from tests.bench import page


@pytest.mark.parametrize("file", page.PAGES, ids=lambda file: file.name)
def test_a_page_is_what_its_figures_make(file: Path) -> None:
    """After a run: python tests/bench/page.py."""
    text = file.read_text("utf-8")

    assert page.page(text, page.read()) == text
    assert "<!-- bench: " in text


def test_the_picture_is_there() -> None:
    """Of the size that the page shows."""
    size = drawn(page.plan_of(page.read()))

    assert f"{size:,} timers" in page.PICTURE.read_text("utf-8")
    assert f"<!-- bench: {size} -->" in page.PAGES[0].read_text("utf-8")


def test_the_picture_of_lateness_is_that_of_its_figures() -> None:
    """It has every peer, with the median and the longest of what was measured."""
    report = page.read_lateness()
    size = drawn(page.plan_of(report))
    cells = [cell for cell in page.cells_of(report) if cell.size == size]
    picture = page.LATENESS_PICTURE.read_text("utf-8")

    assert f"{size:,} timers pending" in picture
    for name in ("lateness", "lateness-max"):
        mine = [cell for cell in cells if cell.row.name == name]
        assert mine
        assert [cell for cell in mine if f">{cell.peer}<" not in picture] == []
        assert [cell for cell in mine if f">{number(cell.value)}<" not in picture] == []


def test_figures_may_be_older_than_a_row_or_a_peer() -> None:
    """Then the table does not have that row, and the page names the peer."""
    report = page.read()
    report["medians"] = [each for each in report["medians"] if each["figure"] != "arm"]
    report["plan"]["peers"] = [entry.name for entry in PEERS if entry.name != "gevent"]

    assert "\n| rearm, ns |" in page.table(report, 1000)
    assert "\n| arm, ns |" not in page.table(report, 1000)
    assert page.missing(report) == " Not measured then: gevent."
