"""The site has every page of docs/, and every public name can be looked up in it."""

from __future__ import annotations

import importlib.metadata
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

import callout

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
CONF: Final[dict[str, Any]] = runpy.run_path(str(DOCS / "conf.py"))  # Any: they are settings


def contents() -> list[str]:
    """Return the pages that the tables of contents name, in their order."""
    tables = re.findall(
        r"^```\{toctree\}\n(.*?)^```$", (DOCS / "index.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return [line for table in tables for line in table.splitlines() if line and not line.startswith(":")]


def test_the_contents_have_every_page_once() -> None:
    """Each page of docs/, but for the first, is in one table of contents."""
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}

    assert sorted(contents()) == sorted(pages)


def test_the_first_page_leads_to_the_manual() -> None:
    """What is in the table of contents under "Using callouts" and "Testing teardown" has a link in the text, too."""
    text = (DOCS / "index.md").read_text("utf-8")

    assert [page for page in contents()[:15] if f"]({page}.md)" not in text] == []


def test_the_reference_has_headings_for_what_can_be_called() -> None:
    """Each public function and class has a heading, and so an address of its own and a place in the search."""
    headings = set(re.findall(r"^### (\w+)$", (DOCS / "reference.md").read_text("utf-8"), re.MULTILINE))
    called = [name for name in callout.__all__ if callable(getattr(callout, name))]
    listed = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "reference.md").read_text("utf-8"), re.MULTILINE))

    assert [name for name in called if name not in headings | listed] == []


def test_what_is_included_is_there() -> None:
    """Each page of the site that includes another one includes the one that links are led from, with all its links."""
    for path, page in CONF["INCLUDED"].items():
        assert (DOCS / path).is_file()
        assert f"{{include}} {path}\n" in (DOCS / page).read_text("utf-8")


@pytest.mark.parametrize(
    ("written", "led"),
    [
        ("[a](../CONTRIBUTING.md)", "[a](contributing.md)"),
        ("[a](../CONTRIBUTING.md#mutants)", "[a](contributing.md#mutants)"),
        ("[`a`\nb](../tests/examples)", "`a`\nb"),
        ("[a](../tests/museum/planted.txt)", "[a](../tests/museum/planted.txt)"),
        (
            "[a](tutorial.md#one-callout), ![b](pictures/run.svg)",
            "[a](tutorial.md#one-callout), ![b](pictures/run.svg)",
        ),
    ],
)
def test_links_out_of_the_manual_are_led_back(written: str, led: str) -> None:
    """A link to a page outside of docs/ leads to the one that includes it; one to a folder is its text; others stay."""
    lead_here: Callable[[object, str, list[str]], None] = CONF["lead_here"]
    source = [written]

    lead_here(None, "page", source)

    assert source == [led]


def test_the_glossary_is_in_order() -> None:
    """Its words are in alphabetical order, each once."""
    words = re.findall(r"^\| ([^|]+?) \| ", (DOCS / "glossary.md").read_text("utf-8"), re.MULTILINE)[2:]

    assert words == sorted(set(words), key=str.lower)


def test_the_extra_has_what_the_site_is_built_with() -> None:
    """Each extension of the settings is one that the extra installs."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")

    for name in (*CONF["extensions"], CONF["html_theme"], "sphinx"):
        assert re.search(rf'^    "{name.replace("_", "-")}"', text, re.MULTILINE)


def test_on_a_package_index_readme_has_no_link_that_leads_nowhere() -> None:
    """Neither to a file of the repository nor to a section, nor a picture from it."""
    text = importlib.metadata.metadata("callout")["Description"]
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]*)\)", text)

    assert links
    assert [(picture, link) for picture, link in links if picture or not link.startswith("https://")] == []
    assert "docs/timers.md is about these methods" in text
    assert "with the introduction (docs/introduction.md)" in text
