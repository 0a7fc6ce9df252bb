"""The manual's adapters, saved to a file and judged by the command as it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

PAGE: Final = Path(__file__).parents[2] / "docs" / "conformance.md"
MOST_LINES: Final = 120


def blocks() -> dict[str, str]:
    """Return the manual's blocks with timers and adapters: class -> code."""
    found = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    named = {name: code for code in found for name in re.findall(r"^class (\w+)", code, re.MULTILINE)}
    return {name: named[name] for name in ("Timer", "NaiveFreeBSD", "NaiveLinux")}


def test_timers_and_adapter_have_less_than_120_lines() -> None:
    """The naive implementation and its adapter, together, are as short as the manual says; Linux is shorter still."""
    code = blocks()

    assert len((code["Timer"] + "\n\n" + code["NaiveFreeBSD"]).splitlines()) < MOST_LINES
    assert len(code["NaiveLinux"].splitlines()) < MOST_LINES / 2


@pytest.mark.parametrize(
    ("adapter", "api", "least", "right", "wrong"),
    [
        ("NaiveFreeBSD", "freebsd", 300, {"fn_runlock"}, {"async_drain", "direct", "try_fail"}),
        ("NaiveLinux", "linux", 400, set(), set()),
    ],
)
def test_the_command_judges_the_manuals_adapter(
    adapter: str, api: str, least: int, right: set[str], wrong: set[str], tmp_path: Path
) -> None:
    """The run ends, many scenarios pass, no failure is one of the adapter's own, and the tags tell what is right."""
    code = blocks()
    (tmp_path / "naive.py").write_text(code["Timer"] + "\n\n" + code[adapter], "utf-8")
    command = ["conformance", "--impl", f"naive:{adapter}", "--api", api, "--timeout", "100", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "callout", *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    found: dict[str, Any] = json.loads(done.stdout)
    broke = {kind["kind"] for kind in found["kinds"] if kind["kind"].startswith("raised")}

    assert done.returncode == 1
    assert found["passed"] >= least
    assert found["passed"] + found["failed"] == (1270 if api == "freebsd" else 657)
    assert all(found["tags"][tag]["failed"] == 0 for tag in right)
    assert all(found["tags"][tag]["passed"] == 0 for tag in wrong)
    assert not any("did not end" in kind["kind"] for kind in found["kinds"])
    assert {kind for kind in broke if "NotImplementedError" not in kind and "RefusedError" not in kind} == set()
