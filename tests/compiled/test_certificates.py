"""A compiled core that was made to be explored has the schedules of the pure one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import callout
from callout._core import sources
from callout._core.state import SEES_READS

ROOT: Final = Path(__file__).parents[2]
STEP: Final = 60


def certificates(core: str) -> list[str]:
    """Return what the program prints with that core."""
    command = [sys.executable, "-m", "tests.compiled.certificates", str(STEP)]
    path = os.pathsep.join([str(sources.PACKAGE.parent), str(ROOT)])  # the package of this process, and these tests
    env = os.environ | {"CALLOUT_PURE": "1" if core == "pure" else "0", "PYTHONPATH": path}
    run = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


@pytest.mark.skipif(callout.core == "pure" or not SEES_READS, reason="needs a compiled core that can be explored")
def test_both_cores_have_the_same_schedules_on_short_paths_and_on_long() -> None:
    """As many, as many switch points in all and in the longest, and the same final states."""
    pure, compiled = certificates("pure"), certificates("compiled")

    assert [pure[0], compiled[0]] == ["pure", "compiled"]
    assert pure[1:] == compiled[1:]
    assert len(pure) > 10


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Where a copy of the records is."""
    core = tmp_path / "_core"
    core.mkdir()
    for name in ("state.py", "state.pxd"):
        (core / name).write_text((sources.PACKAGE / "_core" / name).read_text("utf-8"), "utf-8")
    return tmp_path


def test_the_records_of_such_a_core_have_properties_of_what_is_read_without_a_lock(package: Path) -> None:
    """And of nothing else: the other fields stay where they were."""
    before = (package / "_core/state.pxd").read_text("utf-8").splitlines()
    sources.add_switch_points(package)
    code, after = ((package / "_core" / name).read_text("utf-8") for name in ("state.py", "state.pxd"))

    compile(code, "state.py", "exec")
    assert code.count("    @property\n") == len(sources.RACY)
    changed = [(old, new) for old, new in zip(before, after.splitlines(), strict=True) if old != new]
    assert sorted(new.split()[-1] for _, new in changed) == sorted(f"plain_{name}" for name in sources.RACY)


@pytest.mark.parametrize(
    ("file", "old"),
    [
        ("state.py", "    run: Run | None\n"),
        ("state.pxd", "cdef public int state\n"),
        ("state.py", "Final = CORE == PURE"),
    ],
)
def test_records_that_have_changed_are_not_compiled_by_mistake(package: Path, file: str, old: str) -> None:
    """A field that is not found would be read as ever, and that would be no switch point."""
    changed = package / "_core" / file
    text = changed.read_text("utf-8")
    assert text.count(old) == 1
    changed.write_text(text.replace(old, ""), "utf-8")
    with pytest.raises(ValueError, match="is not where it was"):
        sources.add_switch_points(package)
