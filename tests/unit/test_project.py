"""What pyproject.toml and noxfile.py say of each other and of the code is so."""

from __future__ import annotations

import ast
import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final[Mapping[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))  # Any: it is TOML
LINT: Final = PROJECT["tool"]["ruff"]["lint"]


def test_the_lowest_versions_are_tested() -> None:
    """The session that installs the lowest versions installs those of the bounds, of every dependency."""
    tree = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
    (lowest,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "lowest")
    pins = [found.groups() for found in re.finditer(r"'(\w+)==([\d.]+)'", ast.unparse(lowest))]
    bounds = [dependency.split(">=") for dependency in PROJECT["project"]["dependencies"]]

    assert len(bounds) == 2
    assert {(name, tuple(map(int, version.split(".")))[:2]) for name, version in pins} == {
        (name, tuple(map(int, version.split(".")))) for name, version in bounds
    }
    assert all(version.endswith(".0") for _, version in pins)  # the first of its line


@pytest.fixture(scope="module")
def violations() -> list[tuple[str, str]]:
    """Return what ruff finds where nothing is ignored: each rule, and the file."""
    options = ["--isolated", "--no-cache", "--select=ALL", "--target-version=py311", "--output-format=json"]
    for setting in ("lint.pydocstyle.convention='google'", "line-length=120"):
        options += ["--config", setting]
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *options, "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(run.stdout)
    return [(each["code"], Path(each["filename"]).relative_to(ROOT).as_posix()) for each in found if each["code"]]


@pytest.mark.parametrize("rule", LINT["ignore"])
def test_each_rule_that_is_ignored_would_find_something(rule: str, violations: list[tuple[str, str]]) -> None:
    """An exception for nothing is to be removed."""
    assert any(code.startswith(rule) for code, _ in violations)


@pytest.mark.parametrize(
    ("files", "rule"), [(files, rule) for files, rules in LINT["per-file-ignores"].items() for rule in rules]
)
def test_each_rule_that_files_are_let_off_would_find_something(
    files: str, rule: str, violations: list[tuple[str, str]]
) -> None:
    """So is one for files that do not need it."""
    head, braces, rest = files.partition("{")
    inner, _, tail = rest.partition("}")
    patterns = [head + each + tail for each in inner.split(",")] if braces else [files]

    assert any(
        code.startswith(rule) and any(fnmatch.fnmatch(file, pattern) for pattern in patterns)
        for code, file in violations
    )
