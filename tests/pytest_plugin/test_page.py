"""docs/exploring-with-pytest.md: what its tests do, and what it prints of them, is so. conftest.py runs its blocks."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Final

import pytest

from callout.testing import Teardown, explore_teardown
from callout.testing._mutants import MUTANTS, AsWritten

pytest_plugins = ["pytester"]

PAGE: Final = (Path(__file__).parents[2] / "docs" / "exploring-with-pytest.md").read_text("utf-8")
BLOCKS: Final = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PRINTED: Final = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

HASTY: Final = """\
class Hasty(Session):
    def close(self) -> None:
        with self.lock:
            outstanding = callout_drain_async(self.timer, Hasty.drained, self)
        if not outstanding:
            self.drained()

    def drained(self) -> None:
        self.slab.free(self)
"""


def squeezed(line: str) -> str:
    """Return a line without what depends on the width of the terminal."""
    return re.sub(r"[-_]{3,}", "--", line).strip()


def test_the_tests_of_the_page_end_as_it_says(pytester: pytest.Pytester) -> None:
    """A new user's path: stop and free fails with what the page prints; with callout_drain_async() it passes."""
    pytester.makepyfile(test_session="".join(BLOCKS))
    result = pytester.runpytest_subprocess("-v", "-p", "no:cacheprovider", "-W", "error")

    result.assert_outcomes(passed=3, failed=1)
    lines = [squeezed(line) for line in result.outlines]
    for block in PRINTED[:2]:
        for line in block.splitlines():
            pattern = squeezed(line).replace("[", "[[]").replace("…", "*")
            if pattern.startswith("test_session.py"):
                pattern += "*"  # how far the run has come
            assert fnmatch.filter(lines, pattern), line


def test_the_report_of_the_page_is_that_of_today() -> None:
    """What the page prints of a weak scenario is what its code prints."""
    namespace: dict[str, type[Teardown]] = {}
    for block in BLOCKS:
        if "class Pcb" in block:
            exec(block.partition("def test_")[0], namespace)  # noqa: S102 - as conftest.py does
        elif "class Late" in block:
            exec(block.partition("report =")[0], namespace)  # noqa: S102 - as conftest.py does

    assert str(explore_teardown(namespace["Late"], callouts=2, cpus=1)) == PRINTED[2].strip()


@pytest.mark.parametrize(("bound", "outcome"), [(2, "passed"), (3, "failed")])
def test_without_the_count_it_takes_three_preemptions(pytester: pytest.Pytester, bound: int, outcome: str) -> None:
    """What the page says of a completion that frees at once is so."""
    session, test = (block.partition("@pytest")[where] for block, where in zip(BLOCKS, (0, 2), strict=False))
    test = f"@pytest{test}".replace("Mended", "Hasty").replace("cpus=1", f"cpus=1, bound={bound}")
    pytester.makepyfile(test_session=f"{session}\n{HASTY}\n{test}")

    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")

    result.assert_outcomes(**{outcome: 1})


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda kind: kind.name)
def test_every_mutant_changes_what_the_page_has_a_row_for(mutant: type[AsWritten]) -> None:
    """The operation that a mutant needs is one of the table."""
    operation = mutant.needs.removesuffix(" under the lock").rpartition(" ")[2]

    assert re.search(rf"^\| `{operation}\(.*?\)` \|", PAGE, re.MULTILINE)
