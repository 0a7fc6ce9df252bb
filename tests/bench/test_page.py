"""The page of the benchmark says what was measured: nothing in its tables is written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import page


@pytest.mark.parametrize("file", page.PAGES, ids=lambda file: file.name)
def test_a_page_is_what_its_figures_make(file: Path) -> None:
    """After a run: python tests/bench/page.py."""
    text = file.read_text("utf-8")

    assert page.page(text, page.read()) == text
    assert "<!-- bench: " in text


def test_the_picture_is_there() -> None:
    """Of the size that the page shows."""
    assert f"{page.DRAWN:,} timers" in page.PICTURE.read_text("utf-8")
