"""Makes every ``python`` block of the README and of docs/ a test; the other tests have their own tests/conftest.py.

The blocks of one page share a namespace and run in order, so that a page can build up an example. An asynchronous
example is a whole script that ends in ``trio.run(main)``. ``<!-- skip: next "reason" -->`` leaves a block out.
"""

from __future__ import annotations

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser


def as_script(namespace: dict[str, object]) -> None:
    """Let ``if __name__ == "__main__":`` hold, or the example behind it would pass without having run."""
    namespace["__name__"] = "__main__"


pytest_collect_file = Sybil(
    parsers=[SkipParser(), PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    setup=as_script,
).pytest()
