"""The manual as a site: ``sphinx-build -W -b html docs OUT``, with the extra ``site``.

The pages are those that a code host shows and that pytest executes; nothing is written for the site alone but the
table of contents at the end of ``index.md``. Each warning is an error in CI, so a link to a page or heading that is not
there ends the build. ``-b linkcheck`` needs no network, either; with one, ``-D 'linkcheck_ignore=^$'`` looks at the
links that lead elsewhere.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE: Final = Path(__file__).parent

# Pages outside this folder, each with the page here that includes it.
INCLUDED: Final = {
    "../CONTRIBUTING.md": "contributing.md",
    "../SECURITY.md": "security.md",
    "../callout/conformance/FORMAT.md": "trace-format.md",
}

_project: Final = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["project"]

project = _project["name"]
author = _project["authors"][0]["name"]
project_copyright = author
version = release = _project["version"]

extensions = ["myst_parser", "sphinx_copybutton"]
root_doc = "index"
language = "en"
highlight_language = "text"
myst_heading_anchors = 4  # links to headings are those of a code host
nitpicky = True

html_theme = "sphinx_rtd_theme"  # as trio's manual
html_title = f"{project} {version}"
html_theme_options = {"navigation_depth": 3}
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"

linkcheck_ignore = ["https?://"]


def lead_here(app: Sphinx, name: str, source: list[str]) -> None:
    """Have links out of this folder lead to the pages that include what they lead to; a folder is no page at all."""

    def target(link: re.Match[str]) -> str:
        path, anchor = link["path"], link["anchor"] or ""
        if path in INCLUDED:
            return f"[{link['text']}]({INCLUDED[path]}{anchor})"
        return link["text"] if (HERE / path).is_dir() else link[0]

    source[0] = re.sub(r"\[(?P<text>[^\]]*)\]\((?P<path>\.\./[^)#\s]+)(?P<anchor>#[^)]*)?\)", target, source[0])


def setup(app: Sphinx) -> None:
    """Tell Sphinx of what is above."""
    app.connect("source-read", lead_here)
