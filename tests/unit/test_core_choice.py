"""Which core runs: what the environment says, and what was compiled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Self

import pytest

import callout
from callout import CoreError, cli
from callout._again import command, environment
from callout._core import build, sources
from callout.explore import _explore, explore, replay

HERE = {"suffix": EXTENSION_SUFFIXES[0], "sources": sources.digest()}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the build has something to say."""
    monkeypatch.delenv("CALLOUT_PURE", raising=False)
    monkeypatch.setattr(build, "RECORD", tmp_path / "built.json")
    monkeypatch.setattr(build, "PACKAGE", tmp_path)
    for name in (*sources.MODULES, *sources.NATIVE):
        module = tmp_path / f"{name}{EXTENSION_SUFFIXES[0]}"
        module.parent.mkdir(exist_ok=True)
        module.touch()
    return tmp_path / "built.json"


def test_this_is_the_core_that_was_asked_for() -> None:
    """Nobody tests one core and believes it is the other."""
    if os.environ.get("CALLOUT_PURE") == "1":
        assert callout.core == "pure"
    is_compiled = not callout._core.state.__file__.endswith(".py")
    assert callout.core == ("compiled" if is_compiled else "pure")


def test_without_a_record_it_is_pure(record: Path) -> None:
    """A source tree, for instance."""
    assert build.choose() == ("pure", "nothing was compiled")


def test_what_was_compiled_of_these_sources_for_this_python_runs(record: Path) -> None:
    """Both fit."""
    record.write_text(json.dumps(HERE), "utf-8")

    assert build.choose() == ("compiled", "")


def test_the_build_says_why_nothing_was_compiled(record: Path) -> None:
    """The command line shows it."""
    record.write_text(json.dumps({"suffix": None, "why": "there was no C compiler"}), "utf-8")

    assert build.choose() == ("pure", "there was no C compiler")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"suffix": ".cpython-27-m68k.so"}, r"compiled for another Python \(.cpython-27-m68k.so, and this one takes "),
        ({"sources": "0" * 64}, "compiled from other sources than those in "),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_what_to_do(
    record: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], words: str
) -> None:
    """It is not run, and nothing else is quietly run instead, unless somebody wants that."""
    record.write_text(json.dumps(HERE | said), "utf-8")
    with pytest.raises(CoreError, match=words) as caught:
        build.choose()
    assert str(caught.value).endswith(": install callout anew, or set CALLOUT_PURE=1 for the pure core")

    monkeypatch.setenv("CALLOUT_PURE", "1")
    assert build.choose() == ("pure", "CALLOUT_PURE is set")


@pytest.mark.parametrize("said", ["", "{", "[]", "3", "null", "{}"])
def test_a_record_that_cannot_be_read_is_an_error_that_says_what_to_do(record: Path, said: str) -> None:
    """It was cut off, for example."""
    record.write_text(said, "utf-8")
    with pytest.raises(CoreError, match=r"says of the compiled core cannot be read: install callout anew"):
        build.choose()


def test_a_module_that_is_missing_is_an_error_that_says_what_to_do(record: Path) -> None:
    """The core would be compiled in part, and fail anywhere or nowhere."""
    record.write_text(json.dumps(HERE), "utf-8")
    next(record.parent.glob("_core/runs.*")).unlink()
    with pytest.raises(CoreError, match=r"of the compiled core _core/runs\S+ is missing in .*: install callout anew"):
        build.choose()


@pytest.mark.parametrize("wish", ["yes", "2", " 1"])
def test_a_wish_that_means_nothing_is_refused(record: Path, monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    """It may have been meant for either."""
    monkeypatch.setenv("CALLOUT_PURE", wish)
    with pytest.raises(CoreError, match=r"^CALLOUT_PURE is '.*': say 1 for the pure core, or 0 or nothing for the "):
        build.choose()


@pytest.mark.parametrize("call", ["explore", "replay"])
def test_the_compiled_core_is_not_explored(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says at once how to choose the other."""
    if callout.core == "compiled":
        pytest.skip("every test that explores shows it")
    monkeypatch.setattr(_explore, "SEES_READS", False)
    with pytest.raises(CoreError, match=f"^{call}: the compiled core cannot .* set CALLOUT_PURE=1 in the environment"):
        explore(lambda vm: None) if call == "explore" else replay(lambda vm: None, "v4")


@pytest.mark.parametrize("call", ["explore", "replay"])
def test_the_results_of_a_compiled_core_are_not_judged(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it can be explored: the oracle would see no call, and find nothing wrong with what it did not see."""
    if callout.core == "compiled":
        pytest.skip("every test that asks for results shows it")
    monkeypatch.setattr(_explore, "CORE", "compiled")
    with pytest.raises(CoreError, match=f"^{call}: results=True looks at frames, and the compiled core has none; set "):
        explore(lambda vm: None, results=True) if call == "explore" else replay(lambda vm: None, "v4", results=True)


def test_the_command_that_explores_chooses_the_pure_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same words, in a process of its own, whose status is the command's."""
    run: list[tuple[list[str], str]] = []

    class Instead:
        """A process that ends with a status of its own."""

        def __init__(self, command: list[str], *, env: dict[str, str]) -> None:
            run.append((command, env["CALLOUT_PURE"]))

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *error: object) -> None:
            """End."""

        def wait(self) -> int:
            """Return the status."""
            return 7

    monkeypatch.setattr(cli, "CORE", "compiled")
    monkeypatch.setattr(subprocess, "Popen", Instead)

    assert cli.main(["explore", "R0.1", "--fixed"]) == 7
    assert run == [([sys.executable, "-P", "-m", "callout", "explore", "R0.1", "--fixed"], "1")]


def test_it_starts_itself_and_not_what_lies_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a clone there is a folder ``callout``, too, which is not what was installed."""
    (tmp_path / "callout").mkdir()
    (tmp_path / "callout" / "__init__.py").write_text("raise SystemExit('another one')\n")
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        command("callout", "--version"), env=environment(), capture_output=True, text=True, check=False
    )

    assert done.stdout.startswith("callout "), done.stderr
    assert f"({callout.core} core" in done.stdout


def test_the_version_says_which_core_it_is() -> None:
    """And why, if it is the pure one."""
    command = [sys.executable, "-m", "callout", "--version"]
    said = subprocess.run(
        command, env=os.environ | {"CALLOUT_PURE": "1"}, capture_output=True, text=True, check=True
    ).stdout

    assert said.endswith("(pure core: CALLOUT_PURE is set)\n")
